// SPDX-License-Identifier: GPL-2.0

//! Single ports of a PC that belong to no chip.
//!
//! One has state, port 0x92: bit 1 is the A20 gate, bit 0 resets the processor and is never replayed. The
//! others are known so that they are not taken for devices: what is written there is an act.

use super::chip::{out_kept, port, Chip, Kept};
use crate::shadow::{Access, Full, Sink};

const PORT_A: u16 = 0x92;
const FAST_RESET: u8 = 1;

/// See the module's description.
#[derive(Default)]
pub struct Glue {
    port_a: Kept,
}

/// Whether writes to a port are acts: POST codes and delays (0x80), SMI commands and their status
/// (0xB2, 0xB3), text for debugging (0xE9, 0x402), pvpanic (0x505), resets (0xCF9).
fn is_act(port: u16) -> bool {
    matches!(port, 0x80 | 0xb2 | 0xb3 | 0xe9 | 0x402 | 0x505 | 0xcf9)
}

impl Chip for Glue {
    fn name(&self) -> &'static str {
        "port 0x92"
    }

    fn claims(&self, access: &Access) -> bool {
        port(access).is_some_and(|port| port == PORT_A || is_act(port))
    }

    fn write(&mut self, access: &Access, _: u64) {
        if port(access) == Some(PORT_A) {
            self.port_a.set(access.byte(0) & !FAST_RESET);
        }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn script(&self, _: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        out_kept(sink, PORT_A, self.port_a)
    }
}
