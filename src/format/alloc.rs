// SPDX-License-Identifier: GPL-2.0

//! Which granules are free.
//!
//! Nothing of this is stored: it follows from the headers of all VMs, and
//! [`Pool::survey`](super::Pool::survey) works it out when a pool is opened.
//!
//! Free granules are always zero: `format` zeroes all, and a discard zeroes before it frees. So what
//! is given out needs no zeroing.

use super::{Geometry, HeaderView, Refusal, GRANULE};
use core::ops::{DerefMut, Range, RangeInclusive};

/// A run of granules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first granule.
    pub first: u32,
    /// How many there are; not zero.
    pub count: u32,
}

impl Extent {
    /// Offset in bytes of its first byte from the start of the device.
    pub fn start(&self) -> u64 {
        u64::from(self.first) * GRANULE
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        u64::from(self.count) * GRANULE
    }

    /// Whether it has no granules; never true of an extent in a checked header.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether it lies where VMs may own granules.
    pub(super) fn inside(&self, geometry: &Geometry) -> bool {
        let end = u64::from(self.first) + u64::from(self.count);
        self.count > 0
            && self.first >= geometry.first_data()
            && end <= u64::from(geometry.granules())
    }

    /// Whether `len` bytes at `start` of the device lie in it.
    pub(super) fn holds(&self, start: u64, len: u64) -> bool {
        start >= self.start()
            && start
                .checked_add(len)
                .is_some_and(|end| end <= self.start() + self.len())
    }

    pub(super) fn granules(&self) -> Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }
}

/// Hands out and takes back granules. The caller provides its memory and serializes its use.
///
/// # Invariants
///
/// `bits` has [`words`](Self::words) words: one bit per granule that says whether it is taken, then
/// one per granule that says whether two VMs claim it. Granules that VMs may not own are taken.
/// `free` is the number of clear bits among the first.
pub struct Allocator<B> {
    bits: B,
    first: u32,
    end: u32,
    free: u32,
    suspect: Option<u32>,
}

impl<B: DerefMut<Target = [u64]>> Allocator<B> {
    /// How many words of memory an allocator for such a pool needs.
    pub fn words(geometry: &Geometry) -> usize {
        2 * geometry.granules().div_ceil(64) as usize
    }

    /// All granules free.
    pub(super) fn new(mut bits: B, geometry: &Geometry) -> Result<Self, Refusal> {
        let (len, need) = (bits.len(), Self::words(geometry));
        bits.get_mut(..need)
            .ok_or(Refusal::Buffer { len, need })?
            .fill(0);
        // INVARIANT: the length was just checked, and no bit is set.
        Ok(Allocator {
            bits,
            first: geometry.first_data(),
            end: geometry.granules(),
            free: geometry.data_granules(),
            suspect: None,
        })
    }

    /// Granules that are free.
    pub fn free_granules(&self) -> u32 {
        self.free
    }

    /// A damaged entry that may own granules which look free. While there is one, none is given out.
    pub fn suspect(&self) -> Option<u32> {
        self.suspect
    }

    /// Refuses a header whose granules another VM claims as well.
    pub fn check(&self, header: &HeaderView<'_>) -> Result<(), Refusal> {
        let contested = header
            .extents()
            .find(|e| e.granules().any(|g| self.contested(g)));
        match contested {
            Some(extent) => Err(Refusal::Contested(extent)),
            None => Ok(()),
        }
    }

    /// Hands out `count` granules to `take`, in as few extents as it can and in at most
    /// `max_extents`: the smallest free run that holds all, or else the longest runs there are.
    ///
    /// On a refusal nothing was handed out.
    pub fn alloc(
        &mut self,
        count: u32,
        max_extents: u32,
        take: &mut dyn FnMut(Extent),
    ) -> Result<(), Refusal> {
        if let Some(slot) = self.suspect {
            return Err(Refusal::PoolSuspect { slot });
        }
        if count > self.free {
            return Err(Refusal::PoolFull {
                want: count,
                free: self.free,
            });
        }
        if count == 0 {
            return Ok(());
        }
        let lengths = self.lengths(count);
        // How many extents that takes.
        let (mut left, mut need) = (count, 0);
        let mut from = self.first;
        while let Some(run) = self.next_run(from, &lengths, left) {
            from = run.first.saturating_add(run.count);
            left -= run.count.min(left);
            need += 1;
        }
        if need > max_extents {
            return Err(Refusal::Fragmented {
                need,
                room: max_extents,
            });
        }
        let mut left = count;
        let mut from = self.first;
        while let Some(run) = self.next_run(from, &lengths, left) {
            let extent = Extent {
                first: run.first,
                count: run.count.min(left),
            };
            from = run.first.saturating_add(run.count);
            left -= extent.count;
            self.set(extent, true);
            take(extent);
        }
        Ok(())
    }

