// SPDX-License-Identifier: GPL-2.0

//! The registers of a virtio device, on each transport (virtio 1.3, sections 4.1 and 4.2).

/// How a driver reaches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Mmio,
    MmioLegacy,
    Pci,
    PciLegacy,
}

/// Bytes between the addresses of a queue's parts, by kind.
pub const PART: [u64; 4] = [0x10, 0, 8, 0];

type Row = (&'static str, u64, u8);

const MMIO: &[Row] = &[
    ("offered", 0x10, 4),
    ("offered select", 0x14, 4),
    ("accepted", 0x20, 4),
    ("accepted select", 0x24, 4),
    ("page size", 0x28, 4),
    ("queue", 0x30, 4),
    ("max", 0x34, 4),
    ("size", 0x38, 4),
    ("align", 0x3c, 4),
    ("pfn", 0x40, 4),
    ("enable", 0x44, 4),
    ("status", 0x70, 4),
    ("desc", 0x80, 4),
];

const PCI: &[Row] = &[
    ("offered select", 0, 4),
    ("offered", 4, 4),
    ("accepted select", 8, 4),
    ("accepted", 12, 4),
    ("config vector", 16, 2),
    ("status", 20, 1),
    ("queue", 22, 2),
    ("max", 24, 2),
    ("size", 24, 2),
    ("vector", 26, 2),
    ("enable", 28, 2),
    ("notify offset", 30, 2),
    ("desc", 32, 4),
];

const PCI_LEGACY: &[Row] = &[
    ("offered", 0, 4),
    ("accepted", 4, 4),
    ("pfn", 8, 4),
    ("max", 12, 2),
    ("queue", 14, 2),
    ("status", 18, 1),
];

impl Kind {
    fn rows(self) -> &'static [Row] {
        match self {
            Kind::Mmio | Kind::MmioLegacy => MMIO,
            Kind::Pci => PCI,
            Kind::PciLegacy => PCI_LEGACY,
        }
    }

    pub fn has(self, name: &str) -> bool {
        self.rows().iter().any(|row| row.0 == name)
    }

    /// Offset and width.
    pub fn register(self, name: &str) -> (u64, u8) {
        let row = self.rows().iter().find(|row| row.0 == name);
        row.map_or((0, 0), |row| (row.1, row.2))
    }

    pub fn is_legacy(self) -> bool {
        matches!(self, Kind::MmioLegacy | Kind::PciLegacy)
    }

    /// Words of features.
    pub fn words(self) -> u64 {
        if self.is_legacy() {
            1
        } else {
            2
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Queue {
    size: u64,
    vector: u64,
    enabled: u64,
    halves: [u64; 6],
    align: u64,
    pfn: u64,
}

const RESET: Queue = Queue {
    size: 0,
    vector: 0xffff,
    enabled: 0,
    halves: [0; 6],
    align: 0,
    pfn: 0,
};

#[derive(Clone, PartialEq, Debug)]
pub struct Virtio {
    pub kind: Kind,
    device: u64,
    status: u64,
    offered_select: u64,
    accepted_select: u64,
    accepted: [u64; 2],
    page_size: u64,
    config_vector: u64,
    select: u64,
    queues: [Queue; 2],
    config: [u8; 64],
}

/// Everything below bit 39, and two ring features; the hidden ones are among them.
const OFFERED: u64 = 0x0000_01cd_3000_0206;

/// The size that a device can do.
const MAX: u64 = 256;

impl Virtio {
    pub fn new(kind: Kind, device: u64) -> Self {
        Virtio {
            kind,
            device,
            status: 0,
            offered_select: 0,
            accepted_select: 0,
            accepted: [0; 2],
            page_size: 0,
            config_vector: 0xffff,
            select: 0,
            queues: [RESET; 2],
            config: core::array::from_fn(|i| 3 * i as u8),
        }
    }

    fn reset(&mut self) {
        *self = Virtio {
            page_size: self.page_size,
            offered_select: self.offered_select,
            accepted_select: self.accepted_select,
            select: self.select,
            ..Virtio::new(self.kind, self.device)
        };
    }

    /// DRIVER_OK
    pub fn runs(&self) -> bool {
        self.status & 4 != 0
    }

    fn config_at(&self, offset: u64, msix: bool) -> Option<usize> {
        let base = match self.kind {
            Kind::Mmio | Kind::MmioLegacy => 0x100,
            Kind::Pci => 0x2000,
            Kind::PciLegacy if msix => 0x18,
            Kind::PciLegacy => 0x14,
        };
        let at = offset.checked_sub(base)? as usize;
        (at < 64).then_some(at)
    }

    pub fn write(&mut self, offset: u64, len: u8, value: u64, msix: bool) {
        if let Some(at) = self.config_at(offset, msix) {
            let bytes = &value.to_le_bytes()[..len.into()];
            self.config[at..at + usize::from(len)].copy_from_slice(bytes);
            return;
        }
        let named = |row: &&Row| row.1 == offset && row.2 == len && row.0 != "max";
        let name = self.kind.rows().iter().find(named).map(|row| row.0);
        let part = PART[self.kind as usize];
        let desc = self.kind.register("desc").0;
        let queue = self.queues.get_mut(self.select as usize);
        match (name, queue) {
            (Some("status"), _) if value == 0 => self.reset(),
            (Some("status"), _) => self.status = value,
            (Some("offered select"), _) => self.offered_select = value,
            (Some("accepted select"), _) => self.accepted_select = value,
            (Some("accepted"), _) => {
                let word = if self.kind == Kind::PciLegacy {
                    0
                } else {
                    self.accepted_select
                };
                assert!(self.status & 2 != 0 && self.status & 8 == 0);
                self.accepted[word as usize] = value;
            }
            (Some("page size"), _) => self.page_size = value,
            (Some("config vector"), _) => self.config_vector = value,
            (Some("queue"), _) => self.select = value,
            (Some("size"), Some(q)) => q.size = value,
            (Some("vector"), Some(q)) => q.vector = value,
            (Some("align"), Some(q)) => q.align = value,
            (Some("pfn"), Some(q)) => q.pfn = value,
            (Some("enable"), Some(q)) => {
                assert!(
                    q.halves[0] != 0 || q.halves[1] != 0,
                    "enabled with its addresses"
                );
                q.enabled = value;
            }
            (_, Some(q)) if part != 0 && offset >= desc => {
                let at = offset - desc;
                let half = 2 * (at / part) + at % part / 4;
                if let Some(slot) = q.halves.get_mut(half as usize) {
                    assert_eq!(q.enabled, 0, "moved while enabled");
                    *slot = value;
                }
            }
            _ => {}
        }
    }

    pub fn read(&mut self, offset: u64, len: u8, msix: bool) -> u64 {
        if let Some(at) = self.config_at(offset, msix) {
            return super::get(&self.config, at, len.into());
        }
        if matches!(self.kind, Kind::Mmio | Kind::MmioLegacy) {
            match offset {
                0 => return 0x7472_6976,
                4 => return if self.kind == Kind::Mmio { 2 } else { 1 },
                8 => return self.device,
                12 => return 0x554d_4551,
                _ => {}
            }
        }
        let named = |row: &&Row| row.1 == offset && row.2 == len;
        let name = self.kind.rows().iter().find(named).map(|row| row.0);
        let queue = self.queues.get(self.select as usize);
        match name {
            Some("offered") => {
                let word = if self.kind == Kind::PciLegacy {
                    0
                } else {
                    self.offered_select
                };
                (OFFERED >> (32 * word)) & 0xffff_ffff
            }
            Some("status") => self.status,
            Some("max") => match queue {
                Some(q) if self.kind == Kind::Pci && q.size != 0 => q.size,
                Some(_) => MAX,
                None => 0,
            },
            Some("notify offset") => self.select,
            _ => 0,
        }
    }
}
