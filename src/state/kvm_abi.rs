// SPDX-License-Identifier: GPL-2.0

//! The part of the KVM API that the module calls or watches: `Documentation/virt/kvm/api.rst`.
//!
//! A request number encodes direction, size of the fixed part of the argument, type and number
//! (`include/uapi/asm-generic/ioctl.h`). Sizes are checked against the kernel's headers where the
//! module is built.

use super::blocks::Slot;

const KVMIO: u32 = 0xae;

/// A request without an argument structure.
const fn io(nr: u32) -> u32 {
    (KVMIO << 8) | nr
}

/// A request that reads `size` bytes from the kernel.
const fn ior(nr: u32, size: u32) -> u32 {
    (2 << 30) | (size << 16) | io(nr)
}

/// A request that hands `size` bytes to the kernel.
const fn iow(nr: u32, size: u32) -> u32 {
    (1 << 30) | (size << 16) | io(nr)
}

/// A request that does both.
const fn iowr(nr: u32, size: u32) -> u32 {
    (3 << 30) | (size << 16) | io(nr)
}

/// Bytes of the argument that a request number names.
pub const fn size_of_request(request: u32) -> usize {
    ((request >> 16) & 0x3fff) as usize
}

/// Whether a request only answers: KVM does not look at what its argument holds.
pub const fn only_answers(request: u32) -> bool {
    request >> 30 == 2
}

