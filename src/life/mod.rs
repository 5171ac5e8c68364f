// SPDX-License-Identifier: GPL-2.0

//! Names, owners, beginnings and ends of virtual machines: the rules, and nothing that acts on them.

mod acpi;
mod cause;
mod claim;
mod end;
mod name;
mod policy;

pub use acpi::asks_s5;
pub use cause::Cause;
pub use claim::{claim, may_act_on, Claim, Claimant, Denied, Found};
pub use end::{end_of_life, End, Exit, GuestEnd, Verdict, Why};
pub use name::{Name, NameError};
pub use policy::Policy;
