// SPDX-License-Identifier: GPL-2.0

//! Why an operation on a pool was refused, in words for the operator and as an errno.

use super::{alloc::Extent, media::Fault, word::State, GRANULE, SLOTS_MAX, VERSION};
use core::fmt;

/// A structure of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The superblock.
    Superblock,
    /// A VM's commit word.
    Word,
    /// A VM's header.
    Header,
    /// A VM's record.
    Record,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Superblock => "superblock",
            Part::Word => "commit word",
            Part::Header => "VM header",
            Part::Record => "record",
        })
    }
}

/// Why an operation on a pool was refused. `Display` says what, why, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The device failed.
    Media(Fault),
    /// The device is too small for a pool with that many VM slots. Both in bytes.
    DeviceTooSmall {
        /// Its length.
        len: u64,
        /// The least length.
        need: u64,
    },
    /// The number of VM slots is out of range.
    BadSlots(u32),
    /// No superblock: the device was never formatted, or holds something else.
    NotAPool,
    /// The two superblock copies are valid and say different things.
    SuperblocksDiffer,
    /// The device is shorter than the pool on it. Both in bytes.
    DeviceShrunk {
        /// The device's length.
        len: u64,
        /// The length the pool was formatted with.
        need: u64,
    },
    /// A structure has a version this code does not know.
    Version {
        /// Which structure.
        part: Part,
        /// Its version.
        found: u32,
    },
    /// A structure's checksum does not match its content.
    Checksum(Part),
    /// A structure's checksum matches, but its content makes no sense.
    Malformed {
        /// Which structure.
        part: Part,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry has a header that was committed, but its commit word is empty.
    WordLost,
    /// Two VMs, or two parts of one, claim the same granules.
    Contested(Extent),
    /// There is no such slot in the VM table.
    NoSuchSlot(u32),
    /// An operation was asked for in a state that does not allow it.
    WrongState {
        /// The entry's slot.
        slot: u32,
        /// The state it is in.
        state: State,
    },
    /// The image was set aside and is not resumed.
    Aside {
        /// The entry's slot.
        slot: u32,
    },
    /// The platform did not save the image, which is not resumed.
    Unsaved {
        /// The entry's slot.
        slot: u32,
    },
    /// No entry of the VM table is free.
    TableFull,
    /// Not enough free granules.
    PoolFull {
        /// Granules wanted.
        want: u32,
        /// Granules free.
        free: u32,
    },
    /// Enough free granules, but in more pieces than a header can list.
    Fragmented {
        /// Extents needed.
        need: u32,
        /// Extents there is room for.
        room: u32,
    },
    /// A damaged entry may own any granule that looks free, so none is given out.
    PoolSuspect {
        /// The damaged entry.
        slot: u32,
    },
    /// A header has no room for another RAM block.
    TooManyBlocks,
    /// A RAM block that is empty, not page-aligned, or past the end of the address space.
    BadBlock {
        /// Guest physical address.
        gpa: u64,
        /// Length in bytes.
        len: u64,
    },
    /// A buffer that the caller provided is too small. Both in bytes (or words of a bitmap).
    Buffer {
        /// Its length.
        len: usize,
        /// The least length.
        need: usize,
    },
    /// A record does not fit its buffer or area.
    RecordTooBig {
        /// Bytes there are.
        room: u64,
    },
    /// Items of a record must come in ascending order of vCPU.
    RecordOrder {
        /// The vCPU of the item that came too late.
        vcpu: u32,
    },
    /// A record was made for another VM or another state of this one.
    RecordStale,
}

/// Linux errno values (`include/uapi/asm-generic/errno*.h`).
mod errno {
    pub(super) const EIO: i32 = 5;
    pub(super) const E2BIG: i32 = 7;
    pub(super) const EBUSY: i32 = 16;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const EMEDIUMTYPE: i32 = 124;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const EUCLEAN: i32 = 117;
}

