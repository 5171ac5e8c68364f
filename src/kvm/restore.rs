// SPDX-License-Identifier: GPL-2.0

//! Giving a sealed VM's state to the KVM VM that a new VMM has made.
//!
//! Restoring is replaying the record in the order of `state::plan`. The current task is of the VMM,
//! no vCPU has run, and none of its threads is inside KVM.

use super::{
    capture::{self, sorted_vcpus},
    scratch::Scratch,
    vcpu::Vcpu,
    vm::Vm,
};
use crate::{
    format::{
        record::{kind, VM_WIDE},
        Record,
    },
    state::{
        clock::{self, Clock},
        cpuid,
        kvm_abi::{self as abi, LIST_HEADER, MSRS_MAX, MSR_ENTRY},
        plan::{self, msr, How, Item},
    },
    sys::{compat::EUCLEAN, file::FileRef},
};
use kernel::{fmt, prelude::*, str::CString, sync::Arc};

/// RFLAGS.IF
const RFLAGS_IF: u64 = 1 << 9;

/// Why a record cannot be given to this VM.
pub(crate) struct Failure {
    /// What KVM_RUN returns.
    pub(crate) error: Error,
    /// In words; nothing if there is no memory for them.
    why: Option<CString>,
}

impl Failure {
    pub(super) fn new(error: Error, why: fmt::Arguments<'_>) -> Self {
        Self {
            error,
            why: CString::try_from_fmt(why).ok(),
        }
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.why.as_deref().map(CStr::to_str) {
            Some(Ok(why)) => f.write_str(why),
            _ => write!(f, "out of memory"),
        }
    }
}

/// Compares the CPUID of every vCPU with the record's.
pub(super) fn check_cpuid(
    vm: &Vm,
    record: &Record<'_>,
    scratch: &Scratch,
    work: &mut [u8],
) -> core::result::Result<(), Failure> {
    let internal = |e: Error| Failure::new(e, fmt!("cannot read its CPUID ({e:?})"));
    for vcpu in sorted_vcpus(vm).map_err(internal)?.iter() {
        let saved = record
            .vcpu(vcpu.id)
            .find(abi::SET_CPUID2)
            .ok_or_else(|| Failure::new(EXDEV, fmt!("the image has no vCPU {}", vcpu.id)))?;
        let file = vcpu.kvm.get().map_err(internal)?;
        let len = capture::cpuid(&vcpu.kvm, &file, scratch, work).map_err(internal)?;
        cpuid::compare(saved.payload, work.get(..len).unwrap_or(&[]))
            .map_err(|d| Failure::new(EXDEV, fmt!("vCPU {}: {d}", vcpu.id)))?;
    }
    Ok(())
}

