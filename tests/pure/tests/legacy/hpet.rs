// SPDX-License-Identifier: GPL-2.0

//! IA-PC HPET 1.0a, with three timers, at 100 MHz, and with the periodic comparator of those that take a
//! write with Tn_VAL_SET_CNF for the period as well.

use super::{check, new_shadow, pick, play, script, Model, Op, Script};
use nvhv_pure::shadow::{Access, Action};
use nvhv_pure_tests::random::Random;
use std::fmt::Debug;

const BASE: u64 = 0xfed0_0000;
/// Femtoseconds.
const PERIOD: u64 = 10_000_000;

#[derive(Default, Clone, Copy, Debug, PartialEq)]
struct Timer {
    config: u32,
    comparator: u64,
    period: u64,
    route: u64,
}

#[derive(Default)]
struct Hpet {
    config: u64,
    /// The counter when halted; else its value at time 0.
    counter: u64,
    timers: [Timer; 3],
    written_while_running: bool,
    status_cleared: bool,
}

fn ticks(now: u64) -> u64 {
    now / (PERIOD / 1_000_000)
}

impl Hpet {
    fn now(&self, now: u64) -> u64 {
        match self.config & 1 {
            0 => self.counter,
            _ => self.counter.wrapping_add(ticks(now)),
        }
    }

    /// Periodic comparators step on, one period at a time in the end.
    fn run(&mut self, now: u64) {
        if self.config & 1 == 0 {
            return;
        }
        let counter = self.now(now);
        for t in self.timers.iter_mut().filter(|t| t.config & 8 != 0) {
            let narrow = t.config & 0x100 != 0;
            let period = if narrow {
                t.period as u32 as u64
            } else {
                t.period
            };
            if period == 0 {
                continue;
            }
            let past = |c: u64| match narrow {
                true => (counter as u32).wrapping_sub(c as u32) as i32 as i64,
                false => counter.wrapping_sub(c) as i64,
            };
            if past(t.comparator) >= 0 {
                let n = past(t.comparator) as u64 / period + 1;
                let next = t.comparator.wrapping_add(n.wrapping_mul(period));
                t.comparator = match narrow {
                    true => t.comparator & !0xffff_ffff | next & 0xffff_ffff,
                    false => next,
                };
            }
        }
    }
}

fn merge(old: u64, access: &Access) -> u64 {
    match (access.len, access.addr & 4) {
        (8, _) => access.value,
        (4, 0) => old & !0xffff_ffff | access.value,
        _ => old & 0xffff_ffff | (access.value << 32),
    }
}

