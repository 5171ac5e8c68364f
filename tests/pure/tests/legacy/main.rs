// SPDX-License-Identifier: GPL-2.0

//! Shadows of the chips of a PC, against models of the chips that are written from their data sheets.
//!
//! A random driver works with a model; the shadow sees its accesses. At a random moment the shadow's
//! script is played to a fresh model. Then both models have to show the same, now and to whatever the
//! driver does next; and an empty shadow that saw the script has to make the same script.

mod dma;
mod edges;
mod gpe;
mod hpet;
mod i8042;
mod ioapic;
mod pic;
mod pit;
mod pm;
mod rtc;
mod uart;

use nvhv_pure::shadow::legacy::Legacy;
use nvhv_pure::shadow::{Access, Action, Full, Sink, Space, Step};
use nvhv_pure_tests::random::Random;
use std::fmt::Debug;

/// What a driver does: a write, or a read of what the model answers.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// The value is what is written.
    Write(Access),
    /// The value is nothing.
    Read(Access),
}

/// A byte to a port.
pub fn outb(port: u16, value: u8) -> Op {
    Op::Write(Access::port(port, 1, value.into()))
}

/// A byte from a port.
pub fn inb(port: u16) -> Op {
    Op::Read(Access::port(port, 1, 0))
}

/// A chip.
pub trait Model: Default {
    /// The guest, or a script, writes.
    fn write(&mut self, access: &Access, now: u64);
    /// It reads; the answer.
    fn read(&mut self, access: &Access, now: u64) -> u64;
    /// What the guest configured and would see.
    fn visible(&self, now: u64) -> impl Debug;
    /// The script has been played to this one: whether it did no harm.
    fn unharmed(&self) {}
    /// The VMM has died: what nobody can carry is gone.
    fn forget(&mut self, _now: u64) {}
    /// What a conforming driver may do next.
    fn next(&self, random: &mut Random) -> Vec<Op>;
}

/// Keeps a script.
#[derive(Default)]
pub struct Script(pub Vec<Step>);

impl Sink for Script {
    fn step(&mut self, step: Step) -> Result<(), Full> {
        self.0.push(step);
        Ok(())
    }
}

/// A shadow's script.
pub fn script(shadow: &Legacy, now: u64) -> Vec<Step> {
    let mut script = Script::default();
    shadow.script(now, &mut script).expect("there is room");
    shadow.start(&mut script).expect("there is room");
    script.0
}

/// Plays a script to a model and to a shadow.
pub fn play<M: Model>(steps: &[Step], model: &mut M, shadow: &mut Legacy, now: u64) {
    for step in steps {
        let mut access = step.access;
        match step.action {
            Action::Write => {
                model.write(&access, now);
                shadow.write(&access, now);
                continue;
            }
            Action::Expect { mask } => {
                let answer = model.read(&access, now);
                assert_eq!(answer & mask, access.value & mask, "{step:x?}");
                access.value = answer;
            }
            Action::Read => access.value = model.read(&access, now),
        }
        shadow.read(&access, now);
    }
}

/// Does what a driver does; says what it was answered.
pub fn act<M: Model>(op: Op, model: &mut M, shadow: &mut Legacy, now: u64) -> Option<u64> {
    match op {
        Op::Write(access) => {
            assert!(shadow.claims(&access), "{access:x?}");
            model.write(&access, now);
            shadow.write(&access, now);
            None
        }
        Op::Read(mut access) => {
            access.value = model.read(&access, now);
            shadow.read(&access, now);
            Some(access.value)
        }
    }
}

/// The property, for `rounds` random drivers.
pub fn check<M: Model>(rounds: u64, new_shadow: fn() -> Box<Legacy>) {
    for seed in 0..rounds {
        let mut random = Random::new(seed);
        // Whole ticks of 10 ns: what is left of one is lost whenever a counter is stopped.
        let mut now = 10 * random.below(1 << 36);
        let (mut model, mut shadow) = (M::default(), new_shadow());
        for _ in 0..random.below(12) {
            let ops = model.next(&mut random);
            // An outage may come between any two accesses.
            let cut = match random.below(4) {
                0 => random.below(ops.len() as u64 + 1) as usize,
                _ => ops.len(),
            };
            for op in &ops[..cut] {
                act(*op, &mut model, &mut shadow, now);
                now += 10 * random.below(10_000);
            }
            if cut < ops.len() {
                break;
            }
        }
        let steps = script(&shadow, now);
        let (mut fresh, mut again) = (M::default(), new_shadow());
        play(&steps, &mut fresh, &mut again, now);
        fresh.unharmed();
        model.forget(now);
        let context = || format!("seed {seed}: {steps:x?}");
        assert_same(&model.visible(now), &fresh.visible(now), context);
        assert_eq!(
            script(&again, now),
            steps,
            "seed {seed}: not the same again"
        );
        for _ in 0..random.below(8) {
            for op in model.next(&mut random) {
                let was = act(op, &mut model, &mut shadow, now);
                let is = act(op, &mut fresh, &mut again, now);
                assert_eq!(was, is, "{op:x?}, {}", context());
                now += 10 * random.below(10_000);
            }
        }
        assert_same(&model.visible(now), &fresh.visible(now), context);
        assert_eq!(
            script(&again, now),
            script(&shadow, now),
            "seed {seed}: later"
        );
    }
}

fn assert_same(was: &impl Debug, is: &impl Debug, context: impl Fn() -> String) {
    let (was, is) = (format!("{was:x?}"), format!("{is:x?}"));
    assert_eq!(was, is, "{}", context());
}

/// A shadow that was never touched.
pub fn new_shadow() -> Box<Legacy> {
    Box::default()
}

/// A random byte.
pub fn byte(random: &mut Random) -> u8 {
    random.word() as u8
}

/// One of several.
pub fn pick<T: Copy>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize]
}

/// The port of an access of one byte.
pub fn port(access: &Access) -> u16 {
    assert_eq!((access.space, access.len), (Space::Port, 1), "{access:x?}");
    access.addr as u16
}
