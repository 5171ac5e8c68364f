// SPDX-License-Identifier: GPL-2.0

//! The high precision event timer (IA-PC HPET specification 1.0a), at 0xFED00000.
//!
//! The main counter goes on: a fresh one is given the value that the guest would read now, from the last one
//! that is known and the time since, at the period that the guest has read from the
//! capabilities. A guest that never read it has no use for the counter's rate, and the value stays.
//! The time is the guest's, which stops during an outage; so what a timer waits for still lies ahead. The
//! counter is started last of all, so that it does not count while the rest of the VM is being resumed.
//!
//! Interrupt status is cleared by writing, so it is not replayed. An interrupt that a timer would have
//! raised between the VMM's death and the instant of the seal is lost.

use super::chip::Chip;
use crate::shadow::{Access, Full, Sink, Space};

const BASE: u64 = 0xfed0_0000;
const SIZE: u64 = 0x400;
/// As many as the registers of one block have room for.
const TIMERS: usize = 24;

const CAPABILITIES: u64 = 0x000;
const CONFIGURATION: u64 = 0x010;
const COUNTER: u64 = 0x0f0;
const TIMER: u64 = 0x100;
const TIMER_SIZE: u64 = 0x20;

/// General configuration: the counter runs.
const ENABLE_CNF: u64 = 1;

/// A timer's configuration: what is writable but Tn_VAL_SET_CNF.
const TN_WRITABLE: u32 = 0x7f0e;
const TN_TYPE_CNF: u32 = 1 << 3;
const TN_VAL_SET_CNF: u32 = 1 << 6;
const TN_32MODE_CNF: u32 = 1 << 8;

/// Femtoseconds in a nanosecond.
const FS_PER_NS: u64 = 1_000_000;

/// A 64-bit register of which halves may be known.
#[derive(Clone, Copy, Default)]
struct Halves {
    value: u64,
    known: [bool; 2],
}

impl Halves {
    fn set(&mut self, lanes: &Lanes) {
        self.value = lanes.merge(self.value);
        for (known, now) in self.known.iter_mut().zip(lanes.halves()) {
            *known |= now;
        }
    }

    fn forget_high(&mut self) {
        self.value &= LOW;
        self.known = [self.known[0], false];
    }

    fn any(&self) -> bool {
        self.known != [false; 2]
    }

    /// The known halves as accesses of 4 bytes.
    fn accesses(&self, offset: u64) -> impl Iterator<Item = Access> {
        let value = self.value;
        [(0, value), (4, value >> 32)]
            .into_iter()
            .zip(self.known)
            .filter(|(_, known)| *known)
            .map(move |((half, value), _)| Access::memory(BASE + offset + half, 4, value))
    }
}

/// What an access of 4 or 8 bytes touches of a 64-bit register.
struct Lanes {
    value: u64,
    mask: u64,
}

impl Lanes {
    /// The access's register, and its lanes there.
    fn of(access: &Access) -> Option<(u64, Self)> {
        let offset = access.offset_in(Space::Memory, BASE, SIZE)?;
        let (value, mask) = match (access.len, offset % 8) {
            (8, 0) => (access.value, u64::MAX),
            (4, 0) => (access.value, LOW),
            (4, 4) => (access.value << 32, !LOW),
            _ => return None,
        };
        Some((offset & !7, Self { value, mask }))
    }

    fn merge(&self, old: u64) -> u64 {
        old & !self.mask | self.value & self.mask
    }

    fn halves(&self) -> [bool; 2] {
        [self.mask & LOW != 0, self.mask & !LOW != 0]
    }
}

const LOW: u64 = 0xffff_ffff;

/// One timer.
#[derive(Clone, Copy, Default)]
struct Timer {
    written: bool,
    /// Without Tn_VAL_SET_CNF.
    configuration: u32,
    /// The next comparator write sets the comparator of a periodic timer.
    value_set: bool,
    /// As last set by the guest. A periodic one advances by itself.
    comparator: Halves,
    /// The last value written in periodic mode.
    period: Halves,
    /// The FSB interrupt route.
    route: Halves,
    /// What the main counter shows in full when it meets the comparator.
    due: u64,
}

impl Timer {
    fn periodic(&self) -> bool {
        self.configuration & TN_TYPE_CNF != 0
    }

    fn narrow(&self) -> bool {
        self.configuration & TN_32MODE_CNF != 0
    }

    /// By how much a periodic one advances; 0 if it does not.
    fn step(&self) -> u64 {
        match (self.periodic(), self.narrow()) {
            (false, _) => 0,
            (true, true) => self.period.value & LOW,
            (true, false) => self.period.value,
        }
    }

