// SPDX-License-Identifier: GPL-2.0

//! 8259A, twice, with ELCR.

use super::{byte, check, inb, new_shadow, outb, pick, port, Model, Op};
use nvhv_pure::shadow::Access;
use nvhv_pure_tests::random::Random;
use std::fmt::Debug;

#[derive(Default, Clone, Copy, Debug, PartialEq)]
struct Chip {
    icw1: u8,
    vector: u8,
    cascade: u8,
    icw4: u8,
    expects: u8,
    imr: u8,
    smm: bool,
    show_isr: bool,
    poll: bool,
    auto_rotate: bool,
    lowest_is: u8,
}

#[derive(Default)]
struct Pics {
    chips: [Chip; 2],
    elcr: [u8; 2],
    eois: usize,
}

impl Chip {
    fn a0_low(&mut self, value: u8) -> bool {
        if value & 0x10 != 0 {
            // Edge sense, IMR, priorities, SMM and read select; without IC4 no ICW4 functions. What ICW2
            // and ICW3 hold until they are written is not visible.
            *self = Chip {
                icw1: value,
                expects: 2,
                ..Chip::default()
            };
        } else if value & 8 != 0 {
            if value & 0x40 != 0 {
                self.smm = value & 0x20 != 0;
            }
            match value & 3 {
                2 => self.show_isr = false,
                3 => self.show_isr = true,
                _ => {}
            }
            self.poll = value & 4 != 0;
        } else {
            match value >> 5 {
                0 => self.auto_rotate = false,
                4 => self.auto_rotate = true,
                // Relative to 7, which it is after ICW1.
                6 | 7 => self.lowest_is = (value & 7) ^ 7,
                // No interrupt is in service here: nothing to end, nothing to rotate by.
                _ => {}
            }
            return value & 0x20 != 0;
        }
        false
    }

    fn a0_high(&mut self, value: u8) {
        let (single, four) = (self.icw1 & 2 != 0, self.icw1 & 1 != 0);
        let last = if four { 4 } else { 0 };
        match self.expects {
            2 => {
                self.vector = value;
                self.expects = if single { last } else { 3 };
            }
            3 => {
                self.cascade = value;
                self.expects = last;
            }
            4 => {
                self.icw4 = value;
                self.expects = 0;
            }
            _ => self.imr = value,
        }
    }
}

impl Model for Pics {
    fn write(&mut self, access: &Access, _: u64) {
        let value = access.value as u8;
        match port(access) {
            0x20 => self.eois += usize::from(self.chips[0].a0_low(value)),
            0x21 => self.chips[0].a0_high(value),
            0xa0 => self.eois += usize::from(self.chips[1].a0_low(value)),
            0xa1 => self.chips[1].a0_high(value),
            0x4d0 => self.elcr[0] = value & 0xf8,
            0x4d1 => self.elcr[1] = value & 0xde,
            port => panic!("{port:x}"),
        }
    }

    fn read(&mut self, access: &Access, _: u64) -> u64 {
        let port = port(access);
        if port >= 0x4d0 {
            return self.elcr[usize::from(port - 0x4d0)].into();
        }
        let chip = &mut self.chips[usize::from(port >= 0xa0)];
        if std::mem::take(&mut chip.poll) {
            return 0x55;
        }
        match port & 1 {
            1 => chip.imr.into(),
            _ => chip.show_isr.into(),
        }
    }

    fn visible(&self, _: u64) -> impl Debug {
        (self.chips, self.elcr)
    }

    fn unharmed(&self) {
        assert_eq!(self.eois, 0);
    }

    fn next(&self, random: &mut Random) -> Vec<Op> {
        let base = pick(random, &[0x20, 0xa0]);
        let value = byte(random);
        match random.below(8) {
            0 | 1 => {
                let icw1 = 0x10 | value & 0xf;
                let mut ops = vec![outb(base, icw1), outb(base + 1, byte(random))];
                if icw1 & 2 == 0 {
                    ops.push(outb(base + 1, byte(random)));
                }
                if icw1 & 1 != 0 {
                    ops.push(outb(base + 1, byte(random)));
                }
                ops
            }
            2 => vec![outb(base + 1, value), inb(base + 1)],
            3 => vec![outb(base, value & 0xe7)],
            4 => vec![outb(base, 8 | value & 0x63), inb(base)],
            5 => vec![outb(base, 0x0c), inb(base)],
            6 => vec![outb(0x4d0 + u16::from(value & 1), byte(random)), inb(0x4d0)],
            // End of interrupt, as an unconcerned driver does.
            _ => vec![outb(base, 0x20), inb(base), inb(base + 1)],
        }
    }
}

#[test]
fn interrupt_controllers() {
    check::<Pics>(8000, new_shadow);
}
