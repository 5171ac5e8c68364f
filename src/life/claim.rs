// SPDX-License-Identifier: GPL-2.0

//! Who may act on an image, and what a VMM gets that claims a name.

use super::Policy;
use core::fmt;

/// Who claims a name.
#[derive(Clone, Copy, Debug)]
pub struct Claimant {
    /// Real user id, in the initial user namespace.
    pub uid: u32,
    /// Whether the process has CAP_SYS_ADMIN in the initial user namespace.
    pub admin: bool,
    /// What it asked for when it bound itself to the name.
    pub policy: Policy,
}

/// What there is under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A VM of user `uid` that runs here, is frozen here, or is being created or resumed here.
    Here {
        /// Its owner.
        uid: u32,
    },
    /// An image of user `uid` that is being copied: exported, imported, dumped or discarded.
    Copied {
        /// Its owner.
        uid: u32,
    },
    /// A sealed image.
    Sealed {
        /// Its owner.
        uid: u32,
    },
    /// A sealed image that the claimant's VM does not match: shape or CPUID.
    Mismatch {
        /// Its owner.
        uid: u32,
    },
    /// An image found live at start.
    Torn {
        /// Its owner.
        uid: u32,
    },
    /// A sealed image that the platform did not save when its host was lost.
    Unsaved {
        /// Its owner.
        uid: u32,
    },
    /// Images in two pools.
    Clash {
        /// Their owners, as far as they can be read.
        uids: [Option<u32>; 2],
        /// Their slots, as all pools number theirs.
        slots: [u32; 2],
    },
    /// Nothing, but there is a pool, or an entry of one, that cannot be read.
    Unreadable,
    /// An image that is being discarded.
    Discarding,
    /// A damaged entry; its owner if that much can be read.
    Damaged {
        /// Its owner.
        uid: Option<u32>,
    },
}

/// What a VMM gets that claims a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A new VM.
    New,
    /// The VM, resumed.
    Resume,
    /// A new VM. First, what was found is set aside: its name is taken from it, its memory is not.
    ColdStart,
    /// Nothing.
    Denied(Denied),
}

/// Why a claim was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The VM is running here.
    Busy,
    /// It is being copied.
    Copied,
    /// It belongs to another user.
    NotOwner,
    /// It is torn.
    Torn,
    /// It does not match.
    Mismatch,
    /// The platform did not save it.
    Unsaved,
    /// It is damaged.
    Damaged,
    /// There are two of it, in these slots.
    Clash([u32; 2]),
    /// It may be where nothing can be read.
    Unreadable,
    /// It is being discarded.
    Discarding,
}

/// Whether a user may resume, read or discard an image of user `owner`.
pub fn may_act_on(uid: u32, admin: bool, owner: u32) -> bool {
    admin || uid == owner
}

/// Decides what `who` gets when it claims a name under which there is `found`.
pub fn claim(who: &Claimant, found: Found) -> Claim {
    let cold = who.policy.has(Policy::TORN_COLD);
    let owners = match found {
        Found::Nothing => return Claim::New,
        Found::Unreadable if cold => return Claim::New,
        Found::Unreadable => return Claim::Denied(Denied::Unreadable),
        Found::Discarding => return Claim::Denied(Denied::Discarding),
        Found::Here { uid }
        | Found::Copied { uid }
        | Found::Sealed { uid }
        | Found::Mismatch { uid }
        | Found::Torn { uid }
        | Found::Unsaved { uid } => [Some(uid), None],
        Found::Damaged { uid } => [uid, None],
        Found::Clash { uids, .. } => uids,
    };
    // Whose it is comes first: another user does not learn the state of the image either.
    let mut owners = owners.into_iter().flatten();
    if owners.any(|owner| !may_act_on(who.uid, who.admin, owner)) {
        return Claim::Denied(Denied::NotOwner);
    }
    match found {
        Found::Sealed { .. } => Claim::Resume,
        Found::Torn { .. } | Found::Mismatch { .. } | Found::Unsaved { .. } if cold => {
            Claim::ColdStart
        }
        Found::Torn { .. } => Claim::Denied(Denied::Torn),
        Found::Mismatch { .. } => Claim::Denied(Denied::Mismatch),
        Found::Unsaved { .. } => Claim::Denied(Denied::Unsaved),
        // Setting it aside would need a header that can be rewritten.
        Found::Damaged { .. } => Claim::Denied(Denied::Damaged),
        // Which of them is the one that counts, nobody but their owner can say.
        Found::Clash { slots, .. } => Claim::Denied(Denied::Clash(slots)),
        Found::Copied { .. } => Claim::Denied(Denied::Copied),
        Found::Nothing | Found::Unreadable | Found::Discarding | Found::Here { .. } => {
            Claim::Denied(Denied::Busy)
        }
    }
}

impl Denied {
    /// The errno for user space, positive.
    pub fn errno(&self) -> i32 {
        const EPERM: i32 = 1;
        const EBUSY: i32 = 16;
        const EXDEV: i32 = 18;
        const ENOTUNIQ: i32 = 76;
        const EUCLEAN: i32 = 117;
        match self {
            Denied::Busy | Denied::Copied | Denied::Discarding => EBUSY,
            Denied::NotOwner => EPERM,
            Denied::Torn | Denied::Unsaved | Denied::Damaged | Denied::Unreadable => EUCLEAN,
            Denied::Clash(_) => ENOTUNIQ,
            Denied::Mismatch => EXDEV,
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denied::Clash([a, b]) => {
                return write!(f, "two pools have an image of this name, #{a} and #{b}: 'nvhv show' both, and 'nvhv discard' one of them by its number");
            }
            Denied::Unreadable => "a pool or an entry that cannot be read may have an image of this name: see 'nvhv check'; 'nvhv run --policy torn=cold' starts a new VM all the same",
            Denied::Busy => "it is running already: one VM per name",
            Denied::Copied => "it is being exported, imported, dumped or discarded: wait until that is done",
            Denied::NotOwner => "it belongs to another user",
            Denied::Torn => "torn: it ran on after its last record (power cut without a seal); start it with 'nvhv run --policy torn=cold' to set the image aside, or 'nvhv discard' it",
            Denied::Mismatch => "the VM presented does not match the image: start the VMM as before, or with 'nvhv run --policy torn=cold'",
            Denied::Unsaved => "unsaved: the platform says that it did not save memory when the host was lost; start it with 'nvhv run --policy torn=cold' to set the image aside, or 'nvhv discard' it",
            Denied::Damaged => "its entry in the pool is damaged: see 'nvhv show'; 'nvhv discard --force' gives it up",
            Denied::Discarding => "it is being discarded: try again in a moment",
        })
    }
}
