// SPDX-License-Identifier: GPL-2.0

//! From KVM's memory slots to the VMM's blocks of RAM.
//!
//! A VMM splits one block of its RAM into many slots (QEMU: 0-640 KiB, the PAM areas, SMRAM in a
//! second address space) and shows parts of it at several guest addresses. What is kept is the
//! block: a run of the VMM's memory. It is told apart by host addresses and named by the guest
//! address of its largest slot.

use core::fmt;

/// Bytes in a page.
const PAGE: u64 = 4096;

/// The widest gap inside a block: the legacy hole of a PC, 0xA0000 to 0x100000, with room to spare.
const GAP: u64 = 1 << 20;

/// `KVM_MEM_READONLY` (`include/uapi/linux/kvm.h`).
pub const READONLY: u32 = 1 << 1;

/// A memory slot, as of `struct kvm_userspace_memory_region`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Address space in bits 31..16, slot number in bits 15..0.
    pub id: u32,
    /// `KVM_MEM_*` flags.
    pub flags: u32,
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes; zero for a slot that was deleted.
    pub size: u64,
    /// Address in the VMM.
    pub hva: u64,
}

/// A run of the VMM's memory that is RAM of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RamBlock {
    /// Guest physical address of its first byte.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
    /// Its address in the VMM.
    pub hva: u64,
}

/// Why slots do not make up blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotError {
    /// Not whole pages, or past the end of an address space.
    Bad(u32),
    /// Two slots of one address space cover the same guest address.
    Overlap(u32, u32),
    /// More blocks than there is room for.
    TooMany,
}

/// Sorts `slots` and works out the blocks of RAM that they show, in ascending order of guest
/// address. Read-only and deleted slots are not RAM. Returns how many blocks were put into `blocks`.
pub fn ram_blocks(slots: &mut [Slot], blocks: &mut [RamBlock]) -> Result<usize, SlotError> {
    for slot in &*slots {
        check(slot)?;
    }
    sort(slots, |slot| (u64::from(slot.id >> 16), slot.gpa));
    for (low, high) in slots.iter().zip(slots.iter().skip(1)) {
        let one_space = low.id >> 16 == high.id >> 16;
        // Cannot wrap: checked.
        if one_space && high.size > 0 && low.gpa.wrapping_add(low.size) > high.gpa {
            return Err(SlotError::Overlap(low.id, high.id));
        }
    }
    sort(slots, |slot| (slot.hva, slot.gpa));
    let mut count = 0;
    let mut last: Option<Run> = None;
    for slot in slots
        .iter()
        .filter(|s| s.size > 0 && s.flags & READONLY == 0)
    {
        match &mut last {
            Some(run) if run.takes(slot) => run.add(slot),
            _ => {
                if let Some(run) = last.replace(Run::new(slot)) {
                    run.put(blocks, &mut count)?;
                }
            }
        }
    }
    if let Some(run) = last {
        run.put(blocks, &mut count)?;
    }
    sort(blocks.get_mut(..count).unwrap_or(&mut []), |b| {
        (b.gpa, b.hva)
    });
    Ok(count)
}

/// Whether memory that is a file's, and that a guest has at `gpa`, may be storage (virtio-pmem, NVDIMM). The
/// RAM of a PC begins at 0, and a VMM that has it in a file has all of it there.
pub fn may_be_storage(gpa: u64) -> bool {
    gpa >= 1 << 20
}

fn check(slot: &Slot) -> Result<(), SlotError> {
    let whole = [slot.gpa, slot.size, slot.hva]
        .iter()
        .all(|v| v % PAGE == 0);
    let ends =
        slot.gpa.checked_add(slot.size).is_some() && slot.hva.checked_add(slot.size).is_some();
    // A deleted slot's addresses mean nothing.
    if slot.size > 0 && !(whole && ends) {
        return Err(SlotError::Bad(slot.id));
    }
    Ok(())
}

/// A block being made up of slots in ascending order of host address.
struct Run {
    hva: u64,
    end: u64,
    /// The largest slot so far: it names the block.
    largest: Slot,
}

impl Run {
    fn new(slot: &Slot) -> Self {
        Run {
            hva: slot.hva,
            end: slot.hva.wrapping_add(slot.size),
            largest: *slot,
        }
    }