    /// Takes back extents that were handed out. Their content must be zero, durably.
    pub fn free(&mut self, extent: Extent) {
        self.set(extent, false);
    }

    /// Takes back all that a VM owned whose discard was finished.
    pub fn free_all(&mut self, header: &HeaderView<'_>) {
        for extent in header.extents() {
            self.free(extent);
        }
    }

    /// Keeps a granule that nobody owns from being handed out: its memory is bad.
    pub fn reserve(&mut self, granule: u32) {
        self.set(
            Extent {
                first: granule,
                count: 1,
            },
            true,
        );
    }

    /// Whether nobody owns granule `granule`.
    pub(super) fn is_free(&self, granule: u32) -> bool {
        (self.first..self.end).contains(&granule) && !self.bit(granule, 0)
    }

    /// Marks what `header` owns, and what it shares with another.
    pub(super) fn claim(&mut self, extent: Extent) {
        for granule in extent.granules() {
            if self.is_free(granule) {
                self.set(
                    Extent {
                        first: granule,
                        count: 1,
                    },
                    true,
                );
            } else {
                self.put_bit(granule, self.half(), true);
            }
        }
    }

    /// Notes that `slot` may own anything.
    pub(super) fn suspect_slot(&mut self, slot: u32) {
        self.suspect.get_or_insert(slot);
    }

    /// How long the runs are to be that `count` granules are taken from. If one run holds them all:
    /// as long as the smallest such run. Else at least the largest power of two such that runs that
    /// long have `count` granules together.
    fn lengths(&self, count: u32) -> RangeInclusive<u32> {
        let mut best = u32::MAX;
        let mut from = self.first;
        while let Some(run) = self.next_run(from, &(count..=u32::MAX), 1) {
            from = run.first.saturating_add(run.count);
            best = best.min(run.count);
        }
        if best != u32::MAX {
            return best..=best;
        }
        let mut least = 1 << count.ilog2();
        while least > 1 {
            let mut sum: u64 = 0;
            let mut from = self.first;
            while let Some(run) = self.next_run(from, &(least..=u32::MAX), 1) {
                from = run.first.saturating_add(run.count);
                sum += u64::from(run.count);
            }
            if sum >= u64::from(count) {
                break;
            }
            least /= 2;
        }
        least..=u32::MAX
    }

    /// The first free run of one of these `lengths` that starts at `from` or later; none once nothing
    /// is `left` to be found.
    fn next_run(&self, from: u32, lengths: &RangeInclusive<u32>, left: u32) -> Option<Extent> {
        if left == 0 {
            return None;
        }
        let mut first = from;
        loop {
            first = self.next_with(first, false)?;
            let end = self.next_with(first, true).unwrap_or(self.end);
            let count = end.saturating_sub(first);
            if lengths.contains(&count) {
                return Some(Extent { first, count });
            }
            first = end;
        }
    }

    /// The first granule from `from` on that is taken or not, as asked.
    fn next_with(&self, from: u32, taken: bool) -> Option<u32> {
        let mut at = from.max(self.first);
        while at < self.end {
            let word = self.bits.get((at / 64) as usize).copied().unwrap_or(0);
            let word = if taken { word } else { !word } >> (at % 64);
            if word != 0 {
                let found = at.saturating_add(word.trailing_zeros());
                return (found < self.end).then_some(found);
            }
            at = (at / 64 + 1).saturating_mul(64);
        }
        None
    }

    /// Gives its memory back.
    pub(super) fn into_bits(self) -> B {
        self.bits
    }

    fn set(&mut self, extent: Extent, taken: bool) {
        for granule in extent.granules() {
            if self.is_free(granule) == taken && (self.first..self.end).contains(&granule) {
                self.put_bit(granule, 0, taken);
                // INVARIANT: one clear bit less, or one more.
                self.free = if taken {
                    self.free.saturating_sub(1)
                } else {
                    self.free.saturating_add(1)
                };
            }
        }
    }

    pub(super) fn contested(&self, granule: u32) -> bool {
        self.bit(granule, self.half())
    }

    /// Where the bits of contested granules start, in words.
    fn half(&self) -> usize {
        self.end.div_ceil(64) as usize
    }

    fn bit(&self, granule: u32, half: usize) -> bool {
        let word = self.bits.get(half + (granule / 64) as usize);
        word.is_some_and(|word| (word >> (granule % 64)) & 1 == 1)
    }

    fn put_bit(&mut self, granule: u32, half: usize, value: bool) {
        if let Some(word) = self.bits.get_mut(half + (granule / 64) as usize) {
            let bit = 1 << (granule % 64);
            *word = if value { *word | bit } else { *word & !bit };
        }
    }
}
