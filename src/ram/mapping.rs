// SPDX-License-Identifier: GPL-2.0

//! Mapping pool memory into a VMM.
//!
//! devdax's own `mmap` refuses addresses that are not aligned to the device's alignment, so the
//! pages are mapped by VM operations of ours. They are ordinary reference-counted pages: direct I/O,
//! io_uring and vfio can pin them, and they outlive the mapping while something does. Faults take
//! 2 MiB wherever address and pool offset agree modulo 2 MiB.
//!
//! Every mapping of a VM, the VMM's and KVM's alias alike, faults through here.

use super::overlay::Overlays;
use crate::{
    pool::device::Device,
    sys::{c, file::FileRef},
};
use core::{
    cell::UnsafeCell,
    mem, ptr,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};
use kernel::{prelude::*, sync::Arc};

const PAGE: u64 = 4096;
const HUGE_PAGE: u64 = 2 << 20;

/// The file behind mappings. Its page offsets are the pool's.
pub(crate) struct RamFile {
    file: FileRef,
    backing: Arc<Backing>,
}

/// What a RAM file's mappings show.
struct Backing {
    device: Arc<Device>,
    /// An [`Access`]. Written with the file's mapping lock held, under which faults are served.
    access: AtomicU32,
    /// What the mappings show in place of the pool's pages. Read with the file's mapping lock held,
    /// changed with it held exclusively.
    overlays: UnsafeCell<Overlays>,
    /// The task that is mapping the file on our behalf. Nobody else may: page offsets are the
    /// pool's, and a mapping of other pages would show other VMs' memory.
    mapper: AtomicPtr<c::task_struct>,
}

// SAFETY: `overlays` is guarded by the file's mapping lock, as said there; all else is `Send` and
// `Sync` itself.
unsafe impl Send for Backing {}
// SAFETY: As above.
unsafe impl Sync for Backing {}

/// What happens to an access to the RAM.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Access {
    /// It waits.
    Closed = 0,
    /// It is served.
    Open = 1,
    /// It fails (SIGBUS): the VM is not here any more.
    Revoked = 2,
}

static FILE_OPS: Table<c::file_operations> = Table(c::file_operations {
    owner: crate::THIS.as_ptr().cast(),
    mmap: Some(mmap),
    release: Some(release),
    // SAFETY: All-zero is a valid `file_operations`: no operation.
    ..unsafe { mem::zeroed() }
});

static VM_OPS: Table<c::vm_operations_struct> = Table(c::vm_operations_struct {
    may_split: Some(may_split),
    fault: Some(fault),
    mremap: Some(mremap),
    huge_fault: Some(huge_fault),
    // SAFETY: All-zero is a valid `vm_operations_struct`: no operation.
    ..unsafe { mem::zeroed() }
});

/// A table of function pointers for the kernel.
struct Table<T>(T);

// SAFETY: The tables are never written.
unsafe impl<T> Sync for Table<T> {}

impl RamFile {
    /// Makes a file over the pool on `device`.
    pub(crate) fn new(device: Arc<Device>) -> Result<Self> {
        let backing = Arc::new(
            Backing {
                device,
                access: AtomicU32::new(Access::Closed as u32),
                overlays: UnsafeCell::new(Overlays::default()),
                mapper: AtomicPtr::new(ptr::null_mut()),
            },
            GFP_KERNEL,
        )?;
        let private = Arc::into_raw(backing.clone());
        // SAFETY: The name and the operations are static; `private` is handed to the file.
        let file = unsafe {
            // An inode of its own: all mappings of this file, and no others, hang on it.
            FileRef::from_owned(c::anon_inode_create_getfile(
                c"[nvhv-ram]".as_char_ptr(),
                &FILE_OPS.0,
                private.cast_mut().cast(),
                c::O_RDWR as i32,
                ptr::null(),
            ))
        };
        match file {
            Ok(file) => Ok(Self { file, backing }),
            Err(e) => {
                // SAFETY: No file took it over.
                drop(unsafe { Arc::from_raw(private) });
                Err(e)
            }
        }
    }

