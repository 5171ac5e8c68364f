// SPDX-License-Identifier: GPL-2.0

//! 82093AA, three of them.

use super::{check, new_shadow, pick, Model, Op};
use nvhv_pure::shadow::Access;
use nvhv_pure_tests::random::Random;
use std::fmt::Debug;

const BASES: [u64; 3] = [0xfec0_0000, 0xfec0_3000, 0xfec1_0000];

/// The chip whose page an access is to.
fn number(access: &Access) -> usize {
    let is = |base: &u64| (*base..base + 0x1000).contains(&access.addr);
    BASES.iter().position(is).expect("to one of them")
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Chip {
    select: u8,
    id: u32,
    entries: [u64; 24],
}

impl Default for Chip {
    fn default() -> Self {
        Self {
            select: 0,
            id: 0,
            entries: [1 << 16; 24],
        }
    }
}

#[derive(Default)]
struct IoApics {
    chips: [Chip; 3],
    /// An entry was unmasked with a destination that was changed afterwards.
    misdirected: bool,
    ended: usize,
    /// Bits that a driver writes back as it has read them, and a script need not.
    read_only_written: bool,
}

impl Model for IoApics {
    fn write(&mut self, access: &Access, _: u64) {
        let n = number(access);
        let (chip, value) = (&mut self.chips[n], access.value as u32);
        match (access.addr & 0xfff, chip.select) {
            (0, _) => chip.select = value as u8,
            (0x10, 0) => chip.id = value & 0x0f00_0000,
            (0x10, s @ 0x10..=0x3f) => {
                let entry = &mut chip.entries[usize::from(s - 0x10) / 2];
                if s & 1 == 0 {
                    self.read_only_written |= value & 0x5000 != 0;
                    *entry = *entry & !0x1_afff | u64::from(value & 0x1_afff);
                } else {
                    self.misdirected |= *entry & (1 << 16) == 0;
                    *entry = *entry & 0xffff_ffff | (u64::from(value & 0xff00_0000) << 32);
                }
            }
            (0x10, _) => {}
            (0x40, _) => self.ended += 1,
            _ => panic!("{access:x?}"),
        }
    }

    fn read(&mut self, access: &Access, _: u64) -> u64 {
        let chip = &self.chips[number(access)];
        let value = match (access.addr & 0xfff, chip.select) {
            (0, select) => select.into(),
            (_, 0) => chip.id,
            (_, 1) => 0x0017_0020,
            (_, s @ 0x10..=0x3f) => {
                (chip.entries[usize::from(s - 0x10) / 2] >> (32 * (s & 1))) as u32
            }
            _ => 0,
        };
        value.into()
    }

    fn visible(&self, _: u64) -> impl Debug {
        self.chips
    }

    fn unharmed(&self) {
        assert!(!self.misdirected && !self.read_only_written && self.ended == 0);
    }

    fn next(&self, random: &mut Random) -> Vec<Op> {
        let base = pick(random, &BASES);
        let value = random.word();
        let select = |s: u64| Op::Write(Access::memory(base, 4, s));
        let put = |v: u64| Op::Write(Access::memory(base + 0x10, 4, v));
        let get = Op::Read(Access::memory(base + 0x10, 4, 0));
        let pin = 0x10 + 2 * random.below(24);
        match random.below(5) {
            0 => vec![select(0), put(value), get],
            1 => vec![select(1), get],
            2 => vec![select(pin), put(value), select(pin + 1), get],
            3 => vec![select(pin + 1), put(value), select(pin), put(random.word())],
            _ => vec![Op::Write(Access::memory(base + 0x40, 4, value)), get],
        }
    }
}

#[test]
fn io_apics() {
    check::<IoApics>(4000, new_shadow);
}

#[test]
fn pages_have_an_end() {
    let shadow = new_shadow();
    let claims = |addr| shadow.claims(&Access::memory(addr, 4, 0));
    for page in [0, 1, 0xf, 0x10] {
        for register in [0, 0x10, 0x40] {
            assert!(claims(0xfec0_0000 + 0x1000 * page + register));
        }
    }
    assert!(!claims(0xfec1_1000) && !claims(0xfebf_f010));
    // Registers of another kind.
    assert!(!claims(0xfec1_0004));
}
