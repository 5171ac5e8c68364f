// SPDX-License-Identifier: GPL-2.0

//! Comparing the CPUID of a vCPU with the one its image was made with.
//!
//! The arrays are those of `KVM_GET_CPUID2`: `struct kvm_cpuid_entry2` of
//! `include/uapi/asm/kvm.h`, 40 bytes each, little-endian, in any order.

use core::fmt;

/// Bytes in `struct kvm_cpuid_entry2`.
pub const ENTRY_LEN: usize = 40;

/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`: the leaf has subleaves.
const SIGNIFICANT_INDEX: u32 = 1 << 0;

/// A register of a CPUID leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

const REGISTERS: [Register; 4] = [Register::Eax, Register::Ebx, Register::Ecx, Register::Edx];

/// The first difference between two CPUID arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// An array's length is not a whole number of entries.
    Malformed {
        /// Its length in bytes.
        len: usize,
    },
    /// The image has this leaf, the VM presented does not.
    Missing {
        /// The leaf (EAX).
        leaf: u32,
        /// The subleaf (ECX).
        subleaf: u32,
    },
    /// The VM presented has this leaf, the image does not.
    Added {
        /// The leaf (EAX).
        leaf: u32,
        /// The subleaf (ECX).
        subleaf: u32,
    },
    /// A register differs.
    Value {
        /// The leaf (EAX).
        leaf: u32,
        /// The subleaf (ECX).
        subleaf: u32,
        /// Which register.
        reg: Register,
        /// Its value in the image.
        was: u32,
        /// Its value in the VM presented.
        is: u32,
    },
}

/// Bits that KVM itself updates while a vCPU runs, from its control registers and MSRs
/// (`kvm_update_cpuid_runtime()` in `arch/x86/kvm/cpuid.c`). They say nothing about the vCPU's make.
fn runtime_bits(leaf: u32, subleaf: u32, reg: Register) -> u32 {
    match (leaf, subleaf, reg) {
        // MONITOR follows MSR_IA32_MISC_ENABLE; OSXSAVE follows CR4.
        (1, _, Register::Ecx) => (1 << 3) | (1 << 27),
        // The APIC bit follows the enable bit of MSR_IA32_APICBASE.
        (1, _, Register::Edx) => 1 << 9,
        // OSPKE follows CR4.
        (7, 0, Register::Ecx) => 1 << 4,
        // The size of the enabled states follows XCR0 and XSS.
        (0xd, 0 | 1, Register::Ebx) => u32::MAX,
        _ => 0,
    }
}

#[derive(Clone, Copy)]
struct Entry {
    leaf: u32,
    subleaf: u32,
    flags: u32,
    values: [u32; 4],
}

impl Entry {
    fn decode(bytes: &[u8]) -> Self {
        let word = |i: usize| {
            let bytes = bytes.get(4 * i..).and_then(|rest| rest.first_chunk());
            bytes.copied().map_or(0, u32::from_le_bytes)
        };
        let flags = word(2);
        Entry {
            leaf: word(0),
            // Without the flag the index means nothing.
            subleaf: if flags & SIGNIFICANT_INDEX == 0 {
                0
            } else {
                word(1)
            },
            flags,
            values: [word(3), word(4), word(5), word(6)],
        }
    }

    fn same_place(&self, other: &Entry) -> bool {
        self.leaf == other.leaf
            && self.subleaf == other.subleaf
            && self.flags & SIGNIFICANT_INDEX == other.flags & SIGNIFICANT_INDEX
    }
}

fn entries(array: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    array.chunks_exact(ENTRY_LEN).map(Entry::decode)
}

/// Compares the CPUID that an image was made with (`was`) with that of the vCPU presented (`is`).
pub fn compare(was: &[u8], is: &[u8]) -> Result<(), Difference> {
    for array in [was, is] {
        let len = array.len();
        if len % ENTRY_LEN != 0 {
            return Err(Difference::Malformed { len });
        }
    }
    for old in entries(was) {
        let (leaf, subleaf) = (old.leaf, old.subleaf);
        // KVM uses the first entry that matches.
        let new = entries(is).find(|new| new.same_place(&old));
        let new = new.ok_or(Difference::Missing { leaf, subleaf })?;
        let values = old.values.into_iter().zip(new.values);
        for (reg, (was, is)) in REGISTERS.into_iter().zip(values) {
            if (was ^ is) & !runtime_bits(leaf, subleaf, reg) != 0 {
                return Err(Difference::Value {
                    leaf,
                    subleaf,
                    reg,
                    was,
                    is,
                });
            }
        }
    }
    match entries(is).find(|new| !entries(was).any(|old| old.same_place(new))) {
        Some(Entry { leaf, subleaf, .. }) => Err(Difference::Added { leaf, subleaf }),
        None => Ok(()),
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Register::Eax => "eax",
            Register::Ebx => "ebx",
            Register::Ecx => "ecx",
            Register::Edx => "edx",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Malformed { len } => {
                write!(f, "CPUID of {len} bytes is not whole entries")
            }
            Difference::Missing { leaf, subleaf } => {
                write!(f, "CPUID leaf {leaf:#x}.{subleaf:#x} was there, now is not")
            }
            Difference::Added { leaf, subleaf } => {
                write!(f, "CPUID leaf {leaf:#x}.{subleaf:#x} was not there, now is")
            }
            Difference::Value {
                leaf,
                subleaf,
                reg,
                was,
                is,
            } => write!(
                f,
                "CPUID leaf {leaf:#x}.{subleaf:#x} {reg} was {was:#010x}, now is {is:#010x}"
            ),
        }
    }
}
