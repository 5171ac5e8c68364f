// SPDX-License-Identifier: GPL-2.0

//! Guest RAM as rings see it: both views of it by guest-physical address, through the kernel's direct
//! mapping. Nothing here sleeps, faults or takes a lock.

use super::ground::Ground;
use crate::{
    ram::overlay::OverlayPage,
    ring::{Memory, View},
};
use core::{
    ptr::NonNull,
    sync::atomic::{fence, AtomicU16, Ordering},
};
use kernel::{prelude::*, sync::Arc};

const PAGE: u64 = 4096;

/// A page that differs between the views, by its guest-physical address.
#[derive(Clone)]
pub(super) struct Shadowed {
    pub(super) gpa: u64,
    pub(super) page: Arc<OverlayPage>,
}

/// Both views of a VM's RAM at one moment. A map is never changed: another takes its place.
///
/// # Invariants
///
/// `shadowed` is sorted by `gpa`.
pub(super) struct Map {
    ground: Arc<Ground>,
    shadowed: KVec<Shadowed>,
}

impl Map {
    /// The views of `ground` that differ in the pages `shadowed`, which are in order.
    pub(super) fn new(ground: Arc<Ground>, shadowed: KVec<Shadowed>) -> Self {
        // INVARIANT: as the caller says.
        Self { ground, shadowed }
    }

    /// The VM's name, for the log.
    pub(super) fn name(&self) -> &str {
        self.ground.name.as_str()
    }

    /// The pages that differ.
    pub(super) fn shadowed(&self) -> &[Shadowed] {
        &self.shadowed
    }

    /// Whether a page differs here that is the same in both views of `old`.
    pub(super) fn has_more_than(&self, old: &Map) -> bool {
        let known = |entry: &Shadowed| old.find(entry.gpa).is_some();
        !self.shadowed.iter().all(known)
    }

    fn find(&self, gpa: u64) -> Option<&Shadowed> {
        let page = gpa & !(PAGE - 1);
        let at = self
            .shadowed
            .binary_search_by_key(&page, |entry| entry.gpa)
            .ok()?;
        self.shadowed.get(at)
    }

    /// Where `gpa` is in the kernel's mapping, and for how many bytes it goes on there: at most to
    /// the end of its page.
    fn locate(&self, view: View, gpa: u64) -> Option<(NonNull<u8>, usize)> {
        let inside = gpa % PAGE;
        // CAST: less than a page.
        let (within, left) = (inside as usize, (PAGE - inside) as usize);
        if view == View::Device {
            if let Some(entry) = self.find(gpa) {
                // SAFETY: The page has that many bytes and lives as long as the entry.
                return Some((unsafe { entry.page.device().add(within) }, left));
            }
        }
        Some((self.ground.at(gpa)?, left))
    }

    fn word(&self, view: View, gpa: u64) -> Option<&AtomicU16> {
        let (at, _) = self.locate(view, gpa)?;
        if gpa % 2 != 0 {
            return None;
        }
        // SAFETY: RAM of the VM or a page over it, alive as long as the map; an even address has both
        // bytes in one page. Everybody accesses it as processors do.
        Some(unsafe { AtomicU16::from_ptr(at.as_ptr().cast()) })
    }
}

impl Memory for Map {
    fn read(&self, view: View, gpa: u64, out: &mut [u8]) -> Option<()> {
        let mut at = gpa;
        let mut rest = out;
        while !rest.is_empty() {
            let (from, left) = self.locate(view, at)?;
            let (part, more) = rest.split_at_mut_checked(left.min(rest.len()))?;
            // SAFETY: `locate` says that so many bytes are there.
            unsafe { read_shared(from, part) };
            at = at.checked_add(part.len() as u64)?;
            rest = more;
        }
        Some(())
    }

    fn write(&self, view: View, gpa: u64, data: &[u8]) -> Option<()> {
        let mut at = gpa;
        let mut rest = data;
        while !rest.is_empty() {
            let (to, left) = self.locate(view, at)?;
            let (part, more) = rest.split_at_checked(left.min(rest.len()))?;
            // SAFETY: `locate` says that so many bytes are there.
            unsafe { write_shared(to, part) };
            at = at.checked_add(part.len() as u64)?;
            rest = more;
        }
        Some(())
    }

    fn load_u16(&self, view: View, gpa: u64) -> Option<u16> {
        Some(u16::from_le(self.word(view, gpa)?.load(Ordering::Acquire)))
    }

    fn store_u16(&self, view: View, gpa: u64, value: u16) -> Option<()> {
        self.word(view, gpa)?
            .store(value.to_le(), Ordering::Release);
        Some(())
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn is_shadowed(&self, gpa: u64) -> bool {
        self.find(gpa).is_some()
    }

    fn next_shadowed(&self, first: u64, last: u64) -> Option<u64> {
        let page = first & !(PAGE - 1);
        let at = self.shadowed.partition_point(|entry| entry.gpa < page);
        let gpa = self.shadowed.get(at)?.gpa.max(first);
        (gpa <= last).then_some(gpa)
    }
}

/// Copies from memory that guest or VMM may be changing: each byte is read once.
///
/// # Safety
///
/// `from` points to as many readable bytes as `out` has.
unsafe fn read_shared(from: NonNull<u8>, out: &mut [u8]) {
    let aligned = from.cast::<u64>().is_aligned();
    let mut at = from;
    let mut words = out.chunks_exact_mut(8);
    if aligned {
        for word in words.by_ref() {
            // SAFETY: By this function's contract; aligned at the start and every eight bytes on.
            unsafe {
                word.copy_from_slice(&at.cast::<u64>().read_volatile().to_ne_bytes());
                at = at.add(8);
            }
        }
    }
    let tail = if aligned { words.into_remainder() } else { out };
    for byte in tail {
        // SAFETY: By this function's contract.
        unsafe {
            *byte = at.read_volatile();
            at = at.add(1);
        }
    }
}

/// Copies to memory that guest or VMM may be accessing: each byte is written once.
///
/// # Safety
///
/// `to` points to as many writable bytes as `data` has.
unsafe fn write_shared(to: NonNull<u8>, data: &[u8]) {
    let aligned = to.cast::<u64>().is_aligned();
    let (words, tail) = if aligned {
        data.split_at(data.len() & !7)
    } else {
        (&[][..], data)
    };
    let mut at = to;
    for word in words.chunks_exact(8) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        // SAFETY: By this function's contract; aligned at the start and every eight bytes on.
        unsafe {
            at.cast::<u64>().write_volatile(u64::from_ne_bytes(bytes));
            at = at.add(8);
        }
    }
    for &byte in tail {
        // SAFETY: By this function's contract.
        unsafe {
            at.write_volatile(byte);
            at = at.add(1);
        }
    }
}