/// 4.2 KVM_CREATE_VM
pub const CREATE_VM: u32 = io(0x01);
/// 4.3 KVM_GET_MSR_INDEX_LIST
pub const GET_MSR_INDEX_LIST: u32 = iowr(0x02, 4);
/// 4.4 KVM_CHECK_EXTENSION
pub const CHECK_EXTENSION: u32 = io(0x03);
/// 4.7 KVM_CREATE_VCPU
pub const CREATE_VCPU: u32 = io(0x41);
/// 4.8 KVM_GET_DIRTY_LOG
pub const GET_DIRTY_LOG: u32 = iow(0x42, 16);
/// 4.35 KVM_SET_USER_MEMORY_REGION
pub const SET_USER_MEMORY_REGION: u32 = iow(0x46, 32);
/// 4.140 KVM_SET_USER_MEMORY_REGION2
pub const SET_USER_MEMORY_REGION2: u32 = iow(0x49, 160);
/// 4.24 KVM_CREATE_IRQCHIP
pub const CREATE_IRQCHIP: u32 = io(0x60);
/// 4.26 KVM_GET_IRQCHIP
pub const GET_IRQCHIP: u32 = iowr(0x62, 520);
/// 4.27 KVM_SET_IRQCHIP
pub const SET_IRQCHIP: u32 = ior(0x63, 520);
/// 4.116 KVM_REGISTER_COALESCED_MMIO
pub const REGISTER_COALESCED_MMIO: u32 = iow(0x67, 16);
/// 4.116 KVM_UNREGISTER_COALESCED_MMIO
pub const UNREGISTER_COALESCED_MMIO: u32 = iow(0x68, 16);
/// 4.71 KVM_CREATE_PIT2
pub const CREATE_PIT2: u32 = iow(0x77, 64);
/// 4.30 KVM_SET_CLOCK
pub const SET_CLOCK: u32 = iow(0x7b, 48);
/// 4.29 KVM_GET_CLOCK
pub const GET_CLOCK: u32 = ior(0x7c, 48);
/// 4.10 KVM_RUN
pub const RUN: u32 = io(0x80);
/// 4.11 KVM_GET_REGS
pub const GET_REGS: u32 = ior(0x81, 144);
/// 4.12 KVM_SET_REGS
pub const SET_REGS: u32 = iow(0x82, 144);
/// 4.14 KVM_SET_SREGS
pub const SET_SREGS: u32 = iow(0x84, 312);
/// 4.15 KVM_TRANSLATE
pub const TRANSLATE: u32 = iowr(0x85, 24);
/// 4.18 KVM_GET_MSRS
pub const GET_MSRS: u32 = iowr(0x88, 8);
/// 4.19 KVM_SET_MSRS
pub const SET_MSRS: u32 = iow(0x89, 8);
/// 4.57 KVM_GET_LAPIC
pub const GET_LAPIC: u32 = ior(0x8e, 1024);
/// 4.58 KVM_SET_LAPIC
pub const SET_LAPIC: u32 = iow(0x8f, 1024);
/// 4.46 KVM_SET_CPUID2
pub const SET_CPUID2: u32 = iow(0x90, 8);
/// KVM_GET_CPUID2, `arch/x86/kvm/cpuid.c`
pub const GET_CPUID2: u32 = iowr(0x91, 8);
/// 4.38 KVM_GET_MP_STATE
pub const GET_MP_STATE: u32 = ior(0x98, 4);
/// 4.39 KVM_SET_MP_STATE
pub const SET_MP_STATE: u32 = iow(0x99, 4);
/// 4.31 KVM_GET_VCPU_EVENTS
pub const GET_VCPU_EVENTS: u32 = ior(0x9f, 64);
/// 4.32 KVM_SET_VCPU_EVENTS
pub const SET_VCPU_EVENTS: u32 = iow(0xa0, 64);
/// 4.72 KVM_GET_PIT2
pub const GET_PIT2: u32 = ior(0x9f, 112);
/// 4.73 KVM_SET_PIT2
pub const SET_PIT2: u32 = iow(0xa0, 112);
/// 4.33 KVM_GET_DEBUGREGS
pub const GET_DEBUGREGS: u32 = ior(0xa1, 128);
/// 4.34 KVM_SET_DEBUGREGS
pub const SET_DEBUGREGS: u32 = iow(0xa2, 128);
/// 4.55 KVM_SET_TSC_KHZ
pub const SET_TSC_KHZ: u32 = io(0xa2);
/// 4.56 KVM_GET_TSC_KHZ
pub const GET_TSC_KHZ: u32 = io(0xa3);
/// 4.37 KVM_ENABLE_CAP
pub const ENABLE_CAP: u32 = iow(0xa3, 104);
/// 4.42 KVM_GET_XSAVE
pub const GET_XSAVE: u32 = ior(0xa4, 4096);
/// 4.43 KVM_SET_XSAVE
pub const SET_XSAVE: u32 = iow(0xa5, 4096);
/// 4.44 KVM_GET_XCRS
pub const GET_XCRS: u32 = ior(0xa6, 392);
/// 4.45 KVM_SET_XCRS
pub const SET_XCRS: u32 = iow(0xa7, 392);
/// 4.70 KVM_KVMCLOCK_CTRL
pub const KVMCLOCK_CTRL: u32 = io(0xad);
/// 4.114 KVM_GET_NESTED_STATE
pub const GET_NESTED_STATE: u32 = iowr(0xbe, 128);
/// 4.115 KVM_SET_NESTED_STATE
pub const SET_NESTED_STATE: u32 = iow(0xbf, 128);
/// KVM_MEMORY_ENCRYPT_OP: the VM's memory is encrypted (SEV, TDX)
pub const MEMORY_ENCRYPT_OP: u32 = iowr(0xba, 8);
/// 4.132 KVM_GET_SREGS2
pub const GET_SREGS2: u32 = ior(0xcc, 320);
/// 4.133 KVM_SET_SREGS2
pub const SET_SREGS2: u32 = iow(0xcd, 320);
/// 4.134 KVM_GET_XSAVE2: shares the number of KVM_GET_XSAVE's structure
pub const GET_XSAVE2: u32 = ior(0xcf, 4096);
/// 4.142 KVM_CREATE_GUEST_MEMFD
pub const CREATE_GUEST_MEMFD: u32 = iowr(0xd4, 64);

/// 4.79 KVM_CREATE_DEVICE
pub const CREATE_DEVICE: u32 = iowr(0xe0, 12);
/// KVM_DEV_TYPE_VFIO: devices of the host that are the guest's
const DEV_TYPE_VFIO: u32 = 4;
/// KVM_CREATE_DEVICE_TEST: nothing is created
const CREATE_DEVICE_TEST: u32 = 1;

/// Whether a `struct kvm_create_device` asks for devices of the host: type, descriptor, flags.
pub fn passes_through(raw: &[u8; size_of_request(CREATE_DEVICE)]) -> bool {
    let [t0, t1, t2, t3, _, _, _, _, f0, f1, f2, f3] = *raw;
    let (kind, flags) = (
        u32::from_le_bytes([t0, t1, t2, t3]),
        u32::from_le_bytes([f0, f1, f2, f3]),
    );
    kind == DEV_TYPE_VFIO && flags & CREATE_DEVICE_TEST == 0
}

