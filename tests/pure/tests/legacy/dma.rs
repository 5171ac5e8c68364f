// SPDX-License-Identifier: GPL-2.0

//! 8237A, twice, with page registers.

use super::{byte, check, inb, new_shadow, outb, pick, port, Model, Op};
use nvhv_pure::shadow::Access;
use nvhv_pure_tests::random::Random;
use std::fmt::Debug;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Chip {
    command: u8,
    modes: [u8; 4],
    mask: u8,
}

impl Default for Chip {
    fn default() -> Self {
        Self {
            command: 0,
            modes: [0; 4],
            mask: 0xf,
        }
    }
}

#[derive(Default)]
struct Dma {
    chips: [Chip; 2],
    pages: [u8; 16],
    requests: usize,
}

impl Model for Dma {
    fn write(&mut self, access: &Access, _: u64) {
        let (port, value) = (port(access), access.value as u8);
        let (n, register) = match port {
            0..=0xf => (0, port),
            0xc0..=0xdf => (1, (port - 0xc0) >> 1),
            0x81..=0x8f => {
                self.pages[usize::from(port & 0xf)] = value;
                return;
            }
            _ => panic!("{port:x}"),
        };
        let chip = &mut self.chips[n];
        let bit = 1 << (value & 3);
        match register {
            8 => chip.command = value,
            9 => self.requests += 1,
            10 if value & 4 != 0 => chip.mask |= bit,
            10 => chip.mask &= !bit,
            11 => chip.modes[usize::from(value & 3)] = value,
            13 => (chip.command, chip.mask) = (0, 0xf),
            14 => chip.mask = 0,
            15 => chip.mask = value & 0xf,
            _ => {}
        }
    }

    fn read(&mut self, access: &Access, _: u64) -> u64 {
        match port(access) {
            port @ 0x81..=0x8f => self.pages[usize::from(port & 0xf)].into(),
            _ => 0,
        }
    }

    fn visible(&self, _: u64) -> impl Debug {
        (self.chips, self.pages)
    }

    fn unharmed(&self) {
        assert_eq!(self.requests, 0);
    }

    fn next(&self, random: &mut Random) -> Vec<Op> {
        let (register, value) = (random.below(16) as u16, byte(random));
        match random.below(3) {
            0 => vec![outb(0x81 + register % 15, value), inb(0x81)],
            _ => {
                let (base, step) = pick(random, &[(0, 1), (0xc0, 2)]);
                vec![outb(base + step * register, value)]
            }
        }
    }
}

#[test]
fn dma_controllers() {
    check::<Dma>(4000, new_shadow);
}
