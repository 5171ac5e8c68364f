// SPDX-License-Identifier: GPL-2.0

//! MSI-X tables (PCI 3.0, section 6.8.2): the entries that guests have written, of all functions.
//!
//! Pending bits are not kept: who replays raises every interrupt once.

use crate::shadow::table::{Slot, Table};

/// Entries of one VM that are kept.
const ENTRIES: usize = 1024;

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vector {
    /// The slot of the pool is taken.
    used: bool,
    bdf: u16,
    /// Its number in the table.
    pub index: u16,
    /// Which of the words were written: bit 0 for the first.
    written: u8,
    /// Message address, upper address, data, control.
    words: [u32; 4],
}

impl Vector {
    /// A word, if it was written.
    pub fn word(&self, word: u8) -> Option<u32> {
        let value = self.words.get(usize::from(word)).copied();
        value.filter(|_| (self.written >> word) & 1 != 0)
    }

    /// Message address and data, and whether the vector is masked. It is so until it is written.
    pub fn message(&self) -> (u64, u32, bool) {
        let [low, high, data, control] = self.words;
        let masked = self.written & 8 == 0 || control & 1 != 0;
        ((u64::from(high) << 32) | u64::from(low), data, masked)
    }
}

impl Slot for Vector {
    const FREE: Self = Self {
        used: false,
        bdf: 0,
        index: 0,
        written: 0,
        words: [0; 4],
    };

    fn is_used(&self) -> bool {
        self.used
    }
}

/// All entries of a VM. All bytes zero are none.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Vectors {
    slots: Table<Vector, ENTRIES>,
}

impl Vectors {
    /// The entries of a function, in no order.
    pub fn of(&self, bdf: u16) -> impl Iterator<Item = &Vector> {
        self.slots.iter().filter(move |v| v.bdf == bdf)
    }

    /// One entry.
    pub fn get(&self, bdf: u16, index: u16) -> Option<&Vector> {
        self.of(bdf).find(|v| v.index == index)
    }

    /// The guest writes word number `word` of an entry. `None` if there is no room.
    pub fn write(&mut self, bdf: u16, index: u16, word: u8, value: u32) -> Option<()> {
        let known = |v: &Vector| v.bdf == bdf && v.index == index;
        let vector = match self.slots.position(known) {
            Some(at) => self.slots.get_mut(at)?,
            None => self.slots.add(|vector| {
                vector.used = true;
                vector.bdf = bdf;
                vector.index = index;
            })?,
        };
        *vector.words.get_mut(usize::from(word))? = value;
        vector.written |= 1 << word;
        Some(())
    }

    /// The function was reset, or is gone.
    pub fn clear(&mut self, bdf: u16) {
        self.slots.remove(|vector| vector.bdf == bdf);
    }

    /// All were.
    pub fn clear_all(&mut self) {
        self.slots.remove(|_| true);
    }
}
