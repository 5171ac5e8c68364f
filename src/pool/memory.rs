// SPDX-License-Identifier: GPL-2.0

//! Raw access to the pool's memory, and writing it back.

use super::device::Domain;
use crate::{
    format::{Crc, Fault, Media, RecordRoom, GRANULE},
    state::platform::Run,
    sys::c,
};
use core::{
    ptr::{self, NonNull},
    slice,
};
use kernel::prelude::*;

const PAGE: u64 = 4096;
const HUGE_PAGE: u64 = 2 << 20;

/// The memory of a claimed device, in the kernel's direct mapping.
///
/// # Invariants
///
/// `base..base + len` is mapped, writable memory of `len` bytes whose pages start at page frame
/// `first_pfn`; `pgmap` is a reference that keeps it so. `len` fits an `isize`.
pub(crate) struct Memory {
    base: NonNull<u8>,
    len: u64,
    first_pfn: u64,
    pgmap: NonNull<c::dev_pagemap>,
    domain: Domain,
    /// What cannot be read, as the platform says.
    bad: KVec<Run>,
}

// SAFETY: The memory is no thread's own; access to it is by raw copies.
unsafe impl Send for Memory {}
// SAFETY: As above. Who may write what, the format's protocol and the store's lock decide.
unsafe impl Sync for Memory {}

impl Memory {
    /// Claims `len` bytes at physical address `start`, which a devdax device holds.
    pub(super) fn claim(start: u64, len: u64, domain: Domain, bad: &[Run]) -> Result<Self> {
        if start % HUGE_PAGE != 0 || len % HUGE_PAGE != 0 || isize::try_from(len).is_err() {
            pr_err!("devdax range {start:#x}+{len:#x} is not aligned to 2 MiB: make the namespace with --align=2M\n");
            return Err(EINVAL);
        }
        let mut known = KVec::new();
        known.extend_from_slice(bad, GFP_KERNEL)?;
        // SAFETY: May be asked of any page frame.
        let pgmap =
            NonNull::new(unsafe { c::nvhv_get_devmap((start / PAGE) as usize) }).ok_or(ENXIO)?;
        // SAFETY: The page map covers the device's range, which the direct mapping therefore holds.
        let base = unsafe { c::nvhv_phys_to_virt(start) }.cast();
        // INVARIANT: device_dax maps the whole range of a device at once.
        let memory = Self {
            base: NonNull::new(base).ok_or(ENXIO)?,
            len,
            first_pfn: start / PAGE,
            pgmap,
            domain,
            bad: known,
        };
        if memory.folio_order(0) != c::NVHV_PMD_ORDER as i32 {
            pr_err!("devdax pages are not 2 MiB: make the namespace with --align=2M\n");
            return Err(EINVAL);
        }
        Ok(memory)
    }

    /// The page at `offset`, a multiple of the page size inside the device.
    pub(crate) fn page(&self, offset: u64) -> Option<*mut c::page> {
        if offset >= self.len {
            return None;
        }
        // SAFETY: By the type invariant the page frame has a `struct page`.
        Some(unsafe { c::nvhv_pfn_to_page((self.first_pfn + offset / PAGE) as usize) })
    }

    fn folio_order(&self, offset: u64) -> i32 {
        // SAFETY: `page` gives valid pages.
        self.page(offset).map_or(0, |page| unsafe {
            c::nvhv_folio_order(c::nvhv_page_folio(page))
        })
    }

    /// Whether anything but the device itself holds the granule at `offset`: a mapping, or a pin of
    /// an I/O request still in flight.
    pub(crate) fn is_referenced(&self, offset: u64) -> bool {
        // device_dax holds one reference to each of its pages.
        // SAFETY: `page` gives valid pages.
        self.page(offset)
            .is_some_and(|page| unsafe { c::nvhv_folio_ref_count(c::nvhv_page_folio(page)) > 1 })
    }

