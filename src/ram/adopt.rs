// SPDX-License-Identifier: GPL-2.0

//! Moving blocks of guest RAM into the pool, and out of a VMM that is refused.

use super::{
    mapping::{self, RamFile},
    overlay::{Denied, OverlayPage},
};
use crate::{
    format::{Block, HeaderView, Media},
    pool::{device::Device, memory::Memory},
    state::blocks::may_be_storage,
    sys::c,
};
use kernel::{prelude::*, sync::Arc};

const PAGE: usize = 4096;
const HUGE_PAGE: u64 = 2 << 20;

/// A block of guest RAM that is mapped.
#[derive(Clone, Copy)]
pub(crate) struct Placed {
    /// Guest physical address of its first byte.
    pub(crate) gpa: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// Where the VMM has it; 0 as long as the VMM has not presented it, and once it has unmapped it.
    pub(crate) hva: u64,
    /// Where KVM has it: a second mapping in the VMM's address space, aligned like `gpa` modulo
    /// 2 MiB whatever the VMM's own address is. So KVM can always use huge pages, and what the VMM sees
    /// can differ, page by page, from what the guest sees.
    pub(crate) alias: u64,
}

/// The RAM of a VM.
pub(crate) struct Ram {
    /// What KVM's aliases map.
    guest: RamFile,
    /// What the VMM's own addresses map; closed until the VM is live.
    vmm: Arc<RamFile>,
    blocks: KVec<Placed>,
}

impl Ram {
    /// No RAM yet. What is mapped for the VMM is out of its reach until [`Self::open`].
    pub(crate) fn new(device: &Arc<Device>) -> Result<Self> {
        let guest = RamFile::new(device.clone())?;
        guest.open();
        Ok(Self {
            guest,
            vmm: Arc::new(RamFile::new(device.clone())?, GFP_KERNEL)?,
            blocks: KVec::new(),
        })
    }

    /// Lets the VMM at its RAM.
    pub(crate) fn open(&self) {
        self.vmm.open();
    }

    /// Lets the VMM's accesses wait: from here on nothing writes to the RAM but I/O that was
    /// already on its way to the device.
    pub(crate) fn close(&self) {
        self.vmm.close();
    }

    /// Takes the RAM from VMM and KVM for good.
    pub(crate) fn revoke(&self) {
        self.vmm.revoke();
        self.guest.revoke();
    }

    /// What is mapped.
    pub(crate) fn blocks(&self) -> &[Placed] {
        &self.blocks
    }

    /// The VMM's view of it.
    pub(crate) fn vmm_view(&self) -> VmmView {
        VmmView(self.vmm.clone())
    }

    /// Maps `block` for KVM and, unless `hva` is 0, for the VMM at `hva`, in place of what is there.
    pub(crate) fn map(&mut self, header: &HeaderView<'_>, block: &Block, hva: u64) -> Result {
        let len = usize::try_from(block.len).map_err(|_| ENOMEM)?;
        let alias = mapping::reserve(len, (block.gpa % HUGE_PAGE) as usize)?;
        let placed = Placed {
            gpa: block.gpa,
            len: block.len,
            hva,
            alias: alias as u64,
        };
        let mapped = map_range(&self.guest, header, block, alias).and_then(|()| {
            if hva != 0 {
                map_range(&self.vmm, header, block, hva as usize)?;
            }
            Ok(self.blocks.push(placed, GFP_KERNEL)?)
        });
        if mapped.is_err() {
            mapping::unmap(alias, len);
        }
        mapped
    }

    /// Maps a block that KVM has already for the VMM, which presents it now at `hva`.
    pub(crate) fn present(&mut self, header: &HeaderView<'_>, block: &Block, hva: u64) -> Result {
        map_range(&self.vmm, header, block, hva as usize)?;
        for placed in self.blocks.iter_mut().filter(|b| b.gpa == block.gpa) {
            placed.hva = hva;
        }
        Ok(())
    }

    /// Forgets where the VMM had blocks that it has unmapped: what is there now is other memory.
    pub(crate) fn forget_unmapped(&mut self) {
        for block in self.blocks.iter_mut() {
            if block.hva != 0 && !self.vmm.is_mapped(block.hva, block.len) {
                block.hva = 0;
            }
        }
    }

    /// Whether there is such a block and the VMM does not have it.
    pub(crate) fn is_vacant(&self, gpa: u64, len: u64) -> bool {
        self.find(gpa, len).is_some_and(|block| block.hva == 0)
    }

    /// Whether there is such a block and the VMM has it.
    pub(crate) fn is_presented(&self, gpa: u64, len: u64) -> bool {
        self.find(gpa, len).is_some_and(|block| block.hva != 0)
    }

