// SPDX-License-Identifier: GPL-2.0

//! The two interrupt controllers of a PC: Intel 8259A, and the edge/level control registers (ELCR).
//!
//! In-service bits are set by an interrupt acknowledge cycle only, so they cannot be replayed. Their loss is
//! harmless: the guest's end of interrupt finds no bit and clears none; until then an interrupt of lower
//! priority may come, as it may in a guest that uses special mask mode, if its handler has enabled interrupts.
//! Requests cannot be written either: a line that is still active raises its own again.
//!
//! Rotation with a non-specific EOI, or automatically, gives the lowest priority to the level that
//! was in service. That is not seen from outside; it is reported, and the fresh chip starts unrotated.

use super::chip::{out, out_kept, port, Chip, Kept};
use crate::shadow::{Access, Full, Sink};

const BASE: [u16; 2] = [0x20, 0xa0];
const ELCR: [u16; 2] = [0x4d0, 0x4d1];

/// In a write with A0 = 0: ICW1.
const ICW1: u8 = 1 << 4;
/// In one that is not ICW1: OCW3, else OCW2.
const OCW3: u8 = 1 << 3;
/// ICW1: there will be an ICW4.
const IC4: u8 = 1;
/// ICW1: no cascade, there will be no ICW3.
const SNGL: u8 = 1 << 1;

/// OCW3: SMM is meant; special mask mode.
const ESMM: u8 = 1 << 6;
const SMM: u8 = 1 << 5;
/// OCW3: the next read acknowledges.
const POLL: u8 = 1 << 2;
/// OCW3: RIS is meant; reads show the in-service register.
const RR: u8 = 1 << 1;
const RIS: u8 = 1;

/// OCW2: rotate, specific, end of interrupt; the level is below.
const ROTATE: u8 = 1 << 7;
const SPECIFIC: u8 = 1 << 6;
const EOI: u8 = 1 << 5;

/// One 8259A.
#[derive(Clone, Copy, Default)]
struct Pic {
    icw1: Kept,
    /// ICW2 to ICW4.
    icw: [u8; 3],
    /// Which of ICW2 to ICW4 is next; 0 when the chip is initialized.
    next: u8,
    imr: Kept,
    special_mask: bool,
    read_in_service: bool,
    poll: bool,
    rotate_automatically: bool,
    /// By how much priorities are rotated: the level after the lowest, 0 after ICW1.
    highest: u8,
    rotation_lost: bool,
}

impl Pic {
    fn has(&self, icw: u8) -> bool {
        let icw1 = self.icw1.get().unwrap_or(0);
        match icw {
            2 => true,
            3 => icw1 & SNGL == 0,
            4 => icw1 & IC4 != 0,
            _ => false,
        }
    }

    fn write_low(&mut self, value: u8) {
        if value & ICW1 != 0 {
            // Masks, priorities, special mask mode, the register to read: all as after power-on.
            *self = Self {
                next: 2,
                ..Self::default()
            };
            self.icw1.set(value);
        } else if value & OCW3 != 0 {
            if value & ESMM != 0 {
                self.special_mask = value & SMM != 0;
            }
            if value & RR != 0 {
                self.read_in_service = value & RIS != 0;
            }
            self.poll = value & POLL != 0;
        } else {
            match value & (ROTATE | SPECIFIC | EOI) {
                0 => self.rotate_automatically = false,
                ROTATE => {
                    self.rotate_automatically = true;
                    self.rotation_lost = true;
                }
                v if v == ROTATE | EOI => self.rotation_lost = true,
                v if v & (ROTATE | SPECIFIC) == ROTATE | SPECIFIC => {
                    self.highest = (value & 7).wrapping_add(1) & 7;
                }
                _ => {}
            }
        }
    }

    fn write_high(&mut self, value: u8) {
        let at = usize::from(self.next.wrapping_sub(2));
        match self.icw.get_mut(at) {
            Some(icw) => {
                *icw = value;
                let after = self.next.saturating_add(1)..=4;
                self.next = after.into_iter().find(|&n| self.has(n)).unwrap_or(0);
            }
            None => self.imr.set(value),
        }
    }

    fn initialize(&self, base: u16, sink: &mut dyn Sink) -> Result<(), Full> {
        out_kept(sink, base, self.icw1)?;
        if self.icw1.get().is_none() {
            return Ok(());
        }
        let given = if self.next == 0 { 5 } else { self.next };
        (2..given)
            .zip(self.icw)
            .filter(|(n, _)| self.has(*n))
            .try_for_each(|(_, value)| out(sink, base + 1, value))
    }

    fn operate(&self, base: u16, sink: &mut dyn Sink) -> Result<(), Full> {
        if self.highest != 0 {
            out(sink, base, ROTATE | SPECIFIC | (self.highest - 1))?;
        }
        if self.rotate_automatically {
            out(sink, base, ROTATE)?;
        }
        if self.special_mask {
            out(sink, base, OCW3 | ESMM | SMM)?;
        }
        if self.read_in_service {
            out(sink, base, OCW3 | RR | RIS)?;
        }
        if self.poll {
            out(sink, base, OCW3 | POLL)?;
        }
        out_kept(sink, base + 1, self.imr)
    }
}

/// See the module's description.
#[derive(Default)]
pub struct Pics {
    pics: [Pic; 2],
    elcr: [Kept; 2],
}

impl Pics {
    fn pic(&mut self, port: u16) -> Option<&mut Pic> {
        let which = BASE.iter().position(|base| port & !1 == *base)?;
        self.pics.get_mut(which)
    }
}

impl Chip for Pics {
    fn name(&self) -> &'static str {
        "8259A interrupt controllers"
    }

    fn claims(&self, access: &Access) -> bool {
        matches!(
            port(access),
            Some(0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1)
        )
    }

    fn write(&mut self, access: &Access, _: u64) {
        let Some(port) = port(access) else { return };
        let value = access.byte(0);
        if let Some(pic) = self.pic(port) {
            match port & 1 {
                0 => pic.write_low(value),
                _ => pic.write_high(value),
            }
        } else if let Some(which) = ELCR.iter().position(|elcr| port == *elcr) {
            if let Some(elcr) = self.elcr.get_mut(which) {
                elcr.set(value);
            }
        }
    }

    fn read(&mut self, access: &Access, _: u64) {
        // The first read after a poll command is its answer.
        if let Some(pic) = port(access).and_then(|port| self.pic(port)) {
            pic.poll = false;
        }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn script(&self, _: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        for (base, pic) in BASE.iter().zip(&self.pics) {
            pic.initialize(*base, sink)?;
        }
        for (port, elcr) in ELCR.iter().zip(self.elcr) {
            out_kept(sink, *port, elcr)?;
        }
        // The slave's mask before the master's, whose level 2 it is.
        for (base, pic) in BASE.iter().zip(&self.pics).rev() {
            pic.operate(*base, sink)?;
        }
        Ok(())
    }

    fn lost(&self) -> Option<&'static str> {
        self.pics
            .iter()
            .any(|pic| pic.rotation_lost)
            .then_some("priorities were rotated by the interrupts in service")
    }
}
