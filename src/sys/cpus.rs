// SPDX-License-Identifier: GPL-2.0

//! The host's processors: a thread on each that comes before all others, and what one can do without
//! waiting for another.
//!
//! C header: `src/sys/cpus.h`.

use super::c;
use kernel::prelude::*;

/// A bound real-time thread on each CPU.
pub(crate) struct Threads(());

impl Threads {
    /// Starts them. `work` runs, in process context, in each that is woken.
    pub(crate) fn start(work: unsafe extern "C" fn()) -> Result<Self> {
        // SAFETY: Once, as only the module's init calls this.
        kernel::error::to_result(unsafe { c::nvhv_cpus_start(Some(work)) })?;
        Ok(Self(()))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: They were started.
        unsafe { c::nvhv_cpus_stop() };
    }
}

/// Wakes the threads of all other CPUs, in any context. Gives how many there are.
pub(crate) fn wake_others() -> u32 {
    // SAFETY: The threads run as long as the module's triggers are registered.
    unsafe { c::nvhv_cpus_wake_others() }
}

/// The NUMA node of the CPU that this runs on, where it can change; -1 if there are none.
pub(crate) fn node() -> i32 {
    // SAFETY: May be called anywhere.
    unsafe { c::nvhv_this_node() }
}

/// The CPU that this runs on; without meaning where that can change.
pub(crate) fn this() -> u32 {
    // SAFETY: May be called anywhere.
    unsafe { c::nvhv_this_cpu() as u32 }
}

/// Enables interrupts.
///
/// # Safety
///
/// What they were disabled for is given up.
pub(crate) unsafe fn enable_interrupts() {
    // SAFETY: By this function's contract.
    unsafe { c::nvhv_irq_enable() }
}

/// The current task comes before others from now on, unless it is the idle one.
///
/// # Safety
///
/// The context holds no lock of the scheduler.
pub(crate) unsafe fn hurry() {
    // SAFETY: By this function's contract.
    unsafe { c::nvhv_hurry() }
}

/// Has the scheduler do without this CPU until [`take_back`], if there are others. In any context.
pub(crate) fn give_up() {
    // SAFETY: May be called anywhere. Tasks go elsewhere meanwhile, as while a CPU is unplugged.
    unsafe { c::nvhv_cpu_give_up() }
}

/// This CPU is one as the others are.
pub(crate) fn take_back() {
    // SAFETY: It is up: nobody unplugs a CPU that looks after an emergency.
    unsafe { c::nvhv_cpu_take_back() }
}

/// Nobody waits for the current task to fall asleep, as who wakes one does that is about to.
///
/// # Safety
///
/// The task makes no step any more.
pub(crate) unsafe fn never_wake_current() {
    // SAFETY: By this function's contract nobody misses its sleep.
    unsafe { c::nvhv_never_wake_current() }
}

/// Writes back this CPU's caches.
pub(crate) fn write_back_here() {
    // SAFETY: Changes nothing but the caches.
    unsafe { c::nvhv_wbinvd() }
}

/// Asks all CPUs but `but` to write back their caches, this one included, and does not wait for the
/// others. Gives how many have yet to answer. One caller at a time.
pub(crate) fn ask_to_write_back(but: u32) -> Result<u32> {
    // SAFETY: May be called in process context.
    let asked = unsafe { c::nvhv_cpus_write_back(but) };
    u32::try_from(asked).map_err(|_| EBUSY)
}

/// How many have answered.
pub(crate) fn written_back() -> u32 {
    // SAFETY: Reads a counter.
    unsafe { c::nvhv_cpus_written_back() as u32 }
}

/// Panics on this CPU, as another one that was to does not get on.
pub(crate) fn panic_for_other() {
    // SAFETY: Process context.
    unsafe { c::nvhv_panic_for_other() }
}

/// Monotonic time in ns, in any context.
pub(crate) fn fast_ns() -> u64 {
    // SAFETY: Safe in any context, also in an NMI.
    unsafe { c::ktime_get_mono_fast_ns() }
}

/// Waits a moment in a loop that waits for another CPU, with a word to the watchdogs.
pub(crate) fn relax() {
    // SAFETY: May be called in any context.
    unsafe { c::nvhv_touch_watchdogs() };
    core::hint::spin_loop();
}
