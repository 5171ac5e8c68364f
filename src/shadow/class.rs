// SPDX-License-Identifier: GPL-2.0

//! Which devices a VM can be kept with: the rule per virtio device type and per class of PCI function.
//!
//! A device is carried by what its driver wrote to its registers, and its requests are made again. For
//! some classes that is not all there is: their models keep more, or a request is not the same twice.

use super::access::{Access, Space};
use super::virtio::DeviceId;
use core::fmt;

/// What becomes of a device when its VM goes on under another VMM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeping {
    /// It goes on.
    Kept,
    /// It starts as fresh, and a guest that used it lives with that.
    Fresh,
    /// What its model knew is lost to a guest that had put it to use.
    Lost,
}

/// A virtio device type (virtio 1.3, section 5): number, name, whether it is kept.
type Row = (u32, &'static str, bool);

const TYPES: &[Row] = &[
    // Frames may be lost and doubled.
    (1, "virtio-net", true),
    // A request has the same result twice; but see `ZONED`.
    (2, "virtio-blk", true),
    (3, "virtio-console", true),
    (4, "virtio-rng", true),
    // A page that is given to the host twice is given.
    (5, "virtio-balloon", true),
    (6, "virtio ioMemory", false),
    (7, "virtio-rpmsg", false),
    // Commands are those of a disk; resets and reservations are asked for again.
    (8, "virtio-scsi", true),
    // Open files are numbers in the model.
    (9, "virtio-9p", false),
    (10, "virtio wlan", false),
    (11, "virtio rproc serial", false),
    (12, "virtio CAIF", false),
    (13, "virtio memory balloon", false),
    // Resources and contexts are made by commands.
    (16, "virtio-gpu", false),
    (17, "virtio timer", false),
    (18, "virtio-input", false),
    // A connection that the other end does not know is reset by it.
    (19, "virtio-vsock", true),
    // Sessions are made by commands.
    (20, "virtio-crypto", false),
    (21, "virtio signal distribution", false),
    (22, "virtio-pstore", false),
    // Domains and mappings are made by requests.
    (23, "virtio-iommu", false),
    // What is plugged is changed by requests.
    (24, "virtio-mem", false),
    (25, "virtio-sound", false),
    // Open files are numbers in the model.
    (26, "virtio-fs", false),
    // Its only request is a flush.
    (27, "virtio-pmem", true),
    (28, "virtio-rpmb", false),
    (29, "virtio hwsim", false),
    (30, "virtio video encoder", false),
    (31, "virtio video decoder", false),
    (32, "virtio-scmi", false),
    (33, "virtio secure module", false),
    (34, "virtio-i2c", false),
    (35, "virtio watchdog", false),
    (36, "virtio-can", false),
    (38, "virtio parameter server", false),
    (39, "virtio audio policy", false),
    (40, "virtio bluetooth", false),
    (41, "virtio-gpio", false),
    (42, "virtio-rdma", false),
];

const BLOCK: u32 = 2;
/// VIRTIO_BLK_F_ZONED: an append that is made twice writes twice (section 5.2.6.2).
const ZONED: u64 = 1 << 17;

/// What a virtio device type is called.
pub fn virtio_name(kind: u32) -> &'static str {
    let row = TYPES.iter().find(|row| row.0 == kind);
    row.map_or("unknown virtio device", |row| row.1)
}

/// What becomes of a virtio device of a type whose driver accepted these features. Types that are not
/// known are not carried.
pub fn virtio(kind: u32, accepted: u64) -> Keeping {
    let row = TYPES.iter().find(|row| row.0 == kind);
    let kept = row.is_some_and(|row| row.2);
    let zoned = kind == BLOCK && accepted & ZONED != 0;
    if kept && !zoned {
        Keeping::Kept
    } else {
        Keeping::Lost
    }
}

/// Class and subclass of PCI functions (PCI Code and ID Assignment 1.11, section 1).
const IDE: u32 = 0x0101;
const AHCI: u32 = 0x0106;
const SMBUS: u32 = 0x0c05;
const DISPLAY: u32 = 0x03;
const BRIDGE: u32 = 0x06;

/// What a PCI function is called; `class` is its class code.
pub fn function_name(class: u32) -> &'static str {
    match (class >> 8, class >> 16) {
        (IDE, _) => "IDE controller",
        (AHCI, _) => "AHCI controller",
        (0x0108, _) => "NVMe controller",
        (0x0c03, _) => "USB controller",
        (SMBUS, _) => "SMBus controller",
        (_, 0x01) => "mass storage controller",
        (_, 0x02) => "network controller",
        (_, DISPLAY) => "display controller",
        (_, 0x04) => "multimedia device",
        (_, 0x05) => "memory controller",
        (0x0600, _) => "host bridge",
        (_, BRIDGE) => "bridge",
        (_, 0x07) => "communication controller",
        (_, 0x0c) => "serial bus controller",
        _ => "PCI function",
    }
}

/// What becomes of a PCI function that is no virtio device: its configuration space is all that is carried.
pub fn function(class: u32) -> Keeping {
    match (class >> 8, class >> 16) {
        // Configuration is all that the guest ever gives them.
        (SMBUS, _) | (_, BRIDGE) => Keeping::Kept,
        // What is shown is lost, and no data.
        (_, DISPLAY) => Keeping::Fresh,
        _ => Keeping::Lost,
    }
}

