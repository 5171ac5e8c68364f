// SPDX-License-Identifier: GPL-2.0

//! `/dev/kvm`, held open while the module is loaded.
//!
//! That keeps `kvm.ko` in memory under our probe, gives the probe its address without a symbol
//! lookup, and answers the questions that KVM answers on this file only.

use super::ioctl::KvmFile;
use crate::{
    state::kvm_abi as abi,
    sys::{c, file::FileRef},
};
use kernel::prelude::*;

/// The open `/dev/kvm`.
pub(crate) struct KvmDevice {
    file: FileRef,
    ioctls: KvmFile,
}

impl KvmDevice {
    /// Opens it, which loads KVM if need be.
    pub(crate) fn open() -> Result<Self> {
        let file = FileRef::open(c"/dev/kvm", c::O_RDWR | c::O_CLOEXEC).inspect_err(|e| {
            pr_err!("cannot open /dev/kvm ({e:?}): load kvm-amd or kvm-intel first\n")
        })?;
        // SAFETY: `file` is open; its operations live in kvm.ko, which the open file holds.
        let ioctls = unsafe { KvmFile::of(file.as_ptr()) };
        Ok(Self { file, ioctls })
    }

    /// The address of `kvm_dev_ioctl`, where KVM_CREATE_VM arrives.
    pub(crate) fn entry_point(&self) -> usize {
        self.ioctls.entry_point()
    }

    /// The module that owns KVM's files.
    pub(crate) fn owner(&self) -> *mut c::module {
        // SAFETY: The file is open.
        unsafe { c::nvhv_file_owner(self.file.as_ptr()) }
    }

    /// KVM_GET_MSR_INDEX_LIST into user memory at `arg`.
    pub(crate) fn msr_index_list(&self, arg: usize) -> Result<usize> {
        self.ioctls.call(&self.file, abi::GET_MSR_INDEX_LIST, arg)
    }
}
