// SPDX-License-Identifier: GPL-2.0

//! `struct kvm_run` and the port data behind it, pinned.
//!
//! The VMM has the pages mapped and may write them at any time: every read here is of untrusted,
//! changing memory, copied once and then checked.

use crate::{
    shadow::{Access, Action, Space, Step},
    state::exit::{self, Mmio, PortIo},
    sys::c,
};
use kernel::prelude::*;

const PAGE: usize = 4096;

/// The first two pages of a vCPU's mapping.
///
/// # Invariants
///
/// Holds a reference to each page; `page_address` of both is valid (x86-64 has no highmem).
pub(crate) struct RunPage {
    pages: [*mut c::page; 2],
}

// SAFETY: Page references may be used and dropped on any thread.
unsafe impl Send for RunPage {}
// SAFETY: All access is by volatile reads and writes of plain bytes.
unsafe impl Sync for RunPage {}

impl RunPage {
    /// Finds the mapping of `file` in the current address space and takes its pages.
    pub(crate) fn pin(file: *mut c::file) -> Result<Self> {
        // SAFETY: `file` is only compared.
        let addr = unsafe { c::nvhv_find_mapping(file) };
        if addr == 0 {
            return Err(ENOENT);
        }
        let mut pages = [core::ptr::null_mut(); 2];
        // SAFETY: `pages` has room for two.
        let got = unsafe {
            c::get_user_pages_fast(addr, 2, 1 /* FOLL_WRITE */, pages.as_mut_ptr())
        };
        if got != 2 {
            if got == 1 {
                // SAFETY: One reference was taken.
                unsafe { c::nvhv_put_page(pages[0]) };
            }
            return Err(EFAULT);
        }
        // INVARIANT: both references were taken just now.
        Ok(Self { pages })
    }

    fn base(&self, page: usize) -> *mut u8 {
        // SAFETY: By the type invariant.
        unsafe { c::nvhv_page_address(self.pages[page]).cast() }
    }

    /// Copies `out.len()` bytes at `offset` of the two pages; `None` if that is outside.
    fn read(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        let end = offset.checked_add(out.len())?;
        if end > 2 * PAGE {
            return None;
        }
        for (i, byte) in out.iter_mut().enumerate() {
            let at = offset + i;
            // SAFETY: `at` lies in one of the two pages, which are valid by the type invariant.
            *byte = unsafe { self.base(at / PAGE).add(at % PAGE).read_volatile() };
        }
        Some(())
    }

    fn write(&self, offset: usize, data: &[u8]) -> Option<()> {
        let end = offset.checked_add(data.len())?;
        if end > 2 * PAGE {
            return None;
        }
        for (i, byte) in data.iter().enumerate() {
            let at = offset + i;
            // SAFETY: As in `read`.
            unsafe { self.base(at / PAGE).add(at % PAGE).write_volatile(*byte) };
        }
        Some(())
    }

    /// Why KVM_RUN returned last.
    pub(crate) fn exit_reason(&self) -> u32 {
        // SAFETY: Aligned and inside the first page.
        unsafe {
            self.base(0)
                .add(exit::EXIT_REASON)
                .cast::<u32>()
                .read_volatile()
        }
    }

