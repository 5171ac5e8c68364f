// SPDX-License-Identifier: GPL-2.0

//! 8042 with a keyboard and a mouse that has a wheel and five buttons.

use super::{byte, check, inb, new_shadow, outb, pick, port, Model, Op};
use nvhv_pure::shadow::Access;
use nvhv_pure_tests::random::Random;
use std::collections::VecDeque;
use std::fmt::Debug;

#[derive(Clone, Debug, PartialEq)]
struct Keyboard {
    scanning: bool,
    leds: u8,
    rate: u8,
    set: u8,
    option_of: Option<u8>,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self {
            scanning: true,
            leds: 0,
            rate: 0x2b,
            set: 2,
            option_of: None,
        }
    }
}

impl Keyboard {
    fn take(&mut self, byte: u8) -> Vec<u8> {
        if let Some(command) = self.option_of.take() {
            if byte < 0x80 {
                match command {
                    0xed => self.leds = byte,
                    0xf3 => self.rate = byte,
                    _ if byte == 0 => return vec![0xfa, self.set],
                    _ => self.set = byte,
                }
                return vec![0xfa];
            }
        }
        match byte {
            0xed | 0xf0 | 0xf3 => self.option_of = Some(byte),
            0xee => return vec![0xee],
            0xf2 => return vec![0xfa, 0xab, 0x83],
            0xf4 => self.scanning = true,
            0xf5 | 0xf6 => {
                *self = Self {
                    scanning: byte == 0xf6,
                    leds: self.leds,
                    ..Self::default()
                }
            }
            0xff => {
                *self = Self::default();
                return vec![0xfa, 0xaa];
            }
            _ => return vec![0xfe],
        }
        vec![0xfa]
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Mouse {
    reporting: bool,
    remote: bool,
    doubled: bool,
    resolution: u8,
    rate: u8,
    /// The rates that were set, oldest first, no more than the next one needs.
    rates: VecDeque<u8>,
    id: u8,
    data_of: Option<u8>,
}

impl Default for Mouse {
    fn default() -> Self {
        Self {
            reporting: false,
            remote: false,
            doubled: false,
            resolution: 2,
            rate: 100,
            rates: VecDeque::new(),
            id: 0,
            data_of: None,
        }
    }
}

impl Mouse {
    fn take(&mut self, byte: u8) -> Vec<u8> {
        if let Some(command) = self.data_of.take() {
            if byte < 0xe6 {
                if command == 0xe8 {
                    self.resolution = byte;
                    return vec![0xfa];
                }
                self.rate = byte;
                let mut last: Vec<u8> = self.rates.iter().copied().collect();
                last.push(byte);
                match last[..] {
                    [200, 100, 80] => self.id = self.id.max(3),
                    [200, 200, 80] => self.id = 4,
                    _ => {}
                }
                self.rates.push_back(byte);
                if self.rates.len() > 2 {
                    self.rates.pop_front();
                }
                return vec![0xfa];
            }
        }
        match byte {
            0xe6 | 0xe7 => self.doubled = byte == 0xe7,
            0xe8 | 0xf3 => self.data_of = Some(byte),
            0xea | 0xf0 => self.remote = byte == 0xf0,
            0xf2 => return vec![0xfa, self.id],
            0xf4 | 0xf5 => self.reporting = byte == 0xf4,
            0xf6 => {
                *self = Self {
                    id: self.id,
                    ..Self::default()
                }
            }
            0xff => {
                *self = Self::default();
                return vec![0xfa, 0xaa, 0];
            }
            _ => return vec![0xfe],
        }
        vec![0xfa]
    }
}

#[derive(Default)]
struct I8042 {
    command_byte: u8,
    a20: bool,
    wants: Option<u8>,
    output: VecDeque<u8>,
    keyboard: Keyboard,
    mouse: Mouse,
    interrupts: usize,
    reset: bool,
}

impl I8042 {
    fn answer(&mut self, bytes: Vec<u8>, interrupt: u8) {
        self.interrupts += usize::from(self.command_byte & interrupt != 0);
        self.output.extend(bytes);
    }
}

impl Model for I8042 {
    fn write(&mut self, access: &Access, _: u64) {
        let value = access.value as u8;
        if port(access) == 0x64 {
            self.wants = None;
            match value {
                0x20 => self.answer(vec![self.command_byte], 1),
                0x60 | 0xd1..=0xd4 => self.wants = Some(value),
                0xa7 => self.command_byte |= 0x20,
                0xa8 => self.command_byte &= !0x20,
                0xaa => self.answer(vec![0x55], 1),
                0xad => self.command_byte |= 0x10,
                0xae => self.command_byte &= !0x10,
                0xdd | 0xdf => self.a20 = value == 0xdf,
                0xf0..=0xff => self.reset |= value & 1 == 0,
                _ => {}
            }
            return;
        }
        match self.wants.take() {
            None => {
                self.command_byte &= !0x10;
                let answer = self.keyboard.take(value);
                self.answer(answer, 1);
            }
            Some(0x60) => self.command_byte = value,
            Some(0xd1) => {
                self.a20 = value & 2 != 0;
                self.reset |= value & 1 == 0;
            }
            Some(0xd2) => self.answer(vec![value], 1),
            Some(0xd3) => self.answer(vec![value], 2),
            Some(_) => {
                self.command_byte &= !0x20;
                let answer = self.mouse.take(value);
                self.answer(answer, 2);
            }
        }
    }

    fn read(&mut self, access: &Access, _: u64) -> u64 {
        match port(access) {
            0x64 => 0x1c | u64::from(!self.output.is_empty()),
            _ => self.output.pop_front().unwrap_or(0).into(),
        }
    }

    fn visible(&self, _: u64) -> impl Debug {
        let (keyboard, mouse) = (self.keyboard.clone(), self.mouse.clone());
        (self.command_byte, self.a20, self.wants, keyboard, mouse)
    }

    fn unharmed(&self) {
        assert!(!self.reset);
        assert_eq!((self.output.len(), self.interrupts), (0, 0));
    }

    fn forget(&mut self, _: u64) {
        self.output.clear();
    }

    fn next(&self, random: &mut Random) -> Vec<Op> {
        let value = byte(random);
        let mouse = |bytes: &[u8]| -> Vec<Op> {
            let sent = bytes.iter();
            sent.flat_map(|b| [outb(0x64, 0xd4), outb(0x60, *b), inb(0x64), inb(0x60)])
                .collect()
        };
        let mut ops = match random.below(10) {
            0 => vec![outb(0x64, 0x60), outb(0x60, value & 0x77)],
            1 => vec![outb(
                0x64,
                pick(random, &[0xa7, 0xa8, 0xad, 0xae, 0xaa, 0xdd, 0xdf]),
            )],
            2 => vec![outb(0x64, 0xd1), outb(0x60, value | 1)],
            3 => vec![outb(0x64, pick(random, &[0xd2, 0xd3])), outb(0x60, value)],
            4 => vec![outb(0x64, 0x20), inb(0x60)],
            5 => {
                let command = pick(random, &[0xed, 0xf3, 0xf0]);
                vec![
                    outb(0x60, command),
                    inb(0x60),
                    outb(0x60, value & 0x03),
                    inb(0x60),
                ]
            }
            6 => vec![outb(
                0x60,
                pick(random, &[0xf4, 0xf5, 0xf6, 0xff, 0xf2, 0xee, 0xed]),
            )],
            7 if value < 128 => mouse(&[0xe8, value % 4]),
            7 => mouse(&[0xf3, pick(random, &[10, 20, 40, 60, 80, 100, 200])]),
            8 => {
                let rates = pick(random, &[[200, 100, 80], [200, 200, 80], [100, 80, 60]]);
                mouse(&rates.map(|r| [0xf3, r]).concat())
            }
            _ => mouse(&[pick(
                random,
                &[0xe6, 0xe7, 0xea, 0xf0, 0xf4, 0xf5, 0xf6, 0xff, 0xf2],
            )]),
        };
        // A driver takes all answers before it goes on.
        ops.extend([inb(0x60); 4]);
        ops
    }
}

#[test]
fn keyboard_controller() {
    check::<I8042>(8000, new_shadow);
}
