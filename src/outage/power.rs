// SPDX-License-Identifier: GPL-2.0

//! The host's power is failing: there are milliseconds left. Or it is a false alarm, or a drill.
//!
//! The keepers of all VMs are told at once and come before other threads, those first whose VMs have the fewest
//! vCPUs, which cost least to save. What is sealed stays frozen until the power is gone or its owner thaws it. What
//! is not sealed when the budget is over is said, and goes on being sealed for as long as there is power.
//!
//! A drill does the same to learn what it takes. What it has sealed goes on at its end: each keeper sees to that
//! by itself, so it needs nobody who lives to say so. An alarm during a drill comes first, and what it finds
//! sealed stays sealed.
//!
//! Who tells: `nvhv seal --now`, `nvhv drill`, and `sys::power`.

use crate::{
    host::{self, Host},
    kvm::{
        alarm::{Answer, Kind},
        vm::Vm,
    },
    sys::{c, cpus},
};
use core::sync::atomic::{AtomicBool, Ordering};
use kernel::{prelude::*, sync::Arc};

/// One alarm at a time.
static ALARMED: AtomicBool = AtomicBool::new(false);
/// One drill at a time, until all go on again.
static DRILLED: AtomicBool = AtomicBool::new(false);
/// VMs that a drill has sealed stand still.
static DRILL: AtomicBool = AtomicBool::new(false);

/// How long a drill waits for its VMs, once the budget is over. A VM that cannot be frozen is given up before.
const PATIENCE_NS: u64 = 15_000_000_000;

/// What became of the VMs.
pub(crate) struct Outcome {
    /// VMs that were to be sealed.
    pub(crate) asked: u32,
    /// Those that were, when all were done or the budget was over.
    pub(crate) sealed: u32,
    /// How long that took.
    pub(crate) elapsed_ns: u64,
}

/// Seals all VMs, within `budget_ms` of the trigger, which came at `began`, in ns of [`cpus::fast_ns`]. In process
/// context. EBUSY while that is being done already.
pub(crate) fn failing(host: &Host, why: &str, began: u64, budget_ms: u32) -> Result<Outcome> {
    if ALARMED.swap(true, Ordering::AcqRel) {
        return Err(EBUSY);
    }
    let outcome = host.all().map(|vms| {
        tell(&vms, Kind::Power, began, budget_ms);
        let budget_ns = u64::from(budget_ms) * 1_000_000;
        wait(&vms, Kind::Power, || since(began) < budget_ns);
        outcome_of(&vms, Kind::Power, began)
    });
    ALARMED.store(false, Ordering::Release);
    match &outcome {
        Err(e) => pr_emerg!("power failing ({why}): no VM is sealed ({e:?})\n"),
        Ok(done) => {
            let (sealed, asked, us) = (done.sealed, done.asked, done.elapsed_ns / 1000);
            let more = if sealed < asked {
                "; the others, unless refused above, are still being sealed"
            } else {
                ""
            };
            pr_emerg!(
                "power failing ({why}): {sealed} of {asked} VMs sealed in {us} us, of {budget_ms} ms that there are: they stay frozen until 'nvhv thaw --all'{more}\n"
            );
        }
    }
    outcome
}

/// Does what [`failing`] does, to the last VM whatever the budget, and lets those go on that it has sealed. EBUSY
/// while power fails, or during another drill. A signal ends it early: EINTR.
pub(crate) fn drill(host: &Host, began: u64, budget_ms: u32) -> Result<Outcome> {
    if ALARMED.load(Ordering::Acquire) || DRILLED.swap(true, Ordering::AcqRel) {
        return Err(EBUSY);
    }
    let outcome = host.all().and_then(|vms| {
        let limit_ns = u64::from(budget_ms) * 1_000_000 + PATIENCE_NS;
        let mut interrupted = false;
        DRILL.store(true, Ordering::Release);
        tell(&vms, Kind::Drill, began, budget_ms);
        wait(&vms, Kind::Drill, || {
            interrupted = kernel::current!().signal_pending();
            !interrupted && since(began) < limit_ns
        });
        let outcome = outcome_of(&vms, Kind::Drill, began);
        DRILL.store(false, Ordering::Release);
        vms.iter().for_each(|vm| vm.keeper.nudge());
        // Whoever is late goes on later: the caller need not wait for it.
        let over = cpus::fast_ns();
        while vms.iter().any(|vm| vm.keeper.answered(Kind::Drill) == Answer::Sealed)
            && since(over) < PATIENCE_NS
        {
            pause();
        }
        let (sealed, asked, us) = (outcome.sealed, outcome.asked, outcome.elapsed_ns / 1000);
        pr_info!(
            "drill: {sealed} of {asked} VMs sealed in {us} us, of {budget_ms} ms that there would be\n"
        );
        if interrupted {
            return Err(EINTR);
        }
        Ok(outcome)
    });
    DRILLED.store(false, Ordering::Release);
    outcome
}

/// Whether what a drill has sealed is to stand still.
pub(crate) fn is_drill() -> bool {
    DRILL.load(Ordering::Acquire)
}

fn since(began: u64) -> u64 {
    cpus::fast_ns().saturating_sub(began)
}

fn pause() {
    // SAFETY: Sleeps in process context.
    unsafe { c::nvhv_usleep(200) };
}

/// Tells the keepers, those first whose VMs have the fewest vCPUs.
fn tell(vms: &[Arc<Vm>], kind: Kind, began: u64, budget_ms: u32) {
    let vcpus = |vm: &Arc<Vm>| vm.vcpus.lock().len();
    let mut least = 0;
    while let Some(next) = vms.iter().map(vcpus).filter(|n| *n >= least).min() {
        for vm in vms.iter().filter(|vm| vcpus(vm) == next) {
            vm.keeper.alarm_of_power(kind, began, budget_ms);
        }
        least = next + 1;
    }
}

/// Waits until all have answered, for as long as `patient` says so.
fn wait(vms: &[Arc<Vm>], kind: Kind, mut patient: impl FnMut() -> bool) {
    while count(vms, kind, Answer::Asked) != 0 && patient() {
        pause();
    }
}

fn count(vms: &[Arc<Vm>], kind: Kind, what: Answer) -> u32 {
    let so = vms.iter().filter(|vm| vm.keeper.answered(kind) == what);
    u32::try_from(so.count()).unwrap_or(u32::MAX)
}

fn outcome_of(vms: &[Arc<Vm>], kind: Kind, began: u64) -> Outcome {
    let elapsed_ns = since(began);
    let sealed = count(vms, kind, Answer::Sealed);
    Outcome {
        asked: sealed + count(vms, kind, Answer::Asked) + count(vms, kind, Answer::Failed),
        sealed,
        elapsed_ns,
    }
}

/// A trigger has told, at `began` in ns of [`cpus::fast_ns`].
///
/// # Safety
///
/// Process context; `why` is a string that stays.
pub(crate) unsafe extern "C" fn told(why: *const c_char, began: u64) {
    // SAFETY: By this function's contract.
    let why = unsafe { CStr::from_char_ptr(why) }.to_str().unwrap_or("?");
    if let Some(host) = host::get() {
        // All that there is to say is in the log.
        let _ = failing(&host, why, began, crate::holdup_ms());
    }
}
