// SPDX-License-Identifier: GPL-2.0

//! The frame of items of a record that are lists:
//!
//! ```text
//!  0  u32 number of entries     4  u32 zero
//!  8  the entries, each padded with zero bytes to a multiple of eight
//! ```
//! All numbers are little-endian. What an entry is, is the business of the lists themselves.

const HEADER: usize = 8;

/// Bytes before the first entry.
pub const fn header_len() -> usize {
    HEADER
}

/// Writes entries one after the other.
pub(super) struct ListWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    count: u32,
}

impl<'a> ListWriter<'a> {
    /// Starts in `out`. `None` if there is not even room for none.
    pub(super) fn new(out: &'a mut [u8]) -> Option<Self> {
        out.get_mut(..HEADER)?.fill(0);
        Some(Self {
            out,
            at: HEADER,
            count: 0,
        })
    }

    /// Adds an entry. `fill` is given `room` zero bytes and says how many it took, padding included.
    /// `None` if it says so, or if there is no room.
    pub(super) fn push(
        &mut self,
        room: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<()> {
        let entry = self.out.get_mut(self.at..self.at.checked_add(room)?)?;
        entry.fill(0);
        self.at = self.at.checked_add(fill(entry)?)?;
        self.count = self.count.checked_add(1)?;
        Some(())
    }

    /// Finishes; returns the bytes written.
    pub(super) fn finish(self) -> Option<usize> {
        self.out
            .get_mut(..4)?
            .copy_from_slice(&self.count.to_le_bytes());
        Some(self.at)
    }
}

/// The entries of a list that are whole and nothing else, by a function that splits off the first one.
pub(super) fn entries<'a, T>(
    bytes: &'a [u8],
    split: impl Fn(&'a [u8]) -> Option<(T, &'a [u8])>,
) -> Option<&'a [u8]> {
    let (head, all) = bytes.split_first_chunk::<HEADER>()?;
    let [c0, c1, c2, c3, 0, 0, 0, 0] = *head else {
        return None;
    };
    let mut rest = all;
    for _ in 0..u32::from_le_bytes([c0, c1, c2, c3]) {
        (_, rest) = split(rest)?;
    }
    rest.is_empty().then_some(all)
}