    /// Whether `slot` shows more of the same block: memory of this run, or memory just after it at
    /// the guest address that goes with it.
    fn takes(&self, slot: &Slot) -> bool {
        let offset = |s: &Slot| s.gpa.wrapping_sub(s.hva);
        let same_offset = offset(slot) == offset(&self.largest);
        slot.hva < self.end || same_offset && slot.hva - self.end <= GAP
    }

    fn add(&mut self, slot: &Slot) {
        self.end = self.end.max(slot.hva.wrapping_add(slot.size));
        if slot.size > self.largest.size {
            self.largest = *slot;
        }
    }

    fn put(&self, blocks: &mut [RamBlock], count: &mut usize) -> Result<(), SlotError> {
        let into = self.largest.hva.wrapping_sub(self.hva);
        let gpa = self.largest.gpa.checked_sub(into);
        let block = RamBlock {
            gpa: gpa.ok_or(SlotError::Bad(self.largest.id))?,
            len: self.end.wrapping_sub(self.hva),
            hva: self.hva,
        };
        *blocks.get_mut(*count).ok_or(SlotError::TooMany)? = block;
        *count += 1;
        Ok(())
    }
}

/// Heapsort: in place, without recursion, and never slower than n log n, because a VMM chooses
/// what there is to sort.
fn sort<T>(items: &mut [T], key: impl Fn(&T) -> (u64, u64)) {
    let less = |items: &[T], a: usize, b: usize| match (items.get(a), items.get(b)) {
        (Some(a), Some(b)) => key(a) < key(b),
        _ => false,
    };
    let sink = |items: &mut [T], mut at: usize, end: usize| loop {
        let mut child = 2 * at + 1;
        if child >= end {
            break;
        }
        if child + 1 < end && less(items, child, child + 1) {
            child += 1;
        }
        if !less(items, at, child) {
            break;
        }
        items.swap(at, child);
        at = child;
    };
    for at in (0..items.len() / 2).rev() {
        sink(items, at, items.len());
    }
    for end in (1..items.len()).rev() {
        items.swap(0, end);
        sink(items, 0, end);
    }
}

/// The first difference between the blocks of an image and those of the VM presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShapeDifference {
    /// The image has a block here, the VM presented does not.
    Missing {
        /// Guest physical address.
        gpa: u64,
        /// Bytes.
        len: u64,
    },
    /// The VM presented has a block here, the image does not.
    Added {
        /// Guest physical address.
        gpa: u64,
        /// Bytes.
        len: u64,
    },
    /// The block has another length.
    Length {
        /// Guest physical address.
        gpa: u64,
        /// Bytes in the image.
        was: u64,
        /// Bytes in the VM presented.
        is: u64,
    },
}

/// Compares the blocks of an image (`was`: guest address and length) with those presented.
pub fn compare(
    was: impl Iterator<Item = (u64, u64)> + Clone,
    is: &[RamBlock],
) -> Result<(), ShapeDifference> {
    for (gpa, len) in was.clone() {
        if is.iter().any(|b| (b.gpa, b.len) == (gpa, len)) {
            continue;
        }
        return Err(match is.iter().find(|b| b.gpa == gpa) {
            None => ShapeDifference::Missing { gpa, len },
            Some(b) => ShapeDifference::Length {
                gpa,
                was: len,
                is: b.len,
            },
        });
    }
    for b in is {
        if !was.clone().any(|old| old == (b.gpa, b.len)) {
            let (gpa, len) = (b.gpa, b.len);
            return Err(ShapeDifference::Added { gpa, len });
        }
    }
    Ok(())
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotError::Bad(id) => write!(f, "memory slot {id:#x} is not whole pages of memory"),
            SlotError::Overlap(a, b) => {
                write!(
                    f,
                    "memory slots {a:#x} and {b:#x} cover the same guest memory"
                )
            }
            SlotError::TooMany => f.write_str("too many blocks of RAM"),
        }
    }
}

impl fmt::Display for ShapeDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShapeDifference::Missing { gpa, len } => write!(
                f,
                "the image has RAM of {len:#x} bytes at {gpa:#x}, the VM presented has not"
            ),
            ShapeDifference::Added { gpa, len } => write!(
                f,
                "the VM presented has RAM of {len:#x} bytes at {gpa:#x}, the image has not"
            ),
            ShapeDifference::Length { gpa, was, is } => {
                write!(f, "RAM at {gpa:#x} had {was:#x} bytes, now has {is:#x}")
            }
        }
    }
}
