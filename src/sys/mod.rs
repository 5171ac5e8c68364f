// SPDX-License-Identifier: GPL-2.0

//! The edge to C: generated bindings and thin types over what the `kernel` crate does not cover.
//!
//! Nothing here knows what the module is for.

pub(crate) mod aside;
pub(crate) mod compat;
pub(crate) mod cpus;
pub(crate) mod entry;
pub(crate) mod eventfd;
pub(crate) mod file;
pub(crate) mod open_files;
pub(crate) mod power;
pub(crate) mod task;
pub(crate) mod timer;
pub(crate) mod user;

/// What bindgen made of `bindings_helper.h`.
#[allow(
    missing_docs,
    clippy::all,
    dead_code,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_op_in_unsafe_fn,
    unreachable_pub,
    improper_ctypes
)]
pub(crate) mod c {
    use kernel::ffi;
    type __kernel_size_t = usize;
    type __kernel_ssize_t = isize;
    type __kernel_ptrdiff_t = isize;
    include!(env!("NVHV_BINDINGS"));
}