/// Restores everything.
pub(super) fn restore(
    vm: &Vm,
    record: &Record<'_>,
    scratch: &Scratch,
) -> core::result::Result<(), Failure> {
    let internal = |e: Error| Failure::new(e, fmt!("cannot be restored ({e:?})"));
    let vcpus = sorted_vcpus(vm).map_err(internal)?;
    for vcpu in vcpus.iter() {
        let target = Target {
            vcpu,
            file: vcpu.kvm.get().map_err(internal)?,
            scratch,
        };
        let own = record.vcpu(vcpu.id);
        for item in plan::VCPU {
            let Some(saved) = own.find(item.set) else {
                continue;
            };
            target.restore(item, saved.payload)?;
            if item.set == abi::SET_LAPIC {
                if let Some(msrs) = own.find(abi::SET_MSRS) {
                    target.arm_tsc_deadline(msrs.payload).map_err(internal)?;
                }
            }
        }
        let word = |kind, at: usize| {
            let payload = own.find(kind)?.payload;
            let bytes = payload.get(at..at.checked_add(8)?)?.try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        // `cr8`, `efer` and `apic_base` follow the segments, the table registers and CR0 to CR4 of
        // `struct kvm_sregs2`; `rflags` is the last of `struct kvm_regs`.
        let cr8 = word(abi::SET_SREGS2, 256).unwrap_or(0);
        let apic_base = word(abi::SET_SREGS2, 272).unwrap_or(0);
        let rflags = word(abi::SET_REGS, 136).unwrap_or(0);
        if let Some(page) = vcpu.page() {
            page.after_restore(cr8, apic_base, rflags & RFLAGS_IF != 0)
                .ok_or(EINVAL)
                .map_err(internal)?;
        }
        if let Some(exit) = own.find(kind::EXIT) {
            let mut kept = KVec::new();
            kept.extend_from_slice(exit.payload, GFP_KERNEL)
                .map_err(|e| internal(e.into()))?;
            vcpu.keep_exit(kept);
        }
    }
    let file = vm.kvm.get().map_err(internal)?;
    for (name, set) in plan::VM {
        let items = record
            .items()
            .filter(|i| i.kind == set && i.vcpu == VM_WIDE);
        for item in items {
            let mut saved = of_len(item.payload, abi::size_of_request(set), name)?;
            let mut clock = [0; abi::size_of_request(abi::SET_CLOCK)];
            if set == abi::SET_CLOCK && saved.len() == clock.len() {
                // The value alone: the guest's clock goes on where it stopped, as after a pause.
                clock.copy_from_slice(saved);
                clock[8..12].fill(0);
                saved = &clock;
            }
            scratch
                .set(&vm.kvm, &file, set, saved)
                .map_err(|e| Failure::new(e, fmt!("KVM does not take its {name} ({e:?})")))?;
        }
    }
    align_clocks(vm, record, scratch, &vcpus).map_err(internal)?;
    for vcpu in vcpus.iter() {
        // Tells the guest's watchdog that it was stopped. EINVAL: the guest uses no kvmclock.
        let file = vcpu.kvm.get().map_err(internal)?;
        match vcpu.kvm.call(&file, abi::KVMCLOCK_CTRL, 0) {
            Ok(_) => {}
            Err(e) if e == EINVAL => {}
            Err(e) => return Err(internal(e)),
        }
    }
    Ok(())
}

/// Gives every TSC the same relation to the kvmclock as it had.
fn align_clocks(vm: &Vm, record: &Record<'_>, scratch: &Scratch, vcpus: &[Arc<Vcpu>]) -> Result {
    let before = record
        .find(abi::SET_CLOCK, VM_WIDE)
        .and_then(|item| Clock::from_bytes(item.payload));
    let Some(before) = before else { return Ok(()) };
    let mut raw = [0; abi::size_of_request(abi::GET_CLOCK)];
    scratch.call(&vm.kvm, &vm.kvm.get()?, abi::GET_CLOCK, &mut raw)?;
    let now = Clock::from_bytes(&raw).ok_or(EINVAL)?;
    // The VM's default is the host's own frequency.
    let host_khz = vm
        .kvm
        .call(&vm.kvm.get()?, abi::GET_TSC_KHZ, 0)
        .unwrap_or(0) as u32;
    for vcpu in vcpus {
        let own = record.vcpu(vcpu.id);
        let word = |kind, len| {
            let payload = own.find(kind)?.payload;
            let mut word = [0; 8];
            word.get_mut(..len)?.copy_from_slice(payload.get(..len)?);
            Some(u64::from_le_bytes(word))
        };
        let (Some(offset), Some(khz)) = (word(abi::SET_DEVICE_ATTR, 8), word(abi::SET_TSC_KHZ, 4))
        else {
            continue;
        };
        // CAST: four bytes were read. With TSC scaling an offset is not relative to the host's TSC.
        if !clock::same_frequency(khz as u32, host_khz) {
            continue;
        }
        if let Some(offset) = clock::tsc_offset(&before, offset, &now, khz as u32) {
            let file = vcpu.kvm.get()?;
            scratch.tsc_offset(&vcpu.kvm, &file, abi::SET_DEVICE_ATTR, offset)?;
        }
    }
    Ok(())
}

/// An item's payload, if it has the right length.
fn of_len<'a>(
    payload: &'a [u8],
    len: usize,
    name: &str,
) -> core::result::Result<&'a [u8], Failure> {
    if payload.len() == len {
        return Ok(payload);
    }
    Err(Failure::new(
        EUCLEAN,
        fmt!(
            "{name} of {} bytes in its record, expected {len}",
            payload.len()
        ),
    ))
}

/// One vCPU being restored.
struct Target<'a> {
    vcpu: &'a Vcpu,
    file: FileRef,
    scratch: &'a Scratch,
}

