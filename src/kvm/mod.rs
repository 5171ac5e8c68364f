// SPDX-License-Identifier: GPL-2.0

//! The KVM boundary: the hook on KVM_CREATE_VM, and our hands on the files of a bound VM.
//!
//! State moves through KVM's own ioctls, a stable ABI; KVM's internal structures are not touched.
//! A VM that is not bound to a name is left alone.
//!
//! The lock order of the module is in `docs/design.md`, "Lock order".

pub(crate) mod adopt;
pub(crate) mod alarm;
pub(crate) mod cached;
pub(crate) mod capture;
pub(crate) mod device;
pub(crate) mod devices;
pub(crate) mod exits;
pub(crate) mod files;
pub(crate) mod gate;
pub(crate) mod hook;
pub(crate) mod ioctl;
pub(crate) mod keepable;
pub(crate) mod keeper;
mod migrate;
mod msrs;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod run_page;
pub(crate) mod scratch;
pub(crate) mod slots;
pub(crate) mod vcpu;
pub(crate) mod vm;
