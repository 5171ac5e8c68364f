// SPDX-License-Identifier: GPL-2.0
//! Memory that comes and goes beside a balloon: `churn=MIB` (16) are taken, filled, verified and given
//! back, over and over, so that the balloon and the reports of free pages get pages that were in use,
//! and what they give back is used again. The tick shows the pages in the balloon, and rounds.

use crate::sys::Random;
use crate::{report::report, Orders, Progress};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const PAGE: usize = 4096;
/// Free pages are reported two seconds after they became free (`mm/page_reporting.c`).
const REST: Duration = Duration::from_millis(2500);

static ROUNDS: AtomicU64 = AtomicU64::new(0);

pub fn start(orders: &Orders) -> Progress {
    let pages = (orders.number("churn", 16) << 20) as usize / PAGE;
    std::thread::spawn(move || loop {
        let round = ROUNDS.load(Relaxed);
        let words = |page: usize| {
            let mut random = Random((round << 32) ^ page as u64);
            std::array::from_fn::<u64, { PAGE / 8 }, _>(|_| random.next())
        };
        let memory: Vec<_> = (0..pages).map(words).collect();
        if let Some(page) = (0..pages).find(|&page| memory[page] != words(page)) {
            report(&format!(
                "fail balloon: page {page} of round {round} changed"
            ));
        }
        drop(memory);
        ROUNDS.fetch_add(1, Relaxed);
        std::thread::sleep(REST);
    });
    Box::new(|| format!("{},{}", inside(), ROUNDS.load(Relaxed)))
}

/// Pages in the balloon: those that went in, and did not come out.
fn inside() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    count("balloon_inflate ").saturating_sub(count("balloon_deflate "))
}
