// SPDX-License-Identifier: GPL-2.0

//! Guest RAM in two views.

use super::PAGE;
use nvhv_pure::ring::{Memory, View};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::resume_unwind;

/// Where RAM starts: below it there is none.
pub const BASE: u64 = 0x10_0000;

/// What unwinds out of an access at which the host is lost.
pub struct Crash;

/// Guest RAM.
///
/// At one access something else may happen: the host is lost, or another party has its turn.
pub struct Ram {
    guest: RefCell<Vec<u8>>,
    /// What the device sees in place of a page, by the page's number.
    shadow: RefCell<BTreeMap<u64, Vec<u8>>>,
    accesses: Cell<u64>,
    at: Cell<Option<u64>>,
    meanwhile: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Ram {
    /// RAM of `pages` pages, each byte made by `fill`.
    pub fn new(pages: u64, fill: impl FnMut() -> u8) -> Self {
        let mut guest = vec![0; (pages * PAGE) as usize];
        guest.fill_with(fill);
        Self {
            guest: RefCell::new(guest),
            shadow: RefCell::default(),
            accesses: Cell::new(0),
            at: Cell::new(None),
            meanwhile: RefCell::default(),
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.guest.borrow().len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shadows a page, as it is.
    pub fn shadow(&self, gpa: u64) {
        let mut page = vec![0; PAGE as usize];
        self.peek(View::Guest, gpa / PAGE * PAGE, &mut page);
        self.shadow.borrow_mut().entry(gpa / PAGE).or_insert(page);
    }

    /// Shadows the same pages anew, as a resume does.
    pub fn shadow_again(&self) {
        for (page, bytes) in self.shadow.borrow_mut().iter_mut() {
            let at = (page * PAGE - BASE) as usize;
            bytes.copy_from_slice(&self.guest.borrow()[at..at + PAGE as usize]);
        }
    }

    /// At the `n`th access from now on, calls `meanwhile`, or loses the host.
    pub fn at_access(&self, n: u64, meanwhile: Option<Box<dyn FnOnce()>>) {
        self.accesses.set(0);
        self.at.set(Some(n));
        *self.meanwhile.borrow_mut() = meanwhile;
    }

    /// Nothing happens at an access any more. How many there have been.
    pub fn settle(&self) -> u64 {
        self.at.set(None);
        *self.meanwhile.borrow_mut() = None;
        self.accesses.replace(0)
    }

    fn count_access(&self) {
        self.accesses.set(self.accesses.get() + 1);
        if self.at.get() == Some(self.accesses.get()) {
            self.at.set(None);
            let meanwhile = self.meanwhile.borrow_mut().take();
            match meanwhile {
                Some(meanwhile) => meanwhile(),
                None => resume_unwind(Box::new(Crash)),
            }
        }
    }

    /// Reads without being noticed.
    pub fn peek(&self, view: View, gpa: u64, out: &mut [u8]) -> bool {
        if !self.holds(gpa, out.len()) {
            return false;
        }
        let (guest, shadow) = (self.guest.borrow(), self.shadow.borrow());
        for (at, byte) in (gpa..).zip(out) {
            *byte = match shadow.get(&(at / PAGE)) {
                Some(page) if view == View::Device => page[(at % PAGE) as usize],
                _ => guest[(at - BASE) as usize],
            };
        }
        true
    }

    /// Writes without being noticed.
    pub fn poke(&self, view: View, gpa: u64, data: &[u8]) -> bool {
        if !self.holds(gpa, data.len()) {
            return false;
        }
        let (mut guest, mut shadow) = (self.guest.borrow_mut(), self.shadow.borrow_mut());
        for (at, byte) in (gpa..).zip(data) {
            match shadow.get_mut(&(at / PAGE)) {
                Some(page) if view == View::Device => page[(at % PAGE) as usize] = *byte,
                _ => guest[(at - BASE) as usize] = *byte,
            }
        }
        true
    }

    /// Reads what must be RAM.
    pub fn get<const N: usize>(&self, view: View, gpa: u64) -> [u8; N] {
        let mut bytes = [0; N];
        assert!(self.peek(view, gpa, &mut bytes), "{gpa:#x}");
        bytes
    }

    /// Reads a word that must be RAM.
    pub fn get_u16(&self, view: View, gpa: u64) -> u16 {
        u16::from_le_bytes(self.get(view, gpa))
    }

    /// Writes to what must be RAM.
    pub fn put(&self, view: View, gpa: u64, data: &[u8]) {
        assert!(self.poke(view, gpa, data), "{gpa:#x}");
    }

    /// Writes a word to what must be RAM.
    pub fn put_u16(&self, view: View, gpa: u64, value: u16) {
        self.put(view, gpa, &value.to_le_bytes());
    }

    fn holds(&self, gpa: u64, len: usize) -> bool {
        gpa.checked_sub(BASE)
            .and_then(|at| at.checked_add(len as u64))
            .is_some_and(|end| end <= self.len())
    }
}

impl Memory for Ram {
    fn read(&self, view: View, gpa: u64, out: &mut [u8]) -> Option<()> {
        self.count_access();
        self.peek(view, gpa, out).then_some(())
    }

    fn write(&self, view: View, gpa: u64, data: &[u8]) -> Option<()> {
        self.count_access();
        self.poke(view, gpa, data).then_some(())
    }

    fn load_u16(&self, view: View, gpa: u64) -> Option<u16> {
        assert_eq!(gpa % 2, 0);
        let mut bytes = [0; 2];
        self.read(view, gpa, &mut bytes)?;
        Some(u16::from_le_bytes(bytes))
    }

    fn store_u16(&self, view: View, gpa: u64, value: u16) -> Option<()> {
        assert_eq!(gpa % 2, 0);
        self.write(view, gpa, &value.to_le_bytes())
    }

    fn fence(&self) {
        self.count_access();
    }

    fn is_shadowed(&self, gpa: u64) -> bool {
        self.shadow.borrow().contains_key(&(gpa / PAGE))
    }

    fn next_shadowed(&self, first: u64, last: u64) -> Option<u64> {
        let pages = self.shadow.borrow();
        let (page, _) = pages.range(first / PAGE..=last / PAGE).next()?;
        Some(first.max(page * PAGE))
    }
}