impl Target<'_> {
    fn set(&self, request: u32, buf: &[u8]) -> Result<usize> {
        self.scratch.set(&self.vcpu.kvm, &self.file, request, buf)
    }

    fn restore(&self, item: &Item, saved: &[u8]) -> core::result::Result<(), Failure> {
        let refuse = |e: Error| {
            Failure::new(
                e,
                fmt!(
                    "vCPU {}: KVM does not take its {} ({e:?})",
                    self.vcpu.id,
                    item.name
                ),
            )
        };
        match item.how {
            How::Cpuid | How::TscOffset => Ok(()),
            How::Fixed => {
                let saved = of_len(saved, abi::size_of_request(item.set), item.name)?;
                self.set(item.set, saved).map_err(refuse)?;
                Ok(())
            }
            How::Xsave | How::Nested => {
                self.set(item.set, saved).map_err(refuse)?;
                Ok(())
            }
            How::TscKhz => self.tsc_khz(item, saved).map_err(refuse),
            How::Msrs => self.msrs(saved),
        }
    }

    fn tsc_khz(&self, item: &Item, saved: &[u8]) -> Result {
        let saved = u32::from_le_bytes(saved.try_into().map_err(|_| EUCLEAN)?);
        let now = self.vcpu.kvm.call(&self.file, item.get, 0)? as u32;
        if saved == now || saved == 0 {
            return Ok(());
        }
        // The host's TSC is measured anew at each boot. KVM scales by hardware what differs by more
        // than its tolerance (`tsc_tolerance_ppm`).
        self.vcpu.kvm.call(&self.file, item.set, saved as usize)?;
        Ok(())
    }

    fn msrs(&self, saved: &[u8]) -> core::result::Result<(), Failure> {
        let internal = |e: Error| Failure::new(e, fmt!("vCPU {}: MSRs: {e:?}", self.vcpu.id));
        if saved.len() % MSR_ENTRY != 0 {
            return Err(internal(EUCLEAN));
        }
        let mut rest = saved;
        while !rest.is_empty() {
            let part = rest
                .get(..rest.len().min(MSRS_MAX * MSR_ENTRY))
                .unwrap_or(rest);
            let count = part.len() / MSR_ENTRY;
            // KVM stops at the first MSR that it does not take, and says how far it came.
            let done = self
                .scratch
                .set_list(&self.vcpu.kvm, &self.file, abi::SET_MSRS, count, part)
                .map_err(internal)?
                .min(count);
            let mut next = done;
            if let Some(entry) = part.get(done * MSR_ENTRY..(done + 1) * MSR_ENTRY) {
                self.must_equal(entry)?;
                next += 1;
            }
            rest = rest.get(next * MSR_ENTRY..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// An MSR that cannot be set is no difference if it has the saved value anyway.
    fn must_equal(&self, entry: &[u8]) -> core::result::Result<(), Failure> {
        let number = capture::list_len(entry) as u32;
        let mut buf = [0; LIST_HEADER + MSR_ENTRY];
        buf[0] = 1;
        buf[LIST_HEADER..LIST_HEADER + 4].copy_from_slice(&number.to_le_bytes());
        let got = self
            .scratch
            .call(&self.vcpu.kvm, &self.file, abi::GET_MSRS, &mut buf);
        let same = got == Ok(1) && buf.get(LIST_HEADER + 8..) == entry.get(8..);
        if same {
            return Ok(());
        }
        Err(Failure::new(
            EXDEV,
            fmt!("vCPU {}: KVM does not take MSR {number:#x}", self.vcpu.id),
        ))
    }

    /// KVM_SET_LAPIC sets up the LAPIC's timer anew; a TSC deadline is armed through its MSR.
    fn arm_tsc_deadline(&self, msrs: &[u8]) -> Result {
        let deadline = msrs
            .chunks_exact(MSR_ENTRY)
            .find(|entry| capture::list_len(entry) as u32 == msr::TSC_DEADLINE);
        let Some(deadline) = deadline else {
            return Ok(());
        };
        let (kvm, file) = (&self.vcpu.kvm, &self.file);
        self.scratch
            .set_list(kvm, file, abi::SET_MSRS, 1, deadline)?;
        Ok(())
    }
}
