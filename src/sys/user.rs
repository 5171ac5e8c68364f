// SPDX-License-Identifier: GPL-2.0

//! Copies between the kernel and the address space in use.

use core::mem;
use kernel::{
    prelude::*,
    uaccess::{UserPtr, UserSlice},
};

/// Bytes of the pool's folios. The kernel stops at a copy that goes over the end of one
/// (`mm/usercopy.c`), as a record in the pool may.
const FOLIO: usize = 2 << 20;

/// Bytes of `buf` to the end of the folio that it begins in.
fn inside(buf: &[u8]) -> usize {
    let left = FOLIO - buf.as_ptr().addr() % FOLIO;
    left.min(buf.len())
}

/// Fills `buf` from user memory at `addr`.
pub(crate) fn read(addr: usize, buf: &mut [u8]) -> Result {
    let (mut from, mut rest) = (addr, buf);
    while !rest.is_empty() {
        let count = inside(rest);
        let (part, more) = mem::take(&mut rest).split_at_mut(count);
        UserSlice::new(UserPtr::from_addr(from), count)
            .reader()
            .read_slice(part)?;
        from = from.wrapping_add(count);
        rest = more;
    }
    Ok(())
}

/// Writes `buf` to user memory at `addr`.
pub(crate) fn write(addr: usize, buf: &[u8]) -> Result {
    let (mut to, mut rest) = (addr, buf);
    while !rest.is_empty() {
        let (part, more) = rest.split_at(inside(rest));
        UserSlice::new(UserPtr::from_addr(to), part.len())
            .writer()
            .write_slice(part)?;
        to = to.wrapping_add(part.len());
        rest = more;
    }
    Ok(())
}
