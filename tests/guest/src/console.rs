// SPDX-License-Identifier: GPL-2.0
//! Numbered lines through the virtio console `/dev/hvc0`, echoed by the host's end
//! (`nvhv-guest echo SOCKET`). A line that does not come back in time is sent again: what a VMM had
//! taken and not passed on dies with it. The tick shows lines echoed, sent again, and damaged.

use crate::report::{crc32, report};
use crate::watchdog::Waiter;
use crate::{sys, Orders, Progress};
use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Result, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const DEVICE: &str = "/dev/hvc0";
const IN_TIME: Duration = Duration::from_secs(5);

static ECHOED: AtomicU64 = AtomicU64::new(0);
static AGAIN: AtomicU64 = AtomicU64::new(0);
static DAMAGED: AtomicU64 = AtomicU64::new(0);

pub fn start(_: &Orders) -> Progress {
    std::thread::spawn(|| {
        // The terminal is there before its console is, and cannot be opened until then.
        let opened = RefCell::new(None);
        sys::wait_until(DEVICE, || {
            let port = File::options().read(true).write(true).open(DEVICE);
            let not_yet = matches!(&port, Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)));
            *opened.borrow_mut() = (!not_yet).then_some(port);
            !not_yet
        });
        let talked = opened.take().map_or(Ok(()), |port| port.and_then(talk));
        if let Err(error) = talked {
            report(&format!("fail console: {error}"));
        }
    });
    Box::new(|| {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        format!("{},{},{}", count(&ECHOED), count(&AGAIN), count(&DAMAGED))
    })
}

fn line(number: u64) -> String {
    let body = format!("{number} {}", "=".repeat((number % 60) as usize));
    format!("{body} {:08x}", crc32(body.as_bytes()))
}

fn talk(mut port: File) -> Result<()> {
    make_raw(&port)?;
    let waiter = Waiter::new("console");
    let mut pending = Vec::new();
    for number in 1.. {
        waiter.wait(|| echoed(&mut port, &mut pending, number))?;
        ECHOED.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Sends one line until it has come back.
fn echoed(port: &mut File, pending: &mut Vec<u8>, number: u64) -> Result<()> {
    let wanted = line(number);
    loop {
        port.write_all(format!("{wanted}\n").as_bytes())?;
        let deadline = Instant::now() + IN_TIME;
        while Instant::now() < deadline {
            while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
                let found: Vec<u8> = pending.drain(..=end).collect();
                match judge(&found[..end], number) {
                    Echo::This => return Ok(()),
                    Echo::Earlier => (),
                    Echo::Damaged => drop(DAMAGED.fetch_add(1, Relaxed)),
                }
            }
            more(port, pending)?;
        }
        AGAIN.fetch_add(1, Relaxed);
    }
}

enum Echo {
    This,
    /// One that was sent twice.
    Earlier,
    Damaged,
}

fn judge(found: &[u8], number: u64) -> Echo {
    let text = String::from_utf8_lossy(found);
    let said = text.split(' ').next().and_then(|word| word.parse().ok());
    match said {
        Some(n) if n == number && text == line(n) => Echo::This,
        Some(n) if n < number && text == line(n) => Echo::Earlier,
        _ => Echo::Damaged,
    }
}

/// Reads what has come, waiting for a moment.
fn more(port: &mut File, pending: &mut Vec<u8>) -> Result<()> {
    let mut poll = libc::pollfd {
        fd: port.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: One `pollfd` is given, and lives until the call returns.
    if unsafe { libc::poll(&mut poll, 1, 200) } > 0 {
        let mut buffer = [0; 256];
        let length = port.read(&mut buffer)?;
        pending.extend_from_slice(&buffer[..length]);
    }
    Ok(())
}

fn make_raw(port: &File) -> Result<()> {
    // SAFETY: A zeroed `termios` is valid and is overwritten; it lives until the calls return.
    let done = unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        libc::tcgetattr(port.as_raw_fd(), &mut settings) == 0 && {
            libc::cfmakeraw(&mut settings);
            libc::tcsetattr(port.as_raw_fd(), libc::TCSANOW, &settings) == 0
        }
    };
    if done {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// The host's end: gives back what comes out of the VMM's socket, through as many VMMs as there are.
pub fn echo(path: &str) -> ! {
    loop {
        if let Ok(mut stream) = UnixStream::connect(path) {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
