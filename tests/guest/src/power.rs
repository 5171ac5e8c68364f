// SPDX-License-Identifier: GPL-2.0
//! A guest that ends or restarts itself after some ticks (`after=N`).

use crate::report::{last_word, ports, report};
use crate::{counter, start_devices, sys, ticks, Orders};
use std::os::unix::fs::FileExt;
use std::time::Duration;

pub fn off(orders: &Orders) {
    wait(orders);
    last_word("poweroff");
    // SAFETY: The system is meant to end here.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
}

/// Restarts once, then counts, or works with the devices of `with=NAMES`, as it did before.
/// That it was done is kept in a byte of the clock chip's memory.
pub fn reset(orders: &Orders) {
    const DONE: u8 = 0xa7;
    let progress = orders
        .text("with")
        .and_then(|names| start_devices(names, orders));
    if cmos(None) == DONE {
        report("restarted");
        match progress {
            Some(progress) => ticks(progress),
            None => counter::work(orders),
        }
    }
    wait(orders);
    cmos(Some(DONE));
    last_word("restart");
    // SAFETY: The system is meant to restart here.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
}

fn wait(orders: &Orders) {
    for n in 1..=orders.number("after", 10) {
        std::thread::sleep(Duration::from_millis(200));
        report(&format!(
            "tick {n} t={} waiting",
            sys::monotonic() / 1_000_000
        ));
    }
}

/// Reads, or writes and reads, a byte of CMOS memory that nobody else uses.
fn cmos(write: Option<u8>) -> u8 {
    const INDEX: u8 = 0x6b;
    let mut value = [0];
    let _ = ports().write_all_at(&[INDEX], 0x70);
    if let Some(write) = write {
        let _ = ports().write_all_at(&[write], 0x71);
        let _ = ports().write_all_at(&[INDEX], 0x70);
    }
    let _ = ports().read_exact_at(&mut value, 0x71);
    value[0]
}
