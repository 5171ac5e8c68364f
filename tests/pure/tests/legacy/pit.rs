// SPDX-License-Identifier: GPL-2.0

//! 8254, of which the clock stands still, and port 0x61.

use super::{byte, check, inb, new_shadow, outb, port, Model, Op};
use nvhv_pure::shadow::Access;
use nvhv_pure_tests::random::Random;
use std::fmt::Debug;

#[derive(Default, Clone, Copy, Debug, PartialEq)]
struct Counter {
    control: u8,
    count: Option<u16>,
    low: Option<u8>,
    high_next: bool,
    latched: Vec8,
    status: Option<u8>,
}

/// Up to two bytes that wait to be read.
type Vec8 = [Option<u8>; 2];

impl Counter {
    fn bytes(&self) -> Vec8 {
        let [low, high] = self.count.unwrap_or(0).to_le_bytes();
        match (self.control >> 4) & 3 {
            1 => [Some(low), None],
            2 => [Some(high), None],
            3 => [Some(low), Some(high)],
            _ => [None, None],
        }
    }

    fn latch(&mut self) {
        if self.latched == [None, None] {
            self.latched = self.bytes();
        }
    }

    fn write(&mut self, value: u8) {
        match (self.control >> 4) & 3 {
            1 => self.count = Some(value.into()),
            2 => self.count = Some(u16::from(value) << 8),
            3 => match self.low.take() {
                None => self.low = Some(value),
                Some(low) => self.count = Some(u16::from_le_bytes([low, value])),
            },
            _ => {}
        }
    }

    fn read(&mut self) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        if let Some(byte) = self.latched[0].take() {
            self.latched = [self.latched[1].take(), None];
            return byte;
        }
        match self.bytes() {
            [Some(_), Some(high)] if self.high_next => {
                self.high_next = false;
                high
            }
            [Some(low), more] => {
                self.high_next = more.is_some();
                low
            }
            _ => 0,
        }
    }
}

#[derive(Default)]
struct Pit {
    counters: [Counter; 3],
    port_b: u8,
}

impl Model for Pit {
    fn write(&mut self, access: &Access, _: u64) {
        let value = access.value as u8;
        match port(access) {
            0x43 if value >> 6 == 3 => {
                for (n, counter) in self.counters.iter_mut().enumerate() {
                    if (value >> (n + 1)) & 1 == 0 {
                        continue;
                    }
                    if value & 0x20 == 0 {
                        counter.latch();
                    }
                    if value & 0x10 == 0 && counter.control != 0 {
                        // Null count: written, and not loaded yet.
                        let null = u8::from(counter.count.is_none()) << 6;
                        counter.status.get_or_insert(counter.control | null);
                    }
                }
            }
            0x43 => {
                let counter = &mut self.counters[usize::from(value >> 6)];
                match (value >> 4) & 3 {
                    0 => counter.latch(),
                    _ => {
                        *counter = Counter {
                            control: value & 0x3f,
                            ..Counter::default()
                        }
                    }
                }
            }
            0x61 => self.port_b = value & 0xf,
            port => self.counters[usize::from(port - 0x40)].write(value),
        }
    }

    fn read(&mut self, access: &Access, _: u64) -> u64 {
        match port(access) {
            0x61 => self.port_b.into(),
            0x43 => 0,
            port => self.counters[usize::from(port - 0x40)].read().into(),
        }
    }

    fn visible(&self, _: u64) -> impl Debug {
        (self.counters, self.port_b)
    }

    /// A latched count is taken from the counter as it is after the restart.
    fn forget(&mut self, _: u64) {
        for counter in &mut self.counters {
            let left = counter.latched.iter().flatten().count();
            let bytes = counter.bytes();
            counter.latched = match (left, bytes[1]) {
                (0, _) => [None, None],
                (1, Some(high)) => [Some(high), None],
                _ => bytes,
            };
            if counter.status.is_some() {
                let null = u8::from(counter.count.is_none()) << 6;
                counter.status = Some(counter.control | null);
            }
        }
    }

    fn next(&self, random: &mut Random) -> Vec<Op> {
        let n = random.below(3) as u8;
        let data = 0x40 + u16::from(n);
        let value = byte(random);
        match random.below(7) {
            0 | 1 => vec![
                outb(0x43, (n << 6) | value & 0x3f | 0x10),
                outb(data, byte(random)),
                outb(data, byte(random)),
            ],
            2 => vec![outb(data, value), outb(data, byte(random))],
            3 => vec![outb(0x43, n << 6), inb(data), inb(data)],
            4 => vec![
                outb(0x43, 0xc0 | value & 0x3e),
                inb(data),
                inb(data),
                inb(data),
            ],
            5 => vec![outb(0x61, value), inb(0x61)],
            _ => vec![inb(data), inb(data)],
        }
    }
}

#[test]
fn interval_timer() {
    check::<Pit>(8000, new_shadow);
}