    /// The granules in which there are bad blocks.
    pub(super) fn bad_granules(&self) -> impl Iterator<Item = u32> + '_ {
        self.bad.iter().flat_map(|run| {
            let end = run.at.saturating_add(run.len).div_ceil(GRANULE);
            // CAST: a pool has less than 2^32 granules; what is beyond is nobody's.
            (run.at / GRANULE..end).map(|granule| granule as u32)
        })
    }

    /// Where the first bad block is in `len` bytes at `at`.
    pub(super) fn first_bad(&self, at: u64, len: u64) -> Option<u64> {
        let touching = self.bad.iter().filter_map(|run| run.within(at, len));
        touching.map(|run| at.saturating_add(run.at)).min()
    }

    /// The bytes `at..at + len`, if they are inside the device and none of them is bad.
    fn slice(&self, at: u64, len: u64) -> core::result::Result<*mut u8, Fault> {
        if let Some(at) = self.first_bad(at, len) {
            return Err(Fault { at });
        }
        match at.checked_add(len) {
            // SAFETY: Inside the allocation, by the type invariant.
            Some(end) if end <= self.len => Ok(unsafe { self.base.as_ptr().add(at as usize) }),
            _ => Err(Fault { at }),
        }
    }

    /// Copies a page of kernel memory to `at`, unless it is all zero: free granules are zero.
    ///
    /// # Safety
    ///
    /// `page` points to a readable page, which user space may be changing.
    pub(crate) unsafe fn copy_page_in(
        &self,
        at: u64,
        page: *const u8,
    ) -> core::result::Result<bool, Fault> {
        let to = self.slice(at, PAGE)?;
        // SAFETY: By this function's contract.
        if unsafe { c::nvhv_memory_is_zero(page.cast(), PAGE as usize) } {
            return Ok(false);
        }
        // SAFETY: By this function's contract, and `slice` checked the target.
        unsafe { ptr::copy_nonoverlapping(page, to, PAGE as usize) };
        Ok(true)
    }

    /// Makes all stores of all CPUs to the device durable, whoever made them.
    ///
    /// A sweep over the guest's RAM with CLWB costs time in proportion to it; WBINVD is bounded by
    /// the size of the caches.
    ///
    /// `all_caches` writes back those of all CPUs.
    pub(crate) fn write_back_everything(&self, all_caches: impl FnOnce() -> Result) -> Result {
        if self.domain != Domain::CpuCache {
            all_caches()?;
        }
        self.fence();
        Ok(())
    }
}

impl Media for Memory {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> core::result::Result<(), Fault> {
        let from = self.slice(at, buf.len() as u64)?;
        let len = u32::try_from(buf.len()).map_err(|_| Fault { at })?;
        // SAFETY: `slice` checked the range; nobody writes metadata but under the store's lock.
        let left = unsafe { c::copy_mc_to_kernel(buf.as_mut_ptr().cast(), from.cast(), len) };
        match len.saturating_sub(left as u32) {
            // What has gone bad since the pool was opened is an error here, not a machine check that ends the host.
            done if left > 0 => Err(Fault {
                at: at.saturating_add(done.into()),
            }),
            _ => Ok(()),
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) -> core::result::Result<(), Fault> {
        let to = self.slice(at, bytes.len() as u64)?;
        // SAFETY: `slice` checked the range.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn in_place<T>(
        &self,
        room: RecordRoom<'_>,
        f: impl FnOnce(&mut [u8]) -> T,
    ) -> core::result::Result<T, Fault> {
        let area = room.area();
        let to = self.slice(area.start, area.len)?;
        // SAFETY: `slice` checked the range, whose length fits an `isize`. By the invariants of
        // `RecordRoom` nobody else writes there while `room` lives. Whoever looks through the table
        // meanwhile copies bytes, and believes none of an area that the commit word does not name.
        // No VMM has it mapped: record areas are in no block of RAM.
        Ok(f(unsafe {
            slice::from_raw_parts_mut(to, area.len as usize)
        }))
    }

    fn write_word(&self, at: u64, word: u64) -> core::result::Result<(), Fault> {
        let to = self.slice(at, 8)?.cast::<u64>();
        if !to.is_aligned() {
            return Err(Fault { at });
        }
        // SAFETY: `slice` checked the range; one aligned store of 8 bytes.
        unsafe { to.write_volatile(word.to_le()) };
        Ok(())
    }

    fn zero(&self, at: u64, len: u64) -> core::result::Result<(), Fault> {
        let mut done = 0;
        while done < len {
            let part = (len - done).min(HUGE_PAGE);
            let to = self.slice(at + done, part)?;
            if part % 8 != 0 {
                return Err(Fault { at });
            }
            // SAFETY: `slice` checked the range.
            unsafe { c::nvhv_zero(to.cast(), part as usize) };
            done += part;
            // SAFETY: Zeroing is done in process context, without spinlocks.
            unsafe { c::nvhv_cond_resched() };
        }
        Ok(())
    }

    fn flush(&self, at: u64, len: u64) -> core::result::Result<(), Fault> {
        let from = self.slice(at, len)?;
        if self.domain != Domain::CpuCache {
            // SAFETY: `slice` checked the range.
            unsafe { c::arch_wb_cache_pmem(from.cast(), len as usize) };
        }
        Ok(())
    }

    fn fence(&self) {
        // SAFETY: A memory barrier.
        unsafe { c::nvhv_wmb() };
    }

    fn crc_range(&self, crc: u32, at: u64, len: u64) -> core::result::Result<u32, Fault> {
        let from = self.slice(at, len)?;
        // SAFETY: `slice` checked the range. The kernel's function neither inverts the seed nor the
        // result.
        Ok(!unsafe { c::crc32c(!crc, from.cast(), len as usize) })
    }

    fn crc(&self) -> Crc {
        |seed, bytes| {
            // The kernel's function neither inverts the seed nor the result.
            // SAFETY: `bytes` is readable for its length.
            !unsafe { c::crc32c(!seed, bytes.as_ptr().cast(), bytes.len()) }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this reference is ours.
        unsafe { c::nvhv_put_devmap(self.pgmap.as_ptr()) }
    }
}
