// SPDX-License-Identifier: GPL-2.0

//! A context that may not sleep steps aside, so that others run on its CPU; and what ends that.
//!
//! C header: `src/sys/aside.h`.

use super::c;
use kernel::prelude::*;

/// Where the current context stands.
pub(crate) use c::nvhv_footing as Footing;

/// Looks where the current context stands. By one context in the life of the kernel.
///
/// # Safety
///
/// `entered` is null, or the registers that a handler of [`super::entry`] was given.
pub(crate) unsafe fn look_down(entered: *mut c::ftrace_regs) -> Footing {
    let mut footing = Footing::default();
    // SAFETY: Reads the stack of the current context; what it writes to is its own.
    unsafe { c::nvhv_look_down(&mut footing, entered) };
    footing
}

/// Gives up the current context, and has what its interrupt came upon go on, and the thread of this CPU
/// woken. Does not return.
///
/// # Safety
///
/// `onward` is [`Footing::onward`], and not null.
pub(crate) unsafe fn go_onward(onward: *mut c::pt_regs) {
    // SAFETY: By this function's contract.
    unsafe { c::nvhv_go_onward(onward) }
}

/// Notes what a panic says, for [`panic_as_noted`].
///
/// # Safety
///
/// They are a format and its arguments.
pub(crate) unsafe fn note_panic(format: *const c_char, arguments: *mut c::__va_list_tag) {
    // SAFETY: By this function's contract; they are read and stay as they are.
    unsafe { c::nvhv_panic_note(format, arguments.cast()) }
}

/// Panics with the text that was noted.
pub(crate) fn panic_as_noted() {
    // SAFETY: Any context may panic.
    unsafe { c::nvhv_panic_as_noted() }
}

/// Calls `wait` in a context that may sleep with [`pause`].
///
/// # Safety
///
/// The context is [`Footing::apart`] and makes no step of its own any more. Once in the life of the kernel.
pub(crate) unsafe fn step_aside(wait: unsafe extern "C" fn()) {
    // SAFETY: By this function's contract.
    unsafe { c::nvhv_step_aside(Some(wait)) }
}

/// Lets others run for about a millisecond.
///
/// # Safety
///
/// In a context that may sleep, or has stepped aside.
pub(crate) unsafe fn pause() {
    // SAFETY: By this function's contract.
    unsafe { c::nvhv_aside_pause() }
}

/// A timer that ends what would not end.
pub(crate) struct Deadline(());

impl Deadline {
    /// Makes it: `late` is called in an interrupt when it expires, and says whether the kernel is to panic
    /// then. Once.
    pub(crate) fn new(late: unsafe extern "C" fn() -> bool) -> Self {
        // SAFETY: Nobody uses it yet, and a module is loaded in process context.
        unsafe { c::nvhv_aside_setup(Some(late)) };
        Self(())
    }
}

/// Starts the timer on this CPU.
pub(crate) fn start_deadline(ns: u64) {
    // SAFETY: It was made when the module was loaded; in any context that holds no lock of timers.
    unsafe { c::nvhv_deadline_start(ns) }
}

/// Stops the timer.
pub(crate) fn cancel_deadline() {
    // SAFETY: As above.
    unsafe { c::nvhv_deadline_cancel() }
}
