// SPDX-License-Identifier: GPL-2.0

//! What differs between the kernels that the module is built for: all of it is in this folder.
//!
//! The rest of the module is written for the newest. Where an older one lacks something that it uses, a file here
//! named after the first kernel that has it offers the same. C sources find theirs in `compat.h`. To drop a
//! kernel is to remove its file and what names it: here, in `compat.h`, and in `Kbuild`, which sets `before_7_3`.

#[cfg(before_7_3)]
mod before_7_3;

#[cfg(before_7_3)]
pub(crate) use before_7_3::{
    new_spinlock_irq, own_file, this_module, SpinLockIrq, ENODATA, EOPNOTSUPP, ESHUTDOWN, ESTALE,
    EUCLEAN,
};

#[cfg(not(before_7_3))]
pub(crate) use kernel::{
    error::code::{ENODATA, EOPNOTSUPP, ESHUTDOWN, ESTALE, EUCLEAN},
    sync::{new_spinlock_irq, SpinLockIrq},
};

/// This module.
#[cfg(not(before_7_3))]
pub(crate) const fn this_module() -> &'static kernel::ThisModule {
    kernel::module::this_module::<crate::LocalModule>()
}

/// Has an open file of our device hold the module, which the kernel sees to.
#[cfg(not(before_7_3))]
pub(crate) fn own_file(_file: &kernel::fs::File) -> kernel::error::Result {
    Ok(())
}

/// A parameter of the module, which is lent before 7.3, and given from then on.
pub(crate) fn parameter(value: impl core::borrow::Borrow<u32>) -> u32 {
    *value.borrow()
}
