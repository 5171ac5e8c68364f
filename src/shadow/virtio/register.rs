// SPDX-License-Identifier: GPL-2.0

//! The registers of virtio devices, whatever the transport, and where each transport has them.

/// A part of a split virtqueue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Descriptor table.
    Desc,
    /// Driver area: available ring.
    Driver,
    /// Device area: used ring.
    Device,
}

/// A register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// MMIO: "virt".
    Magic,
    /// MMIO: 1 legacy, 2 modern.
    Version,
    /// MMIO: device type, 0 for none.
    DeviceType,
    /// Which word `DeviceFeatures` shows.
    DeviceFeaturesSelect,
    /// What the device offers.
    DeviceFeatures,
    /// Which word `DriverFeatures` takes.
    DriverFeaturesSelect,
    /// What the driver accepts.
    DriverFeatures,
    /// Legacy MMIO: bytes in a page of `Pfn`.
    PageSize,
    /// Device status.
    Status,
    /// MSI-X vector of configuration changes.
    ConfigVector,
    /// The queue that the registers below are about.
    QueueSelect,
    /// MMIO: the largest size of the queue.
    QueueSizeMax,
    /// PCI: largest size until written. MMIO: what the driver writes.
    QueueSize,
    /// MSI-X vector of the queue.
    QueueVector,
    /// The queue is live.
    QueueEnable,
    /// PCI: where the queue is notified.
    NotifyOffset,
    /// Half of an address.
    Address(Part, bool),
    /// Legacy MMIO: alignment of the used ring.
    Align,
    /// Legacy: page number of the queue, 0 for none.
    Pfn,
    /// Kicks.
    Notify,
    /// Interrupt status.
    Interrupt,
    /// MMIO: interrupt acknowledgement.
    Acknowledge,
    /// A register that configures nothing.
    Other,
}

/// How a driver reaches a device's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Section 4.2.2.
    Mmio,
    /// Section 4.2.4.
    MmioLegacy,
    /// `struct virtio_pci_common_cfg`, section 4.1.4.3.
    PciCommon,
    /// BAR 0 of a transitional device, section 4.1.4.10.
    PciLegacy,
    /// The same with MSI-X enabled.
    PciLegacyMsix,
}

/// Offset, bytes, register.
type Row = (u16, u8, Register);

use Register::*;

const MMIO: &[Row] = &[
    (0x000, 4, Magic),
    (0x004, 4, Version),
    (0x008, 4, DeviceType),
    (0x010, 4, DeviceFeatures),
    (0x014, 4, DeviceFeaturesSelect),
    (0x020, 4, DriverFeatures),
    (0x024, 4, DriverFeaturesSelect),
    (0x030, 4, QueueSelect),
    (0x034, 4, QueueSizeMax),
    (0x038, 4, QueueSize),
    (0x044, 4, QueueEnable),
    (0x050, 4, Notify),
    (0x060, 4, Interrupt),
    (0x064, 4, Acknowledge),
    (0x070, 4, Status),
    (0x080, 4, Address(Part::Desc, false)),
    (0x084, 4, Address(Part::Desc, true)),
    (0x090, 4, Address(Part::Driver, false)),
    (0x094, 4, Address(Part::Driver, true)),
    (0x0a0, 4, Address(Part::Device, false)),
    (0x0a4, 4, Address(Part::Device, true)),
];

const MMIO_LEGACY: &[Row] = &[
    (0x000, 4, Magic),
    (0x004, 4, Version),
    (0x008, 4, DeviceType),
    (0x010, 4, DeviceFeatures),
    (0x014, 4, DeviceFeaturesSelect),
    (0x020, 4, DriverFeatures),
    (0x024, 4, DriverFeaturesSelect),
    (0x028, 4, PageSize),
    (0x030, 4, QueueSelect),
    (0x034, 4, QueueSizeMax),
    (0x038, 4, QueueSize),
    (0x03c, 4, Align),
    (0x040, 4, Pfn),
    (0x050, 4, Notify),
    (0x060, 4, Interrupt),
    (0x064, 4, Acknowledge),
    (0x070, 4, Status),
];

const PCI_COMMON: &[Row] = &[
    (0x00, 4, DeviceFeaturesSelect),
    (0x04, 4, DeviceFeatures),
    (0x08, 4, DriverFeaturesSelect),
    (0x0c, 4, DriverFeatures),
    (0x10, 2, ConfigVector),
    (0x14, 1, Status),
    (0x16, 2, QueueSelect),
    (0x18, 2, QueueSize),
    (0x1a, 2, QueueVector),
    (0x1c, 2, QueueEnable),
    (0x1e, 2, NotifyOffset),
    (0x20, 4, Address(Part::Desc, false)),
    (0x24, 4, Address(Part::Desc, true)),
    (0x28, 4, Address(Part::Driver, false)),
    (0x2c, 4, Address(Part::Driver, true)),
    (0x30, 4, Address(Part::Device, false)),
    (0x34, 4, Address(Part::Device, true)),
];

const PCI_LEGACY: &[Row] = &[
    (0x00, 4, DeviceFeatures),
    (0x04, 4, DriverFeatures),
    (0x08, 4, Pfn),
    (0x0c, 2, QueueSize),
    (0x0e, 2, QueueSelect),
    (0x10, 2, Notify),
    (0x12, 1, Status),
    (0x13, 1, Interrupt),
    (0x14, 2, ConfigVector),
    (0x16, 2, QueueVector),
];

impl Layout {
    fn rows(self) -> &'static [Row] {
        match self {
            Layout::Mmio => MMIO,
            Layout::MmioLegacy => MMIO_LEGACY,
            Layout::PciCommon => PCI_COMMON,
            Layout::PciLegacyMsix => PCI_LEGACY,
            // The vectors' registers are there only if MSI-X is on.
            Layout::PciLegacy => PCI_LEGACY.split_last_chunk::<2>().map_or(&[], |s| s.0),
        }
    }

    /// The register at an offset, for an access of `len` bytes. PCI registers may be accessed by
    /// narrower accesses only by drivers that break the rules (section 4.1.3.1).
    pub fn register(self, offset: u64, len: u8) -> Register {
        let row = |&&(at, wide, _): &&Row| u64::from(at) == offset && wide == len;
        self.rows().iter().find(row).map_or(Other, |row| row.2)
    }

    /// Offset and width of a register.
    pub fn locate(self, register: Register) -> Option<(u64, u8)> {
        let row = self.rows().iter().find(|row| row.2 == register)?;
        Some((u64::from(row.0), row.1))
    }

    /// Where the device's own configuration begins, for transports that have it behind the
    /// registers.
    pub fn config(self) -> Option<u64> {
        match self {
            Layout::Mmio | Layout::MmioLegacy => Some(0x100),
            Layout::PciLegacy => Some(0x14),
            Layout::PciLegacyMsix => Some(0x18),
            Layout::PciCommon => None,
        }
    }

    /// Whether it is the interface from before virtio 1.0.
    pub fn is_legacy(self) -> bool {
        !matches!(self, Layout::Mmio | Layout::PciCommon)
    }
}
