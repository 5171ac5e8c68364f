// SPDX-License-Identifier: GPL-2.0

//! A ring in a record.
//!
//! ```text
//!  0  u16  version, 1
//!  2  u16  flags: 1 VIRTIO_F_EVENT_IDX, 2 VIRTIO_F_INDIRECT_DESC, 4 broken
//!  4  u16  queue size
//!  6  u16  entries of the available ring seen, modulo 65536
//!  8  u16  used->idx that the guest was shown
//! 10  u16  requests in flight
//! 12  u32  0
//! 16  u64  descriptor table
//! 24  u64  available ring
//! 32  u64  used ring
//! 40  u16  head of each request in flight, the oldest first
//! ```
//! Little-endian. What follows the last head is ignored. Nothing of the device's view is kept: a fresh
//! device starts with an empty one.

use super::{fault::Fault, layout::Layout};

/// Version of this layout.
const VERSION: u16 = 1;
/// Bytes before the heads.
const HEAD_LEN: usize = 40;

const EVENT_IDX: u16 = 1;
const INDIRECT: u16 = 2;
const BROKEN: u16 = 4;

/// What is kept of a ring besides its requests in flight.
pub(super) struct Saved {
    pub(super) layout: Layout,
    pub(super) broken: bool,
    pub(super) avail_seen: u16,
    pub(super) used_shown: u16,
    pub(super) count: u16,
}

impl Saved {
    /// Bytes that are enough for a ring of `size` descriptors.
    pub(super) fn len(size: u16) -> usize {
        HEAD_LEN + 2 * usize::from(size)
    }

    /// Writes it and `heads`. How many bytes that took; `None`: `out` is too small.
    pub(super) fn write(&self, heads: impl Iterator<Item = u16>, out: &mut [u8]) -> Option<usize> {
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let len = Self::len(self.count);
        let (fixed, room) = out.get_mut(..len)?.split_at_mut_checked(HEAD_LEN)?;
        let words = [
            VERSION,
            flag(self.layout.event_idx, EVENT_IDX)
                | flag(self.layout.indirect, INDIRECT)
                | flag(self.broken, BROKEN),
            self.layout.size,
            self.avail_seen,
            self.used_shown,
            self.count,
            0,
            0,
        ];
        let addresses = [self.layout.desc, self.layout.avail, self.layout.used];
        let bytes = words
            .into_iter()
            .flat_map(u16::to_le_bytes)
            .chain(addresses.into_iter().flat_map(u64::to_le_bytes));
        fixed
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, byte)| *to = byte);
        for (to, head) in room.chunks_exact_mut(2).zip(heads) {
            to.copy_from_slice(&head.to_le_bytes());
        }
        Some(len)
    }

    /// Reads what was written of a ring with `layout`, and the heads.
    pub(super) fn parse<'a>(
        bytes: &'a [u8],
        layout: &Layout,
    ) -> Result<(Self, impl Iterator<Item = u16> + 'a), Fault> {
        let word = |at: usize| {
            let bytes = bytes.get(at..)?.first_chunk()?;
            Some(u16::from_le_bytes(*bytes))
        };
        let address = |at: usize| {
            let bytes = bytes.get(at..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        if word(0) != Some(VERSION) {
            return Err(Fault::Saved("a version that this release does not know"));
        }
        let read = || {
            let flags = word(2)?;
            let saved = Self {
                layout: Layout {
                    size: word(4)?,
                    desc: address(16)?,
                    avail: address(24)?,
                    used: address(32)?,
                    event_idx: flags & EVENT_IDX != 0,
                    indirect: flags & INDIRECT != 0,
                },
                broken: flags & BROKEN != 0,
                avail_seen: word(6)?,
                used_shown: word(8)?,
                count: word(10)?,
            };
            let heads = bytes.get(HEAD_LEN..Self::len(saved.count))?;
            let known = flags & !(EVENT_IDX | INDIRECT | BROKEN) == 0;
            (known && (word(12)?, word(14)?) == (0, 0)).then_some((saved, heads))
        };
        let (saved, heads) = read().ok_or(Fault::Saved("it is cut off or malformed"))?;
        if saved.layout != *layout {
            return Err(Fault::Saved("it is of a queue with another layout"));
        }
        if saved.broken {
            return Err(Fault::Saved("the ring was broken before"));
        }
        if saved.avail_seen.wrapping_sub(saved.used_shown) != saved.count {
            return Err(Fault::Saved("its indexes do not match its requests"));
        }
        let heads = heads
            .chunks_exact(2)
            .filter_map(|raw| raw.try_into().ok().map(u16::from_le_bytes));
        Ok((saved, heads))
    }
}
