// SPDX-License-Identifier: GPL-2.0

//! Processes, as the module needs to know them.
//!
//! C header: `include/linux/sched.h`, `include/linux/pid.h`.

use super::c;
use core::ptr::NonNull;
use kernel::{mm::Mm, sync::aref::ARef};

/// The identity of a process (its thread group), which outlives the process.
///
/// # Invariants
///
/// Owns one reference to the `struct pid`.
pub(crate) struct Process(NonNull<c::pid>);

// SAFETY: A `struct pid` may be used and released on any thread.
unsafe impl Send for Process {}
// SAFETY: All methods may be called in parallel.
unsafe impl Sync for Process {}

impl Process {
    /// The process of the current task.
    pub(crate) fn current() -> Self {
        // SAFETY: `current` has a thread group while it runs.
        let pid = unsafe { c::nvhv_get_pid(c::nvhv_current_tgid()) };
        // INVARIANT: `nvhv_get_pid` took a reference.
        // PANIC: never, a running task has a pid.
        Self(NonNull::new(pid).unwrap())
    }

    /// Whether the current task belongs to this process.
    pub(crate) fn is_current(&self) -> bool {
        // SAFETY: Reads a pointer of `current`.
        unsafe { c::nvhv_current_tgid() == self.0.as_ptr() }
    }

    /// Whether the current task belongs to this process or to a descendant of it.
    pub(crate) fn is_current_or_ancestor(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nvhv_descends_from(self.0.as_ptr()) }
    }

    /// The `struct pid`, valid while `self` lives.
    pub(crate) fn as_ptr(&self) -> *mut c::pid {
        self.0.as_ptr()
    }

    /// Whether any task of the process is left.
    pub(crate) fn is_alive(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nvhv_pid_alive(self.0.as_ptr()) }
    }

    /// Whether the process is on its way out, or gone.
    pub(crate) fn is_exiting(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nvhv_pid_exiting(self.0.as_ptr()) }
    }

    /// The number of the process in the initial namespace.
    pub(crate) fn number(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { c::nvhv_pid_nr(self.0.as_ptr()) as u32 }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: By the type invariant we own this reference.
        unsafe { c::put_pid(self.0.as_ptr()) }
    }
}

/// The address space of the current task, counted as a structure (`mmgrab`), if it has one.
pub(crate) fn current_mm() -> Option<ARef<Mm>> {
    // SAFETY: Reads a pointer of `current`.
    let mm = unsafe { c::nvhv_current_mm() };
    // SAFETY: `current` keeps its `mm_struct` while this function runs.
    (!mm.is_null()).then(|| unsafe { Mm::from_raw(mm.cast()) }.into())
}

/// Whether `mm` is the address space of the current task.
pub(crate) fn is_current_mm(mm: &Mm) -> bool {
    // SAFETY: Reads a pointer of `current`.
    unsafe { c::nvhv_current_mm() == mm.as_raw().cast() }
}

/// Whether the current task is exiting.
pub(crate) fn current_exiting() -> bool {
    // SAFETY: Reads flags of `current`.
    unsafe { c::nvhv_current_exiting() }
}

/// How the current, exiting process ends, as `wait(2)` encodes it.
pub(crate) fn current_exit_code() -> i32 {
    // SAFETY: `current` keeps its signal structure until it is released.
    unsafe { c::nvhv_current_group_exit_code() }
}

/// The real user of the current task, in the initial user namespace.
pub(crate) fn current_uid() -> u32 {
    // SAFETY: Reads the credentials of `current`.
    unsafe { c::nvhv_current_uid() }
}

/// Whether the current task has `CAP_SYS_ADMIN`.
pub(crate) fn capable_admin() -> bool {
    // SAFETY: May be called in any task.
    unsafe { c::nvhv_capable_admin() }
}
