// SPDX-License-Identifier: GPL-2.0

//! Counted references to a `struct file`.
//!
//! C header: `include/linux/file.h`, `include/linux/fs.h`.

use super::c;
use core::{ptr::NonNull, sync::atomic::AtomicPtr};
use kernel::{error::from_err_ptr, prelude::*, str::CStr};

/// A counted reference to an open file.
///
/// # Invariants
///
/// `self.0` points to a `struct file` of which this value owns one reference.
pub(crate) struct FileRef(NonNull<c::file>);

// SAFETY: A file reference may be used and dropped on any thread.
unsafe impl Send for FileRef {}
// SAFETY: The methods that take `&self` may be called in parallel.
unsafe impl Sync for FileRef {}

impl FileRef {
    /// Opens `path` in the name space of the current task with `flags` (`O_RDONLY`, `O_RDWR`).
    pub(crate) fn open(path: &CStr, flags: u32) -> Result<Self> {
        // SAFETY: `path` is a valid C string.
        let ptr = from_err_ptr(unsafe { c::filp_open(path.as_char_ptr(), flags as i32, 0) })?;
        // INVARIANT: `filp_open` gave us one reference.
        Ok(Self(NonNull::new(ptr).ok_or(EINVAL)?))
    }

    /// The file behind a descriptor of the current task.
    pub(crate) fn from_fd(fd: u32) -> Result<Self> {
        // SAFETY: `fget` may be called with any number.
        // INVARIANT: what it returns is counted for us.
        Ok(Self(NonNull::new(unsafe { c::fget(fd) }).ok_or(EBADF)?))
    }

    /// Takes over a reference that a C function returned, or its error.
    ///
    /// # Safety
    ///
    /// `ptr` is an error pointer, or a file of which the caller hands over one reference.
    pub(crate) unsafe fn from_owned(ptr: *mut c::file) -> Result<Self> {
        // INVARIANT: handed over by the caller.
        Ok(Self(NonNull::new(from_err_ptr(ptr)?).ok_or(EINVAL)?))
    }

    /// Takes a new reference to the file that `slot` points to, unless that is null or the file is
    /// being released.
    ///
    /// # Safety
    ///
    /// Whoever releases the file sets `slot` to null before.
    pub(crate) unsafe fn from_slot(slot: &AtomicPtr<c::file>) -> Option<Self> {
        // SAFETY: By this function's contract. A file's memory may be reused for another file at any
        // time, so the kernel looks at the slot again once it holds a reference.
        // INVARIANT: a reference was taken if the result is not null.
        NonNull::new(unsafe { c::get_file_active(slot.as_ptr()) }).map(Self)
    }

    /// The file itself, valid while `self` lives.
    pub(crate) fn as_ptr(&self) -> *mut c::file {
        self.0.as_ptr()
    }

    /// Whether the file's name starts with `prefix`; anonymous inodes are known by it.
    pub(crate) fn is_named(&self, prefix: &CStr) -> bool {
        // SAFETY: By the type invariant, and `prefix` is a valid C string.
        unsafe { c::nvhv_file_named(self.as_ptr(), prefix.as_char_ptr()) }
    }

    /// Reads from the start of the file into `buf`; returns the number of bytes read.
    pub(crate) fn read(&self, buf: &mut [u8]) -> Result<usize> {
        let mut pos = 0;
        // SAFETY: By the type invariant, and `buf` is writable for its length.
        let got =
            unsafe { c::kernel_read(self.as_ptr(), buf.as_mut_ptr().cast(), buf.len(), &mut pos) };
        kernel::error::to_result(got as i32)?;
        Ok(got as usize)
    }
}

impl FileRef {
    /// Writes `buf` to the start of the file.
    pub(crate) fn write(&self, buf: &[u8]) -> Result {
        let mut pos = 0;
        // SAFETY: By the type invariant, and `buf` is readable for its length.
        let put =
            unsafe { c::kernel_write(self.as_ptr(), buf.as_ptr().cast(), buf.len(), &mut pos) };
        kernel::error::to_result(put as i32)
    }
}

impl Drop for FileRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant we own this reference.
        unsafe { c::fput(self.as_ptr()) }
    }
}
