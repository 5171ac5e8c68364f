// SPDX-License-Identifier: GPL-2.0

//! I/O APICs (Intel 82093AA, and the EOI register of its successors), each in a 4 KiB page from
//! 0xFEC00000 on: one of the 16 that a chipset can place it in (APICBASE), or the one after them,
//! where machines without a chipset have a second one.
//!
//! Remote IRR and delivery status are read only. A level-triggered interrupt that was in service is
//! delivered once more if its line is still active when the entry is unmasked, which its driver
//! finds out as it does on any shared line.

use super::chip::{Chip, Kept};
use crate::shadow::{Access, Full, Sink, Space};

/// Where the pages are.
const FIRST: u64 = 0xfec0_0000;
const PAGES: u64 = 17;
const PAGE: u64 = 0x1000;

/// I/O APICs of one VM.
const CHIPS: usize = 4;
/// Redirection entries of one: as many as the largest known has (Intel's PCHs).
const ENTRIES: usize = 120;

const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const IRQPA: u64 = 0x20;
const EOIR: u64 = 0x40;

/// Registers behind the window: identification, version, and the first redirection entry.
const ID: u8 = 0;
const VERSION: u8 = 1;
const REDIRECTION: u8 = 0x10;
/// Of the version register: version, and the highest entry.
const VERSION_MASK: u32 = 0x00ff_00ff;

/// Low word of an entry: delivery status and remote IRR, read only.
const READ_ONLY: u32 = (1 << 12) | (1 << 14);
const MASKED: u32 = 1 << 16;

/// A 32-bit register that the guest has written (or, with the version, read), or has not yet.
#[derive(Clone, Copy, Default)]
struct Word {
    value: u32,
    known: bool,
}

impl Word {
    fn set(&mut self, value: u32) {
        *self = Word { value, known: true };
    }

    fn get(self) -> Option<u32> {
        self.known.then_some(self.value)
    }
}

/// One redirection entry.
#[derive(Clone, Copy, Default)]
struct Entry {
    low: Word,
    high: Word,
}

/// One chip.
#[derive(Clone, Copy)]
struct IoApic {
    /// The number of its page and 1; 0 is none.
    page: u8,
    select: Kept,
    id: Word,
    version: Word,
    entries: [Entry; ENTRIES],
    /// The guest has written an entry that there is no room for.
    lost: bool,
}

impl Default for IoApic {
    fn default() -> Self {
        Self {
            page: 0,
            select: Kept::default(),
            id: Word::default(),
            version: Word::default(),
            entries: [Entry::default(); ENTRIES],
            lost: false,
        }
    }
}

impl IoApic {
    fn base(&self) -> u64 {
        FIRST + u64::from(self.page.saturating_sub(1)) * PAGE
    }

    fn write_window(&mut self, value: u32) {
        match self.select.get() {
            Some(ID) => self.id.set(value),
            Some(select @ REDIRECTION..) => {
                let entry = usize::from((select - REDIRECTION) / 2);
                match self.entries.get_mut(entry) {
                    Some(entry) if select % 2 == 0 => entry.low.set(value & !READ_ONLY),
                    Some(entry) => entry.high.set(value),
                    None => self.lost = true,
                }
            }
            _ => {}
        }
    }

    fn put(&self, register: u8, value: u32, sink: &mut dyn Sink) -> Result<(), Full> {
        sink.store(self.base() + IOREGSEL, 4, u64::from(register))?;
        sink.store(self.base() + IOWIN, 4, u64::from(value))
    }

    fn script(&self, sink: &mut dyn Sink) -> Result<(), Full> {
        let Some(select) = self.select.get() else {
            return Ok(());
        };
        if let Some(version) = self.version.get() {
            sink.store(self.base() + IOREGSEL, 4, u64::from(VERSION))?;
            let access = Access::memory(self.base() + IOWIN, 4, u64::from(version));
            sink.expect(access, u64::from(VERSION_MASK))?;
        }
        if let Some(id) = self.id.get() {
            self.put(ID, id, sink)?;
        }
        for (low, entry) in (REDIRECTION..=0xff).step_by(2).zip(&self.entries) {
            // Never unmasked with a destination that is not its own.
            if let Some(value) = entry.low.get() {
                self.put(low, value | MASKED, sink)?;
            }
            if let Some(value) = entry.high.get() {
                self.put(low + 1, value, sink)?;
            }
            if let Some(value) = entry.low.get().filter(|value| value & MASKED == 0) {
                self.put(low, value, sink)?;
            }
        }
        sink.store(self.base() + IOREGSEL, 4, u64::from(select))
    }
}

/// See the module's description.
pub struct IoApics {
    chips: [IoApic; CHIPS],
    /// There was no room for another one.
    lost: bool,
}

impl Default for IoApics {
    fn default() -> Self {
        Self {
            chips: [IoApic::default(); CHIPS],
            lost: false,
        }
    }
}

/// Which page, counted from 1, and which of its registers.
fn place(access: &Access) -> Option<(u8, u64)> {
    let offset = access.offset_in(Space::Memory, FIRST, PAGES * PAGE)?;
    let page = u8::try_from(offset / PAGE + 1).ok()?;
    Some((page, offset % PAGE))
}

impl IoApics {
    /// The chip of a page; a new one if there is room. It begins with a register being selected.
    fn chip(&mut self, page: u8) -> Option<&mut IoApic> {
        let chip = self
            .chips
            .iter_mut()
            .find(|chip| chip.page == page || chip.page == 0);
        match chip {
            Some(chip) => {
                chip.page = page;
                Some(chip)
            }
            None => {
                self.lost = true;
                None
            }
        }
    }
}

impl Chip for IoApics {
    fn name(&self) -> &'static str {
        "I/O APICs"
    }

    fn claims(&self, access: &Access) -> bool {
        matches!(place(access), Some((_, IOREGSEL | IOWIN | IRQPA | EOIR)))
    }

    fn wide(&self) -> bool {
        true
    }

    fn write(&mut self, access: &Access, _: u64) {
        let Some((page, register)) = place(access) else {
            return;
        };
        match register {
            IOREGSEL => {
                if let Some(chip) = self.chip(page) {
                    chip.select.set(access.byte(0));
                }
            }
            // The window takes accesses of 4 bytes only.
            IOWIN if access.len == 4 => {
                if let Some(chip) = self.chips.iter_mut().find(|chip| chip.page == page) {
                    // CAST: the access has 4 bytes.
                    chip.write_window(access.value as u32);
                }
            }
            // EOIR and IRQPA are acts, not state.
            _ => {}
        }
    }

    fn read(&mut self, access: &Access, _: u64) {
        let Some((page, IOWIN)) = place(access) else {
            return;
        };
        let Some(chip) = self.chips.iter_mut().find(|chip| chip.page == page) else {
            return;
        };
        if chip.select.get() == Some(VERSION) && access.len == 4 {
            // CAST: the access has 4 bytes.
            chip.version.set(access.value as u32 & VERSION_MASK);
        }
    }

    fn reset(&mut self) {
        // One by one: all of them at once would be large on the kernel's stack.
        self.chips.iter_mut().for_each(|chip| {
            chip.page = 0;
            chip.select.clear();
            chip.id = Word::default();
            chip.version = Word::default();
            chip.entries.fill(Entry::default());
            chip.lost = false;
        });
        self.lost = false;
    }

    fn script(&self, _: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        self.chips.iter().try_for_each(|chip| chip.script(sink))
    }

    fn lost(&self) -> Option<&'static str> {
        (self.lost || self.chips.iter().any(|chip| chip.lost))
            .then_some("more I/O APICs or redirection entries than there is room for")
    }
}
