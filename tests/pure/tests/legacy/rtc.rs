// SPDX-License-Identifier: GPL-2.0

//! MC146818A, with 128 bytes.

use super::{byte, check, inb, new_shadow, outb, pick, port, script, Model, Op};
use nvhv_pure::shadow::{Access, Action};
use nvhv_pure_tests::random::Random;
use std::fmt::Debug;

const TIME: [usize; 9] = [0, 2, 4, 6, 7, 8, 9, 0x32, 0x37];

struct Rtc {
    index: u8,
    bytes: [u8; 128],
    /// Of the time, what was written since SET was.
    setting: [bool; 128],
    flags_read: bool,
    reset: bool,
    time_changed: bool,
}

impl Default for Rtc {
    fn default() -> Self {
        let mut bytes = [0; 128];
        TIME.iter().for_each(|r| bytes[*r] = 0x11);
        Self {
            index: 0,
            bytes,
            setting: [false; 128],
            flags_read: false,
            reset: false,
            time_changed: false,
        }
    }
}

impl Model for Rtc {
    fn write(&mut self, access: &Access, _: u64) {
        let value = access.value as u8;
        if port(access) == 0x70 {
            self.index = value;
            return;
        }
        let r = usize::from(self.index & 0x7f);
        if r == 0x0f && value == 0 {
            self.reset = true;
        }
        let set = self.bytes[0xb] & 0x80 != 0;
        if TIME.contains(&r) {
            self.setting[r] = set;
            self.time_changed |= !set;
        }
        match r {
            0xa => self.bytes[r] = value & 0x7f,
            0xb => {
                self.bytes[r] = value;
                if value & 0x80 == 0 {
                    self.time_changed |= self.setting != [false; 128];
                    self.setting = [false; 128];
                }
            }
            0xc => {}
            _ => self.bytes[r] = value,
        }
    }

    fn read(&mut self, access: &Access, _: u64) -> u64 {
        if port(access) == 0x70 {
            return 0xff;
        }
        let r = usize::from(self.index & 0x7f);
        self.flags_read |= r == 0xc;
        // The time is the VMM's: not compared.
        let hidden = TIME.contains(&r) && !self.setting[r];
        if hidden {
            0
        } else {
            self.bytes[r].into()
        }
    }

    fn visible(&self, _: u64) -> impl Debug {
        let seen = |r: usize| (!TIME.contains(&r) || self.setting[r]).then_some(self.bytes[r]);
        (self.index, (0..128).map(seen).collect::<Vec<_>>())
    }

    fn unharmed(&self) {
        assert!(!self.flags_read && !self.reset && !self.time_changed);
    }

    fn next(&self, random: &mut Random) -> Vec<Op> {
        let nmi = pick(random, &[0, 0x80]);
        let at = |r: u8, value| [outb(0x70, nmi | r), outb(0x71, value)];
        let b = byte(random) & 0x7f;
        match random.below(4) {
            0 => {
                // Setting the time.
                let mut ops = at(0xb, b | 0x80).to_vec();
                for r in TIME {
                    ops.extend(at(r as u8, byte(random)));
                }
                ops.extend(at(0xb, b));
                ops
            }
            1 => at(pick(random, &[1, 3, 5, 0xa, 0xb, 0xf]), b).to_vec(),
            2 => at(0xe + random.below(0x72) as u8, byte(random)).to_vec(),
            _ => vec![outb(0x70, byte(random)), inb(0x71)],
        }
    }
}

#[test]
fn clock() {
    check::<Rtc>(4000, new_shadow);
}

#[test]
fn a_time_that_was_set_is_reported_and_not_replayed() {
    let mut shadow = new_shadow();
    shadow.write(&Access::port(0x70, 1, 4), 0);
    shadow.write(&Access::port(0x71, 1, 0x12), 0);
    let steps = script(&shadow, 0);
    assert!(steps
        .iter()
        .all(|s| s.action == Action::Write && s.access.addr == 0x70));
    assert!(shadow.report().any(|known| known.lost.is_some()));
}
