// SPDX-License-Identifier: GPL-2.0

//! Which MSRs a VM has, and reading them.
//!
//! KVM_GET_MSRS ends at the first MSR that the vCPU does not have, and most of those that KVM knows are
//! of other processors. To try them all takes longer than everything else that is captured. So it is done
//! at adoption, once.

use super::{
    capture::sorted_vcpus,
    ioctl::KvmFile,
    scratch::{self, Scratch},
    vm::Vm,
};
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
    /// As KVM is asked: `struct kvm_msr_entry`s without a value.
    list: KVec<u8>,
    /// Bytes of those, the first ones, that some vCPU has.
    present: usize,
}

impl Msrs {
    /// Asks KVM what there is, and the vCPUs what they have: that follows from the processor that their
    /// VMM gave them, and from capabilities. Those in `had`, `struct kvm_msr_entry`s of a record of this
    /// VM, they are not asked for.
    pub(super) fn of(vm: &Vm, scratch: &Scratch, had: &[u8]) -> Result<Self> {
        vm.caps_changed.store(false, Ordering::Release);
        let known = known(vm, scratch)?;
        let mut list = KVec::with_capacity(known.len() * MSR_ENTRY, GFP_KERNEL)?;
        let mut rest = sort_out(&known, had, &mut list)?;
        for vcpu in sorted_vcpus(vm)?.iter() {
            if rest.is_empty() {
                break;
            }
            let file = vcpu.kvm.get()?;
            let asked = as_list(&rest)?;
            let mut answers = buffer(asked.len())?;
            let len = read(&vcpu.kvm, &file, scratch, &asked, &mut answers)?;
            rest = sort_out(&rest, answers.get(..len).ok_or(EINVAL)?, &mut list)?;
        }
        let present = list.len();
        list.extend_from_slice(&as_list(&rest)?, GFP_KERNEL)?;
        Ok(Self { list, present })
    }

    /// Those to be read, for [`read`]; `all`: also those that no vCPU had.
    pub(super) fn list(&self, all: bool) -> &[u8] {
        let end = if all { self.list.len() } else { self.present };
        self.list.get(..end).unwrap_or(&self.list)
    }
}

/// Adds those of `numbers` to `list` that `entries` are of, and returns the others. What is not in the
/// same order in both is among the others.
fn sort_out(numbers: &[u32], entries: &[u8], list: &mut KVec<u8>) -> Result<KVec<u32>> {
    let mut others = KVec::new();
    let mut here = entries.chunks_exact(MSR_ENTRY).map(number).peekable();
    for &number in numbers {
        if here.next_if_eq(&number).is_some() {
            list.extend_from_slice(&entry(number), GFP_KERNEL)?;
        } else {
            others.push(number, GFP_KERNEL)?;
        }
    }
    Ok(others)
}

/// All MSRs that KVM knows.
fn known(vm: &Vm, scratch: &Scratch) -> Result<KVec<u32>> {
    const MOST: usize = 4096;
    const _: () = assert!(4 + 4 * MOST <= scratch::SIZE);
    let mut head = (MOST as u32).to_le_bytes();
    user::write(scratch.addr(), &head)?;
    vm.host.kvm.msr_index_list(scratch.addr())?;
    scratch.read(0, &mut head)?;
    let count = (u32::from_le_bytes(head) as usize).min(MOST);
    let mut raw = buffer(4 * count)?;
    scratch.read(head.len(), &mut raw)?;
    let mut numbers = KVec::with_capacity(count, GFP_KERNEL)?;
    // Which of the low ones, as all unlisted ones are, KVM has listed.
    let mut low = [false; 0x480];
    for listed in raw.chunks_exact(4).map(number) {
        numbers.push(listed, GFP_KERNEL)?;
        if let Some(low) = low.get_mut(listed as usize) {
            *low = true;
        }
    }
    for number in msr::unlisted() {
        if low.get(number as usize) != Some(&true) {
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

/// The entry by which an MSR is asked for.
pub(super) fn entry(number: u32) -> [u8; MSR_ENTRY] {
    u128::from(number).to_le_bytes()
}

fn as_list(numbers: &[u32]) -> Result<KVec<u8>> {
    let mut list = KVec::with_capacity(numbers.len() * MSR_ENTRY, GFP_KERNEL)?;
    for &number in numbers {
        list.extend_from_slice(&entry(number), GFP_KERNEL)?;
    }
    Ok(list)
}

/// KVM_GET_MSRS of all in `list` that the vCPU has: `struct kvm_msr_entry`s in `out`, which has as many
/// bytes; returns how many it used.
pub(super) fn read(
    kvm: &KvmFile,
    file: &FileRef,
    scratch: &Scratch,
    list: &[u8],
    out: &mut [u8],
) -> Result<usize> {
    let mut rest = list;
    let mut len = 0;
    while !rest.is_empty() {
        let part = rest
            .get(..rest.len().min(MSRS_MAX * MSR_ENTRY))
            .ok_or(EINVAL)?;
        let count = part.len() / MSR_ENTRY;
        // KVM stops at the first MSR that the vCPU does not have, and says how far it came.
        let got = scratch
            .set_list(kvm, file, abi::GET_MSRS, count, part)?
            .min(count);
        let end = len + got * MSR_ENTRY;
        scratch.read(LIST_HEADER, out.get_mut(len..end).ok_or(E2BIG)?)?;
        len = end;
        let skip = if got < count { got + 1 } else { got };
        rest = rest.get(skip * MSR_ENTRY..).unwrap_or(&[]);
    }
    Ok(len)
}
