// SPDX-License-Identifier: GPL-2.0

//! What the `kernel` crate has from 7.3 on.
//!
//! C header: `before_7_3.h`.

use crate::sys::c;
use core::mem::transmute;
use kernel::{
    error::to_result,
    fs::File,
    prelude::*,
    sync::lock::{Backend, Lock},
};

/// An errno, checked when the module is built.
const fn errno(number: u32) -> Error {
    // SAFETY: Any number is one.
    let is_plain = unsafe { transmute::<Error, i32>(EPERM) } == -1;
    assert!(is_plain && 0 < number && number < 4096);
    // SAFETY: An `Error` is its number, negative, as that of EPERM shows, and this one is in range.
    unsafe { transmute::<i32, Error>(-(number as i32)) }
}

pub(crate) const ENODATA: Error = errno(c::ENODATA);
pub(crate) const EOPNOTSUPP: Error = errno(c::EOPNOTSUPP);
pub(crate) const ESHUTDOWN: Error = errno(c::ESHUTDOWN);
pub(crate) const ESTALE: Error = errno(c::ESTALE);
pub(crate) const EUCLEAN: Error = errno(c::EUCLEAN);

/// This module.
pub(crate) const fn this_module() -> &'static ThisModule {
    &crate::THIS_MODULE
}

/// Has an open file of our device hold the module, which the kernel does not see to. To be called first in `open`.
pub(crate) fn own_file(file: &File) -> Result {
    // SAFETY: It is being opened: nobody else has it yet.
    to_result(unsafe { c::nvhv_own_file(file.as_ptr().cast()) })
}

/// A spinlock that is held with interrupts disabled. Guards are dropped in the reverse order of their locks.
pub(crate) type SpinLockIrq<T> = Lock<T, SpinLockIrqBackend>;

/// Interrupts are disabled while it is held.
pub(crate) struct SpinLockIrqBackend;

// SAFETY: A spinlock excludes all others. `relock` is the trait's own.
unsafe impl Backend for SpinLockIrqBackend {
    type State = c::spinlock_t;
    /// Whether interrupts were enabled before.
    type GuardState = c_ulong;

    unsafe fn init(
        lock: *mut Self::State,
        name: *const c_char,
        key: *mut kernel::bindings::lock_class_key,
    ) {
        // SAFETY: By this function's contract.
        unsafe { c::nvhv_spin_init(lock, name, key.cast()) }
    }

    unsafe fn lock(lock: *mut Self::State) -> c_ulong {
        // SAFETY: By this function's contract, it was initialised.
        unsafe { c::nvhv_spin_lock_irqsave(lock) }
    }

    unsafe fn try_lock(lock: *mut Self::State) -> Option<c_ulong> {
        let mut flags = 0;
        // SAFETY: By this function's contract, it was initialised.
        unsafe { c::nvhv_spin_trylock_irqsave(lock, &mut flags) }.then_some(flags)
    }

    unsafe fn unlock(lock: *mut Self::State, flags: &c_ulong) {
        // SAFETY: By this function's contract, the caller holds it, and the flags are from taking it.
        unsafe { c::nvhv_spin_unlock_irqrestore(lock, *flags) }
    }

    unsafe fn assert_is_held(lock: *mut Self::State) {
        // SAFETY: By this function's contract, it was initialised.
        unsafe { c::nvhv_spin_assert_held(lock) }
    }
}

/// An initialiser of a [`SpinLockIrq`] with a name.
macro_rules! new_spinlock_irq {
    ($inner:expr, $name:literal) => {
        $crate::sys::compat::SpinLockIrq::new(
            $inner,
            kernel::c_str!($name),
            kernel::static_lock_class!(),
        )
    };
}
pub(crate) use new_spinlock_irq;
