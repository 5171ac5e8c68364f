// SPDX-License-Identifier: GPL-2.0

//! Capabilities in configuration space (PCI 3.0, section 6.7), as far as the guest has read them.

use super::function::Function;

/// Power management (PCI Power Management 1.2).
pub const PM: u8 = 0x01;
/// Message signalled interrupts.
pub const MSI: u8 = 0x05;
/// Vendor specific; virtio's are.
pub const VENDOR: u8 = 0x09;
/// PCI Express.
pub const EXPRESS: u8 = 0x10;
/// MSI-X.
pub const MSIX: u8 = 0x11;

/// A capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capability {
    /// Its identifier.
    pub id: u8,
    /// Where it begins; 0 for none.
    pub at: u8,
}

/// The list of a function. It ends where the guest stopped reading.
pub struct Capabilities<'a> {
    function: &'a Function,
    next: u8,
    /// A list that fits into configuration space is no longer than this.
    left: u8,
}

impl<'a> Capabilities<'a> {
    /// The list that register 0x34 points to.
    pub fn of(function: &'a Function) -> Self {
        Self {
            function,
            next: function.seen(0x34).unwrap_or(0) & !3,
            left: 48,
        }
    }
}

impl Iterator for Capabilities<'_> {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        let at = self.next;
        if at < 0x40 {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let id = self.function.seen(at)?;
        self.next = self.function.seen(at.checked_add(1)?).unwrap_or(0) & !3;
        Some(Capability { id, at })
    }
}

/// The MSI-X table, as its capability tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MsixTable {
    /// Where the capability begins; 0 for none.
    pub at: u8,
    /// The BAR that shows the table.
    pub bar: u8,
    /// Where in it.
    pub offset: u32,
    /// Entries.
    pub count: u16,
}

impl MsixTable {
    /// PCI 3.0, section 6.8.2.
    pub fn parse(function: &Function) -> Option<Self> {
        let found = Capabilities::of(function).find(|cap| cap.id == MSIX)?;
        let control = function.seen_u16(found.at.checked_add(2)?)?;
        let table = function.seen_u32(found.at.checked_add(4)?)?;
        Some(Self {
            at: found.at,
            // CAST: three bits.
            bar: (table & 7) as u8,
            offset: table & !7,
            count: (control & 0x7ff) + 1,
        })
    }
}

/// A structure of a virtio device (virtio 1.3, section 4.1.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// It was found.
    pub known: bool,
    /// The BAR that shows it.
    pub bar: u8,
    /// Where in it.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

impl Place {
    /// Where in this structure an access to a BAR lies.
    pub fn within(&self, bar: usize, offset: u64) -> Option<u64> {
        let inner = offset.checked_sub(self.offset.into())?;
        (self.known && usize::from(self.bar) == bar && inner < self.len.into()).then_some(inner)
    }
}

/// Where a virtio device has its structures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Places {
    /// VIRTIO_PCI_CAP_COMMON_CFG
    pub common: Place,
    /// VIRTIO_PCI_CAP_NOTIFY_CFG
    pub notify: Place,
    /// `notify_off_multiplier`
    pub multiplier: u32,
    /// VIRTIO_PCI_CAP_ISR_CFG
    pub isr: Place,
    /// VIRTIO_PCI_CAP_DEVICE_CFG
    pub device: Place,
    /// Where VIRTIO_PCI_CAP_PCI_CFG begins; 0 for none.
    pub window: u8,
}

impl Places {
    /// Reads the list. Of several structures of a type, a driver uses the first it can.
    pub fn parse(function: &Function) -> Self {
        let mut places = Self::default();
        for cap in Capabilities::of(function).filter(|cap| cap.id == VENDOR) {
            let field = |offset: u8| cap.at.checked_add(offset);
            let Some(kind) = field(3).and_then(|at| function.seen(at)) else {
                continue;
            };
            if kind == 5 {
                places.window = cap.at;
                continue;
            }
            let bar = field(4).and_then(|at| function.seen(at));
            let offset = field(8).and_then(|at| function.seen_u32(at));
            let (Some(bar), Some(offset)) = (bar, offset) else {
                continue;
            };
            let place = Place {
                known: true,
                bar,
                offset,
                // Drivers that do not look at the length use what the structure must have.
                len: field(12)
                    .and_then(|at| function.seen_u32(at))
                    .unwrap_or(0x1000),
            };
            let slot = match kind {
                1 => &mut places.common,
                2 => &mut places.notify,
                3 => &mut places.isr,
                4 => &mut places.device,
                _ => continue,
            };
            if slot.known || bar > 5 {
                continue;
            }
            *slot = place;
            if kind == 2 {
                let multiplier = field(16).and_then(|at| function.seen_u32(at));
                places.multiplier = multiplier.unwrap_or(0);
            }
        }
        places
    }
}
