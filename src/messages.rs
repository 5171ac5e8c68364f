// SPDX-License-Identifier: GPL-2.0

//! Lets what the pure rooms say be printed by the kernel.
//!
//! The kernel's formatting macros take `kernel::fmt::Display`; the pure rooms, which know no kernel
//! type, implement `core`'s.

use crate::{
    format::Refusal,
    kvm::restore::Failure,
    life::{Cause, Denied, Verdict},
    pool::Unusable,
    queue::Refused,
    ring::Fault,
    shadow::{self, DeviceId, Lack, Lost, Unkept, Whose},
    state::{
        blocks::{ShapeDifference, SlotError},
        cpuid::Difference,
        plan::Shape,
        platform::Distrust,
    },
};

macro_rules! forward {
    ($($type:ty),* $(,)?) => {
        $(impl kernel::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        })*
    };
}

forward!(
    DeviceId,
    Lack,
    Lost,
    Unkept,
    Whose,
    shadow::replay::Difference,
    Refusal,
    Failure,
    Cause,
    Denied,
    Distrust<'_>,
    Verdict,
    ShapeDifference,
    SlotError,
    Difference,
    Shape,
    Fault,
    Refused,
    Unusable,
);
