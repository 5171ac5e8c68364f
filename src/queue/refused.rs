// SPDX-License-Identifier: GPL-2.0

//! Why a queue cannot be shadowed.

use crate::{ram::overlay::Denied, ring::Fault};
use core::fmt;
use kernel::{alloc::AllocError, prelude::*};

/// Why a queue cannot be shadowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    /// It breaks a rule, or its ring does.
    Ring(Fault),
    /// One of its pages cannot be replaced in the VMM's view.
    Page {
        /// Guest-physical address.
        gpa: u64,
        /// Why.
        why: Denied,
    },
    /// It is not as it was sealed.
    Sealed(&'static str),
    /// The VM is not adopted yet, or at its end.
    NotReady,
    /// Something failed that has nothing to do with the queue.
    Failed(Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Ring(fault) => fault.fmt(f),
            Refused::Page { gpa, why } => write!(f, "page {gpa:#x} cannot be shadowed: {why}"),
            Refused::Sealed(why) => write!(f, "when the VM was sealed, {why}"),
            Refused::NotReady => f.write_str("the VM is not running"),
            Refused::Failed(e) => write!(f, "internal error {e:?}"),
        }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused::Ring(fault)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::Failed(error)
    }
}

impl From<AllocError> for Refused {
    fn from(error: AllocError) -> Self {
        Refused::Failed(error.into())
    }
}
