// SPDX-License-Identifier: GPL-2.0

//! Tracepoints for those who watch from outside: `events/nvhv` in tracefs, perf, BPF, `nvhv events`.
//!
//! C header: `src/trace/nvhv_events.h`, which says what each is.

use crate::{
    abi::{TextWriter, TEXT_LEN},
    life::{Cause, Name},
    sys::c,
};
use core::fmt::Write;

/// A process is bound to a name.
pub(crate) fn bind(vm: &Name, policy: u64) {
    // SAFETY: A name ends with a zero byte.
    unsafe { c::nvhv_trace_bind(text(vm.field()), policy) }
}

/// The RAM of a new VM was placed in the pool.
pub(crate) fn adopt(vm: &Name, pages: u64, ns: u64) {
    // SAFETY: As above.
    unsafe { c::nvhv_trace_adopt(text(vm.field()), pages, ns) }
}

/// Nothing of a VM moves any more.
pub(crate) fn freeze(vm: &Name, ns: u64) {
    // SAFETY: As above.
    unsafe { c::nvhv_trace_freeze(text(vm.field()), ns) }
}

/// A VM is sealed.
pub(crate) fn seal(vm: &Name, cause: Cause, bytes: u64, ns: u64) {
    let mut word = [0; 32];
    // Writing to the field cannot fail: what does not fit is dropped.
    let _ = write!(TextWriter::new(&mut word), "{cause}");
    // SAFETY: As above; so does what a TextWriter has written.
    unsafe { c::nvhv_trace_seal(text(vm.field()), text(&word), bytes, ns) }
}

/// A fresh VMM was told what the guest had configured.
pub(crate) fn replay(vm: &Name, steps: u64) {
    // SAFETY: As above.
    unsafe { c::nvhv_trace_replay(text(vm.field()), steps) }
}

/// A VM goes on.
pub(crate) fn resume(vm: &Name, number: u64, ns: u64) {
    // SAFETY: As above.
    unsafe { c::nvhv_trace_resume(text(vm.field()), number, ns) }
}

/// A name was refused; `why` was written by a [`TextWriter`].
pub(crate) fn refuse(vm: &Name, errno: i32, why: &[u8; TEXT_LEN]) {
    // SAFETY: As above.
    unsafe { c::nvhv_trace_refuse(text(vm.field()), errno, text(why)) }
}

/// What C takes for text.
fn text<const N: usize>(field: &[u8; N]) -> *const kernel::ffi::c_char {
    field.as_ptr().cast()
}
