// SPDX-License-Identifier: GPL-2.0
//! A file system on `/dev/vda` that was made outside: logs are appended to with and without fsync,
//! dropped from the page cache, read back, and compared with a copy in memory; then they are removed.
//!
//! After `until=SECONDS` of the guest's time it is unmounted and `unmounted` is reported, so that
//! somebody else can check the file system. The tick shows appends, fsyncs, and files compared.

use crate::report::{crc32, report};
use crate::sys::Random;
use crate::watchdog::Waiter;
use crate::{sys, Orders, Progress};
use std::fs::{create_dir_all, read, remove_file, write, File};
use std::io::{Error, Result, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const DEVICE: &str = "/dev/vda";
const PLACE: &str = "/data/disk";
const FILES: u64 = 4;
const APPENDS: u64 = 96;

static APPENDED: AtomicU64 = AtomicU64::new(0);
static SYNCED: AtomicU64 = AtomicU64::new(0);
static COMPARED: AtomicU64 = AtomicU64::new(0);

pub fn start(orders: &Orders) -> Progress {
    let end = sys::monotonic() + orders.number("until", 3600) * 1_000_000_000;
    std::thread::spawn(move || {
        match work(end) {
            Ok(()) => report("unmounted"),
            Err(error) => report(&format!("fail ext4: {error}")),
        };
    });
    Box::new(|| {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        format!(
            "{},{},{}",
            count(&APPENDED),
            count(&SYNCED),
            count(&COMPARED)
        )
    })
}

fn work(end: u64) -> Result<()> {
    sys::wait_for(DEVICE);
    create_dir_all(PLACE)?;
    let waiter = Waiter::new("ext4");
    waiter.wait(|| sys::mount(DEVICE, PLACE, "ext4"))?;
    report("mounted");
    let mut random = Random(11);
    let mut copies = std::collections::VecDeque::new();
    for number in 0.. {
        if sys::monotonic() >= end {
            break;
        }
        let path = format!("{PLACE}/log.{number}");
        copies.push_back((path.clone(), append_all(&path, &mut random, &waiter)?));
        // What is compared comes from the disk, not from memory.
        waiter.wait(|| write("/proc/sys/vm/drop_caches", "3"))?;
        for (path, copy) in &copies {
            compare(path, copy, &waiter)?;
        }
        if copies.len() as u64 > FILES {
            if let Some((path, _)) = copies.pop_front() {
                waiter.wait(|| remove_file(path))?;
            }
        }
    }
    waiter.wait(|| sys::unmount(PLACE))
}

/// Writes one log; some appends are made durable at once, most are left to the kernel.
fn append_all(path: &str, random: &mut Random, waiter: &Waiter) -> Result<Vec<u8>> {
    let mut file = File::create(path)?;
    let mut copy = Vec::new();
    for number in 0..APPENDS {
        let body =
            format!("{number} {:016x} ", random.next()).repeat(1 + (random.next() % 64) as usize);
        let line = format!("{body}{:08x}\n", crc32(body.as_bytes()));
        waiter.wait(|| file.write_all(line.as_bytes()))?;
        copy.extend_from_slice(line.as_bytes());
        APPENDED.fetch_add(1, Relaxed);
        if random.next() % 16 == 0 {
            waiter.wait(|| file.sync_all())?;
            SYNCED.fetch_add(1, Relaxed);
        }
    }
    // Only what is clean can be dropped from the page cache.
    waiter.wait(|| file.sync_data())?;
    Ok(copy)
}

fn compare(path: &str, copy: &[u8], waiter: &Waiter) -> Result<()> {
    let found = waiter.wait(|| read(path))?;
    COMPARED.fetch_add(1, Relaxed);
    match found.iter().zip(copy).position(|(a, b)| a != b) {
        Some(at) => Err(Error::other(format!("{path} differs at byte {at}"))),
        None if found.len() != copy.len() => Err(Error::other(format!(
            "{path} has {} bytes, not {}",
            found.len(),
            copy.len()
        ))),
        None => Ok(()),
    }
}
