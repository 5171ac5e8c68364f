// SPDX-License-Identifier: GPL-2.0

//! The emergency: the host is about to be lost, and its VMs are sealed first.
//!
//! A trigger may come in any context, also in one that holds locks of the scheduler or of ours. So it
//! takes none, and allocates nothing. What is to be done is done by the keepers of the VMs, as for any
//! other outage; the trigger sees that they are told, and lets them run until a deadline:
//!
//! - A context that holds no spinlock tells them itself and sleeps meanwhile.
//! - An interrupt or an NMI that holds no spinlock ends at once, and what it came upon goes on, if that can:
//!   it is a vCPU's thread, perhaps, which comes out of KVM in its own time. The CPU's thread tells the
//!   keepers, and panics in the interrupt's place.
//! - Any other interrupt, and whoever holds a spinlock, tells them after it has stepped aside: it makes no
//!   step of its own any more, so others may have its CPU. This works with one CPU too.
//! - If the scheduler itself, or a timer, is below it on its stack, that cannot be. Then it wakes the threads
//!   of the other CPUs by an interrupt each. The first of them tells the keepers. The CPU of the trigger
//!   runs no thread until the end, and the other CPUs' scheduler is told so; it spins, and writes back its own
//!   caches when it is asked to.
//!
//! The threads of the other CPUs, if there are any, look after all of this: that no keeper sleeps over what it
//! was told, and that the host is lost after the deadline even if the CPU of the trigger has stopped for good.
//! What is not sealed by then is torn.

use crate::{
    host::{self, Host},
    kvm::{alarm::Kind, keeper},
    life::Cause,
    sys::{aside, c, cpus},
};
use core::{
    ptr,
    sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering},
};
use kernel::{prelude::*, time::msecs_to_jiffies};

const NOT_YET: u32 = 0;
const RUNNING: u32 = 1;
const OVER: u32 = 2;

static STAGE: AtomicU32 = AtomicU32::new(NOT_YET);
static CAUSE: AtomicU32 = AtomicU32::new(0);
/// When it began, in ns of [`cpus::fast_ns`].
static BEGAN: AtomicU64 = AtomicU64::new(0);
/// When it ends, likewise.
static DEADLINE: AtomicU64 = AtomicU64::new(u64::MAX);
/// The CPU that runs nobody any more, or -1.
static LOST_CPU: AtomicI32 = AtomicI32::new(-1);
/// The task that the emergency came upon. It makes no step any more.
static LOST_TASK: AtomicPtr<c::task_struct> = AtomicPtr::new(ptr::null_mut());
/// The CPU on which the emergency was noticed, to know it when it panics again.
static NOTICED_ON: AtomicI32 = AtomicI32::new(-1);
/// The CPU whose thread panics in the place of the context that has, which is gone; or -1.
static IN_PLACE: AtomicI32 = AtomicI32::new(-1);
/// Somebody tells the keepers.
static LED: AtomicBool = AtomicBool::new(false);
/// Keepers that were told and have not finished, and one as long as not all were told.
static PENDING: AtomicU32 = AtomicU32::new(0);
/// Keepers that have finished, by what came of it.
static SEALED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);
/// How often the lost CPU was asked to write back its caches, and how often it has.
static WANTED: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);

/// For how long after the deadline the CPU of the trigger may yet end it.
const GRACE_NS: u64 = 500_000_000;

/// Whether there is an emergency to come: none has been, or it is not over.
pub(super) fn is_due() -> bool {
    STAGE.load(Ordering::Acquire) != OVER
}

