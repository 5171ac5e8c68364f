// SPDX-License-Identifier: GPL-2.0

//! The block of general purpose events (ACPI 6.5, section 4.8.4.1) at 0xAFE0, where machines with a
//! PIIX4 have it beside the chipset's own: two bytes of status, then two of enables.
//!
//! Status is written to be cleared, and never replayed. An event that is pending in a fresh machine, or
//! becomes so, raises an SCI if it is enabled, as it would have before.

use super::chip::{out_kept, port, Chip, Kept};
use crate::shadow::{Access, Full, Sink};

/// GPE0_BLK, and the bytes of each half.
const BLOCK: u16 = 0xafe0;
const HALF: u16 = 2;

/// See the module's description.
#[derive(Default)]
pub struct Gpe {
    enables: [Kept; HALF as usize],
}

/// Which byte of the block.
fn offset(access: &Access) -> Option<u16> {
    let offset = port(access)?.checked_sub(BLOCK)?;
    (offset < 2 * HALF).then_some(offset)
}

impl Chip for Gpe {
    fn name(&self) -> &'static str {
        "ACPI general purpose events"
    }

    fn claims(&self, access: &Access) -> bool {
        offset(access).is_some()
    }

    fn write(&mut self, access: &Access, _: u64) {
        let enable = offset(access).and_then(|offset| offset.checked_sub(HALF));
        let Some(enable) = enable.and_then(|at| self.enables.get_mut(usize::from(at))) else {
            return;
        };
        enable.set(access.byte(0));
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn script(&self, _: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        (BLOCK + HALF..)
            .zip(&self.enables)
            .try_for_each(|(port, enable)| out_kept(sink, port, *enable))
    }
}
