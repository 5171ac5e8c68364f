// SPDX-License-Identifier: GPL-2.0

//! Calling the ioctls of KVM's files.

use crate::sys::{c, file::FileRef};
use core::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};
use kernel::prelude::*;

/// KVM's operations of one of its files, and the file while it lives.
///
/// # Invariants
///
/// `orig` points to the `file_operations` that KVM gave the file; they are static data of kvm.ko,
/// which the module keeps loaded. `file` is the file, or null once it is being released.
pub(crate) struct KvmFile {
    file: AtomicPtr<c::file>,
    orig: *const c::file_operations,
}

// SAFETY: `orig` is read-only data and `file` is atomic.
unsafe impl Send for KvmFile {}
// SAFETY: As above.
unsafe impl Sync for KvmFile {}

impl KvmFile {
    /// Remembers `file` and the operations it has now.
    ///
    /// # Safety
    ///
    /// `file` is a valid file whose operations are KVM's own.
    pub(crate) unsafe fn of(file: *mut c::file) -> Self {
        // SAFETY: By this function's contract.
        let orig = unsafe { (*file).f_op };
        // INVARIANT: By this function's contract.
        Self {
            file: AtomicPtr::new(file),
            orig,
        }
    }

    /// KVM's own operations.
    pub(crate) fn operations(&self) -> &c::file_operations {
        // SAFETY: By the type invariant.
        unsafe { &*self.orig }
    }

    /// The address of KVM's ioctl function.
    pub(crate) fn entry_point(&self) -> usize {
        self.operations().unlocked_ioctl.map_or(0, |f| f as usize)
    }

    /// A reference to the file, unless it is being released.
    pub(crate) fn get(&self) -> Result<FileRef> {
        // SAFETY: The release function calls `forget` before the file goes.
        unsafe { FileRef::from_slot(&self.file) }.ok_or(ENXIO)
    }

    /// Forgets the file: it is being released.
    pub(crate) fn forget(&self) {
        self.file.store(ptr::null_mut(), Ordering::Release);
    }

    /// Calls KVM's ioctl. The address space in use must be the VMM's; KVM checks that (-EIO).
    pub(crate) fn call(&self, file: &FileRef, request: u32, arg: usize) -> Result<usize> {
        // SAFETY: `file` is a live reference to the file that these operations belong to.
        let ret = unsafe { self.call_raw(file.as_ptr(), request, arg) };
        kernel::error::to_result(ret as i32)?;
        Ok(ret as usize)
    }

    /// As [`Self::call`], on the file itself, with the return value as KVM gives it.
    ///
    /// # Safety
    ///
    /// `file` is the file that these operations belong to and stays alive during the call.
    pub(crate) unsafe fn call_raw(&self, file: *mut c::file, request: u32, arg: usize) -> isize {
        match self.operations().unlocked_ioctl {
            // SAFETY: By this function's contract; KVM checks request and argument.
            Some(ioctl) => unsafe { ioctl(file, request, arg) as isize },
            None => ENOTTY.to_errno() as isize,
        }
    }
}
