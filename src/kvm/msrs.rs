// SPDX-License-Identifier: GPL-2.0

//! Which MSRs a VM has, and reading them.
//!
//! KVM_GET_MSRS ends at the first MSR that the vCPU does not have, and most of those that KVM knows are
//! of other processors. To try them all takes longer than everything else that is captured. So it is done
//! at adoption, once.

use super::{capture::sorted_vcpus, ioctl::KvmFile, scratch::Scratch, vm::Vm};
use crate::{
    pool::store::buffer,
    state::{
        kvm_abi::{self as abi, LIST_HEADER, MSRS_MAX, MSR_ENTRY},
        plan::msr,
    },
    sys::{file::FileRef, user},
};
use core::sync::atomic::Ordering;
use kernel::prelude::*;

/// The MSRs that are kept of a VM's vCPUs: those that KVM lists, and those it keeps without listing
/// them.
pub(crate) struct Msrs {
    numbers: KVec<u32>,
    /// How many of them, the first ones, some vCPU has.
    present: usize,
}

impl Msrs {
    /// Asks KVM what there is, and the vCPUs what they have: that follows from the processor that their
    /// VMM gave them, and from capabilities.
    pub(super) fn of(vm: &Vm, scratch: &Scratch, work: &mut [u8]) -> Result<Self> {
        vm.caps_changed.store(false, Ordering::Release);
        let mut rest = known(vm, scratch)?;
        let mut numbers = KVec::with_capacity(rest.len(), GFP_KERNEL)?;
        for vcpu in sorted_vcpus(vm)?.iter() {
            let file = vcpu.kvm.get()?;
            let len = read(&vcpu.kvm, &file, scratch, &rest, work)?;
            let (_, entries) = work.split_at_checked(work.len() / 2).ok_or(EINVAL)?;
            for entry in entries.get(..len).ok_or(EINVAL)?.chunks_exact(MSR_ENTRY) {
                numbers.push(number(entry), GFP_KERNEL)?;
            }
            rest.retain(|number| !numbers.contains(number));
        }
        let present = numbers.len();
        numbers.extend_from_slice(&rest, GFP_KERNEL)?;
        Ok(Self { numbers, present })
    }

    /// Those to be read; `all`: also those that no vCPU had.
    pub(super) fn numbers(&self, all: bool) -> &[u32] {
        let count = if all {
            self.numbers.len()
        } else {
            self.present
        };
        self.numbers.get(..count).unwrap_or(&self.numbers)
    }
}

/// All MSRs that KVM knows.
fn known(vm: &Vm, scratch: &Scratch) -> Result<KVec<u32>> {
    const MOST: usize = 4096;
    let mut head = [0; 4];
    // KVM_GET_MSR_INDEX_LIST says E2BIG and how many there are.
    user::write(scratch.addr(), &head)?;
    let _ = vm.host.kvm.msr_index_list(scratch.addr());
    user::read(scratch.addr(), &mut head)?;
    let count = (u32::from_le_bytes(head) as usize).min(MOST);
    user::write(scratch.addr(), &(count as u32).to_le_bytes())?;
    vm.host.kvm.msr_index_list(scratch.addr())?;
    let mut raw = buffer(4 + 4 * count)?;
    user::read(scratch.addr(), &mut raw)?;
    let mut numbers = KVec::new();
    for listed in raw.get(4..).unwrap_or(&[]).chunks_exact(4) {
        numbers.push(number(listed), GFP_KERNEL)?;
    }
    for number in msr::unlisted() {
        if !numbers.contains(&number) {
            numbers.push(number, GFP_KERNEL)?;
        }
    }
    Ok(numbers)
}

/// The number that a list's entry begins with.
fn number(entry: &[u8]) -> u32 {
    let raw = entry.get(..4).and_then(|raw| raw.try_into().ok());
    raw.map_or(0, u32::from_le_bytes)
}

/// KVM_GET_MSRS of all `numbers` that the vCPU has: `struct kvm_msr_entry`s in the second half of
/// `work`; returns their bytes.
pub(super) fn read(
    kvm: &KvmFile,
    file: &FileRef,
    scratch: &Scratch,
    numbers: &[u32],
    work: &mut [u8],
) -> Result<usize> {
    let (buf, out) = work.split_at_mut_checked(work.len() / 2).ok_or(EINVAL)?;
    let mut rest = numbers;
    let mut len = 0;
    while !rest.is_empty() {
        let part = rest.get(..rest.len().min(MSRS_MAX)).ok_or(EINVAL)?;
        let buf = buf
            .get_mut(..LIST_HEADER + part.len() * MSR_ENTRY)
            .ok_or(EINVAL)?;
        buf.fill(0);
        let (head, entries) = buf.split_at_mut(LIST_HEADER);
        head[..4].copy_from_slice(&(part.len() as u32).to_le_bytes());
        for (to, number) in entries.chunks_exact_mut(MSR_ENTRY).zip(part) {
            to[..4].copy_from_slice(&number.to_le_bytes());
        }
        // KVM stops at the first MSR that the vCPU does not have, and says how far it came.
        let got = scratch.call(kvm, file, abi::GET_MSRS, buf)?.min(part.len());
        let from = buf
            .get(LIST_HEADER..LIST_HEADER + got * MSR_ENTRY)
            .ok_or(EINVAL)?;
        out.get_mut(len..len + from.len())
            .ok_or(E2BIG)?
            .copy_from_slice(from);
        len += from.len();
        let skip = if got < part.len() { got + 1 } else { got };
        rest = rest.get(skip..).unwrap_or(&[]);
    }
    Ok(len)
}
