// SPDX-License-Identifier: GPL-2.0

//! The files that the current process has open, as far as writes to them wait in the page cache.
//!
//! C header: `include/linux/fdtable.h`.

use super::{c, file::FileRef};
use core::ffi::c_void;
use kernel::{error::from_err_ptr, prelude::*, str::CStr};

/// How many are looked at more closely.
const NAMED: usize = 8;

/// A file that is open for reading and writing, and whose writes wait in the page cache.
pub(crate) struct Cached {
    file: FileRef,
}

/// Those of the current process.
pub(crate) struct AllCached {
    /// How many there are.
    pub(crate) count: u32,
    /// The first of them, each file once.
    pub(crate) first: KVec<Cached>,
}

impl AllCached {
    /// Looks at all that the current process has open now.
    pub(crate) fn of_current() -> Result<Self> {
        let mut all = Self {
            count: 0,
            first: KVec::with_capacity(NAMED, GFP_KERNEL)?,
        };
        let data = core::ptr::from_mut(&mut all).cast_const().cast();
        // SAFETY: `look` gets `all` back, which lives and is borrowed by nobody else meanwhile.
        unsafe { c::nvhv_for_each_file(Some(look), data) };
        Ok(all)
    }
}

/// Takes note of one open file. Does not sleep.
///
/// # Safety
///
/// `data` is the `AllCached` that [`AllCached::of_current`] passed, and `file` is open.
unsafe extern "C" fn look(data: *const c_void, file: *mut c::file, _fd: u32) -> i32 {
    // SAFETY: By this function's contract.
    let all = unsafe { &mut *data.cast_mut().cast::<AllCached>() };
    // SAFETY: As above.
    if !unsafe { c::nvhv_file_is_cached(file) } {
        return 0;
    }
    // SAFETY: As above; the files that are noted are ours.
    let same = |known: &Cached| unsafe { c::nvhv_same_file(known.file.as_ptr(), file) };
    if all.first.iter().any(same) {
        return 0;
    }
    all.count = all.count.saturating_add(1);
    if all.first.len() < all.first.capacity() {
        // SAFETY: As above; the reference that is taken is handed over.
        if let Ok(file) = unsafe { FileRef::from_owned(c::nvhv_get_file(file)) } {
            // There is room.
            let _ = all.first.push(Cached { file }, GFP_ATOMIC);
        }
    }
    0
}

impl Cached {
    /// Its device and its inode number there; of a block device, that device and 0.
    pub(crate) fn identity(&self) -> (u64, u64) {
        let file = self.file.as_ptr();
        // SAFETY: We hold the file.
        unsafe { (c::nvhv_file_device(file).into(), c::nvhv_file_inode(file)) }
    }

    /// Its path as the current task sees it, in `room`.
    pub(crate) fn path<'a>(&self, room: &'a mut [u8]) -> Result<&'a str> {
        let len = i32::try_from(room.len()).map_err(|_| EINVAL)?;
        let start = room.as_mut_ptr().cast();
        // SAFETY: We hold the file, and `room` is writable for its length.
        let path = from_err_ptr(unsafe { c::nvhv_file_path(self.file.as_ptr(), start, len) })?;
        // SAFETY: A path is a C string inside of `room`, which stays borrowed.
        let path: &'a CStr = unsafe { CStr::from_char_ptr(path) };
        path.to_str().map_err(|_| EINVAL)
    }
}