    /// Serves accesses from now on, those that wait first.
    pub(crate) fn open(&self) {
        self.set(Access::Open);
    }

    /// Lets accesses wait from now on: when this returns, no CPU can write through a mapping.
    pub(crate) fn close(&self) {
        self.set(Access::Closed);
    }

    /// Lets accesses fail from now on, for good.
    pub(crate) fn revoke(&self) {
        self.set(Access::Revoked);
    }

    fn set(&self, access: Access) {
        let file = self.file.as_ptr();
        // SAFETY: The file is open. Faults are served under the lock, so none is half way between
        // its look at `access` and its page table entry when the mappings are emptied.
        unsafe {
            c::nvhv_mapping_lock(file);
            self.backing.access.store(access as u32, Ordering::Release);
            if access != Access::Open {
                c::nvhv_unmap_all(file);
            }
            c::nvhv_mapping_unlock(file);
        }
    }

    /// The device whose memory it shows.
    pub(super) fn device(&self) -> &Arc<Device> {
        &self.backing.device
    }

    /// Calls `f` with the overlaid pages and a function that empties the mappings of the page at an
    /// offset. No fault is served meanwhile.
    pub(super) fn with_overlays<T>(&self, f: impl FnOnce(&mut Overlays, &dyn Fn(u64)) -> T) -> T {
        let file = self.file.as_ptr();
        // SAFETY: The file is open, and the lock held while `f` runs.
        let zap = |offset: u64| unsafe { c::nvhv_unmap_page(file, offset as i64) };
        // SAFETY: The file is open.
        unsafe { c::nvhv_mapping_lock(file) };
        // SAFETY: Whoever looks at the overlays holds the lock, which we hold exclusively.
        let ret = f(unsafe { &mut *self.backing.overlays.get() }, &zap);
        // SAFETY: Locked above.
        unsafe { c::nvhv_mapping_unlock(file) };
        ret
    }

    /// Whether any of `len` bytes at `addr` of the current address space is mapped from it.
    pub(crate) fn is_mapped(&self, addr: u64, len: u64) -> bool {
        let end = addr.saturating_add(len);
        // SAFETY: The file is open.
        unsafe { c::nvhv_maps_file(addr as usize, end as usize, self.file.as_ptr()) }
    }

    /// Maps `len` bytes of the pool from `offset` at `addr` in the current address space, in place
    /// of what is there.
    pub(crate) fn map_at(&self, addr: usize, len: usize, offset: u64) -> Result {
        // SAFETY: Reads a per-CPU pointer.
        let task = unsafe { c::nvhv_current() };
        self.backing.mapper.store(task, Ordering::Release);
        let done = vm_mmap(
            self.file.as_ptr(),
            addr,
            len,
            c::PROT_READ | c::PROT_WRITE,
            c::MAP_SHARED | c::MAP_FIXED,
            offset,
        );
        self.backing
            .mapper
            .store(ptr::null_mut(), Ordering::Release);
        done.map(|_| ())
    }
}

/// Maps fresh anonymous memory at `addr` in the current address space, in place of what is there.
pub(crate) fn map_anonymous_at(addr: usize, len: usize) -> Result {
    let flags = c::MAP_PRIVATE | c::MAP_ANONYMOUS | c::MAP_FIXED | c::MAP_NORESERVE;
    let prot = c::PROT_READ | c::PROT_WRITE;
    vm_mmap(ptr::null_mut(), addr, len, prot, flags, 0).map(|_| ())
}