    fn find(&self, gpa: u64, len: u64) -> Option<&Placed> {
        let mut blocks = self.blocks.iter();
        blocks.find(|block| (block.gpa, block.len) == (gpa, len))
    }

    /// Gives a vacant block that is zero the content of the VMM's memory at `hva`, and maps it there. The
    /// guest does not have it meanwhile.
    pub(crate) fn fill(
        &mut self,
        device: &Device,
        header: &HeaderView<'_>,
        block: &Block,
        hva: u64,
    ) -> Result {
        copy_in(device, header, block, hva)?;
        self.present(header, block, hva)
    }

    /// As [`fill`](Self::fill), whatever the block has held.
    pub(crate) fn refill(
        &mut self,
        device: &Device,
        header: &HeaderView<'_>,
        block: &Block,
        hva: u64,
    ) -> Result {
        let mut done = 0;
        while let Some((offset, len)) = header.locate(block, done) {
            device.memory.zero(offset, len).map_err(|_| EIO)?;
            done += len;
        }
        self.fill(device, header, block, hva)
    }

    /// KVM's address of `len` bytes that the VMM has at `hva`. `Some(None)` if only a part of them
    /// is in a block, `None` if nothing is.
    pub(crate) fn alias_of(&self, hva: u64, len: u64) -> Option<Option<u64>> {
        let end = hva.checked_add(len)?;
        let block = self
            .blocks
            .iter()
            .find(|b| b.hva != 0 && hva < b.hva.saturating_add(b.len) && b.hva < end)?;
        let inside = hva >= block.hva && end <= block.hva.saturating_add(block.len);
        Some(inside.then(|| block.alias + (hva - block.hva)))
    }

    /// Gives the VMM fresh memory in place of its blocks: it was refused, and must not write into
    /// the image.
    pub(crate) fn evict(&mut self) {
        for block in self.blocks.drain_all() {
            if block.hva != 0
                && mapping::map_anonymous_at(block.hva as usize, block.len as usize).is_err()
            {
                // Without memory for a new mapping: no mapping is safe as well.
                mapping::unmap(block.hva as usize, block.len as usize);
            }
            mapping::unmap(block.alias as usize, block.len as usize);
        }
        // What the VMM may have copied the mapping to.
        self.revoke();
    }
}

/// The VMM's view of a VM's RAM, where single pages may be overlaid.
#[derive(Clone)]
pub(crate) struct VmmView(Arc<RamFile>);

impl VmmView {
    /// The device that the RAM is on.
    pub(crate) fn device(&self) -> &Arc<Device> {
        self.0.device()
    }

    /// Gives the VMM a page of its own in place of the one at `offset` of the pool.
    pub(crate) fn overlay(&self, offset: u64) -> core::result::Result<OverlayPage, Denied> {
        OverlayPage::new(&self.0, offset)
    }
}

/// Maps `block` at `addr`, extent by extent.
fn map_range(file: &RamFile, header: &HeaderView<'_>, block: &Block, addr: usize) -> Result {
    let mut done = 0;
    while let Some((offset, len)) = header.locate(block, done) {
        let at = addr.checked_add(done as usize).ok_or(EINVAL)?;
        file.map_at(at, len as usize, offset)?;
        done += len;
    }
    Ok(())
}

/// What becomes of memory that a VMM presents to its guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// The pool's takes its place.
    Memory,
    /// A file is where a device keeps what the guest stores there (virtio-pmem, NVDIMM): it stays.
    Storage,
}

/// What the VMM's memory at `hva`, which the guest has at `gpa`, can be taken for. The reason if for
/// nothing.
pub(crate) fn check_backing(
    gpa: u64,
    hva: u64,
    len: u64,
) -> core::result::Result<Backing, &'static str> {
    let mut at = hva;
    let end = hva.checked_add(len).ok_or("it wraps around")?;
    let mut found = None;
    while at < end {
        let (backing, vma_end) = backing(at);
        let part = match backing {
            c::nvhv_backing_NVHV_BACKING_ANON | c::nvhv_backing_NVHV_BACKING_SHMEM => {
                Backing::Memory
            }
            c::nvhv_backing_NVHV_BACKING_FILE if !may_be_storage(gpa) => {
                return Err("it is a file's memory, not anonymous memory or a memfd")
            }
            c::nvhv_backing_NVHV_BACKING_FILE => Backing::Storage,
            c::nvhv_backing_NVHV_BACKING_NONE => return Err("it is not mapped writable"),
            c::nvhv_backing_NVHV_BACKING_AWAITED => {
                return Err("its pages have yet to arrive (userfaultfd, a migration with postcopy)")
            }
            c::nvhv_backing_NVHV_BACKING_SHARED => {
                return Err("it is shared with another process (vhost-user)")
            }
            _ => {
                return Err("it is a file's or a device's memory, not anonymous memory or a memfd")
            }
        };
        if found.is_some_and(|other| other != part) {
            return Err("a part of it is a file's");
        }
        found = Some(part);
        at = vma_end;
    }
    match found {
        // What a VMM puts there before its guest runs would be lost, or overwrite what is kept.
        Some(Backing::Storage) if is_touched(hva, end) => {
            Err("it is a file's memory, and the VMM uses it itself")
        }
        Some(found) => Ok(found),
        None => Err("it is empty"),
    }
}

