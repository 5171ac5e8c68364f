// SPDX-License-Identifier: GPL-2.0

//! PC16550D.

use super::{byte, check, inb, new_shadow, outb, pick, port, Model, Op};
use nvhv_pure::shadow::Access;
use nvhv_pure_tests::random::Random;
use std::fmt::Debug;

#[derive(Default, Clone, Copy, Debug, PartialEq)]
struct Registers {
    ier: u8,
    fifo: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    divisor: u16,
}

#[derive(Default)]
struct Uarts {
    chips: [Registers; 4],
    sent: usize,
    fifos_reset: usize,
    interrupts_without_out2: usize,
}

fn place(port: u16) -> (usize, u16) {
    let bases = [0x3f8, 0x2f8, 0x3e8, 0x2e8];
    let n = bases
        .iter()
        .position(|b| port & 0xfff8 == *b)
        .expect("ours");
    (n, port & 7)
}

impl Model for Uarts {
    fn write(&mut self, access: &Access, _: u64) {
        let (n, offset) = place(port(access));
        let (r, value) = (&mut self.chips[n], access.value as u8);
        match (offset, r.lcr >> 7) {
            (0, 1) => r.divisor = r.divisor & 0xff00 | u16::from(value),
            (1, 1) => r.divisor = r.divisor & 0xff | (u16::from(value) << 8),
            (0, _) => self.sent += 1,
            (1, _) => {
                r.ier = value & 0xf;
                self.interrupts_without_out2 += usize::from(value & 2 != 0 && r.mcr & 8 == 0);
            }
            (2, _) if value & 1 == 0 => r.fifo = 0,
            (2, _) => {
                r.fifo = value & 0xc9;
                self.fifos_reset += usize::from(value & 6 != 0);
            }
            (3, _) => r.lcr = value,
            (4, _) => r.mcr = value & 0x1f,
            (7, _) => r.scr = value,
            _ => {}
        }
    }

    fn read(&mut self, access: &Access, _: u64) -> u64 {
        let (n, offset) = place(port(access));
        let r = &self.chips[n];
        let value = match (offset, r.lcr >> 7) {
            (0, 1) => r.divisor as u8,
            (1, 1) => (r.divisor >> 8) as u8,
            (1, _) => r.ier,
            (2, _) => 1 | if r.fifo & 1 != 0 { 0xc0 } else { 0 },
            (3, _) => r.lcr,
            (4, _) => r.mcr,
            (5, _) => 0x60,
            (7, _) => r.scr,
            _ => 0,
        };
        value.into()
    }

    fn visible(&self, _: u64) -> impl Debug {
        self.chips
    }

    fn unharmed(&self) {
        assert_eq!((self.sent, self.fifos_reset), (0, 0));
    }

    fn next(&self, random: &mut Random) -> Vec<Op> {
        let base = pick(random, &[0x3f8, 0x2f8, 0x3e8, 0x2e8]);
        let value = byte(random);
        match random.below(6) {
            0 => vec![
                outb(base + 3, 0x83),
                outb(base, value),
                outb(base + 1, byte(random)),
                outb(base + 3, byte(random)),
            ],
            1 => vec![outb(base + 3, 3), outb(base, value), inb(base + 5)],
            2 => vec![outb(base + 2, value), inb(base + 2)],
            _ => vec![
                outb(base + random.below(8) as u16, value),
                inb(base + random.below(8) as u16),
            ],
        }
    }
}

#[test]
fn serial_ports() {
    check::<Uarts>(4000, new_shadow);
}

/// A driver waits for the interrupt of an empty transmitter: it comes when IER is written, if OUT2 is
/// on by then.
#[test]
fn the_interrupt_is_connected_before_it_is_enabled() {
    let mut shadow = new_shadow();
    let mut model = Uarts::default();
    for (offset, value) in [(1, 2), (4, 8)] {
        shadow.write(&Access::port(0x3f8 + offset, 1, value), 0);
    }
    let steps = super::script(&shadow, 0);
    super::play(&steps, &mut model, &mut new_shadow(), 0);
    assert_eq!(model.interrupts_without_out2, 0);
    assert_eq!(model.chips[0].ier, 2);
}
