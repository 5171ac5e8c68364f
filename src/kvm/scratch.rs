// SPDX-License-Identifier: GPL-2.0

//! A small mapping in the VMM's address space, through which ioctl arguments pass.
//!
//! KVM's ioctls take user pointers. The VMM can read and write this memory like any of its own, so
//! what comes back is untrusted, and nothing secret passes: it is the VM's own state.

use super::ioctl::KvmFile;
use crate::{
    state::kvm_abi::{self as abi, LIST_HEADER},
    sys::{c, file::FileRef, user},
};
use kernel::prelude::*;

/// Bytes of the mapping: more than the largest argument of any ioctl that is called. All of it is zeroed
/// before a resumed VM runs.
pub(crate) const SIZE: usize = 32 << 10;

/// The mapping. Used by one thread at a time: whoever holds the lock it stands under.
pub(crate) struct Scratch {
    addr: usize,
}

impl Scratch {
    /// Makes it in the current address space.
    pub(crate) fn map() -> Result<Self> {
        // SAFETY: Maps fresh anonymous memory where the kernel chooses.
        let addr = unsafe {
            c::vm_mmap(
                core::ptr::null_mut(),
                0,
                SIZE,
                (c::PROT_READ | c::PROT_WRITE) as usize,
                // Shared, so that the OOM killer does not reap it before the VM is sealed.
                (c::MAP_SHARED | c::MAP_ANONYMOUS | c::MAP_POPULATE) as usize,
                0,
            )
        };
        // An address above the last page is a negative errno.
        if addr as isize > -4096 && (addr as isize) < 0 {
            return Err(Error::from_errno(addr as i32));
        }
        Ok(Self { addr })
    }

    /// Where it is in the VMM.
    pub(crate) fn addr(&self) -> usize {
        self.addr
    }

    /// Calls `request` on `file` with `buf` as its argument, in and out. Of a request that only answers,
    /// `buf` is not handed in.
    pub(crate) fn call(
        &self,
        ioctls: &KvmFile,
        file: &FileRef,
        request: u32,
        buf: &mut [u8],
    ) -> Result<usize> {
        if buf.len() > SIZE {
            return Err(E2BIG);
        }
        if !abi::only_answers(request) {
            user::write(self.addr, buf)?;
        }
        let ret = ioctls.call(file, request, self.addr)?;
        user::read(self.addr, buf)?;
        Ok(ret)
    }

    /// Reads what the last request has left behind the first `at` bytes of its argument.
    pub(crate) fn read(&self, at: usize, buf: &mut [u8]) -> Result {
        if at.checked_add(buf.len()).is_none_or(|end| end > SIZE) {
            return Err(E2BIG);
        }
        user::read(self.addr + at, buf)
    }

    /// Reads or writes a vCPU's TSC offset: `request` is KVM_GET_DEVICE_ATTR or KVM_SET_DEVICE_ATTR.
    pub(crate) fn tsc_offset(
        &self,
        ioctls: &KvmFile,
        file: &FileRef,
        request: u32,
        value: u64,
    ) -> Result<u64> {
        // `struct kvm_device_attr`: flags, group, attribute, and the address of the value.
        let at = self.addr + 64;
        let mut attr = [0; 24];
        let fields = [
            u64::from(abi::VCPU_TSC_CTRL) << 32,
            abi::VCPU_TSC_OFFSET,
            at as u64,
        ];
        for (to, field) in attr.chunks_exact_mut(8).zip(fields) {
            to.copy_from_slice(&field.to_le_bytes());
        }
        user::write(at, &value.to_le_bytes())?;
        self.set(ioctls, file, request, &attr)?;
        let mut raw = [0; 8];
        user::read(at, &mut raw)?;
        Ok(u64::from_le_bytes(raw))
    }

    /// As [`Self::call`] for an argument that is only handed in. What KVM answers is for [`Self::read`].
    pub(crate) fn set(
        &self,
        ioctls: &KvmFile,
        file: &FileRef,
        request: u32,
        buf: &[u8],
    ) -> Result<usize> {
        if buf.len() > SIZE {
            return Err(E2BIG);
        }
        user::write(self.addr, buf)?;
        ioctls.call(file, request, self.addr)
    }

    /// As [`Self::set`] for a list of `count` entries.
    pub(crate) fn set_list(
        &self,
        ioctls: &KvmFile,
        file: &FileRef,
        request: u32,
        count: usize,
        entries: &[u8],
    ) -> Result<usize> {
        if entries.len() > SIZE - LIST_HEADER {
            return Err(E2BIG);
        }
        // CAST: fewer entries than bytes. The second word is padding.
        let head = u64::from(count as u32).to_le_bytes();
        user::write(self.addr, &head)?;
        user::write(self.addr + LIST_HEADER, entries)?;
        ioctls.call(file, request, self.addr)
    }
}