/// Seals all VMs for `cause`, in any context that makes no step of its own any more. Returns when that is
/// done, or when it has taken too long.
///
/// # Safety
///
/// `entered` is null, or the registers that a handler of [`crate::sys::entry`] was given.
pub(super) unsafe fn run(cause: Cause, entered: *mut c::ftrace_regs) {
    // CAST: CPUs are few.
    let here = cpus::this() as i32;
    if !keeper::are_any() {
        // Unless another CPU is at it: there were some just now.
        let _ = STAGE.compare_exchange(NOT_YET, OVER, Ordering::AcqRel, Ordering::Acquire);
        return;
    }
    let budget = u64::from(crate::emergency_ms()) * 1_000_000;
    let now = cpus::fast_ns();
    // Before anybody may see that there is an emergency. The first one counts.
    DEADLINE.fetch_min(now.saturating_add(budget), Ordering::AcqRel);
    let first = STAGE
        .compare_exchange(NOT_YET, RUNNING, Ordering::AcqRel, Ordering::Acquire)
        .is_ok();
    if !first {
        await_first(here);
        return;
    }
    NOTICED_ON.store(here, Ordering::Release);
    BEGAN.store(now, Ordering::Relaxed);
    CAUSE.store(cause.0, Ordering::Relaxed);
    // At once: who waits for a lock that this context holds is lost with it.
    cpus::give_up();
    // SAFETY: By this function's contract.
    let footing = unsafe { aside::look_down(entered) };
    let goes_onward = entered.is_null() && !footing.onward.is_null();
    if footing.untrusted || footing.solid || footing.apart || goes_onward {
        cpus::take_back();
    }
    if footing.untrusted {
        STAGE.store(OVER, Ordering::Release);
        pr_emerg!("VMs are torn: the hardware has failed, and what they would be sealed with cannot be trusted\n");
        return;
    }
    PENDING.store(1, Ordering::Release);
    if footing.solid || footing.apart {
        // Before this CPU may run others, who need its timer to be got rid of.
        aside::start_deadline(remaining_ns());
    }
    if goes_onward {
        IN_PLACE.store(here, Ordering::Release);
        cpus::wake_others();
        // SAFETY: They were found just now. Nobody but a panic comes here without registers, and our thread
        // panics in its place.
        unsafe { aside::go_onward(footing.onward) };
    }
    // SAFETY: Reads a pointer.
    LOST_TASK.store(unsafe { c::nvhv_current() }, Ordering::Relaxed);
    if footing.solid {
        // An exception disables interrupts whatever it came upon. Whoever did it on purpose makes no
        // further step; what is half done then may end in a second panic, which ends the emergency.
        cpus::wake_others();
        // SAFETY: See above.
        unsafe {
            cpus::enable_interrupts();
            lead_and_wait();
        }
    } else if footing.apart {
        cpus::wake_others();
        // SAFETY: By this function's contract; only the first one comes here.
        unsafe { aside::step_aside(lead_and_wait) };
    } else {
        // SAFETY: By this function's contract.
        unsafe { cpus::never_wake_current() };
        LOST_CPU.store(here, Ordering::Release);
        if cpus::wake_others() > 0 {
            spin();
        }
        cpus::take_back();
    }
    over();
}

/// Says what is lost, and ends the emergency. Whether it was not over yet.
fn over() -> bool {
    if STAGE.swap(OVER, Ordering::AcqRel) != RUNNING {
        return false;
    }
    // Here and now, as the kernel drops what other CPUs say once one has begun to panic.
    if !LED.load(Ordering::Acquire) {
        pr_emerg!("VMs are torn: there was no CPU in time to seal them\n");
        return true;
    }
    let sealed = SEALED.load(Ordering::Acquire);
    let failed = FAILED.load(Ordering::Acquire);
    let late = PENDING.load(Ordering::Acquire);
    if failed + late == 0 {
        pr_emerg!("the host is about to be lost: {sealed} VMs are sealed\n");
    } else {
        pr_emerg!("VMs are torn: {late} were not sealed in time, and {failed} could not be; {sealed} are sealed\n");
    }
    true
}

/// The context of the trigger, until the keepers have finished.
unsafe extern "C" fn lead_and_wait() {
    lead();
    // SAFETY: This context sleeps, or has stepped aside; who comes after it waits for the keepers too.
    unsafe {
        cpus::hurry();
        wait();
    }
}

/// Lets others run until the keepers have finished.
///
/// # Safety
///
/// In a context that may sleep, or has stepped aside.
unsafe fn wait() {
    while is_pending() {
        remind();
        // SAFETY: By this function's contract.
        unsafe { aside::pause() };
    }
    aside::cancel_deadline();
}

/// A keeper may have been about to sleep when it was told.
fn remind() {
    if let Some(host) = host::get() {
        host.try_each(|| 0, |vm| vm.keeper.wake());
    }
}

/// In an interrupt, past the deadline. If the context of the trigger does not get the CPU, the kernel
/// panics here and now.
pub(crate) unsafe extern "C" fn late() -> bool {
    over()
}

/// Another CPU has come here first, or this one panics within the emergency.
fn await_first(here: i32) {
    while STAGE.load(Ordering::Acquire) == RUNNING
        && NOTICED_ON.load(Ordering::Acquire) != here
        && remaining_ns() > 0
    {
        cpus::relax();
    }
    over();
}

/// The CPU of the trigger, until the others have finished.
fn spin() {
    while is_pending() {
        let wanted = WANTED.load(Ordering::Acquire);
        if DONE.load(Ordering::Relaxed) != wanted {
            cpus::write_back_here();
            DONE.store(wanted, Ordering::Release);
        }
        cpus::relax();
    }
}

fn is_pending() -> bool {
    PENDING.load(Ordering::Acquire) != 0 && remaining_ns() > 0
}

fn remaining_ns() -> u64 {
    let deadline = DEADLINE.load(Ordering::Relaxed);
    deadline.saturating_sub(cpus::fast_ns())
}

