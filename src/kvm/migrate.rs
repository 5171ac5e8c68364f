// SPDX-License-Identifier: GPL-2.0

//! A VMM that migrates its guest: away from here, or to here.
//!
//! It has KVM log which pages are written, copies RAM as its own view shows it, stops the guest, copies what is
//! left, and reads processors and devices. So what both views differ in, virtqueues, must be brought
//! together before the last copy. A guest that was stopped and read may go on elsewhere from then on. And
//! one that has come from elsewhere has devices that were never seen being configured.

use super::{
    capture::sorted_vcpus,
    msrs,
    restore::Failure,
    scratch::Scratch,
    vcpu::Vcpu,
    vm::{Phase, Vm},
};
use crate::{
    state::{
        blocks::Slot,
        kvm_abi::{self as abi, MSR_ENTRY},
    },
    sys::{compat::EOPNOTSUPP, user},
};
use core::sync::atomic::Ordering;
use kernel::{prelude::*, sync::Arc};

const PAGE: u64 = 4096;

/// MSRs that are zero until an operating system has run: IA32_SYSENTER_EIP, IA32_LSTAR, and kvmclock's two.
const OF_SYSTEMS: [u32; 4] = [0x176, 0xc000_0082, 0x12, 0x4b56_4d01];

/// Notes whether the guest's RAM is being logged. Where it begins at 0 nothing else is: a display has its own.
pub(super) fn note_log(vm: &Vm, slots: &[Slot]) {
    let now = slots.iter().any(|slot| slot.gpa == 0 && logs(slot));
    let was = vm.logged.swap(now, Ordering::AcqRel);
    if now && !was {
        vm.vcpus.lock().iter().for_each(|vcpu| vcpu.note_logged());
    }
}

fn logs(slot: &Slot) -> bool {
    slot.size > 0 && slot.flags & abi::MEM_LOG_DIRTY_PAGES != 0
}

/// Refuses that a slot be logged from now on with queues in it that no other device could go on with.
pub(super) fn check(vm: &Vm, slots: &[Slot], slot: &Slot) -> Result {
    if slots.iter().any(|old| old.id == slot.id && logs(old)) {
        return Ok(());
    }
    may_be_logged(vm, slot).map_err(|why| {
        pr_err!("{}: {why}\n", vm.binding.name());
        vm.host
            .note_refusal(vm.binding.id(), why.error, fmt!("{why}"));
        why.error
    })
}

/// Whether a slot may be as it is: if it is logged, without queues that no other device could go on with.
pub(super) fn may_be_logged(vm: &Vm, slot: &Slot) -> core::result::Result<(), Failure> {
    if !logs(slot) {
        return Ok(());
    }
    let Some((device, queue)) = vm.devices.stays(slot.gpa, slot.size) else {
        return Ok(());
    };
    Err(Failure::new(
        EOPNOTSUPP,
        fmt!(
            "it cannot be migrated until its guest has rebooted: no other device can go on with queue {queue} of {device}, \
             which was in use before the VM was resumed, or is broken"
        ),
    ))
}

/// KVM_GET_DIRTY_LOG of the VMM: it is about to copy what the log names.
pub(super) fn dirty_log(vm: &Vm, arg: usize, pass: impl FnOnce() -> isize) -> Result<isize> {
    let mut raw = [0; abi::size_of_request(abi::GET_DIRTY_LOG)];
    user::read(arg, &mut raw)?;
    let (id, bitmap) = abi::dirty_log_from(&raw);
    let slot = {
        let inner = vm.inner.lock();
        let found = inner.slots.iter().find(|slot| slot.id == id);
        found.filter(|_| vm.phase() == Phase::Live).copied()
    };
    let Some(slot) = slot else {
        return Ok(pass());
    };
    let pages = vm
        .devices
        .queues
        .show_copier(slot.gpa, slot.size, vm.is_copied())?;
    let ret = pass();
    if ret != 0 {
        return Ok(ret);
    }
    for gpa in pages.iter() {
        let page = (gpa - slot.gpa) / PAGE;
        // CAST: x86-64.
        let at = bitmap.wrapping_add(page / 8) as usize;
        let mut byte = [0];
        user::read(at, &mut byte)?;
        user::write(at, &byte.map(|bits| bits | 1 << (page % 8)))?;
    }
    Ok(ret)
}

/// Whether the guest of a VM that is new here has run before.
pub(super) fn has_run(vm: &Vm, scratch: &Scratch) -> Result<bool> {
    let mut asked = [0; OF_SYSTEMS.len() * MSR_ENTRY];
    for (to, number) in asked.chunks_exact_mut(MSR_ENTRY).zip(OF_SYSTEMS) {
        to.copy_from_slice(&msrs::entry(number));
    }
    for vcpu in sorted_vcpus(vm)?.iter() {
        let mut answers = [0; OF_SYSTEMS.len() * MSR_ENTRY];
        let file = vcpu.kvm.get()?;
        let len = msrs::read(&vcpu.kvm, &file, scratch, &asked, &mut answers)?;
        let mut values = answers.get(..len).unwrap_or(&[]).chunks_exact(MSR_ENTRY);
        if values.any(|entry| entry.iter().skip(8).any(|&byte| byte != 0)) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Vm {
    /// Whether all vCPUs stand still since their VMM has read them. It does not read those that were unplugged, which
    /// have not run for long.
    fn is_copied(&self) -> bool {
        let vcpus = self.vcpus.lock();
        let stands = |vcpu: &Arc<Vcpu>| vcpu.is_copied() || !vcpu.has_run();
        vcpus.iter().any(|vcpu| vcpu.is_copied()) && vcpus.iter().all(stands)
    }

    /// Whether its VMM has all that it takes to let the guest go on elsewhere.
    pub(crate) fn may_have_moved(&self) -> bool {
        self.logged.load(Ordering::Acquire) && self.is_copied()
    }
}
