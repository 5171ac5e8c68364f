// SPDX-License-Identifier: GPL-2.0

//! The interface's structures, from and to user space.

use crate::abi::{self, Bind, Info, Select};
use core::{mem::MaybeUninit, ptr, slice};
use kernel::{
    prelude::*,
    uaccess::{UserPtr, UserSlice},
};

/// A structure of the interface: plain old data without padding.
pub(super) trait Plain: Copy {}
impl Plain for Info {}
impl Plain for Bind {}
impl Plain for Select {}
impl Plain for abi::PowerFailing {}
impl Plain for abi::Vm {}
impl Plain for abi::Devices {}
impl Plain for abi::DeviceEntry {}
impl Plain for abi::Image {}
impl Plain for abi::Piece {}

/// Reads what the caller has at `arg`.
pub(super) fn get<T: Plain>(arg: usize) -> Result<T> {
    let mut value = MaybeUninit::<T>::uninit();
    fill(&mut value, arg)?;
    // SAFETY: A `Plain` type is valid with any bytes.
    Ok(unsafe { value.assume_init() })
}

/// As [`get`], for what is too large for the stack.
pub(super) fn get_boxed<T: Plain>(arg: usize) -> Result<KBox<T>> {
    let mut value = KBox::<T>::new_uninit(GFP_KERNEL)?;
    fill(&mut value, arg)?;
    // SAFETY: A `Plain` type is valid with any bytes.
    Ok(unsafe { value.assume_init() })
}

fn fill<T: Plain>(value: &mut MaybeUninit<T>, arg: usize) -> Result {
    // SAFETY: The bytes of `value`; of uninitialized ones, zeroes are made first.
    let bytes = unsafe {
        let start = value.as_mut_ptr().cast::<u8>();
        ptr::write_bytes(start, 0, size_of::<T>());
        slice::from_raw_parts_mut(start, size_of::<T>())
    };
    UserSlice::new(UserPtr::from_addr(arg), size_of::<T>())
        .reader()
        .read_slice(bytes)
}

/// Writes `value` to what the caller has at `arg`.
pub(super) fn put<T: Plain>(arg: usize, value: &T) -> Result {
    // SAFETY: A `Plain` type has no padding.
    let bytes = unsafe { slice::from_raw_parts(ptr::from_ref(value).cast::<u8>(), size_of::<T>()) };
    UserSlice::new(UserPtr::from_addr(arg), size_of::<T>())
        .writer()
        .write_slice(bytes)
}