    /// The first bytes of the union that describes the exit.
    pub(crate) fn union<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        // Callers ask for a few bytes of the first page, which cannot fail.
        let _ = self.read(exit::UNION, &mut out);
        out
    }

    /// The two bytes of data of a port access of that size.
    pub(crate) fn port_data(&self, io: &PortIo) -> Option<[u8; 2]> {
        let mut data = [0; 2];
        self.read(usize::try_from(io.data_offset).ok()?, &mut data)?;
        Some(data)
    }

    /// Whether the VMM asked KVM_RUN to return at once.
    pub(crate) fn immediate_exit(&self) -> bool {
        // SAFETY: Inside the first page.
        unsafe { self.base(0).add(exit::IMMEDIATE_EXIT).read_volatile() != 0 }
    }

    /// Asks KVM_RUN to return at once, or not; returns what it was.
    pub(crate) fn set_immediate_exit(&self, on: bool) -> bool {
        let was = self.immediate_exit();
        // SAFETY: Inside the first page.
        unsafe {
            self.base(0)
                .add(exit::IMMEDIATE_EXIT)
                .write_volatile(on.into())
        };
        was
    }

    /// The exit as it stands, to be kept: the head of `kvm_run`, then the port data if there are
    /// any. Returns the bytes used of `out`, which has room for `exit::HEAD` and a page.
    pub(crate) fn save(&self, out: &mut [u8]) -> Option<usize> {
        self.read(0, out.get_mut(..exit::HEAD)?)?;
        let io = PortIo::parse(out.get(exit::UNION..)?)?;
        if self.exit_reason() != exit::IO || !io.out {
            return Some(exit::HEAD);
        }
        let bytes = io.bytes()?;
        let data = out.get_mut(exit::HEAD..exit::HEAD.checked_add(bytes)?)?;
        self.read(usize::try_from(io.data_offset).ok()?, data)?;
        Some(exit::HEAD + bytes)
    }

    /// Puts a step of a script before the VMM, as if the guest had made that access.
    pub(crate) fn ask(&self, step: &Step) -> Option<()> {
        let Access {
            space,
            addr,
            len,
            value,
        } = step.access;
        let write = matches!(step.action, Action::Write);
        let data = if write { value } else { 0 }.to_le_bytes();
        let reason = match space {
            Space::Port => {
                let io = PortIo {
                    out: write,
                    size: len,
                    port: u16::try_from(addr).ok()?,
                    count: 1,
                    data_offset: PAGE as u64,
                };
                self.write(PAGE, data.get(..usize::from(len))?)?;
                self.write(exit::UNION, &io.to_bytes())?;
                exit::IO
            }
            Space::Memory => {
                let mmio = Mmio {
                    addr,
                    data,
                    len: len.into(),
                    write,
                };
                self.write(exit::UNION, &mmio.to_bytes())?;
                exit::MMIO
            }
        };
        self.write(exit::EXIT_REASON, &reason.to_le_bytes())
    }

    /// The VMM's answer to a read that it was asked.
    pub(crate) fn answer(&self, step: &Step) -> Option<u64> {
        let mut data = [0; 8];
        let part = data.get_mut(..usize::from(step.access.len))?;
        match step.access.space {
            Space::Port => self.read(PAGE, part)?,
            Space::Memory => self.read(exit::UNION + exit::MMIO_DATA, part)?,
        }
        Some(u64::from_le_bytes(data))
    }

    /// The `index`th value of a port exit.
    pub(crate) fn port_value(&self, io: &PortIo, index: u32) -> Option<u64> {
        let mut data = [0; 8];
        self.read(io.offset_of(index)?, data.get_mut(..usize::from(io.size))?)?;
        Some(u64::from_le_bytes(data))
    }

    /// Changes the `index`th value of a port exit.
    pub(crate) fn set_port_value(&self, io: &PortIo, index: u32, value: u64) -> Option<()> {
        let data = value.to_le_bytes();
        self.write(io.offset_of(index)?, data.get(..usize::from(io.size))?)
    }

    /// Changes the value of an MMIO exit.
    pub(crate) fn set_mmio_value(&self, value: u64, len: usize) -> Option<()> {
        self.write(
            exit::UNION + exit::MMIO_DATA,
            value.to_le_bytes().get(..len)?,
        )
    }

    /// Makes what KVM_RUN takes in from the VMM at its start the same as the restored state: CR8, for
    /// a VM without an in-kernel LAPIC, and no registers that the VMM has set by way of this page. And
    /// what a VMM reads here after each KVM_RUN, as some do and hand it back.
    pub(crate) fn after_restore(&self, cr8: u64, apic_base: u64, interrupts: bool) -> Option<()> {
        self.write(exit::CR8, &cr8.to_le_bytes())?;
        self.write(exit::APIC_BASE, &apic_base.to_le_bytes())?;
        self.write(exit::IF_FLAG, &[interrupts.into()])?;
        self.write(exit::DIRTY_REGS, &[0; 8])
    }

    /// Puts a kept exit before the VMM, as if KVM had just returned it. What KVM fills after every
    /// exit (`if_flag`, `cr8`, `apic_base`, ...) is as KVM left it.
    pub(crate) fn replay(&self, saved: &[u8]) -> Option<()> {
        let head = saved.get(..exit::HEAD)?;
        let reason = head.get(exit::EXIT_REASON..exit::EXIT_REASON + 4)?;
        let union = head.get(exit::UNION..)?;
        if reason == exit::IO.to_le_bytes() {
            let io = PortIo::parse(union)?;
            let data = saved.get(exit::HEAD..)?;
            if data.len() != io.bytes()? {
                return None;
            }
            self.write(usize::try_from(io.data_offset).ok()?, data)?;
        }
        self.write(exit::UNION, union)?;
        self.write(exit::EXIT_REASON, reason)
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        for page in self.pages {
            // SAFETY: By the type invariant.
            unsafe { c::nvhv_put_page(page) };
        }
    }
}
