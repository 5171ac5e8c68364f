// SPDX-License-Identifier: GPL-2.0

//! The order in which state is restored, as data.
//!
//! Every step is one item of the record; its kind is the number of the ioctl that restores it.
//!
//! The order of a vCPU follows from what KVM derives from what: special registers select the mode
//! in which nested state, registers and the XSAVE area are checked; XCR0 bounds nothing that is
//! set after it; `IA32_APIC_BASE` (in SREGS) precedes the LAPIC; the TSC deadline is a timer of the
//! LAPIC, so that MSR is written once more after it; pending events come after what could queue
//! some; MP state after the LAPIC, which may hold an INIT or SIPI.
//!
//! The VM's interrupt controllers follow the LAPICs: KVM_SET_IRQCHIP of the IOAPIC delivers what
//! is pending there into LAPICs, and KVM_SET_LAPIC would overwrite that. The clock comes last, when
//! every vCPU has its TSC, for KVM computes the master clock from both.

use super::kvm_abi as abi;

/// How an item is read from and given back to KVM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// A structure of fixed size.
    Fixed,
    /// KVM_GET_XSAVE2 or, where that is missing, KVM_GET_XSAVE.
    Xsave,
    /// `struct kvm_nested_state`: tells its own size.
    Nested,
    /// All MSRs that KVM lists, and those it keeps without listing them.
    Msrs,
    /// The TSC frequency: an argument, not a structure.
    TscKhz,
    /// The TSC's offset from the host's, an attribute: restored last, together with the clock.
    TscOffset,
    /// Not restored: compared with what the new VMM set.
    Cpuid,
}

/// One piece of a vCPU's state.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// As the KVM API names it; appears in messages.
    pub name: &'static str,
    /// The ioctl that reads it.
    pub get: u32,
    /// The ioctl that restores it; identifies the item in a record.
    pub set: u32,
    /// What is special about it.
    pub how: How,
}

const fn fixed(name: &'static str, get: u32, set: u32) -> Item {
    Item {
        name,
        get,
        set,
        how: How::Fixed,
    }
}

/// State of one vCPU, in the order of restoring.
pub const VCPU: &[Item] = &[
    Item {
        name: "CPUID2",
        get: abi::GET_CPUID2,
        set: abi::SET_CPUID2,
        how: How::Cpuid,
    },
    Item {
        name: "TSC_KHZ",
        get: abi::GET_TSC_KHZ,
        set: abi::SET_TSC_KHZ,
        how: How::TscKhz,
    },
    fixed("SREGS2", abi::GET_SREGS2, abi::SET_SREGS2),
    Item {
        name: "NESTED_STATE",
        get: abi::GET_NESTED_STATE,
        set: abi::SET_NESTED_STATE,
        how: How::Nested,
    },
    fixed("REGS", abi::GET_REGS, abi::SET_REGS),
    Item {
        name: "XSAVE",
        get: abi::GET_XSAVE2,
        set: abi::SET_XSAVE,
        how: How::Xsave,
    },
    fixed("XCRS", abi::GET_XCRS, abi::SET_XCRS),
    Item {
        name: "MSRS",
        get: abi::GET_MSRS,
        set: abi::SET_MSRS,
        how: How::Msrs,
    },
    Item {
        name: "TSC_OFFSET",
        get: abi::GET_DEVICE_ATTR,
        set: abi::SET_DEVICE_ATTR,
        how: How::TscOffset,
    },
    fixed("LAPIC", abi::GET_LAPIC, abi::SET_LAPIC),
    fixed("VCPU_EVENTS", abi::GET_VCPU_EVENTS, abi::SET_VCPU_EVENTS),
    fixed("MP_STATE", abi::GET_MP_STATE, abi::SET_MP_STATE),
    fixed("DEBUGREGS", abi::GET_DEBUGREGS, abi::SET_DEBUGREGS),
];

/// The chips of `struct kvm_irqchip`: i8259 master, slave, and the IOAPIC.
pub const IRQCHIPS: [u32; 3] = [0, 1, 2];

/// State of the VM itself, by the ioctls that restore it, in the order of restoring.
pub const VM: [(&str, u32); 3] = [
    ("IRQCHIP", abi::SET_IRQCHIP),
    ("PIT2", abi::SET_PIT2),
    ("CLOCK", abi::SET_CLOCK),
];

/// Whether this version restores items of this kind. A record with others is not resumed: something
/// of the VM would be missing.
pub fn restores(kind: u32) -> bool {
    VCPU.iter().any(|item| item.set == kind) || VM.iter().any(|&(_, set)| set == kind)
}

/// MSR numbers that need care.
pub mod msr {
    /// IA32_TIME_STAMP_COUNTER
    pub const TSC: u32 = 0x10;
    /// IA32_TSC_DEADLINE, a timer of the LAPIC
    pub const TSC_DEADLINE: u32 = 0x6e0;

