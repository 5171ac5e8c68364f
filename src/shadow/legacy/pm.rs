// SPDX-License-Identifier: GPL-2.0

//! The power management registers of a PC's chipset, in the I/O space at PMBASE: ACPI's fixed
//! hardware (ACPI 6.5, section 4.8) as PIIX4 and ICH9 have it.
//!
//! PMBASE is a register of PCI configuration space: who follows that tells us. The two chipsets agree
//! where they have the same registers; where one has a register that is kept, the other has none, or one that
//! is as harmless to write again. Not replayed: status (written to be cleared), SLP_EN, and the bits that
//! raise an interrupt when they are written. The timer is read only, and starts anew.

use super::chip::Chip;
use crate::shadow::{Access, Full, Sink, Space};

/// The block's length (ICH9; PIIX4's is half of it).
const SIZE: u64 = 0x80;

const PM1_CNT: usize = 0x04;

/// A register that is kept: where, how many bytes, how wide the accesses that replay it, and the
/// bits that are acts instead of state.
struct Register {
    at: usize,
    len: usize,
    width: usize,
    acts: u32,
}

const REGISTERS: [Register; 7] = [
    // SMI_EN; BIOS_RLS raises an SCI.
    register(0x30, 4, 4, 1 << 7),
    // PIIX4's processor control, and ICH9's.
    register(0x10, 4, 4, 0),
    // PIIX4's GPEN.
    register(0x0e, 2, 2, 0),
    // ICH9's GPE0_EN. ACPI accesses blocks of general purpose events by bytes.
    register(0x28, 8, 1, 0),
    register(0x42, 1, 1, 0),
    // PM1a enable.
    register(0x02, 2, 2, 0),
    // PM1a control; GBL_RLS raises an SMI, SLP_EN enters a sleep state.
    register(PM1_CNT, 2, 2, (1 << 2) | (1 << 13)),
];

const fn register(at: usize, len: usize, width: usize, acts: u32) -> Register {
    Register {
        at,
        len,
        width,
        acts,
    }
}

/// PM1a control: interrupts are SCIs, not SMIs. Firmware sets it on request, so it is also learned from
/// what the guest reads.
const SCI_EN: u8 = 1;

/// See the module's description.
pub struct Pm {
    /// PMBASE; 0 is none.
    base: u16,
    bytes: [u8; SIZE as usize],
    written: [bool; SIZE as usize],
}

impl Default for Pm {
    fn default() -> Self {
        Self {
            base: 0,
            bytes: [0; SIZE as usize],
            written: [false; SIZE as usize],
        }
    }
}

impl Pm {
    /// The block is at `base` now; 0 if it is nowhere.
    pub fn set_base(&mut self, base: u16) {
        self.base = base;
    }

    fn offset(&self, access: &Access) -> Option<usize> {
        let base = u64::from(self.base);
        let offset = access.offset_in(Space::Port, base, SIZE)?;
        usize::try_from(offset).ok().filter(|_| base != 0)
    }

    fn keep(&mut self, at: usize, value: u8) {
        let acts = |r: &Register| match at.checked_sub(r.at) {
            // CAST: the byte of the register that is at `at`.
            Some(byte) if byte < r.len => {
                Some(r.acts.checked_shr(8 * byte as u32).unwrap_or(0) as u8)
            }
            _ => None,
        };
        let Some(acts) = REGISTERS.iter().find_map(acts) else {
            return;
        };
        if let (Some(byte), Some(written)) = (self.bytes.get_mut(at), self.written.get_mut(at)) {
            *byte = value & !acts;
            *written = true;
        }
    }
}

impl Chip for Pm {
    fn name(&self) -> &'static str {
        "ACPI power management"
    }

    fn claims(&self, access: &Access) -> bool {
        self.offset(access).is_some()
    }

    fn wide(&self) -> bool {
        true
    }

    fn write(&mut self, access: &Access, _: u64) {
        let Some(offset) = self.offset(access) else {
            return;
        };
        for index in 0..access.len {
            self.keep(
                offset.saturating_add(usize::from(index)),
                access.byte(index),
            );
        }
    }

    fn read(&mut self, access: &Access, _: u64) {
        if self.offset(access) != Some(PM1_CNT) {
            return;
        }
        let known = self.bytes.get(PM1_CNT).copied().unwrap_or(0);
        let sci = access.byte(0) & SCI_EN;
        if known & SCI_EN != sci {
            self.keep(PM1_CNT, known & !SCI_EN | sci);
        }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn script(&self, _: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        for r in &REGISTERS {
            for at in (r.at..r.at + r.len).step_by(r.width) {
                let bytes = self.bytes.iter().zip(&self.written);
                let mut any = false;
                let mut value = 0;
                for (index, (byte, written)) in bytes.skip(at).take(r.width).enumerate() {
                    any |= *written;
                    value |= u64::from(*byte) << (8 * index);
                }
                if any {
                    // INVARIANT: `at` is below SIZE; a block at the end of the ports wraps nowhere.
                    let port = self.base.saturating_add(at as u16);
                    sink.out(port, r.width as u8, value)?;
                }
            }
        }
        Ok(())
    }
}