/// Reserves `len` bytes of the current address space that start at `phase` modulo 2 MiB.
pub(crate) fn reserve(len: usize, phase: usize) -> Result<usize> {
    let huge = HUGE_PAGE as usize;
    let whole = len.checked_add(huge).ok_or(ENOMEM)?;
    let flags = c::MAP_PRIVATE | c::MAP_ANONYMOUS | c::MAP_NORESERVE;
    // Without access, so that it is not populated in a process that locks all it maps.
    let start = vm_mmap(ptr::null_mut(), 0, whole, 0, flags, 0)?;
    let addr = start + (huge + phase % huge - start % huge) % huge;
    // What is left over on both sides goes back.
    for (from, to) in [(start, addr), (addr + len, start + whole)] {
        if to > from {
            unmap(from, to - from);
        }
    }
    Ok(addr)
}

/// Removes mappings from the current address space.
pub(crate) fn unmap(addr: usize, len: usize) {
    // SAFETY: The range was mapped by us. It fails only without memory for a split; what stays
    // mapped goes with the address space.
    let _ = unsafe { c::vm_munmap(addr, len) };
}

fn vm_mmap(
    file: *mut c::file,
    addr: usize,
    len: usize,
    prot: u32,
    flags: u32,
    offset: u64,
) -> Result<usize> {
    // SAFETY: `file` is valid or null; the kernel checks everything else.
    let addr = unsafe {
        c::vm_mmap(
            file,
            addr,
            len,
            prot as usize,
            flags as usize,
            offset as usize,
        )
    };
    if (addr as isize) < 0 && addr as isize > -4096 {
        return Err(Error::from_errno(addr as i32));
    }
    Ok(addr)
}

unsafe extern "C" fn mmap(file: *mut c::file, vma: *mut c::vm_area_struct) -> i32 {
    // SAFETY: `private_data` is an `Arc<Backing>` as a raw pointer, which the file holds.
    let backing = unsafe { &*(*file).private_data.cast::<Backing>() };
    if !backing.is_mapper() {
        // remap_file_pages(2), or the file by way of /proc.
        return EPERM.to_errno();
    }
    // SAFETY: The kernel hands us a new, exclusive VMA.
    unsafe { c::nvhv_vma_setup(vma, &VM_OPS.0) };
    0
}

unsafe extern "C" fn release(_inode: *mut c::inode, file: *mut c::file) -> i32 {
    // SAFETY: `private_data` was set by `RamFile::new`; the file is going.
    drop(unsafe { Arc::from_raw((*file).private_data.cast::<Backing>().cast_const()) });
    0
}

/// No part of a mapping is replaced or taken away. A VMM that maps something else over a part of its RAM
/// (a file, into the DAX window of a virtio-fs device) means the guest to see that; but the guest has the
/// alias, and would see the pool's memory. So the VMM gets an error, not the guest wrong data.
unsafe extern "C" fn may_split(_vma: *mut c::vm_area_struct, _addr: usize) -> i32 {
    EINVAL.to_errno()
}

/// The alias stays where it is: KVM has its address.
unsafe extern "C" fn mremap(_vma: *mut c::vm_area_struct) -> i32 {
    EINVAL.to_errno()
}

impl Backing {
    /// Whether the current task is mapping the file on our behalf.
    fn is_mapper(&self) -> bool {
        // SAFETY: Reads a per-CPU pointer.
        self.mapper.load(Ordering::Acquire) == unsafe { c::nvhv_current() }
    }
}

