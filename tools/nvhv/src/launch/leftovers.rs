// SPDX-License-Identifier: GPL-2.0

//! What a VMM that died leaves behind and many a VMM does not start over: sockets that nobody listens at, and files
//! with the number of its process. They are found by what is on the command line.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

/// Removes what the VMM of these arguments has left behind; says what that was.
pub fn clear(arguments: &[String]) -> Vec<String> {
    let bound = fs::read("/proc/net/unix").unwrap_or_default();
    let bound = String::from_utf8_lossy(&bound);
    let booted = booted().unwrap_or(0);
    let mut cleared = Vec::new();
    let mut before = "";
    for argument in arguments {
        for piece in argument.split([',', '=', ':']).filter(|p| !p.is_empty()) {
            let path = Path::new(piece);
            let stale = is_dead_socket(path, &bound)
                || names_process(before, piece) && is_of_dead_process(path, booted);
            if stale && fs::remove_file(path).is_ok() {
                cleared.push(piece.into());
            }
            before = piece;
        }
    }
    cleared
}

/// What a line of `/proc/net/unix` has behind its seven columns: the path, as it was given to bind(2), blanks included.
fn bound_path(line: &str) -> Option<&Path> {
    let mut rest = line;
    for _ in 0..7 {
        rest = rest.trim_start_matches(' ');
        rest = &rest[rest.find(' ')?..];
    }
    Some(Path::new(&rest[1..]))
}

/// Whether a socket that somebody bound is, or may be, the one at `path`. In which directory a relative path was bound, nobody
/// knows.
fn is_same(bound: &Path, path: &Path) -> bool {
    if bound.is_relative() {
        return bound.file_name() == path.file_name();
    }
    let place = |path: &Path| {
        fs::metadata(path)
            .ok()
            .map(|about| (about.dev(), about.ino()))
    };
    bound == path || place(bound).is_some_and(|bound| Some(bound) == place(path))
}

fn is_dead_socket(path: &Path, bound: &str) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    // Whoever has it is left alone: many a back end serves the first who connects, and ends with that one.
    if !is_socket
        || bound
            .lines()
            .filter_map(bound_path)
            .any(|bound| is_same(bound, path))
    {
        return false;
    }
    // It may be in another namespace of networks.
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    UnixStream::connect(path).is_err_and(refused)
        || UnixDatagram::unbound()
            .and_then(|socket| socket.connect(path))
            .is_err_and(refused)
}

/// Whether a piece of the command line is said to be a file for the number of a process.
fn names_process(before: &str, piece: &str) -> bool {
    let option = before.trim_start_matches('-').replace(['-', '_'], "");
    option.ends_with("pidfile") || piece.ends_with(".pid")
}

fn is_of_dead_process(path: &Path, booted: i64) -> bool {
    let Ok(about) = fs::symlink_metadata(path) else {
        return false;
    };
    if !about.is_file() || about.len() >= 16 {
        return false;
    }
    let Ok(text) = fs::read_to_string(path) else {
        return false;
    };
    // Numbers begin anew with each boot; and what was not yet on the disk when the power went is an empty file.
    match text.trim().parse() {
        Ok(pid) => about.mtime() < booted || kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH),
        Err(_) => text.is_empty() && about.mtime() < booted,
    }
}

/// When the host booted, in s since 1970.
fn booted() -> Option<i64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let time = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    time.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::{self, Command};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn finds_the_path_that_is_bound() {
        let line =
            |path| format!("0000000000000000: 00000002 00000000 00010000 0001 01    77{path}");
        let found = |path| bound_path(&line(path)).map(Path::to_owned);
        assert_eq!(found(" /run/a b"), Some("/run/a b".into()));
        assert_eq!(found(" a.sock"), Some("a.sock".into()));
        assert_eq!(found(""), None);
        assert_eq!(bound_path("Num       RefCount Protocol"), None);
    }

    #[test]
    fn clears_what_is_dead_only() {
        let directory = std::env::temp_dir().join(format!("nvhv-leftovers-{}", process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).expect("a directory");
        let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
        drop(UnixListener::bind(path("dead")).expect("bound"));
        drop(UnixDatagram::bind(path("datagram")).expect("bound"));
        let alive = UnixListener::bind(path("alive")).expect("bound");
        symlink(&directory, path("link")).expect("a link");
        let mut gone = Command::new("true").spawn().expect("started");
        let number = gone.id().to_string();
        gone.wait().expect("ended");
        let this = process::id().to_string();
        let none = String::new();
        for (name, number) in [
            ("empty.pid", &none),
            ("new.pid", &none),
            ("dead.pid", &number),
            ("pid", &number),
            ("mine.pid", &this),
            ("old.pid", &this),
            ("disk", &number),
        ] {
            fs::write(path(name), number).expect("written");
        }
        let old = UNIX_EPOCH + Duration::from_secs(1);
        for name in ["old.pid", "empty.pid"] {
            let file = File::options().write(true).open(path(name));
            file.expect("a file").set_modified(old).expect("set");
        }
        let arguments = [
            "-qmp".into(),
            format!("unix:{},server=on", path("dead")),
            format!("--socket={}", path("alive")),
            path("link/alive"),
            path("datagram"),
            "-pidfile".into(),
            path("pid"),
            format!("x={}", path("dead.pid")),
            path("mine.pid"),
            path("old.pid"),
            path("empty.pid"),
            path("new.pid"),
            "-drive".into(),
            format!("file={}", path("disk")),
        ];
        let expected = [
            "dead",
            "datagram",
            "pid",
            "dead.pid",
            "old.pid",
            "empty.pid",
        ]
        .map(path);
        assert_eq!(clear(&arguments), expected);
        let mut left: Vec<_> = fs::read_dir(&directory)
            .expect("listed")
            .map(|entry| entry.expect("one").file_name().into_string().expect("text"))
            .collect();
        left.sort();
        assert_eq!(left, ["alive", "disk", "link", "mine.pid", "new.pid"]);
        // Nobody has connected to what is alive.
        alive.set_nonblocking(true).expect("set");
        assert!(alive.accept().is_err());
        fs::remove_dir_all(directory).expect("removed");
    }
}
