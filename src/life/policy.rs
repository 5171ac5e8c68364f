// SPDX-License-Identifier: GPL-2.0

//! What the owner of a VM chooses when binding it to its name.

/// A VM's policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy(u64);

impl Policy {
    /// A torn or mismatching image is set aside and the VM starts cold, instead of being refused.
    pub const TORN_COLD: Policy = Policy(1 << 0);

    /// The VM goes on without the state of devices that cannot be kept, instead of being refused.
    pub const PARTIAL: Policy = Policy(1 << 1);

    /// The guest's drivers are not shown that disks have a cache, so that a write that is acknowledged
    /// is stable.
    pub const WRITE_THROUGH: Policy = Policy(1 << 2);

    /// Who claims the image knows that the VM lives nowhere else. For one claim: it is in no header.
    pub const NOT_MOVED: Policy = Policy(1 << 3);

    const LASTING: u64 = Policy::TORN_COLD.0 | Policy::PARTIAL.0 | Policy::WRITE_THROUGH.0;

    const ALL: u64 = Policy::LASTING | Policy::NOT_MOVED.0;

    /// From bits that came from outside; `None` if one of them has no meaning.
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits & !Policy::ALL == 0).then_some(Policy(bits))
    }

    /// What of it stays with the VM.
    pub fn lasting(self) -> Self {
        Policy(self.0 & Policy::LASTING)
    }

    /// Both.
    pub fn with(self, other: Policy) -> Self {
        Policy(self.0 | other.0)
    }

    /// As bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether the policy includes all of `other`.
    pub fn has(self, other: Policy) -> bool {
        self.0 & other.0 == other.0
    }
}
