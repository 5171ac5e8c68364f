// SPDX-License-Identifier: GPL-2.0
//! No clock that should only go forward ever goes back, within a processor or between two.
//! Jumps forward of more than a second are reported as `jump CLOCK MILLISECONDS`.

use crate::{report::report, sys, ticks, Orders};
use std::arch::x86_64::{_mm_lfence, _rdtsc};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

type Clock = (&'static str, fn() -> u64);

const CLOCKS: [Clock; 4] = [
    ("monotonic", sys::monotonic),
    ("boottime", || sys::clock(libc::CLOCK_BOOTTIME)),
    ("raw", || sys::clock(libc::CLOCK_MONOTONIC_RAW)),
    ("tsc", stamp),
];

const JUMP: u64 = 1_000_000_000;

#[derive(Default)]
struct Shared {
    latest: [AtomicU64; CLOCKS.len()],
    reads: AtomicU64,
}

pub fn work(orders: &Orders) -> ! {
    let shared = Arc::new(Shared::default());
    for thread in 0..orders.threads() {
        let shared = shared.clone();
        sys::pinned(thread, move || watch(thread, &shared));
    }
    ticks(|| format!("{}", shared.reads.load(SeqCst)))
}

fn stamp() -> u64 {
    // SAFETY: Every x86-64 processor has both instructions.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

fn watch(thread: usize, shared: &Shared) {
    loop {
        for (index, (name, read)) in CLOCKS.iter().enumerate() {
            let seen = shared.latest[index].load(SeqCst);
            let now = read();
            if now < seen {
                report(&format!(
                    "fail clock {name} went back by {} on processor {thread}",
                    seen - now
                ));
            } else if *name != "tsc" && seen != 0 && now - seen > JUMP {
                report(&format!("jump {name} {}", (now - seen) / 1_000_000));
            }
            shared.latest[index].fetch_max(now, SeqCst);
        }
        if shared.reads.fetch_add(1, SeqCst) % 2000 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
