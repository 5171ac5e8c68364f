// SPDX-License-Identifier: GPL-2.0

//! The host's power is failing: there are milliseconds left. Or it is a false alarm.
//!
//! The keepers of all VMs are told at once and come before other threads, those first whose VMs have the fewest
//! vCPUs, which cost least to save. What is sealed stays frozen until the power is gone or its owner thaws it. What
//! is not sealed when the budget is over is said, and goes on being sealed for as long as there is power.
//!
//! Who tells: `nvhv seal --now`, and `sys::power`.

use crate::{
    host::{self, Host},
    kvm::{keeper::Power, vm::Vm},
    sys::{c, cpus},
};
use core::sync::atomic::{AtomicBool, Ordering};
use kernel::{prelude::*, sync::Arc};

/// One alarm at a time.
static ALARMED: AtomicBool = AtomicBool::new(false);

/// What became of the VMs.
pub(crate) struct Outcome {
    /// VMs that were to be sealed.
    pub(crate) asked: u32,
    /// Those that were, when all were done or the budget was over.
    pub(crate) sealed: u32,
    /// How long that took.
    pub(crate) elapsed_ns: u64,
}

/// Seals all VMs, within `budget_ms`. In process context. EBUSY while that is being done already.
pub(crate) fn failing(host: &Host, why: &str, budget_ms: u32) -> Result<Outcome> {
    if ALARMED.swap(true, Ordering::AcqRel) {
        return Err(EBUSY);
    }
    let outcome = seal_all(host, u64::from(budget_ms) * 1_000_000);
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

fn seal_all(host: &Host, budget_ns: u64) -> Result<Outcome> {
    let began = cpus::fast_ns();
    let elapsed = || cpus::fast_ns().saturating_sub(began);
    let vms = host.all()?;
    let vcpus = |vm: &Arc<Vm>| vm.vcpus.lock().len();
    let mut least = 0;
    while let Some(next) = vms.iter().map(vcpus).filter(|n| *n >= least).min() {
        for vm in vms.iter().filter(|vm| vcpus(vm) == next) {
            vm.keeper.alarm_of_power();
        }
        least = next + 1;
    }
    let count = |what| {
        let so = vms.iter().filter(|vm| vm.keeper.answered_power() == what);
        u32::try_from(so.count()).unwrap_or(u32::MAX)
    };
    while count(Power::Asked) != 0 && elapsed() < budget_ns {
        // A keeper may have been about to sleep when it was told.
        vms.iter().for_each(|vm| vm.keeper.wake());
        // SAFETY: Sleeps in process context.
        unsafe { c::nvhv_usleep(200) };
    }
    let elapsed_ns = elapsed();
    let sealed = count(Power::Sealed);
    Ok(Outcome {
        asked: sealed + count(Power::Asked) + count(Power::Failed),
        sealed,
        elapsed_ns,
    })
}

/// A trigger has told.
///
/// # Safety
///
/// Process context; `why` is a string that stays.
pub(crate) unsafe extern "C" fn told(why: *const c_char) {
    // SAFETY: By this function's contract.
    let why = unsafe { CStr::from_char_ptr(why) }.to_str().unwrap_or("?");
    if let Some(host) = host::get() {
        // All that there is to say is in the log.
        let _ = failing(&host, why, crate::holdup_ms());
    }
}
