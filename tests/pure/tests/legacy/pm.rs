// SPDX-License-Identifier: GPL-2.0

//! The PM block of ICH9.

use super::{check, new_shadow, pick, Model, Op};
use nvhv_pure::shadow::legacy::Legacy;
use nvhv_pure::shadow::Access;
use nvhv_pure_tests::random::Random;
use std::fmt::Debug;

const BASE: u16 = 0x600;

struct Pm {
    bytes: [u8; 0x80],
    cleared: bool,
    slept: bool,
}

impl Default for Pm {
    fn default() -> Self {
        let mut bytes = [0; 0x80];
        // Status: something is pending at all times.
        for at in [0, 1, 0x20, 0x21, 0x34] {
            bytes[at] = 0xff;
        }
        Self {
            bytes,
            cleared: false,
            slept: false,
        }
    }
}

impl Model for Pm {
    fn write(&mut self, access: &Access, _: u64) {
        for index in 0..access.len {
            let at = access.addr as usize - usize::from(BASE) + usize::from(index);
            let value = access.byte(index);
            match at {
                0 | 1 | 0x20..=0x27 | 0x34..=0x37 => self.cleared |= value != 0,
                4 => self.bytes[at] = value & 3,
                5 => {
                    self.slept |= value & 0x20 != 0;
                    self.bytes[at] = value & 0x1c;
                }
                0x30 => self.bytes[at] = value & 0x7f,
                2 | 3 | 0x10..=0x13 | 0x28..=0x2f | 0x31..=0x33 | 0x42 => self.bytes[at] = value,
                _ => {}
            }
        }
    }

    fn read(&mut self, access: &Access, _: u64) -> u64 {
        let at = access.addr as usize - usize::from(BASE);
        let bytes = &self.bytes[at..at + usize::from(access.len)];
        bytes
            .iter()
            .rev()
            .fold(0, |value, b| (value << 8) | u64::from(*b))
    }

    fn visible(&self, _: u64) -> impl Debug {
        self.bytes
    }

    fn unharmed(&self) {
        assert!(!self.cleared && !self.slept);
    }

    fn next(&self, random: &mut Random) -> Vec<Op> {
        let len = pick(random, &[1, 2, 4]);
        let at = BASE + random.below(0x50) as u16 / u16::from(len) * u16::from(len);
        vec![
            Op::Write(Access::port(at, len, random.word())),
            Op::Read(Access::port(at, len, 0)),
        ]
    }
}

fn with_base() -> Box<Legacy> {
    let mut shadow = new_shadow();
    shadow.set_pm_base(BASE);
    shadow
}

#[test]
fn power_management() {
    check::<Pm>(4000, with_base);
}

/// Firmware turns ACPI on by an SMI command, which is not replayed: what the guest reads tells.
#[test]
fn sci_en_is_learned() {
    let mut shadow = with_base();
    shadow.read(&Access::port(BASE + 4, 2, 1), 0);
    let steps = super::script(&shadow, 0);
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].access, Access::port(BASE + 4, 2, 1));
}

#[test]
fn without_a_base_nothing_is_claimed() {
    assert!(!new_shadow().claims(&Access::port(BASE + 4, 2, 0)));
}
