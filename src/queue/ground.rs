// SPDX-License-Identifier: GPL-2.0

//! Where a VM's RAM is: in the kernel's direct mapping, in the pool, and in the VMM's view.

use crate::{
    format::HeaderView,
    life::Name,
    ram::{
        adopt::{Ram, VmmView},
        overlay::{Denied, OverlayPage},
    },
    sys::c,
};
use core::ptr::NonNull;
use kernel::prelude::*;

const PAGE: u64 = 4096;

/// A run of guest RAM that is one run in the pool.
struct Extent {
    gpa: u64,
    /// Bytes, not zero.
    len: u64,
    /// Offset in the pool.
    offset: u64,
    base: NonNull<u8>,
}

/// A VM's RAM as it is laid out in the pool.
///
/// # Invariants
///
/// `extents` are in order of `gpa`; each one's `base` points to `len` bytes in the
/// kernel's direct mapping, of the device that `view` keeps.
pub(super) struct Ground {
    view: VmmView,
    extents: KVVec<Extent>,
    /// The VM's name, for the log.
    pub(super) name: Name,
}

// SAFETY: The memory is no thread's own; it is accessed as one accesses memory that a guest is
// changing.
unsafe impl Send for Ground {}
// SAFETY: As above.
unsafe impl Sync for Ground {}

impl Ground {
    /// Looks up where `ram` is.
    pub(super) fn new(name: &Name, ram: &Ram, header: &HeaderView<'_>) -> Result<Self> {
        let view = ram.vmm_view();
        let mut extents = KVVec::new();
        for block in header.blocks() {
            if !ram.blocks().iter().any(|placed| placed.gpa == block.gpa) {
                continue;
            }
            let mut done = 0;
            while let Some((offset, len)) = header.locate(&block, done) {
                let last = offset.checked_add(len - 1).ok_or(EINVAL)?;
                let memory = &view.device().memory;
                let page = memory.page(offset).zip(memory.page(last & !(PAGE - 1)));
                let (page, _) = page.ok_or(EINVAL)?;
                // SAFETY: `page` is a page of the device.
                let base = unsafe { c::nvhv_page_address(page) };
                let extent = Extent {
                    gpa: block.gpa + done,
                    len,
                    offset,
                    base: NonNull::new(base.cast()).ok_or(EINVAL)?,
                };
                let next = extents.partition_point(|other: &Extent| other.gpa <= extent.gpa);
                extents.push(extent, GFP_KERNEL)?;
                if let Some(tail) = extents.get_mut(next..) {
                    tail.rotate_right(1);
                }
                done += len;
            }
        }
        // INVARIANT: each was put where it belongs; the device is one run in the direct mapping, and first and last page of each
        // extent are inside.
        Ok(Self {
            view,
            extents,
            name: *name,
        })
    }

    fn find(&self, gpa: u64) -> Option<(&Extent, u64)> {
        let next = self.extents.partition_point(|extent| extent.gpa <= gpa);
        // The first one that is looked at, unless a small block lies in a hole of a large one.
        let before = self.extents.get(..next)?.iter().rev();
        before
            .map(|extent| (extent, gpa - extent.gpa))
            .find(|(extent, inside)| *inside < extent.len)
    }

    /// The guest's byte at `gpa`, and all to the end of its page.
    pub(super) fn at(&self, gpa: u64) -> Option<NonNull<u8>> {
        let (extent, inside) = self.find(gpa)?;
        // SAFETY: Inside the extent, by the type invariants.
        Some(unsafe { extent.base.add(inside as usize) })
    }

    /// Gives the VMM a page of its own at the page `gpa`.
    pub(super) fn overlay(&self, gpa: u64) -> core::result::Result<OverlayPage, Denied> {
        let (extent, inside) = self.find(gpa).ok_or(Denied::NotRam)?;
        self.view.overlay(extent.offset + inside)
    }
}
