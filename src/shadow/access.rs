// SPDX-License-Identifier: GPL-2.0

//! One access of a guest to a device.

/// The address space of an access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Space {
    /// I/O ports: KVM_EXIT_IO.
    #[default]
    Port,
    /// Guest physical memory: KVM_EXIT_MMIO.
    Memory,
}

/// A read or write as the VMM sees it. The value is in the low `len` bytes, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// Address space.
    pub space: Space,
    /// Port, or guest physical address.
    pub addr: u64,
    /// Bytes: 1, 2, 4 or 8. Whatever KVM reports otherwise is no access to a register.
    pub len: u8,
    /// What is written, or what was answered.
    pub value: u64,
}

impl Access {
    /// An access to an I/O port.
    pub const fn port(addr: u16, len: u8, value: u64) -> Self {
        Self {
            space: Space::Port,
            addr: addr as u64,
            len,
            value: value & mask(len),
        }
    }

    /// An access to memory.
    pub const fn memory(addr: u64, len: u8, value: u64) -> Self {
        Self {
            space: Space::Memory,
            addr,
            len,
            value: value & mask(len),
        }
    }

    /// The address after the last byte; the last one of all if there is none.
    pub const fn end(&self) -> u64 {
        self.addr.saturating_add(self.len as u64)
    }

    /// Where in `[base, base + size)` this access lies, if it lies there whole.
    pub fn offset_in(&self, space: Space, base: u64, size: u64) -> Option<u64> {
        let offset = self.addr.checked_sub(base)?;
        let end = offset.checked_add(u64::from(self.len))?;
        (self.space == space && end <= size).then_some(offset)
    }

    /// The byte of the value that belongs to address `addr + index`.
    pub const fn byte(&self, index: u8) -> u8 {
        // CAST: shifted down, the byte asked for is the lowest.
        match self.value.checked_shr(8 * index as u32) {
            Some(value) => value as u8,
            None => 0,
        }
    }
}

/// A value of `len` bytes with all bits set.
pub const fn mask(len: u8) -> u64 {
    match len {
        0 => 0,
        1..=7 => (1 << (8 * len as u32)) - 1,
        _ => u64::MAX,
    }
}
