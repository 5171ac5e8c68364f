// SPDX-License-Identifier: GPL-2.0

//! The host's kernel panics, or starts a crash kernel.
//!
//! Whoever calls `vpanic` comes to [`panicking`] first, in its own context: all VMs are sealed before the
//! kernel says that it panics, before a crash kernel is started and before the other CPUs are stopped.
//! Panic notifiers are too late for that. An oops may start a crash kernel without panicking: that is
//! seen at the entry of `__crash_kexec`.

use super::emergency;
use crate::{
    life::Cause,
    sys::{
        aside, c,
        entry::{self, Entry},
    },
};
use core::ptr;
use kernel::prelude::*;

/// The registered hooks.
#[pin_data]
pub(crate) struct PanicHook {
    #[pin]
    panic: Entry,
    #[pin]
    crash: Entry,
}

impl PanicHook {
    /// Hooks both ways in which a kernel ends.
    pub(crate) fn install() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            panic <- Entry::divert(c"vpanic", entered_panic),
            crash <- Entry::watch(c"__crash_kexec", entered_crash),
        })
    }
}

/// Somebody calls `vpanic`.
unsafe extern "C" fn entered_panic(
    _ip: usize,
    _parent: usize,
    _ops: *mut c::ftrace_ops,
    regs: *mut c::ftrace_regs,
) {
    if emergency::is_due() {
        // SAFETY: `panicking` has the prototype of `vpanic`.
        unsafe { entry::redirect(regs, panicking as *const ()) };
    }
}

/// In place of `vpanic`, in the context of its caller. Comes back to it when the VMs are sealed, or the
/// time for that is over.
unsafe extern "C" fn panicking(format: *const c_char, arguments: *mut c::__va_list_tag) {
    // SAFETY: They are what our caller gave.
    unsafe { aside::note_panic(format, arguments) };
    // SAFETY: Null is allowed.
    unsafe { emergency::run(Cause::PANIC, ptr::null_mut()) };
    // SAFETY: The arguments are those of our caller, who takes us for this function.
    unsafe { c::vpanic(format, arguments) }
}

/// Somebody calls `__crash_kexec`. If there was no panic, the CPU is what is left of an oops.
unsafe extern "C" fn entered_crash(
    _ip: usize,
    _parent: usize,
    _ops: *mut c::ftrace_ops,
    regs: *mut c::ftrace_regs,
) {
    // SAFETY: Reads a pointer.
    if emergency::is_due() && unsafe { c::kexec_crash_loaded() != 0 } {
        // SAFETY: The registers are this handler's.
        unsafe { emergency::run(Cause::PANIC, regs) };
    }
}
