// SPDX-License-Identifier: GPL-2.0

//! The pools' devices: claiming them, raw access to them, and what is on them.

pub(crate) mod device;
pub(crate) mod memory;
pub(crate) mod platform;
mod pools;
pub(crate) mod store;
mod sysfs;

pub(crate) use pools::{Named, Place, Pools, Unusable};
