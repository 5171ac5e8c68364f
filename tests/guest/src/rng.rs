// SPDX-License-Identifier: GPL-2.0
//! Reads `/dev/hwrng`, which a virtio entropy device must be behind, for ever: the device must go on
//! giving, and never the same again. The tick shows how many reads were served.

use crate::report::report;
use crate::watchdog::Waiter;
use crate::{sys, Orders, Progress};
use std::fs::{read_to_string, File};
use std::io::{Read, Result};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const CURRENT: &str = "/sys/class/misc/hw_random/rng_current";

static READS: AtomicU64 = AtomicU64::new(0);

pub fn start(_: &Orders) -> Progress {
    std::thread::spawn(|| {
        if let Err(error) = read() {
            report(&format!("fail rng: {error}"));
        }
    });
    Box::new(|| READS.load(Relaxed).to_string())
}

fn read() -> Result<()> {
    sys::wait_until("a virtio entropy device", || {
        read_to_string(CURRENT).is_ok_and(|name| name.starts_with("virtio_rng"))
    });
    let mut device = File::open("/dev/hwrng")?;
    let waiter = Waiter::new("rng");
    let mut last = [0u8; 32];
    loop {
        let mut found = [0u8; 32];
        waiter.wait(|| device.read_exact(&mut found))?;
        if found == last || found.iter().all(|&byte| byte == found[0]) {
            report(&format!("fail rng: after {last:02x?} came {found:02x?}"));
        }
        last = found;
        READS.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
}
