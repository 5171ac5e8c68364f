// SPDX-License-Identifier: GPL-2.0

//! Signals that ask a VMM to end.
//!
//! A VMM that is sent SIGTERM (by init, by an operator) shuts down in its own way and exits with
//! status 0, like one whose user told it to quit. To tell the two apart, the sending is noted.
//!
//! C header: `include/trace/events/signal.h`, `include/linux/tracepoint.h`.

use crate::sys::{c, task::Process};
use core::{
    ffi::c_void,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, Ordering},
};
use kernel::prelude::*;

/// Signals whose purpose is to end a process, as numbered on x86: SIGHUP, SIGINT, SIGQUIT, SIGTERM.
const ENDING: [i32; 4] = [1, 2, 3, 15];

/// The registered probe on the tracepoint `signal_generate`.
pub(crate) struct SignalWatch {
    tracepoint: *mut c::tracepoint,
}

// SAFETY: The tracepoint is static data of the kernel.
unsafe impl Send for SignalWatch {}
// SAFETY: As above.
unsafe impl Sync for SignalWatch {}

impl SignalWatch {
    /// Registers the probe.
    pub(crate) fn register() -> Result<Self> {
        let mut tracepoint: *mut c::tracepoint = ptr::null_mut();
        // SAFETY: `found` writes to the pointer that it is handed.
        unsafe { c::for_each_kernel_tracepoint(Some(found), (&raw mut tracepoint).cast()) };
        if tracepoint.is_null() {
            pr_err!("the kernel has no tracepoint signal_generate: it needs CONFIG_TRACEPOINTS\n");
            return Err(ENOENT);
        }
        // SAFETY: `generated` has the tracepoint's prototype.
        kernel::error::to_result(unsafe {
            c::tracepoint_probe_register(tracepoint, generated as *mut c_void, ptr::null_mut())
        })?;
        Ok(Self { tracepoint })
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        // SAFETY: Registered in `register`; afterwards no probe runs any more.
        unsafe {
            c::tracepoint_probe_unregister(
                self.tracepoint,
                generated as *mut c_void,
                ptr::null_mut(),
            );
            c::nvhv_tracepoint_sync();
        }
    }
}

unsafe extern "C" fn found(tracepoint: *mut c::tracepoint, out: *mut c_void) {
    // SAFETY: `tracepoint` is valid; `out` is what `register` handed over.
    unsafe {
        if c::nvhv_tracepoint_named(tracepoint, c"signal_generate".as_char_ptr()) {
            *out.cast::<*mut c::tracepoint>() = tracepoint;
        }
    }
}

/// A signal was sent. Runs with a signal lock held, possibly in an interrupt: no lock is taken.
unsafe extern "C" fn generated(
    _data: *mut c_void,
    signal: i32,
    _info: *mut c_void,
    task: *mut c::task_struct,
    _group: i32,
    _result: i32,
) {
    if !ENDING.contains(&signal) {
        return;
    }
    // SAFETY: The tracepoint's task is valid during the probe.
    let process = unsafe { c::nvhv_task_tgid(task) };
    for watched in WATCHED.iter() {
        if watched.process.load(Ordering::Acquire) == process {
            watched.signalled.store(true, Ordering::Release);
        }
    }
}

/// A process whose signals are noted.
struct Watched {
    process: AtomicPtr<c::pid>,
    signalled: AtomicBool,
}

/// As many VMs as can be told apart at once. One more is treated as not signalled.
static WATCHED: [Watched; 512] = [const {
    Watched {
        process: AtomicPtr::new(ptr::null_mut()),
        signalled: AtomicBool::new(false),
    }
}; 512];

/// While this lives, signals that ask a process to end are noted.
pub(crate) struct Watch(Option<&'static Watched>);

impl Watch {
    /// Watches `process`, which must outlive the watch. Does not sleep.
    pub(crate) fn new(process: &Process) -> Self {
        let free = WATCHED.iter().find(|watched| {
            watched
                .process
                .compare_exchange(
                    ptr::null_mut(),
                    process.as_ptr(),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
        });
        if free.is_none() {
            pr_warn!(
                "too many VMMs: one that is asked to end by a signal counts as ending on its own\n"
            );
        }
        Self(free)
    }

    /// Whether a signal was sent.
    pub(crate) fn signalled(&self) -> bool {
        self.0
            .is_some_and(|watched| watched.signalled.load(Ordering::Acquire))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(watched) = self.0 {
            watched.signalled.store(false, Ordering::Release);
            watched.process.store(ptr::null_mut(), Ordering::Release);
        }
    }
}