/// Whether a write to `offset` of BAR `bar` of such a function puts it to use. Controllers that every PC
/// has are initialized by firmware and drivers though nothing is attached, so of these it takes a command.
pub fn uses(class: u32, bar: usize, offset: u64, value: u64) -> bool {
    match class >> 8 {
        // PxCI of some port (Serial ATA AHCI 1.3.1, section 3.3.14)
        AHCI => bar == 5 && offset >= 0x100 && offset % 0x80 == 0x38 && value != 0,
        // The command register, where a native mode controller has it.
        IDE => matches!(bar, 0 | 2) && offset == 7,
        _ => true,
    }
}

/// Whether a function of this class has the ports of a PC's disks.
pub fn is_ide(class: u32) -> bool {
    class >> 8 == IDE
}

/// Whether a write is a command to a disk at the ports that PCs have for them (ATA, command register).
pub fn is_ide_command(access: &Access) -> bool {
    access.space == Space::Port && access.len == 1 && matches!(access.addr, 0x1f7 | 0x177)
}

/// Something that a VM cannot be kept with, in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unkept {
    /// A virtio device of a type that is not carried.
    Virtio {
        /// Where it is.
        device: DeviceId,
        /// Its type.
        kind: u32,
    },
    /// A PCI function of a class that is not carried.
    Function {
        /// Where it is.
        bdf: u16,
        /// Its class code.
        class: u32,
        /// Vendor in the low half, device in the high one.
        identity: u32,
    },
    /// A virtqueue that could not be shadowed, or whose ring was broken.
    Queue {
        /// Its device.
        device: DeviceId,
        /// Its number.
        queue: u16,
    },
    /// A device of the host (VFIO), which writes to the guest's RAM by itself.
    PassedThrough,
    /// Devices that the guest had configured before it came here: it was migrated, or is a snapshot.
    Elsewhere,
    /// No device: its VMM was copying the guest's RAM to somewhere, had stopped it and read its processors. So
    /// it may have gone on there.
    Moved,
}

/// Bytes of one in a record.
pub const UNKEPT_LEN: usize = 24;

const VIRTIO: u32 = 1;
const FUNCTION: u32 = 2;
const QUEUE: u32 = 3;
const PASSED_THROUGH: u32 = 4;
const ELSEWHERE: u32 = 5;
const MOVED: u32 = 6;

impl Unkept {
    /// Whether the VM may go on without, if its owner says so.
    pub fn is_dispensable(&self) -> bool {
        matches!(self, Unkept::Virtio { .. } | Unkept::Function { .. })
    }

    /// As it is kept in a record: what it is, a number, where, another number.
    pub fn encode(&self) -> [u8; UNKEPT_LEN] {
        let (what, number, place, more) = match *self {
            Unkept::Virtio { device, kind } => (VIRTIO, kind, device.to_raw(), 0),
            Unkept::Function {
                bdf,
                class,
                identity,
            } => (FUNCTION, class, u64::from(bdf), u64::from(identity)),
            Unkept::Queue { device, queue } => (QUEUE, queue.into(), device.to_raw(), 0),
            Unkept::PassedThrough => (PASSED_THROUGH, 0, 0, 0),
            Unkept::Elsewhere => (ELSEWHERE, 0, 0, 0),
            Unkept::Moved => (MOVED, 0, 0, 0),
        };
        let mut out = [0; UNKEPT_LEN];
        let words = [u64::from(what) | (u64::from(number) << 32), place, more];
        for (to, word) in out.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// The one in `raw`; `None` if there is none.
    pub fn decode(raw: &[u8]) -> Option<Self> {
        let raw: &[u8; UNKEPT_LEN] = raw.try_into().ok()?;
        let word = |at: usize| {
            let bytes = raw.get(at..at.checked_add(8)?)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let (first, place, more) = (word(0)?, word(8)?, word(16)?);
        let device = DeviceId::from_raw(place);
        // CAST: the two halves of a word.
        let (what, number) = (first as u32, (first >> 32) as u32);
        match (what, more) {
            (VIRTIO, 0) => Some(Unkept::Virtio {
                device,
                kind: number,
            }),
            (FUNCTION, identity) => Some(Unkept::Function {
                bdf: u16::try_from(place).ok()?,
                class: number,
                identity: u32::try_from(identity).ok()?,
            }),
            (QUEUE, 0) => Some(Unkept::Queue {
                device,
                queue: u16::try_from(number).ok()?,
            }),
            (_, 0) if (number, place) == (0, 0) => match what {
                PASSED_THROUGH => Some(Unkept::PassedThrough),
                ELSEWHERE => Some(Unkept::Elsewhere),
                MOVED => Some(Unkept::Moved),
                _ => None,
            },
            _ => None,
        }
    }

    /// All of an item of a record; `None` if it is not sound.
    pub fn each(item: &[u8]) -> Option<impl Iterator<Item = Unkept> + Clone + '_> {
        let all = item.chunks_exact(UNKEPT_LEN);
        let sound =
            all.remainder().is_empty() && all.clone().all(|raw| Self::decode(raw).is_some());
        sound.then(|| all.filter_map(Self::decode))
    }
}

impl fmt::Display for Unkept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Unkept::Virtio { device, kind } => {
                write!(f, "{} (type {kind}) at {device}", virtio_name(kind))
            }
            Unkept::Function {
                bdf,
                class,
                identity,
            } => write!(
                f,
                "{} ({:04x}:{:04x}) at {}",
                function_name(class),
                identity & 0xffff,
                identity >> 16,
                DeviceId::pci(bdf)
            ),
            Unkept::Queue { device, queue } => write!(f, "queue {queue} of {device}"),
            Unkept::PassedThrough => f.write_str("a device of the host (VFIO)"),
            Unkept::Elsewhere => f.write_str("devices that it had configured elsewhere"),
            Unkept::Moved => f.write_str("a migration"),
        }
    }
}