/// The thread of a CPU that was woken.
pub(crate) unsafe extern "C" fn woken() {
    if STAGE.load(Ordering::Acquire) != RUNNING {
        return;
    }
    lead();
    // CAST: CPUs are few.
    if IN_PLACE.load(Ordering::Acquire) == cpus::this() as i32 {
        // SAFETY: Process context.
        unsafe { wait() };
        if over() {
            aside::panic_as_noted();
        }
        return;
    }
    // The CPU of the trigger ends it, unless it has stopped for good.
    let mut end = DEADLINE.load(Ordering::Relaxed).saturating_add(GRACE_NS);
    while STAGE.load(Ordering::Acquire) == RUNNING && cpus::fast_ns() < end {
        if !is_pending() {
            end = end.min(cpus::fast_ns().saturating_add(GRACE_NS));
        }
        remind();
        // SAFETY: Process context.
        unsafe { aside::pause() };
    }
    if over() {
        cpus::panic_for_other();
    }
}

/// Tells the keepers of all VMs, once.
fn lead() {
    if LED.swap(true, Ordering::AcqRel) {
        return;
    }
    if let Some(host) = host::get() {
        host.going_down.store(true, Ordering::Relaxed);
        tell_all(&host);
    }
    settled();
}

fn tell_all(host: &Host) {
    let kind = Kind::Emergency(Cause(CAUSE.load(Ordering::Relaxed)));
    let began = BEGAN.load(Ordering::Relaxed);
    // Those that ran last on a CPU that is lost may not be told without its locks, which may cost the rest.
    for all in [false, true] {
        // The list is locked for moments; who holds it longer has been lost with its CPU.
        let told = host.try_each(remaining_ns, |vm| {
            if vm.keeper.heard_of_emergency() || !all && vm.keeper.was_on(lost_cpu()) {
                return;
            }
            PENDING.fetch_add(1, Ordering::AcqRel);
            if !vm.keeper.alarm(kind, began, 0) {
                settled();
            }
        });
        if !told {
            pr_err!("the list of VMs stayed locked: they are not sealed before the host is lost\n");
        }
    }
}

/// A keeper that was told has finished: it has sealed its VM, or could not.
pub(crate) fn finished(sealed: bool) {
    let what = if sealed { &SEALED } else { &FAILED };
    what.fetch_add(1, Ordering::AcqRel);
    settled();
}

/// A keeper that was told has nothing to do any more.
pub(crate) fn settled() {
    PENDING.fetch_sub(1, Ordering::AcqRel);
}

/// The CPU that runs nobody any more.
pub(crate) fn lost_cpu() -> Option<u32> {
    u32::try_from(LOST_CPU.load(Ordering::Acquire)).ok()
}

/// Whether `task` makes no step any more, as the emergency came upon it.
pub(crate) fn is_lost(task: *mut c::task_struct) -> bool {
    STAGE.load(Ordering::Acquire) == RUNNING && LOST_TASK.load(Ordering::Relaxed) == task
}

/// How long there is, if there is an emergency.
pub(crate) fn remaining_ms() -> Option<u32> {
    let running = STAGE.load(Ordering::Acquire) == RUNNING;
    running.then(|| u32::try_from(remaining_ns() / 1_000_000).unwrap_or(u32::MAX))
}

/// Has `task` run before others, unless it is lost itself, or its CPU is.
///
/// # Safety
///
/// `task` is referenced. Process context.
pub(crate) unsafe fn hasten(task: *mut c::task_struct) {
    if is_lost(task) {
        return;
    }
    // SAFETY: By this function's contract. What ran last on the lost CPU may wait there, under a lock that stays locked.
    unsafe {
        if lost_cpu().is_some_and(|cpu| c::nvhv_was_on(task, cpu)) {
            c::nvhv_allow_elsewhere(task);
        } else {
            c::sched_set_fifo(task);
        }
    }
}

/// Writes back the caches of all CPUs. In an emergency, one that has lost its CPU to it writes its own
/// caches back while it spins.
pub(crate) fn write_back_all_caches() -> Result {
    let Some(lost) = lost_cpu() else {
        // SAFETY: May be called in process context.
        unsafe { c::wbinvd_on_all_cpus() };
        return Ok(());
    };
    static ASKING: AtomicBool = AtomicBool::new(false);
    while ASKING.swap(true, Ordering::Acquire) {
        pause()?;
    }
    let done = (|| {
        let asked = cpus::ask_to_write_back(lost)?;
        let wanted = WANTED.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        while cpus::written_back() < asked || DONE.load(Ordering::Acquire) != wanted {
            pause()?;
        }
        Ok(())
    })();
    ASKING.store(false, Ordering::Release);
    done
}

/// Lets others run, until the deadline.
fn pause() -> Result {
    if remaining_ns() == 0 {
        return Err(ETIMEDOUT);
    }
    // SAFETY: Process context, without locks that forbid it.
    unsafe { c::schedule_timeout_uninterruptible(msecs_to_jiffies(0) as isize) };
    Ok(())
}
