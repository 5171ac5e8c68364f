// SPDX-License-Identifier: GPL-2.0

//! What a VMM that died leaves behind and many a VMM does not start over: sockets that nobody listens at, and files
//! with the number of its process. They are found by what is on the command line.

use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

/// Removes what the VMM of these arguments has left behind; says what that was.
pub fn clear(arguments: &[String]) -> Vec<String> {
    let mut cleared = Vec::new();
    let mut before = "";
    for argument in arguments {
        for piece in argument
            .split([',', '=', ':'])
            .filter(|piece| !piece.is_empty())
        {
            let path = Path::new(piece);
            let stale =
                is_dead_socket(path) || names_process(before, piece) && is_of_dead_process(path);
            if stale && fs::remove_file(path).is_ok() {
                cleared.push(piece.into());
            }
            before = piece;
        }
    }
    cleared
}

fn is_dead_socket(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket
        && (UnixStream::connect(path).is_err_and(refused)
            || UnixDatagram::unbound()
                .and_then(|socket| socket.connect(path))
                .is_err_and(refused))
}

/// Whether a piece of the command line is said to be a file for the number of a process.
fn names_process(before: &str, piece: &str) -> bool {
    let option = before.trim_start_matches('-').replace(['-', '_'], "");
    option.ends_with("pidfile") || piece.ends_with(".pid")
}

fn is_of_dead_process(path: &Path) -> bool {
    let is_file = fs::symlink_metadata(path).is_ok_and(|about| about.is_file() && about.len() < 16);
    let number = || fs::read_to_string(path).ok()?.trim().parse().ok();
    is_file
        && number()
            .is_some_and(|pid| kill(Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::{self, Command};

    #[test]
    fn clears_what_is_dead_only() {
        let directory = std::env::temp_dir().join(format!("nvhv-leftovers-{}", process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).expect("a directory");
        let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
        drop(UnixListener::bind(path("dead")).expect("bound"));
        drop(UnixDatagram::bind(path("datagram")).expect("bound"));
        let _alive = UnixListener::bind(path("alive")).expect("bound");
        let mut gone = Command::new("true").spawn().expect("started");
        let number = gone.id().to_string();
        gone.wait().expect("ended");
        fs::write(path("dead.pid"), &number).expect("written");
        fs::write(path("pid"), format!("{number}\n")).expect("written");
        fs::write(path("mine.pid"), process::id().to_string()).expect("written");
        fs::write(path("disk"), &number).expect("written");
        let arguments = [
            "-qmp".into(),
            format!("unix:{},server=on", path("dead")),
            format!("--socket={}", path("alive")),
            path("datagram"),
            "-pidfile".into(),
            path("pid"),
            format!("x={}", path("dead.pid")),
            path("mine.pid"),
            "-drive".into(),
            format!("file={}", path("disk")),
        ];
        assert_eq!(
            clear(&arguments),
            [
                path("dead"),
                path("datagram"),
                path("pid"),
                path("dead.pid")
            ]
        );
        let mut left: Vec<_> = fs::read_dir(&directory)
            .expect("listed")
            .map(|entry| entry.expect("one").file_name().into_string().expect("text"))
            .collect();
        left.sort();
        assert_eq!(left, ["alive", "disk", "mine.pid"]);
        fs::remove_dir_all(directory).expect("removed");
    }
}