    /// Notes when the comparator is met. It lies ahead if a periodic timer gets there within a period, or
    /// if it is less than half its range away; else it has been passed.
    fn aim(&mut self, counter: u64) {
        let ahead = self.comparator.value.wrapping_sub(counter);
        // CAST: a 32-bit comparator is compared in 32 bits, with a sign.
        let ahead = match self.narrow() {
            true if ahead & LOW <= self.step() => ahead & LOW,
            true => i64::from(ahead as u32 as i32) as u64,
            false => ahead,
        };
        self.due = counter.wrapping_add(ahead);
    }

    fn write_comparator(&mut self, lanes: &Lanes, counter: u64) {
        if self.periodic() {
            self.period.set(lanes);
        }
        if !self.periodic() || self.value_set {
            self.comparator.set(lanes);
        }
        self.aim(counter);
        self.value_set = false;
    }

    /// The comparator of a periodic timer has advanced with the counter.
    fn advance(&mut self, counter: u64) {
        let step = self.step();
        let past = counter.wrapping_sub(self.due);
        let ahead = self.due.wrapping_sub(counter);
        // CAST: negative is still ahead, as in `aim`.
        let is_ahead = (past as i64) < 0 || (ahead != 0 && ahead <= step);
        if step == 0 || !self.comparator.any() || is_ahead {
            return;
        }
        let steps = (past / step).saturating_add(1);
        self.due = self.due.wrapping_add(steps.wrapping_mul(step));
        self.comparator.value = match self.narrow() {
            true => self.comparator.value & !LOW | self.due & LOW,
            false => self.due,
        };
    }

    fn script(&self, base: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        let configure =
            |value: u32, sink: &mut dyn Sink| sink.store(BASE + base, 4, u64::from(value));
        let set = self.configuration | TN_VAL_SET_CNF;
        let stepping = self.periodic() && self.period.any();
        let (mut comparator, mut period) = (self.comparator, self.period);
        if stepping && !self.narrow() {
            // A half that the guest never wrote may have changed by a carry; and what is written to
            // the comparator's may become the period's.
            period.known = [true; 2];
            comparator.known = [comparator.any(); 2];
        }
        // Without a period yet: its comparator was set before it was made periodic.
        let first = match stepping {
            true => self.configuration,
            false => self.configuration & !TN_TYPE_CNF,
        };
        configure(first, sink)?;
        for access in comparator.accesses(base + 8) {
            if stepping {
                // Each write of a half takes the bit away.
                configure(set, sink)?;
            }
            sink.write(access)?;
        }
        for access in period.accesses(base + 8) {
            sink.write(access)?;
        }
        if first != self.configuration {
            configure(self.configuration, sink)?;
        }
        for access in self.route.accesses(base + 16) {
            sink.write(access)?;
        }
        match self.value_set {
            true => configure(set, sink),
            false => Ok(()),
        }
    }
}

/// See the module's description.
#[derive(Default)]
pub struct Hpet {
    capabilities: Halves,
    /// The guest has written anything.
    written: bool,
    configuration: u64,
    /// The main counter at `since_ns`.
    counter: u64,
    since_ns: u64,
    timers: [Timer; TIMERS],
}

impl Hpet {
    fn running(&self) -> bool {
        self.configuration & ENABLE_CNF != 0
    }

    fn counter(&self, now_ns: u64) -> u64 {
        let period = self.capabilities.value >> 32;
        if !self.running() || period == 0 {
            return self.counter;
        }
        let ns = now_ns.saturating_sub(self.since_ns);
        // In parts, as the product has more than 64 bits: the rest is below 2^32.
        let whole = (ns / period).wrapping_mul(FS_PER_NS);
        let rest = (ns % period).wrapping_mul(FS_PER_NS) / period;
        self.counter.wrapping_add(whole).wrapping_add(rest)
    }

    /// Counts on from now. What has passed of a tick is lost, as in a counter that is stopped.
    fn anchor(&mut self, now_ns: u64) {
        self.counter = self.counter(now_ns);
        self.since_ns = now_ns;
    }

    /// Comparators advance while the counter runs.
    fn settle(&mut self, now_ns: u64) {
        let counter = self.counter(now_ns);
        if self.running() {
            for timer in &mut self.timers {
                timer.advance(counter);
            }
        }
    }

    /// The counter shows `value` now.
    fn set_counter(&mut self, value: u64, now_ns: u64) {
        self.settle(now_ns);
        self.counter = value;
        self.since_ns = now_ns;
        for timer in &mut self.timers {
            timer.aim(value);
        }
    }

