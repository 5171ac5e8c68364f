// SPDX-License-Identifier: GPL-2.0

//! Why a ring is broken.

use core::fmt;

/// Why a ring is broken. `Display` says who broke which rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The layout breaks a rule of virtio 1.3, section 2.7.
    Layout(&'static str),
    /// The caller gave fewer slots than the ring has descriptors.
    Slots {
        /// Slots given.
        have: usize,
        /// Slots needed.
        need: u16,
    },
    /// A part of the ring, or of what it points to, is not RAM.
    NotRam(u64),
    /// The driver's available index is further ahead than the ring is long.
    TooManyAvailable {
        /// Available index up to which entries were seen.
        seen: u16,
        /// The available index found.
        found: u16,
    },
    /// The driver made a descriptor available that the table does not have.
    NoSuchHead(u16),
    /// The driver made a chain available that the device still has.
    HeadInFlight(u16),
    /// A descriptor chain breaks a rule of virtio 1.3, section 2.7.5.
    Chain {
        /// First descriptor of the chain.
        head: u16,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The requests in flight are more work to look at than any driver makes.
    TooMuchWork,
    /// The device's used index is further ahead than requests are in flight.
    TooManyUsed {
        /// Used index up to which entries were seen.
        seen: u16,
        /// The used index found.
        found: u16,
    },
    /// The device used a chain that it does not have.
    NotInFlight(u32),
    /// The saved state makes no sense, or belongs to another ring.
    Saved(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Layout(why) => write!(f, "driver: {why}"),
            Fault::Slots { have, need } => {
                write!(f, "internal error: {have} slots for a ring of {need}")
            }
            Fault::NotRam(gpa) => write!(f, "driver: {gpa:#x} is not RAM"),
            Fault::TooManyAvailable { seen, found } => write!(
                f,
                "driver: available index went from {seen} to {found}, more than the ring holds"
            ),
            Fault::NoSuchHead(head) => {
                write!(
                    f,
                    "driver: made descriptor {head} available, which is outside the table"
                )
            }
            Fault::HeadInFlight(head) => {
                write!(
                    f,
                    "driver: made descriptor {head} available, which the device still has"
                )
            }
            Fault::Chain { head, why } => write!(f, "driver: chain at descriptor {head}: {why}"),
            Fault::TooMuchWork => f.write_str("driver: descriptor chains are too long altogether"),
            Fault::TooManyUsed { seen, found } => write!(
                f,
                "device: used index went from {seen} to {found}, more than it was given"
            ),
            Fault::NotInFlight(id) => {
                write!(f, "device: used descriptor {id}, which it did not have")
            }
            Fault::Saved(why) => write!(f, "saved ring: {why}"),
        }
    }
}
