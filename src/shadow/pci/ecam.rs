// SPDX-License-Identifier: GPL-2.0

//! ECAM, configuration space in memory (PCI Express, section 7.2.2), where no register says where it is.
//!
//! It is known by how a guest looks for the host bridge: it reads the identity of bus 0, device 0,
//! function 0, and then its class, which must be that of a host bridge. The first address is the base, and
//! bus 0 begins at a multiple of the bytes of a bus. If the other mechanism has shown that function, it must
//! be the same. Other devices do not answer so by chance, and a guest that pretends it deceives only
//! itself: all that follows is that its own accesses there are taken for configuration.

use crate::shadow::{Access, Space};

/// Bytes of one bus.
const BUS: u64 = 1 << 20;
/// Bytes of all buses.
const SIZE: u64 = 256 * BUS;
/// Class code, subclass and interface of a host bridge.
const HOST_BRIDGE: u32 = 0x06_0000;

/// What the guest's reads have shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ecam {
    found: bool,
    base: u64,
    identity: u32,
}

impl Ecam {
    /// Base and bytes, if found.
    pub fn window(&self) -> Option<(u64, u64)> {
        let end = self.base.checked_add(SIZE);
        (self.found && end.is_some()).then_some((self.base, SIZE))
    }

    /// Looks at the answer to a read. `known` is the identity of the host bridge, 0 if not known. Gives
    /// its identity and its class with revision when it has been found just now.
    pub fn look(&mut self, access: &Access, known: u32) -> Option<(u32, u32)> {
        if access.space != Space::Memory || access.len != 4 {
            return None;
        }
        // CAST: four bytes.
        let value = access.value as u32;
        if access.addr % BUS == 0 && access.addr != 0 {
            let some = !matches!(value & 0xffff, 0 | 1 | 0xffff);
            if some && (known == 0 || known == value) {
                self.base = access.addr;
                self.identity = value;
            }
            return None;
        }
        let class = self.base != 0 && Some(access.addr) == self.base.checked_add(8);
        self.found = class && value >> 8 == HOST_BRIDGE;
        self.found.then_some((self.identity, value))
    }
}
