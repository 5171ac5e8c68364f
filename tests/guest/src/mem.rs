// SPDX-License-Identifier: GPL-2.0
//! Fills memory with pages whose content follows from their number and generation, and goes on
//! verifying and rewriting them at random. `size=MIB`, else 60 % of what is available.

use crate::sys::Random;
use crate::{report::report, Orders, Progress};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const WORDS: usize = 512;

static VERIFIED: AtomicU64 = AtomicU64::new(0);
static SWEEPS: AtomicU64 = AtomicU64::new(0);

pub fn start(orders: &Orders) -> Progress {
    let pages = (orders.number("size", available() * 6 / 10) << 20) as usize / (WORDS * 8);
    std::thread::spawn(move || {
        let mut memory = vec![[0u64; WORDS]; pages];
        let mut generations = vec![0u32; pages];
        for (number, page) in memory.iter_mut().enumerate() {
            fill(page, number, 0);
        }
        report(&format!("filled pages={pages}"));
        let mut random = Random(7);
        loop {
            for number in 0..pages {
                verify(&memory[number], number, generations[number]);
                let other = random.next() as usize % pages;
                verify(&memory[other], other, generations[other]);
                generations[other] += 1;
                fill(&mut memory[other], other, generations[other]);
            }
            SWEEPS.fetch_add(1, Relaxed);
        }
    });
    Box::new(|| format!("{},{}", VERIFIED.load(Relaxed), SWEEPS.load(Relaxed)))
}

fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))
        .unwrap_or("");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(16, |kib| kib / 1024)
}

fn seed(number: usize, generation: u32) -> u64 {
    ((number as u64) << 32) | u64::from(generation)
}

fn fill(page: &mut [u64; WORDS], number: usize, generation: u32) {
    let mut random = Random(seed(number, generation));
    page.fill_with(|| random.next());
}

fn verify(page: &[u64; WORDS], number: usize, generation: u32) {
    let mut random = Random(seed(number, generation));
    if let Some(at) = page.iter().position(|&word| word != random.next()) {
        report(&format!(
            "fail mem page {number} generation {generation}: word {at} is {:x}",
            page[at]
        ));
    }
    VERIFIED.fetch_add(1, Relaxed);
}
