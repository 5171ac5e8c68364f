// SPDX-License-Identifier: GPL-2.0

//! The selector of QEMU's firmware configuration device (`docs/specs/fw_cfg.rst`), ports 0x510 to
//! 0x51B.
//!
//! Selecting an item starts at its first byte. How much of it the guest has read since is not
//! carried: that would be one read per byte. Firmware and drivers select before they read. The DMA
//! interface writes guest memory, so it is never replayed.

use super::chip::{port, Chip};
use crate::shadow::{Access, Full, Sink};

const SELECTOR: u16 = 0x510;
const LAST: u16 = 0x51b;

/// See the module's description.
#[derive(Default)]
pub struct FwCfg {
    selected: Selector,
}

/// A selector, once written.
#[derive(Clone, Copy, Default)]
struct Selector {
    value: u16,
    written: bool,
}

impl Chip for FwCfg {
    fn name(&self) -> &'static str {
        "fw_cfg selector"
    }

    fn claims(&self, access: &Access) -> bool {
        matches!(port(access), Some(SELECTOR..=LAST))
    }

    fn wide(&self) -> bool {
        true
    }

    fn write(&mut self, access: &Access, _: u64) {
        if port(access) == Some(SELECTOR) {
            self.selected = Selector {
                value: u16::from_le_bytes([access.byte(0), access.byte(1)]),
                written: true,
            };
        }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn script(&self, _: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        match self.selected.written {
            true => sink.out(SELECTOR, 2, u64::from(self.selected.value)),
            false => Ok(()),
        }
    }
}
