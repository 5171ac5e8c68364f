// SPDX-License-Identifier: GPL-2.0
//! One counting thread for each processor, whose memory must agree with its registers at each step.

use crate::{report::report, sys, ticks, Orders};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

const CELLS: usize = 4096;
const SALT: u64 = 0x6e76_6876_6775_6573;

/// Counts for ever; `busy=1` never sleeps.
pub fn work(orders: &Orders) -> ! {
    let busy = orders.number("busy", 0) != 0;
    let counts: Arc<Vec<AtomicU64>> =
        Arc::new((0..orders.threads()).map(|_| AtomicU64::new(0)).collect());
    for thread in 0..counts.len() {
        let counts = counts.clone();
        sys::pinned(thread, move || count(thread, &counts[thread], busy));
    }
    ticks(|| {
        counts
            .iter()
            .map(|count| count.load(Relaxed).to_string())
            .collect::<Vec<_>>()
            .join(",")
    })
}

/// Each cell holds a value and its salted complement; the value chain must never break.
fn count(thread: usize, shown: &AtomicU64, busy: bool) {
    let mut cells = vec![(0u64, SALT); CELLS];
    let mut value = thread as u64;
    let mut last = 0;
    for step in 0u64.. {
        let before = cells[last];
        let expected = if step == 0 { 0 } else { value };
        if before.0 != expected || before.1 != before.0 ^ SALT {
            return report(&format!(
                "fail counter {thread} step {step}: memory has {before:x?}, register {expected:x}"
            ));
        }
        if shown.load(Relaxed) != step {
            return report(&format!(
                "fail counter {thread}: {} is shown at step {step}",
                shown.load(Relaxed)
            ));
        }
        value = value
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(step | 1);
        last = (value >> 32) as usize % CELLS;
        let old = cells[last];
        if old.1 != old.0 ^ SALT {
            return report(&format!(
                "fail counter {thread} step {step}: cell {last} has {old:x?}"
            ));
        }
        cells[last] = (value, value ^ SALT);
        shown.store(step + 1, Relaxed);
        if !busy && step % 20_000 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
