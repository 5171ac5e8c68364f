// SPDX-License-Identifier: GPL-2.0

//! The clock chip with its CMOS RAM: Motorola MC146818A, at ports 0x70 (index, and the NMI mask)
//! and 0x71 (data).
//!
//! The time is the VMM's: a fresh chip is set from the host's clock, which has gone on during the outage.
//! So it is not replayed, not even if the guest has set it: guests set it to the true time, and what they
//! wrote is no longer that. What a guest loses is a deliberate difference to the VMM's time (local time,
//! say); that is reported. Only a time that is being set (SET in register B) is pending, and carried.
//!
//! Register C, the interrupt flags, is cleared when it is read. It cannot be written; an
//! alarm that fell into the outage does not ring.

use super::chip::{out, out_kept, port, Chip, Kept};
use crate::shadow::{Access, Full, Sink};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
/// What the firmware is to do after a reset of the processor.
const SHUTDOWN_STATUS: u8 = 0x0f;

/// Register A, read only: an update is in progress.
const UIP: u8 = 1 << 7;
/// Register B: updates are halted, the time is being set.
const SET: u8 = 1 << 7;

/// Whether a register counts: seconds, minutes, hours, day of week and month, month, year, and the
/// century where PCs keep it.
fn counts(register: u8) -> bool {
    matches!(register, 0 | 2 | 4 | 6..=9 | 0x32 | 0x37)
}

/// See the module's description.
pub struct Rtc {
    /// With the NMI mask in bit 7.
    index: Kept,
    registers: [Kept; 128],
    time_set: bool,
}

impl Default for Rtc {
    fn default() -> Self {
        Self {
            index: Kept::default(),
            registers: [Kept::default(); 128],
            time_set: false,
        }
    }
}

impl Rtc {
    fn register(&self, register: u8) -> Kept {
        let kept = self.registers.get(usize::from(register));
        kept.copied().unwrap_or_default()
    }

    fn being_set(&self) -> bool {
        self.register(REGISTER_B).get().unwrap_or(0) & SET != 0
    }

    fn write_data(&mut self, register: u8, value: u8) {
        if counts(register) && !self.being_set() {
            self.time_set = true;
            return;
        }
        let value = match register {
            REGISTER_A => value & !UIP,
            REGISTER_C => return,
            _ => value,
        };
        if register == REGISTER_B && value & SET == 0 {
            // The clock runs on from what was set.
            for (at, kept) in (0u8..).zip(&mut self.registers) {
                if counts(at) && kept.get().is_some() {
                    self.time_set = true;
                    kept.clear();
                }
            }
        }
        let Some(kept) = self.registers.get_mut(usize::from(register)) else {
            return;
        };
        kept.set(value);
        if register == SHUTDOWN_STATUS && value == 0 {
            // As after power-on. Some VMMs take this very write for the request of a reset.
            kept.clear();
        }
    }

    fn replay(&self, register: u8, sink: &mut dyn Sink) -> Result<(), Full> {
        match self.register(register).get() {
            Some(value) => {
                out(sink, INDEX, register)?;
                out(sink, DATA, value)
            }
            None => Ok(()),
        }
    }
}

impl Chip for Rtc {
    fn name(&self) -> &'static str {
        "MC146818 clock and CMOS RAM"
    }

    fn claims(&self, access: &Access) -> bool {
        matches!(port(access), Some(INDEX | DATA))
    }

    fn write(&mut self, access: &Access, _: u64) {
        match port(access) {
            Some(INDEX) => self.index.set(access.byte(0)),
            Some(DATA) => {
                if let Some(index) = self.index.get() {
                    self.write_data(index & 0x7f, access.byte(0));
                }
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn script(&self, _: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        // The rate and the alarms before register B, which enables their interrupts; a time that is
        // being set after it, as SET has to be on.
        self.replay(REGISTER_A, sink)?;
        (0..128)
            .filter(|&r| !counts(r) && r != REGISTER_A && r != REGISTER_B)
            .try_for_each(|r| self.replay(r, sink))?;
        self.replay(REGISTER_B, sink)?;
        (0..128)
            .filter(|&r| counts(r))
            .try_for_each(|r| self.replay(r, sink))?;
        out_kept(sink, INDEX, self.index)
    }

    fn lost(&self) -> Option<&'static str> {
        self.time_set
            .then_some("the guest has set the clock; a new VMM's clock shows the VMM's time")
    }
}
