// SPDX-License-Identifier: GPL-2.0

//! Copies between the kernel and the address space in use.

use kernel::{
    prelude::*,
    uaccess::{UserPtr, UserSlice},
};

/// Fills `buf` from user memory at `addr`.
pub(crate) fn read(addr: usize, buf: &mut [u8]) -> Result {
    UserSlice::new(UserPtr::from_addr(addr), buf.len())
        .reader()
        .read_slice(buf)
}

/// Writes `buf` to user memory at `addr`.
pub(crate) fn write(addr: usize, buf: &[u8]) -> Result {
    UserSlice::new(UserPtr::from_addr(addr), buf.len())
        .writer()
        .write_slice(buf)
}