/// 4.80 KVM_SET_DEVICE_ATTR, on a vCPU
pub const SET_DEVICE_ATTR: u32 = iow(0xe1, 24);
/// 4.80 KVM_GET_DEVICE_ATTR, on a vCPU
pub const GET_DEVICE_ATTR: u32 = iow(0xe2, 24);
/// Group KVM_VCPU_TSC_CTRL, `Documentation/virt/kvm/devices/vcpu.rst`, 4
pub const VCPU_TSC_CTRL: u32 = 0;
/// Attribute KVM_VCPU_TSC_OFFSET of that group
pub const VCPU_TSC_OFFSET: u64 = 0;

/// KVM_CAP_DIRTY_LOG_RING and KVM_CAP_DIRTY_LOG_RING_ACQ_REL
const CAP_DIRTY_LOG_RING: [u32; 2] = [192, 223];

/// Whether a capability is about dirty pages being told in a ring.
pub fn is_dirty_ring(cap: u32) -> bool {
    CAP_DIRTY_LOG_RING.contains(&cap)
}

/// KVM_CAP_NESTED_STATE: bytes of the largest nested state, or 0
pub const CAP_NESTED_STATE: u32 = 157;
/// KVM_CAP_SPLIT_IRQCHIP
pub const CAP_SPLIT_IRQCHIP: u32 = 121;
/// KVM_CAP_XSAVE2: bytes of the XSAVE area, or 0
pub const CAP_XSAVE2: u32 = 208;

/// KVM_MEM_LOG_DIRTY_PAGES
pub const MEM_LOG_DIRTY_PAGES: u32 = 1;
/// KVM_MEM_READONLY
pub const MEM_READONLY: u32 = 2;
/// KVM_MEM_GUEST_MEMFD
pub const MEM_GUEST_MEMFD: u32 = 4;

/// Bytes before the entries of `struct kvm_msrs` and `struct kvm_cpuid2`.
pub const LIST_HEADER: usize = 8;
/// Bytes of a `struct kvm_msr_entry`.
pub const MSR_ENTRY: usize = 16;
/// Bytes of a `struct kvm_cpuid_entry2`.
pub const CPUID_ENTRY: usize = 40;
/// Most entries that KVM takes in one CPUID (KVM_MAX_CPUID_ENTRIES).
pub const CPUID_MAX: usize = 256;
/// Most entries that KVM takes in one list of MSRs: fewer than MAX_IO_MSRS.
pub const MSRS_MAX: usize = 255;

/// Bytes of `struct kvm_userspace_memory_region`.
pub const MEMORY_REGION: usize = 32;

/// Reads a `struct kvm_userspace_memory_region` as KVM would.
pub fn memory_region_from(raw: &[u8; MEMORY_REGION]) -> Slot {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(raw.get(at..at + 8).unwrap_or(&[0; 8]));
        u64::from_le_bytes(bytes)
    };
    let first = word(0);
    Slot {
        // CAST: the two halves of the first word.
        id: first as u32,
        flags: (first >> 32) as u32,
        gpa: word(8),
        size: word(16),
        hva: word(24),
    }
}

/// Writes a `struct kvm_userspace_memory_region` as KVM reads it.
pub fn memory_region_to(slot: &Slot) -> [u8; MEMORY_REGION] {
    let first = u64::from(slot.id) | (u64::from(slot.flags) << 32);
    let mut raw = [0; MEMORY_REGION];
    for (to, word) in raw
        .chunks_exact_mut(8)
        .zip([first, slot.gpa, slot.size, slot.hva])
    {
        to.copy_from_slice(&word.to_le_bytes());
    }
    raw
}

/// Slot and address of the bitmap in a `struct kvm_dirty_log`.
pub fn dirty_log_from(raw: &[u8; size_of_request(GET_DIRTY_LOG)]) -> (u32, u64) {
    let [s0, s1, s2, s3, _, _, _, _, bitmap @ ..] = *raw;
    (
        u32::from_le_bytes([s0, s1, s2, s3]),
        u64::from_le_bytes(bitmap),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_with_an_argument_is_told_apart() {
        assert!(only_answers(GET_REGS) && only_answers(GET_XSAVE2));
        assert!([
            GET_MSRS,
            GET_CPUID2,
            GET_IRQCHIP,
            GET_NESTED_STATE,
            TRANSLATE
        ]
        .iter()
        .all(|&request| !only_answers(request)));
    }

    #[test]
    fn memory_region_round_trip() {
        let slot = Slot {
            id: 0x1_0002,
            flags: MEM_READONLY,
            gpa: 0xc_0000,
            size: 0x2_0000,
            hva: 0x7fff_1234_5000,
        };
        assert_eq!(memory_region_from(&memory_region_to(&slot)), slot);
    }
}
