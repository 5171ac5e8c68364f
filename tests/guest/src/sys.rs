// SPDX-License-Identifier: GPL-2.0
//! The few things this program wants from its kernel.

use crate::report::report;
use std::ffi::CString;
use std::fs;
use std::io::{Error, Result};
use std::thread;
use std::time::{Duration, Instant};

/// Mounts what an init finds missing.
pub fn mount_all() {
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/tmp"),
    ] {
        let _ = fs::create_dir_all(place);
        let _ = mount(kind, place, kind);
    }
}

pub fn mount(source: &str, place: &str, kind: &str) -> Result<()> {
    mount_with(source, place, kind, 0)
}

/// Moves what is mounted at one place to another.
pub fn move_mount(from: &str, to: &str) -> Result<()> {
    mount_with(from, to, "none", libc::MS_MOVE)
}

fn mount_with(source: &str, place: &str, kind: &str, flags: libc::c_ulong) -> Result<()> {
    let [source, place, kind] = [source, place, kind].map(CString::new);
    let (source, place, kind) = (source?, place?, kind?);
    // SAFETY: All pointers are to strings that live until the call returns.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            place.as_ptr(),
            kind.as_ptr(),
            flags,
            std::ptr::null(),
        )
    };
    done(result)
}

pub fn unmount(place: &str) -> Result<()> {
    let place = CString::new(place)?;
    // SAFETY: The pointer is to a string that lives until the call returns.
    done(unsafe { libc::umount(place.as_ptr()) })
}

fn done(result: libc::c_int) -> Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(Error::last_os_error())
    }
}

/// Waits until a device is there, or reports that it does not come.
pub fn wait_for(path: &str) {
    wait_until(path, || fs::exists(path).unwrap_or(false));
}

pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        if Instant::now() > deadline {
            return report(&format!("fail there is no {what}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .into()
}

pub fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").into()
}

pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Nanoseconds of one of the kernel's clocks.
pub fn clock(which: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable and lives until the call returns.
    unsafe { libc::clock_gettime(which, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub fn monotonic() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Starts a thread that stays on one processor.
pub fn pinned(processor: usize, work: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        pin(processor);
        work();
    });
}

/// Keeps the calling thread on one processor.
pub fn pin(processor: usize) {
    // SAFETY: A zeroed `cpu_set_t` is the empty set, and the calls stay within it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor % processors(), &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// Lets the calling thread go before all others.
pub fn hurry() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: `priority` lives until the call returns.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &priority) };
}

/// A small generator of numbers; the same seed gives the same numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}