/// Serves a fault with `serve` if the RAM may be accessed now. If it is closed, waits a little: the
/// access is tried again.
///
/// # Safety
///
/// `vmf` is a fault on one of our VMAs.
unsafe fn serve(
    vmf: *mut c::vm_fault,
    serve: impl FnOnce(&Device, &Overlays) -> c::vm_fault_t,
) -> c::vm_fault_t {
    // SAFETY: The VMA holds the file, whose `private_data` is an `Arc<Backing>` as a raw pointer.
    let (file, backing) = unsafe {
        let file = c::nvhv_vma_file((*vmf).__bindgen_anon_1.vma);
        (file, &*(*file).private_data.cast::<Backing>())
    };
    // SAFETY: The file lives as long as its VMA. A fault may sleep, and holds no other lock of ours.
    unsafe { c::nvhv_mapping_lock_shared(file) };
    let access = backing.access.load(Ordering::Acquire);
    let ret = if access == Access::Open as u32 {
        // SAFETY: The lock is held.
        serve(&backing.device, unsafe { &*backing.overlays.get() })
    } else {
        c::vm_fault_reason_VM_FAULT_NOPAGE
    };
    // SAFETY: Locked above.
    unsafe { c::nvhv_mapping_unlock_shared(file) };
    if access == Access::Open as u32 {
        return ret;
    }
    // SAFETY: Looks at the current task.
    let killed = unsafe { c::nvhv_current_killed() };
    if access == Access::Revoked as u32 || backing.is_mapper() || killed {
        // Revoked; or a process that locks all it maps populates a mapping that is still closed; or
        // a system call of a killed task copies to the RAM: nothing but an error ends its retries, and
        // nobody opens the RAM before the task is gone.
        return c::vm_fault_reason_VM_FAULT_SIGBUS;
    }
    // SAFETY: A fault may sleep.
    unsafe { c::nvhv_msleep(1) };
    ret
}

/// Pool offset and user address of a fault.
///
/// # Safety
///
/// As for [`device`].
unsafe fn place(vmf: *mut c::vm_fault) -> (u64, u64) {
    // SAFETY: By this function's contract.
    unsafe {
        let at = &(*vmf).__bindgen_anon_1;
        (at.pgoff as u64 * PAGE, at.address as u64)
    }
}

unsafe extern "C" fn fault(vmf: *mut c::vm_fault) -> c::vm_fault_t {
    // SAFETY: A fault on one of our VMAs.
    unsafe {
        let (offset, _) = place(vmf);
        serve(vmf, |device, overlays| {
            let page = overlays.at(offset).or_else(|| device.memory.page(offset));
            match page {
                // SAFETY: `page` is a valid page of the device, which the file keeps claimed, or in the
                // set of overlays while the lock is held; a mapping takes a reference of its own.
                Some(page) => c::vmf_insert_page_mkwrite(vmf, page, is_write(vmf)),
                None => c::vm_fault_reason_VM_FAULT_SIGBUS,
            }
        })
    }
}

unsafe extern "C" fn huge_fault(vmf: *mut c::vm_fault, order: u32) -> c::vm_fault_t {
    if order != c::NVHV_PMD_ORDER {
        return c::vm_fault_reason_VM_FAULT_FALLBACK;
    }
    // SAFETY: A fault on one of our VMAs.
    let (offset, addr) = unsafe { place(vmf) };
    let start = addr & !(HUGE_PAGE - 1);
    // SAFETY: The VMA is valid and locked during a fault.
    let fits = unsafe {
        let vma = (*vmf).__bindgen_anon_1.vma;
        let range = &(*vma).__bindgen_anon_1.__bindgen_anon_1;
        start >= range.vm_start as u64 && start + HUGE_PAGE <= range.vm_end as u64
    };
    if !fits || (offset ^ (addr & !(PAGE - 1))) % HUGE_PAGE != 0 {
        return c::vm_fault_reason_VM_FAULT_FALLBACK;
    }
    // SAFETY: As above.
    unsafe {
        serve(vmf, |device, overlays| {
            let first = offset & !(HUGE_PAGE - 1);
            if overlays.any_in_huge_page(first) {
                return c::vm_fault_reason_VM_FAULT_FALLBACK;
            }
            match device.memory.page(first) {
                // SAFETY: `page` is the first of a folio of that order, which `Memory::claim` checked.
                Some(page) => c::vmf_insert_folio_pmd(vmf, c::nvhv_page_folio(page), is_write(vmf)),
                None => c::vm_fault_reason_VM_FAULT_SIGBUS,
            }
        })
    }
}

/// # Safety
///
/// As for [`device`].
unsafe fn is_write(vmf: *mut c::vm_fault) -> bool {
    // SAFETY: By this function's contract.
    unsafe { (*vmf).flags & c::fault_flag_FAULT_FLAG_WRITE != 0 }
}
