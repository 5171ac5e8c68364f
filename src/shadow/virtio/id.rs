// SPDX-License-Identifier: GPL-2.0

//! What a device is known by, in this life of its VM and the next.

use core::fmt;

/// Where a virtio device is: an MMIO base, or a PCI bus, device and function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DeviceId(u64);

impl DeviceId {
    /// No device.
    pub const NONE: Self = Self(0);

    /// Told apart from an address by its lowest bit: registers are aligned.
    const PCI: u64 = 1;

    /// The device whose registers are at `base`.
    pub const fn mmio(base: u64) -> Self {
        Self(base & !1)
    }

    /// The PCI function `bdf`: bus in bits 15..8, device in 7..3, function in 2..0.
    pub const fn pci(bdf: u16) -> Self {
        Self(((bdf as u64) << 1) | Self::PCI)
    }

    /// As a number, for a record.
    pub const fn to_raw(self) -> u64 {
        self.0
    }

    /// From a number of [`DeviceId::to_raw`].
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The PCI function, if it is one.
    pub const fn bdf(self) -> Option<u16> {
        // CAST: made from 16 bits.
        if self.0 & Self::PCI != 0 {
            Some((self.0 >> 1) as u16)
        } else {
            None
        }
    }

    /// The base of its registers, if it is on no bus.
    pub const fn base(self) -> Option<u64> {
        if self.0 & Self::PCI == 0 {
            Some(self.0)
        } else {
            None
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bdf() {
            Some(bdf) => write!(f, "{:02x}:{:02x}.{}", bdf >> 8, (bdf >> 3) & 31, bdf & 7),
            None => write!(f, "mmio@{:x}", self.0),
        }
    }
}
