// SPDX-License-Identifier: GPL-2.0

//! Tables of fixed room. Every access of a guest asks several of them, so what was never used is not
//! looked at.

use core::slice;

/// What a table holds.
pub trait Slot: 'static {
    /// A free slot; all bytes zero are one as well.
    const FREE: Self;

    /// Whether it is in use.
    fn is_used(&self) -> bool;
}

/// Room for `N` entries. All bytes zero are an empty table.
///
/// # Invariants
/// Slots from `reach` on are free, and the one before it is in use.
#[derive(PartialEq, Eq, Debug)]
pub struct Table<T, const N: usize> {
    reach: usize,
    slots: [T; N],
}

impl<T: Slot, const N: usize> Default for Table<T, N> {
    fn default() -> Self {
        Self {
            reach: 0,
            slots: [const { T::FREE }; N],
        }
    }
}

impl<T: Slot, const N: usize> Table<T, N> {
    /// Slots up to the last one in use.
    fn reached(&self) -> slice::Iter<'_, T> {
        self.slots.get(..self.reach).unwrap_or_default().iter()
    }

    fn reached_mut(&mut self) -> slice::IterMut<'_, T> {
        let reached = self.slots.get_mut(..self.reach);
        reached.unwrap_or_default().iter_mut()
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.reached().filter(|slot| slot.is_used())
    }

    /// All entries.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.reached_mut().filter(|slot| slot.is_used())
    }

    /// All entries, each with its number: it stays the same as long as the entry is there.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &T)> {
        self.reached()
            .enumerate()
            .filter(|(_, slot)| slot.is_used())
    }

    /// The number of an entry.
    pub fn position(&self, is: impl Fn(&T) -> bool) -> Option<usize> {
        let found = self.numbered().find(|&(_, slot)| is(slot));
        found.map(|(number, _)| number)
    }

    /// The entry of that number.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.slots.get_mut(number).filter(|slot| slot.is_used())
    }

    /// Adds what `make` makes of a free slot: an entry in use. `None` if there is no room.
    pub fn add(&mut self, make: impl FnOnce(&mut T)) -> Option<&mut T> {
        let number = self.slots.iter().position(|slot| !slot.is_used())?;
        make(self.slots.get_mut(number)?);
        self.trim(self.reach.max(number.saturating_add(1)));
        self.get_mut(number)
    }

    /// Removes entries.
    pub fn remove(&mut self, goes: impl Fn(&T) -> bool) {
        for slot in self.iter_mut().filter(|slot| goes(slot)) {
            *slot = T::FREE;
        }
        self.trim(self.reach);
    }

    /// Restores the invariant, which holds for `reach` but for free slots right before it.
    fn trim(&mut self, reach: usize) {
        let mut slots = self.slots.get(..reach).unwrap_or_default().iter();
        let last = slots.rposition(Slot::is_used);
        // INVARIANT: what was left out is free.
        self.reach = last.map_or(0, |last| last.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Slot for u8 {
        const FREE: Self = 0;

        fn is_used(&self) -> bool {
            *self != 0
        }
    }

    #[test]
    fn what_is_free_is_taken_and_what_is_used_is_found() {
        let mut table = Table::<u8, 3>::default();
        let holds = |table: &Table<u8, 3>, all: &[u8]| table.iter().eq(all);
        for entry in [7, 8, 9] {
            assert_eq!(table.add(|slot| *slot = entry), Some(&mut { entry }));
        }
        assert_eq!(table.add(|slot| *slot = 10), None);
        assert!(holds(&table, &[7, 8, 9]));

        table.remove(|&entry| entry != 8);
        assert!(holds(&table, &[8]) && table.reach == 2);
        assert_eq!(table.position(|&entry| entry == 8), Some(1));
        assert_eq!(table.get_mut(2), None);
        assert!(table.add(|slot| *slot = 11).is_some());
        assert!(holds(&table, &[11, 8]));
        table.remove(|_| true);
        assert_eq!(table, Table::default());
    }
}
