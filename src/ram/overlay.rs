// SPDX-License-Identifier: GPL-2.0

//! Pages of the VMM's view of RAM that differ from the guest's.
//!
//! Where a page of the pool is overlaid, the VMM's mappings show an ordinary page instead; KVM's
//! alias goes on showing the pool's. What is copied between both, and when, is the business of
//! whoever asked for it.
//!
//! The set of overlaid pages is changed with the file's mapping lock held exclusively, and faults
//! are served with it held shared. So none is half way between its look at the set and its page
//! table entry when the mappings of a page are emptied: the next access faults, and finds the other
//! page. Threads of the VMM and vhost workers that are using the page lose it in the same way as at a
//! truncation; they wait for the lock and go on.

use super::mapping::RamFile;
use crate::sys::c;
use core::{fmt, ptr, ptr::NonNull};
use kernel::{alloc::AllocError, page::Page, prelude::*, sync::Arc};

const PAGE: usize = 4096;
const HUGE_PAGE: u64 = 2 << 20;

/// How long to wait for direct I/O in flight, in ms.
const PIN_WAIT_MS: u32 = 1000;

/// Why a page cannot be overlaid.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Denied {
    /// Something holds pages of the same granule for I/O, and would go on using the pool's page.
    Pinned,
    /// The address is not RAM in the pool.
    NotRam,
    /// It is overlaid already.
    Taken,
    /// Memory is short.
    NoMemory,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denied::Pinned => "the VMM or its host holds memory around it for I/O",
            Denied::NotRam => "it is not RAM",
            Denied::Taken => "it is in use already",
            Denied::NoMemory => "memory is short",
        })
    }
}

impl From<AllocError> for Denied {
    fn from(_: AllocError) -> Self {
        Denied::NoMemory
    }
}

/// The overlaid pages of a RAM file, in order of their offsets.
#[derive(Default)]
pub(super) struct Overlays(KVec<(u64, Page)>);

impl Overlays {
    fn find(&self, offset: u64) -> core::result::Result<usize, usize> {
        self.0.binary_search_by_key(&offset, |entry| entry.0)
    }

    /// The page that is shown in place of the pool's page at `offset`.
    pub(super) fn at(&self, offset: u64) -> Option<*mut c::page> {
        let (_, page) = self.0.get(self.find(offset).ok()?)?;
        Some(page.as_ptr().cast())
    }

    /// Whether some page of the 2 MiB from `start` is overlaid.
    pub(super) fn any_in_huge_page(&self, start: u64) -> bool {
        let (Ok(next) | Err(next)) = self.find(start);
        let end = start.saturating_add(HUGE_PAGE);
        self.0.get(next).is_some_and(|entry| entry.0 < end)
    }

    fn insert(&mut self, offset: u64, page: Page) -> core::result::Result<(), Denied> {
        let at = match self.find(offset) {
            Ok(_) => return Err(Denied::Taken),
            Err(at) => at,
        };
        self.0
            .push((offset, page), GFP_KERNEL)
            .map_err(|_| Denied::NoMemory)?;
        if let Some(tail) = self.0.get_mut(at..) {
            tail.rotate_right(1);
        }
        Ok(())
    }

    fn remove(&mut self, offset: u64) -> Option<Page> {
        let at = self.find(offset).ok()?;
        self.0.remove(at).ok().map(|(_, page)| page)
    }
}

/// A page of the VMM's view that differs from the guest's, until this is dropped. To drop it
/// sleeps.
///
/// # Invariants
///
/// `device` points to the page for `offset` in the file's set, which stays there while this lives, in
/// the kernel's direct mapping.
pub(crate) struct OverlayPage {
    file: Arc<RamFile>,
    offset: u64,
    device: NonNull<u8>,
}

// SAFETY: The pages are no thread's own. Who accesses them does it as one accesses memory that user
// space is changing.
unsafe impl Send for OverlayPage {}
// SAFETY: As above.
unsafe impl Sync for OverlayPage {}

impl OverlayPage {
    /// Overlays the page at `offset` of the pool in the mappings of `file`, with a copy of what it holds
    /// now. Sleeps; waits for I/O to the page's granule.
    pub(super) fn new(file: &Arc<RamFile>, offset: u64) -> core::result::Result<Self, Denied> {
        let device = file.device();
        let pool_page = device.memory.page(offset).ok_or(Denied::NotRam)?;
        let page = Page::alloc_page(GFP_KERNEL)?;
        // SAFETY: Both are valid pages, and x86-64 maps all pages.
        let (guest, shown) = unsafe {
            (
                c::nvhv_page_address(pool_page),
                c::nvhv_page_address(page.as_ptr().cast()),
            )
        };
        let guest = NonNull::new(guest.cast()).ok_or(Denied::NotRam)?;
        let shown = NonNull::new(shown.cast()).ok_or(Denied::NoMemory)?;
        let mut page = Some(page);
        for tries in 0.. {
            let done = file.with_overlays(|overlays, zap| {
                zap(offset);
                // The page cannot be pinned anew through the VMM's mappings while the lock is held. The
                // count is the granule's: who has pinned a page beside it is waited for, too.
                // SAFETY: `pool_page` is a page of the device.
                if unsafe { c::nvhv_page_is_pinned(pool_page) } {
                    return Ok(false);
                }
                // The guest may be writing to it, and the copy is what it would have been a moment
                // earlier or later.
                // SAFETY: By the checks above both are whole pages; they differ, as one was just
                // allocated.
                unsafe { ptr::copy_nonoverlapping(guest.as_ptr(), shown.as_ptr(), PAGE) };
                let page = page.take().ok_or(Denied::NoMemory)?;
                overlays.insert(offset, page).map(|()| true)
            })?;
            if done {
                break;
            }
            if tries == PIN_WAIT_MS {
                return Err(Denied::Pinned);
            }
            // Without the lock: who has pinned one page may be waiting for a fault on the next.
            // SAFETY: The caller may sleep.
            unsafe { c::nvhv_msleep(1) };
        }
        // INVARIANT: `page` is in the set, where only `drop` below takes it from.
        Ok(Self {
            file: file.clone(),
            offset,
            device: shown,
        })
    }

    /// The page that the VMM sees.
    pub(crate) fn device(&self) -> NonNull<u8> {
        self.device
    }
}

impl Drop for OverlayPage {
    fn drop(&mut self) {
        let page = self.file.with_overlays(|overlays, zap| {
            let page = overlays.remove(self.offset);
            zap(self.offset);
            page
        });
        // Whoever has pinned it holds a reference of its own.
        drop(page);
    }
}
