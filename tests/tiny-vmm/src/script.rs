// SPDX-License-Identifier: GPL-2.0
//! What the command line says about the end of this process, and the lines it prints.

use std::{
    env,
    process::exit,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    sync::Mutex,
    time::Duration,
};

/// The value of `--NAME VALUE`.
pub fn option(name: &str) -> Option<String> {
    let mut words = env::args()
        .skip(2)
        .skip_while(|word| word.strip_prefix("--") != Some(name));
    words.nth(1)
}

/// A number given as `--NAME NUMBER`.
pub fn number(name: &str, otherwise: u64) -> u64 {
    option(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// `--irqchip none|split|kernel`; none without it.
pub fn irqchip() -> &'static str {
    match option("irqchip").as_deref() {
        Some("split") => "split",
        Some("kernel") => "kernel",
        _ => "none",
    }
}

/// Answers to a guest's questions differ between one process and the next.
pub fn next_answer() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    (std::process::id() << 12) | (NEXT.fetch_add(1, Relaxed) & 0xfff)
}

static SEEN: Mutex<Vec<(String, u32)>> = Mutex::new(Vec::new());

/// Prints a line. `--die WORD:N` has this process kill itself once N lines begin with WORD, and
/// `--stop WORD:N` has it exit in good order.
pub fn saw(line: &str) {
    let kind = line.split(' ').next().unwrap_or("");
    let mut seen = SEEN.lock().unwrap();
    println!("{line}");
    let count = match seen.iter_mut().find(|(word, _)| word == kind) {
        Some((_, count)) => {
            *count += 1;
            *count
        }
        None => {
            seen.push((kind.into(), 1));
            1
        }
    };
    let reached = |option: &str| self::option(option) == Some(format!("{kind}:{count}"));
    if reached("die") {
        die();
    }
    if reached("stop") {
        exit(0);
    }
    if kind == "wrong" || kind == "other" || kind == "failed" && !line.ends_with("EINTR") {
        exit(3);
    }
}

/// Ends this process as the OOM killer would.
pub fn die() -> ! {
    // SAFETY: Sends a signal to this process.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    loop {
        sleep(1000);
    }
}

pub fn sleep(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// The names of the few errors that are expected somewhere.
pub fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        libc::EBUSY => "EBUSY",
        libc::EINVAL => "EINVAL",
        libc::EEXIST => "EEXIST",
        libc::EFAULT => "EFAULT",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ENOSPC => "ENOSPC",
        libc::ENOTTY => "ENOTTY",
        libc::EXDEV => "EXDEV",
        _ => return errno.to_string(),
    };
    name.into()
}