    fn write_timer(&mut self, offset: u64, lanes: &Lanes, now_ns: u64) {
        self.settle(now_ns);
        let counter = self.counter(now_ns);
        let number = usize::try_from(offset / TIMER_SIZE).unwrap_or(TIMERS);
        let Some(timer) = self.timers.get_mut(number) else {
            return;
        };
        timer.written = true;
        match offset % TIMER_SIZE {
            0 if lanes.mask & LOW != 0 => {
                // CAST: the high half is read only.
                let value = lanes.value as u32;
                timer.configuration = value & TN_WRITABLE;
                timer.value_set = value & TN_VAL_SET_CNF != 0;
                if !timer.periodic() {
                    // Whoever makes it periodic again gives it a period.
                    timer.period = Halves::default();
                }
                if timer.narrow() {
                    timer.comparator.forget_high();
                    timer.period.forget_high();
                }
                timer.aim(counter);
            }
            8 if timer.narrow() => {
                // A timer of 32 bits has no other half.
                let low = Lanes {
                    value: lanes.value,
                    mask: lanes.mask & LOW,
                };
                if low.mask != 0 {
                    timer.write_comparator(&low, counter);
                }
            }
            8 => timer.write_comparator(lanes, counter),
            16 => timer.route.set(lanes),
            _ => {}
        }
    }
}

impl Chip for Hpet {
    fn name(&self) -> &'static str {
        "HPET"
    }

    fn claims(&self, access: &Access) -> bool {
        access.offset_in(Space::Memory, BASE, SIZE).is_some()
    }

    fn wide(&self) -> bool {
        true
    }

    fn write(&mut self, access: &Access, now_ns: u64) {
        let Some((offset, lanes)) = Lanes::of(access) else {
            return;
        };
        match offset {
            CONFIGURATION => {
                let configuration = lanes.merge(self.configuration);
                if (configuration ^ self.configuration) & ENABLE_CNF != 0 {
                    // The counter stands still or starts here.
                    self.settle(now_ns);
                    self.anchor(now_ns);
                }
                self.configuration = configuration;
            }
            COUNTER => {
                let value = lanes.merge(self.counter(now_ns));
                self.set_counter(value, now_ns);
            }
            TIMER.. => self.write_timer(offset - TIMER, &lanes, now_ns),
            _ => return,
        }
        self.written = true;
    }

    fn read(&mut self, access: &Access, now_ns: u64) {
        let Some((offset, lanes)) = Lanes::of(access) else {
            return;
        };
        match offset {
            CAPABILITIES => {
                let mut capabilities = self.capabilities;
                capabilities.set(&lanes);
                if capabilities.value != self.capabilities.value {
                    // What has passed until now did so at a period that was not known.
                    self.anchor(now_ns);
                }
                self.capabilities = capabilities;
            }
            COUNTER => {
                let expected = self.counter(now_ns);
                let mut value = lanes.merge(expected);
                if lanes.mask == LOW {
                    // The low half may have wrapped since: take the nearest.
                    let ahead = (value as u32).wrapping_sub(expected as u32);
                    // CAST: the difference of two halves, with a sign.
                    value = expected.wrapping_add(i64::from(ahead as i32) as u64);
                }
                self.counter = value;
                self.since_ns = now_ns;
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.capabilities = Halves::default();
        self.written = false;
        self.configuration = 0;
        self.counter = 0;
        self.since_ns = 0;
        self.timers.fill(Timer::default());
    }

    fn script(&self, now_ns: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        // The period above all: another one would make the guest's time run at another speed.
        for access in self.capabilities.accesses(CAPABILITIES) {
            sink.expect(access, u64::MAX)?;
        }
        if !self.written {
            return Ok(());
        }
        let counter = self.counter(now_ns);
        let halted = self.configuration & !ENABLE_CNF & LOW;
        sink.store(BASE + CONFIGURATION, 4, halted)?;
        sink.store(BASE + COUNTER, 4, counter & LOW)?;
        sink.store(BASE + COUNTER + 4, 4, counter >> 32)?;
        for (base, timer) in (TIMER..).step_by(TIMER_SIZE as usize).zip(&self.timers) {
            if timer.written {
                let mut timer = *timer;
                if self.running() {
                    timer.advance(counter);
                }
                timer.script(base, sink)?;
            }
        }
        Ok(())
    }

    fn start(&self, sink: &mut dyn Sink) -> Result<(), Full> {
        match self.running() {
            true => sink.store(BASE + CONFIGURATION, 4, self.configuration & LOW),
            false => Ok(()),
        }
    }
}
