// SPDX-License-Identifier: GPL-2.0

//! What ends a host or a VMM, as far as the module hears of it in time.
//!
//! A VMM's own end arrives at `kvm`, when its files are closed. Each further trigger is one file
//! here; all end at the keeper of each VM.

pub(crate) mod emergency;
pub(crate) mod panic;
pub(crate) mod power;
pub(crate) mod reboot;
pub(crate) mod signals;