    /// What KVM keeps for a guest without listing it in KVM_GET_MSR_INDEX_LIST: memory type
    /// ranges, the page attribute table, machine check status. MSRs that a vCPU does not have are
    /// skipped.
    pub fn unlisted() -> impl Iterator<Item = u32> {
        const MTRR: [u32; 13] = [
            0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x277,
            0x2ff,
        ];
        [TSC]
            .into_iter()
            .chain(0x200..0x210)
            .chain(MTRR)
            .chain([0x17a, 0x17b])
            .chain(0x280..0x2a0)
            .chain(0x400..0x480)
    }
}

/// What a vCPU uses that is in none of the items, if anything; `sregs` is its `struct kvm_sregs2`. It must
/// not be resumed.
pub fn beyond(sregs: &[u8]) -> Option<&'static str> {
    /// CR4, behind eight segments, two tables, CR0, CR2 and CR3.
    const CR4: usize = 8 * 24 + 2 * 16 + 3 * 8;
    /// CR4.CET (Intel SDM, volume 3, section 2.5)
    const CET: u64 = 1 << 23;
    let cr4 = sregs.get(CR4..CR4 + 8)?.try_into().ok()?;
    (u64::from_le_bytes(cr4) & CET != 0).then_some("shadow stacks (CET)")
}

/// How interrupts reach the vCPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Irqchip {
    /// All in the VMM.
    User = 0,
    /// LAPICs in KVM, IOAPIC and i8259 in the VMM.
    Split = 1,
    /// All in KVM.
    Kernel = 2,
}

/// What two VMs must have in common besides RAM and CPUID; item `SHAPE` of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Interrupt controllers.
    pub irqchip: Irqchip,
    /// Whether KVM emulates the PIT.
    pub pit: bool,
}

impl Shape {
    /// Bytes in a record.
    pub const SIZE: usize = 12;

    /// As kept in a record: three little-endian words.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let words = [self.vcpus, self.irqchip as u32, u32::from(self.pit)];
        let mut raw = [0; Self::SIZE];
        for (to, word) in raw.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        raw
    }

    /// From a record; `None` if it is not a shape.
    pub fn from_bytes(raw: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(raw.get(at..at + 4)?.try_into().ok()?));
        if raw.len() != Self::SIZE {
            return None;
        }
        Some(Self {
            vcpus: word(0)?,
            irqchip: match word(4)? {
                0 => Irqchip::User,
                1 => Irqchip::Split,
                2 => Irqchip::Kernel,
                _ => return None,
            },
            pit: match word(8)? {
                0 => false,
                1 => true,
                _ => return None,
            },
        })
    }
}

impl core::fmt::Display for Shape {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let irqchip = match self.irqchip {
            Irqchip::User => "user-space irqchip",
            Irqchip::Split => "split irqchip",
            Irqchip::Kernel => "in-kernel irqchip",
        };
        let pit = if self.pit {
            "in-kernel PIT"
        } else {
            "no in-kernel PIT"
        };
        write!(f, "{} vCPUs, {irqchip}, {pit}", self.vcpus)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn shadow_stacks_are_beyond_what_is_kept() {
        // `struct kvm_sregs2`: cr4 at 248.
        let mut sregs = [0xff; 320];
        assert!(beyond(&sregs).is_some());
        sregs[250] = 0x7f;
        assert_eq!(beyond(&sregs), None);
        assert_eq!(beyond(&sregs[..250]), None);
    }

    #[test]
    fn shape_round_trip() {
        for irqchip in [Irqchip::User, Irqchip::Split, Irqchip::Kernel] {
            for pit in [false, true] {
                let shape = Shape {
                    vcpus: 7,
                    irqchip,
                    pit,
                };
                assert_eq!(Shape::from_bytes(&shape.to_bytes()), Some(shape));
            }
        }
        assert_eq!(Shape::from_bytes(&[0; 11]), None);
        assert_eq!(Shape::from_bytes(&[0xff; 12]), None);
    }

    #[test]
    fn what_is_not_in_the_plan_is_not_restored() {
        assert!(restores(abi::SET_LAPIC) && restores(abi::SET_CLOCK));
        assert!(!restores(abi::GET_LAPIC) && !restores(0));
    }

    #[test]
    fn every_item_has_its_own_number() {
        for (i, item) in VCPU.iter().enumerate() {
            assert!(
                VCPU.iter().skip(i + 1).all(|other| other.set != item.set),
                "{}",
                item.name
            );
        }
    }

    #[test]
    fn state_comes_before_what_depends_on_it() {
        let place = |name| VCPU.iter().position(|item| item.name == name).unwrap();
        assert!(place("TSC_KHZ") < place("MSRS"));
        assert!(place("SREGS2") < place("NESTED_STATE"));
        assert!(place("SREGS2") < place("LAPIC"));
        assert!(place("LAPIC") < place("MP_STATE"));
        assert!(place("MSRS") < place("LAPIC"));
    }
}