/// Whether the VMM has accessed a page of its memory from `hva` to `end`.
fn is_touched(hva: u64, end: u64) -> bool {
    let mut at = hva;
    while at < end {
        // SAFETY: Looks at the current address space.
        at = unsafe { c::nvhv_next_populated(at as usize, end as usize) } as u64;
        let stop = ((at & !(HUGE_PAGE - 1)) + HUGE_PAGE).min(end);
        while at < stop {
            // SAFETY: As above.
            if unsafe { c::nvhv_is_present(at as usize) } {
                return true;
            }
            at += PAGE as u64;
        }
    }
    false
}

/// Makes durable what files have of storage that the VMM has at `hva` (see [`Backing::Storage`]).
pub(crate) fn sync_storage(hva: u64, len: u64) -> Result {
    // SAFETY: Looks at the current address space, and may sleep.
    kernel::error::to_result(unsafe { c::nvhv_sync_mapped_files(hva as usize, len as usize) })
}

fn backing(addr: u64) -> (c::nvhv_backing, u64) {
    let mut end = 0;
    // SAFETY: Looks at the current address space.
    let backing = unsafe { c::nvhv_backing(addr as usize, &mut end) };
    (backing, end as u64)
}

/// Copies what the VMM has put into its memory at `hva` into `block`. Holes stay holes: the cost
/// follows the pages that are present. Returns how many pages were copied.
pub(crate) fn copy_in(
    device: &Device,
    header: &HeaderView<'_>,
    block: &Block,
    hva: u64,
) -> Result<u64> {
    let end = hva + block.len;
    let mut at = hva;
    let mut copied = 0;
    while at < end {
        let (backing, vma_end) = backing(at);
        let part_end = vma_end.min(end);
        if part_end <= at {
            return Err(EFAULT);
        }
        while at < part_end {
            if backing == c::nvhv_backing_NVHV_BACKING_ANON {
                // A memfd may hold pages that this mapping has not touched; anonymous memory not.
                // SAFETY: Looks at the current address space.
                at = unsafe { c::nvhv_next_populated(at as usize, part_end as usize) } as u64;
            }
            let stop = ((at & !(HUGE_PAGE - 1)) + HUGE_PAGE).min(part_end);
            while at < stop {
                let (pages, pages_copied) =
                    copy_batch(&device.memory, header, block, at - hva, at, stop)?;
                at += pages * PAGE as u64;
                copied += pages_copied;
            }
        }
    }
    Ok(copied)
}

/// Copies a few pages; returns how many were looked at, and how many had content.
fn copy_batch(
    memory: &Memory,
    header: &HeaderView<'_>,
    block: &Block,
    offset: u64,
    addr: u64,
    stop: u64,
) -> Result<(u64, u64)> {
    const BATCH: usize = 32;
    let mut pages = [core::ptr::null_mut(); BATCH];
    let want = (((stop - addr) / PAGE as u64) as usize).min(BATCH);
    // SAFETY: `pages` has room. Reading faults in what was swapped out.
    let got = unsafe { c::get_user_pages_fast(addr as usize, want as i32, 0, pages.as_mut_ptr()) };
    kernel::error::to_result(got)?;
    let got = pages.get(..got as usize).ok_or(EFAULT)?;
    let mut copied = 0;
    let mut result = Ok(());
    for (i, &page) in got.iter().enumerate() {
        // SAFETY: `page` is a page we hold.
        if unsafe { c::nvhv_page_is_pinned(page) } {
            // A device writes there, and would go on writing to the old page.
            result = Err(EBUSY);
        }
        if result.is_ok() {
            result = header
                .locate(block, offset + (i * PAGE) as u64)
                .ok_or(EFAULT)
                .and_then(|(to, _)| {
                    // SAFETY: `page` is pinned, and x86-64 maps all pages.
                    let full =
                        unsafe { memory.copy_page_in(to, c::nvhv_page_address(page).cast()) }
                            .map_err(|_| EIO)?;
                    copied += u64::from(full);
                    Ok(())
                });
        }
        // SAFETY: `get_user_pages_fast` took a reference.
        unsafe { c::nvhv_put_page(page) };
    }
    result?;
    if got.is_empty() {
        return Err(EFAULT);
    }
    Ok((got.len() as u64, copied))
}
