// SPDX-License-Identifier: GPL-2.0

//! The KVM boundary: the hook on KVM_CREATE_VM, and our hands on the files of a bound VM.
//!
//! State moves through KVM's own ioctls, a stable ABI; KVM's internal structures are not touched.
//! A VM that is not bound to a name is left alone.
//!
//! # Lock order
//!
//! From the outside in; a lock is taken only while holding locks above it.
//!
//! 1. `Vm::inner` (mutex): placement, adoption, capture. May be held while user memory is touched,
//!    so it is never taken below `mmap_lock`.
//! 2. `Host::taken` (mutex): the names in use. `Store`'s table (mutex) is taken inside it.
//!    A RAM file's mapping lock is taken here as well, and by page faults, which hold nothing of ours.
//! 3. `Vm::vcpus` (mutex): the list of vCPUs.
//! 4. `Vm::gate` (spinlock): who may enter KVM.
//! 5. `Vcpu::runner` (spinlock): which task is inside KVM_RUN.
//! 6. `Host::bindings` and the global pointer to the host (spinlocks): leaves.
//!
//! KVM's own locks (`vcpu->mutex`, `kvm->lock`) are taken inside the ioctls that we call, below
//! `Vm::inner` and above nothing of ours.

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