impl Model for Hpet {
    fn write(&mut self, access: &Access, now: u64) {
        self.run(now);
        let offset = access.addr - BASE;
        match offset & !7 {
            0x10 => {
                let was = self.now(now);
                self.config = merge(self.config, access) & 3;
                self.counter = match self.config & 1 {
                    0 => was,
                    _ => was.wrapping_sub(ticks(now)),
                };
            }
            0x20 => self.status_cleared = true,
            0xf0 => {
                self.written_while_running |= self.config & 1 != 0;
                self.counter = merge(self.counter, access);
            }
            0x100.. => {
                let t = &mut self.timers[(offset as usize - 0x100) / 0x20];
                match offset & 0x1f & !7 {
                    0 if access.addr & 4 == 0 => {
                        t.config = access.value as u32 & 0x7f4e;
                        // What a timer without period does when it is made periodic is not specified.
                        if t.config & 8 == 0 {
                            t.period = 0;
                        }
                        if t.config & 0x100 != 0 {
                            // Nor what comes back of the other half.
                            t.comparator &= 0xffff_ffff;
                            t.period &= 0xffff_ffff;
                        }
                    }
                    8 => {
                        if t.config & 8 != 0 {
                            t.period = merge(t.period, access);
                        }
                        if t.config & 8 == 0 || t.config & 0x40 != 0 {
                            t.comparator = merge(t.comparator, access);
                        }
                        t.config &= !0x40;
                    }
                    16 => t.route = merge(t.route, access),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn read(&mut self, access: &Access, now: u64) -> u64 {
        self.run(now);
        let offset = access.addr - BASE;
        let value = match offset & !7 {
            0 => (PERIOD << 32) | 0x8086_a201,
            0x10 => self.config,
            0xf0 => self.now(now),
            0x100.. => {
                let t = &self.timers[(offset as usize - 0x100) / 0x20];
                match offset & 0x1f & !7 {
                    0 => t.config.into(),
                    8 if t.config & 0x100 != 0 => t.comparator & 0xffff_ffff,
                    8 => t.comparator,
                    _ => t.route,
                }
            }
            _ => 0,
        };
        match (access.len, access.addr & 4) {
            (8, _) => value,
            (_, 0) => value & 0xffff_ffff,
            _ => value >> 32,
        }
    }

    fn visible(&self, now: u64) -> impl Debug {
        let mut settled = Hpet {
            config: self.config,
            counter: self.counter,
            timers: self.timers,
            ..Hpet::default()
        };
        settled.run(now);
        for t in settled.timers.iter_mut().filter(|t| t.config & 0x100 != 0) {
            // Of 32 bits the other half is nothing.
            t.comparator &= 0xffff_ffff;
            t.period &= 0xffff_ffff;
        }
        (self.config, self.now(now), settled.timers)
    }

    fn unharmed(&self) {
        assert!(!self.written_while_running && !self.status_cleared);
    }

    fn next(&self, random: &mut Random) -> Vec<Op> {
        let put =
            |offset: u64, len: u8, value: u64| Op::Write(Access::memory(BASE + offset, len, value));
        let get = |offset: u64, len: u8| Op::Read(Access::memory(BASE + offset, len, 0));
        let timer = 0x100 + 0x20 * random.below(3);
        // Every driver reads the period first.
        let mut ops = vec![get(4, 4)];
        let delta = 1 + random.below(1 << 20);
        let config = random.word() & 0x7e06;
        ops.extend(match random.below(8) {
            0 => vec![get(0, 8), put(0x10, 4, random.below(4))],
            1 => {
                // As a driver starts it: from a value of its own.
                let value = random.word() >> random.below(64);
                vec![
                    put(0x10, 4, 0),
                    put(0xf0, 4, value & 0xffff_ffff),
                    put(0xf4, 4, value >> 32),
                    put(0x10, 4, 1),
                ]
            }
            2 => vec![put(timer, 4, config), put(timer + 8, 8, random.word())],
            3 => vec![put(timer, 4, config | 0x100), put(timer + 8, 4, delta)],
            4 => vec![
                // A periodic timer of 32 bits, as Linux programs it.
                put(timer, 4, config | 0x148),
                put(timer + 8, 4, delta),
                put(timer + 8, 4, 1 + random.below(1 << 20)),
            ],
            5 => vec![
                put(timer, 4, config | 0x48),
                put(timer + 8, 8, delta),
                put(timer + 8, 8, 1 + random.below(1 << 20)),
            ],
            6 => vec![
                put(timer + 16, 8, random.word()),
                put(0x20, 4, 7),
                get(timer + 8, 4),
            ],
            _ => vec![
                get(0xf0, pick(random, &[4, 8])),
                get(timer, 4),
                get(timer + 8, 8),
            ],
        });
        ops
    }
}

#[test]
fn event_timer() {
    check::<Hpet>(8000, new_shadow);
}

/// The guest's time does not jump: what it reads is what has passed since.
#[test]
fn the_counter_goes_on_from_the_last_reading() {
    let mut shadow = new_shadow();
    shadow.read(&Access::memory(BASE + 4, 4, PERIOD), 0);
    shadow.write(&Access::memory(BASE + 0x10, 4, 1), 1000);
    // The VMM's clock is 7 ticks off ours.
    shadow.read(&Access::memory(BASE + 0xf0, 8, 107), 2000);
    // It wraps below, and is read by halves.
    let steps = script(&shadow, 2000 + 10 * 0x1_0000_0000);
    let counter = |offset| {
        let at = |s: &&nvhv_pure::shadow::Step| s.access.addr == BASE + offset;
        steps.iter().find(at).expect("a step").access.value
    };
    assert_eq!((counter(0xf0), counter(0xf4)), (107, 1));
    shadow.read(
        &Access::memory(BASE + 0xf0, 4, 105),
        2000 + 10 * 0x1_0000_0000,
    );
    let steps = script(&shadow, 2000 + 10 * 0x1_0000_0000);
    let low = steps
        .iter()
        .find(|s| s.access.addr == BASE + 0xf0)
        .expect("a step");
    assert_eq!(low.access.value, 105);
    assert!(matches!(steps[0].action, Action::Expect { .. }));
    assert_eq!(steps[0].access.value, PERIOD);
}

/// However long a resume takes, nothing has passed for the guest.
#[test]
fn the_counter_stands_still_until_the_guest_goes_on() {
    let mut shadow = new_shadow();
    shadow.read(&Access::memory(BASE + 4, 4, PERIOD), 0);
    shadow.write(&Access::memory(BASE + 0x10, 4, 1), 0);
    let (mut configure, mut start) = (Script::default(), Script::default());
    shadow.script(5000, &mut configure).expect("there is room");
    shadow.start(&mut start).expect("there is room");

    let (mut fresh, mut again) = (Hpet::default(), new_shadow());
    play(&configure.0, &mut fresh, &mut again, 1000);
    assert_eq!(fresh.now(700_000), 500);
    play(&start.0, &mut fresh, &mut again, 700_000);
    assert_eq!(fresh.now(700_030), 503);
}