impl Refusal {
    /// The errno for user space, positive.
    pub fn errno(&self) -> i32 {
        match self {
            Refusal::Media(_) => errno::EIO,
            Refusal::DeviceTooSmall { .. }
            | Refusal::TableFull
            | Refusal::PoolFull { .. }
            | Refusal::Fragmented { .. } => errno::ENOSPC,
            Refusal::NotAPool | Refusal::Version { .. } => errno::EMEDIUMTYPE,
            Refusal::SuperblocksDiffer
            | Refusal::DeviceShrunk { .. }
            | Refusal::Checksum(_)
            | Refusal::Malformed { .. }
            | Refusal::WordLost
            | Refusal::Contested(_)
            | Refusal::PoolSuspect { .. }
            | Refusal::RecordStale => errno::EUCLEAN,
            Refusal::WrongState { .. } | Refusal::Aside { .. } => errno::EBUSY,
            Refusal::Unsaved { .. } => errno::EUCLEAN,
            Refusal::TooManyBlocks | Refusal::RecordTooBig { .. } => errno::E2BIG,
            Refusal::BadSlots(_)
            | Refusal::NoSuchSlot(_)
            | Refusal::BadBlock { .. }
            | Refusal::Buffer { .. }
            | Refusal::RecordOrder { .. } => errno::EINVAL,
        }
    }

    /// Whether another pool may have what this one has not: room.
    pub fn lacks_room(&self) -> bool {
        matches!(
            self,
            Refusal::TableFull
                | Refusal::PoolFull { .. }
                | Refusal::Fragmented { .. }
                | Refusal::PoolSuspect { .. }
        )
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Refusal::Media(fault)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Media(fault) => write!(f, "{fault}: see 'ndctl list --media-errors'"),
            Refusal::DeviceTooSmall { len, need } => {
                write!(f, "the device has {len} bytes, a pool needs at least {need}")
            }
            Refusal::BadSlots(n) => write!(f, "{n} VM slots: choose 1 to {SLOTS_MAX}"),
            Refusal::NotAPool => {
                f.write_str("the device holds no pool: make one with 'nvhv format'")
            }
            Refusal::SuperblocksDiffer => f.write_str(
                "both superblocks are valid but differ: the device was written by something else; restore it, or 'nvhv format --force' it",
            ),
            Refusal::DeviceShrunk { len, need } => write!(
                f,
                "the device has {len} bytes, its pool was made with {need}: restore the namespace's size"
            ),
            Refusal::Version { part, found } => write!(
                f,
                "{part} of version {found}, this is version {VERSION}: use the release that wrote it"
            ),
            Refusal::Checksum(part) => {
                write!(f, "damaged {part}: its checksum does not match")
            }
            Refusal::Malformed { part, why } => write!(f, "damaged {part}: {why}"),
            Refusal::WordLost => {
                f.write_str("damaged commit word: it is empty, but the VM's header is there")
            }
            Refusal::Contested(e) => write!(
                f,
                "damaged VM header: granules {}+{} are claimed twice",
                e.first, e.count
            ),
            Refusal::NoSuchSlot(slot) => write!(f, "the VM table has no slot {slot}"),
            Refusal::WrongState { slot, state } => {
                write!(f, "slot {slot} is {state}, which does not allow this")
            }
            Refusal::Aside { slot } => {
                write!(f, "the image in slot {slot} was set aside")
            }
            Refusal::Unsaved { slot } => {
                write!(f, "the platform did not save the image in slot {slot}")
            }
            Refusal::TableFull => {
                f.write_str("no VM slot is free: discard a VM, or format with more --vm-slots")
            }
            Refusal::PoolFull { want, free } => write!(
                f,
                "{} MiB wanted, {} MiB free in the pool: discard a VM or use a larger device",
                u64::from(*want) * (GRANULE >> 20),
                u64::from(*free) * (GRANULE >> 20)
            ),
            Refusal::Fragmented { need, room } => write!(
                f,
                "free memory is in too many pieces: {need} extents needed, room for {room}; discard a VM"
            ),
            Refusal::PoolSuspect { slot } => write!(
                f,
                "slot {slot} is damaged and may own any free memory: no new VM until 'nvhv discard #{slot} --force'"
            ),
            Refusal::TooManyBlocks => f.write_str("too many RAM blocks for one VM"),
            Refusal::BadBlock { gpa, len } => {
                write!(f, "RAM block at {gpa:#x} of {len:#x} bytes: not whole pages, or too large")
            }
            Refusal::Buffer { len, need } => {
                write!(f, "internal error: a buffer of {len} where {need} is needed")
            }
            Refusal::RecordTooBig { room } => {
                write!(f, "the VM's state does not fit its record of {room} bytes")
            }
            Refusal::RecordOrder { vcpu } => {
                write!(f, "internal error: state of vCPU {vcpu} out of order")
            }
            Refusal::RecordStale => {
                f.write_str("the record belongs to another VM or to an older state of this one")
            }
        }
    }
}
