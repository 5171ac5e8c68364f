// SPDX-License-Identifier: GPL-2.0
//! Direct I/O on a disk, `disk=/dev/NAME` (`/dev/vda`), verified: `depth=N` threads (32) keep as many requests in flight, over
//! all queues of the device as they are spread over all processors.
//!
//! Each thread owns a zone of the disk. It writes runs of blocks with the next generation of each,
//! and reads runs back: a block must hold exactly the last generation that was acknowledged to it.
//! A run is up to `longest=BLOCKS` (8). Between two such rounds it rests for `pace=MILLISECONDS`. With
//! `alternate=SECONDS` only the first thread works in the first, third, ... of such times.
//! The tick shows writes, reads and flushes.

use crate::sys::Random;
use crate::watchdog::Waiter;
use crate::{report::report, sys, Orders, Progress};
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const DEVICE: &str = "/dev/vda";
const WORDS: usize = 512;
const LONGEST: u64 = 8;
const SECOND: u64 = 1_000_000_000;

static WRITES: AtomicU64 = AtomicU64::new(0);
static READS: AtomicU64 = AtomicU64::new(0);
static FLUSHES: AtomicU64 = AtomicU64::new(0);

/// As direct I/O wants its memory.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Block([u64; WORDS]);

impl Block {
    const BYTES: u64 = 4096;

    /// The first two words say what it is, the last one proves it; all others follow from them.
    fn fill(&mut self, number: u64, generation: u64) {
        self.0 = Self::content(number, generation);
    }

    fn content(number: u64, generation: u64) -> [u64; WORDS] {
        let mut random = Random((number << 32) ^ generation);
        let mut words: [u64; WORDS] = std::array::from_fn(|_| random.next());
        words[0] = number;
        words[1] = generation;
        words
    }

    /// What is wrong with it, if anything.
    fn wrong(&self, number: u64, generation: u64) -> Option<String> {
        if self.0 == Self::content(number, generation) {
            return None;
        }
        let (n, g) = (self.0[0], self.0[1]);
        Some(if self.0 == Self::content(n, g) {
            format!("holds block {n} generation {g}")
        } else {
            format!("is torn, its head says block {n} generation {g}")
        })
    }
}

fn bytes(blocks: &mut [Block]) -> &mut [u8] {
    // SAFETY: A block is 4096 bytes without padding, and any bytes are a block.
    unsafe { std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast(), size_of_val(blocks)) }
}

pub fn start(orders: &Orders) -> Progress {
    let depth = orders.number("depth", 32).max(1);
    let manner = Manner {
        pace: Duration::from_millis(orders.number("pace", 10)),
        longest: orders.number("longest", LONGEST).clamp(1, LONGEST),
        alternate: orders.number("alternate", 0) * SECOND,
    };
    let device = orders.text("disk").unwrap_or(DEVICE).to_owned();
    sys::wait_for(&device);
    let about = device.replace("/dev", "/sys/class/block");
    let size = std::fs::read_to_string(format!("{about}/size")).unwrap_or_default();
    let blocks = size.trim().parse::<u64>().unwrap_or(0) * 512 / Block::BYTES;
    let zone = blocks / depth;
    report(&format!(
        "disk blocks={blocks} queues={} flush={}",
        std::fs::read_dir(format!("{about}/mq")).map_or(0, Iterator::count),
        std::fs::read_to_string(format!("{about}/queue/write_cache"))
            .unwrap_or_default()
            .trim()
            .replace(' ', "-")
    ));
    if zone <= LONGEST {
        report("fail disk: too small");
    } else {
        for thread in 0..depth {
            let device = device.clone();
            sys::pinned(thread as usize, move || {
                if let Err(error) = Zone::new(&device, thread, zone, manner).and_then(Zone::work) {
                    report(&format!("fail disk {thread}: {error}"));
                }
            });
        }
    }
    Box::new(|| {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        format!("{},{},{}", count(&WRITES), count(&READS), count(&FLUSHES))
    })
}

/// How threads work.
#[derive(Clone, Copy)]
struct Manner {
    pace: Duration,
    longest: u64,
    /// Nanoseconds for which the first thread is alone, and then not; 0: never.
    alternate: u64,
}

impl Manner {
    fn rests(&self, thread: u64) -> bool {
        let times = sys::monotonic().checked_div(self.alternate);
        thread > 0 && times.is_some_and(|times| times % 2 == 0)
    }
}

struct Zone {
    thread: u64,
    file: File,
    first: u64,
    /// Last generation of each block that was acknowledged; 0: never written.
    generations: Vec<u64>,
    random: Random,
    waiter: Waiter,
    manner: Manner,
}

impl Zone {
    fn new(device: &str, thread: u64, blocks: u64, manner: Manner) -> std::io::Result<Self> {
        Ok(Self {
            thread,
            file: File::options()
                .read(true)
                .write(true)
                .custom_flags(libc::O_DIRECT)
                .open(device)?,
            first: thread * blocks,
            generations: vec![0; blocks as usize],
            random: Random(thread),
            waiter: Waiter::new(format!("disk {thread}")),
            manner,
        })
    }

    fn work(mut self) -> std::io::Result<()> {
        let mut buffer = vec![Block([0; WORDS]); LONGEST as usize];
        for round in 1u64.. {
            while self.manner.rests(self.thread) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let (at, length) = self.run();
            self.write(at, &mut buffer[..length])?;
            let (at, length) = self.run();
            self.verify(at, &mut buffer[..length])?;
            if round % 16 == 0 {
                let file = &self.file;
                self.waiter.wait(|| file.sync_data())?;
                FLUSHES.fetch_add(1, Relaxed);
            }
            if !self.manner.pace.is_zero() {
                std::thread::sleep(self.manner.pace);
            }
        }
        Ok(())
    }

    /// Some blocks in a row: where in the zone, and how many.
    fn run(&mut self) -> (usize, usize) {
        let length = 1 + self.random.next() % self.manner.longest;
        let at = self.random.next() % (self.generations.len() as u64 - length + 1);
        (at as usize, length as usize)
    }

    fn write(&mut self, at: usize, run: &mut [Block]) -> std::io::Result<()> {
        let first = self.first + at as u64;
        let known = &mut self.generations[at..at + run.len()];
        for (index, (block, generation)) in run.iter_mut().zip(known.iter()).enumerate() {
            block.fill(first + index as u64, generation + 1);
        }
        let (file, data) = (&self.file, bytes(run));
        self.waiter
            .wait(|| file.write_all_at(data, first * Block::BYTES))?;
        for generation in known {
            *generation += 1;
        }
        WRITES.fetch_add(1, Relaxed);
        Ok(())
    }

    fn verify(&mut self, at: usize, run: &mut [Block]) -> std::io::Result<()> {
        let first = self.first + at as u64;
        let (file, data) = (&self.file, bytes(run));
        data.fill(0xee);
        self.waiter
            .wait(|| file.read_exact_at(data, first * Block::BYTES))?;
        for (index, block) in run.iter().enumerate() {
            let (number, generation) = (first + index as u64, self.generations[at + index]);
            if generation == 0 {
                continue;
            }
            if let Some(wrong) = block.wrong(number, generation) {
                report(&format!(
                    "fail disk block {number} should have generation {generation} and {wrong}"
                ));
            }
        }
        READS.fetch_add(1, Relaxed);
        Ok(())
    }
}
