// SPDX-License-Identifier: GPL-2.0

//! The virtqueues of a VM in its record: which there were, and what a shadow ring needs to go on.
//!
//! A list (`list.rs`) of
//! ```text
//!  0  u64 device    8  u64 desc    16  u64 avail    24  u64 used
//! 32  u16 queue    34  u16 size    36  u32 flags    40  u32 bytes of ring state    44  u32 zero
//! 48  ring state, padded with zero bytes to a multiple of eight
//! ```
//! Flags: 1 EVENT_IDX, 2 INDIRECT_DESC, 4 the ring was broken (there is no ring state then). All numbers
//! are little-endian.

use super::list::{entries, ListWriter};
use crate::ring::Layout;

pub use super::list::header_len;

const ENTRY: usize = 48;

const EVENT_IDX: u32 = 1 << 0;
const INDIRECT: u32 = 1 << 1;
const BROKEN: u32 = 1 << 2;

/// A queue of a device of the VM, as `shadow` numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct QueueId {
    /// The device, the same one before and after a resume.
    pub device: u64,
    /// Its queue.
    pub queue: u16,
}

/// A queue as it was sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SavedQueue<'a> {
    /// Which queue.
    pub id: QueueId,
    /// Where it was.
    pub layout: Layout,
    /// What `Ring::save` gave; `None` if the ring was broken.
    pub ring: Option<&'a [u8]>,
}

/// Bytes that a queue with `ring` bytes of ring state takes.
pub const fn entry_len(ring: usize) -> usize {
    ENTRY + ring.next_multiple_of(8)
}

/// Writes queues one after the other.
pub struct Writer<'a>(ListWriter<'a>);

impl<'a> Writer<'a> {
    /// Starts in `out`. `None` if there is not even room for none.
    pub fn new(out: &'a mut [u8]) -> Option<Self> {
        ListWriter::new(out).map(Self)
    }

    /// Adds a queue. `save` writes its ring state into `ring_len` bytes and says how many it needed;
    /// without it the ring is broken. `None` if there is no room.
    pub fn push(
        &mut self,
        id: QueueId,
        layout: &Layout,
        ring_len: usize,
        save: Option<impl FnOnce(&mut [u8]) -> Option<usize>>,
    ) -> Option<()> {
        self.0.push(entry_len(ring_len), |entry| {
            let (head, ring) = entry.split_at_mut_checked(ENTRY)?;
            let mut flags = 0;
            flags |= if layout.event_idx { EVENT_IDX } else { 0 };
            flags |= if layout.indirect { INDIRECT } else { 0 };
            let mut used = 0;
            match save {
                None => flags |= BROKEN,
                Some(save) => used = save(ring.get_mut(..ring_len)?)?,
            }
            ring.get_mut(used..ring_len)?.fill(0);
            let words = [id.device, layout.desc, layout.avail, layout.used];
            for (to, word) in head.chunks_exact_mut(8).zip(words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            let numbers =
                u64::from(id.queue) | (u64::from(layout.size) << 16) | (u64::from(flags) << 32);
            head.get_mut(32..40)?
                .copy_from_slice(&numbers.to_le_bytes());
            head.get_mut(40..44)?
                .copy_from_slice(&u32::try_from(used).ok()?.to_le_bytes());
            Some(entry_len(used))
        })
    }

    /// Finishes; returns the bytes written.
    pub fn finish(self) -> Option<usize> {
        self.0.finish()
    }
}

/// The queues in a record, checked for their form: all lengths fit and all padding is zero.
///
/// # Invariants
///
/// `rest` holds whole queues, and nothing else.
#[derive(Clone, Copy)]
pub struct SavedQueues<'a> {
    rest: &'a [u8],
}

impl<'a> SavedQueues<'a> {
    /// Parses what [`Writer`] wrote.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        // INVARIANT: `entries` has split it up.
        entries(bytes, split).map(|rest| Self { rest })
    }

    /// The queues, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = SavedQueue<'a>> {
        let mut rest = self.rest;
        core::iter::from_fn(move || {
            let (queue, more) = split(rest)?;
            rest = more;
            Some(queue)
        })
    }

    /// The queue `id`.
    pub fn find(&self, id: QueueId) -> Option<SavedQueue<'a>> {
        self.iter().find(|queue| queue.id == id)
    }
}

/// The first queue of `bytes`, and what follows it.
fn split(bytes: &[u8]) -> Option<(SavedQueue<'_>, &[u8])> {
    let word = |at: usize| {
        let low = u64::from(u32_at(bytes, at)?);
        Some(low | (u64::from(u32_at(bytes, at.checked_add(4)?)?) << 32))
    };
    let numbers = word(32)?;
    // CAST: the parts of a word.
    let (queue, size, flags) = (
        numbers as u16,
        (numbers >> 16) as u16,
        (numbers >> 32) as u32,
    );
    let used = u32_at(bytes, 40)? as usize;
    let broken = flags & BROKEN != 0;
    if flags & !(EVENT_IDX | INDIRECT | BROKEN) != 0 || u32_at(bytes, 44)? != 0 {
        return None;
    }
    if broken && used != 0 {
        return None;
    }
    let end = ENTRY.checked_add(used)?;
    let ring = bytes.get(ENTRY..end)?;
    let padded = end.checked_next_multiple_of(8)?;
    if bytes.get(end..padded)?.iter().any(|&byte| byte != 0) {
        return None;
    }
    let saved = SavedQueue {
        id: QueueId {
            device: word(0)?,
            queue,
        },
        layout: Layout {
            size,
            desc: word(8)?,
            avail: word(16)?,
            used: word(24)?,
            event_idx: flags & EVENT_IDX != 0,
            indirect: flags & INDIRECT != 0,
        },
        ring: (!broken).then_some(ring),
    };
    Some((saved, bytes.get(padded..)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let raw = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(raw.try_into().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const HEADER: usize = header_len();

    fn layout(size: u16) -> Layout {
        Layout {
            size,
            desc: 0x1_2345_6780,
            avail: 0x1_2345_7000,
            used: 0x1_2345_8000,
            event_idx: size > 4,
            indirect: size > 8,
        }
    }

    fn three(out: &mut [u8]) -> usize {
        let mut writer = Writer::new(out).unwrap();
        for (n, size) in [4u16, 8, 16].into_iter().enumerate() {
            let id = QueueId {
                device: 0x8000_0000_0000_0000 | n as u64,
                queue: size,
            };
            let save = (n != 1).then_some(|room: &mut [u8]| {
                room[..3 + n].fill(n as u8 + 1);
                Some(3 + n)
            });
            writer.push(id, &layout(size), 32, save).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn round_trip() {
        let mut out = [0xff; 512];
        let len = three(&mut out);
        let saved = SavedQueues::parse(&out[..len]).unwrap();
        let want: [Option<&[u8]>; 3] = [Some(&[1; 3]), None, Some(&[3; 5])];
        assert!(saved.iter().map(|queue| queue.ring).eq(want));
        for queue in saved.iter() {
            assert_eq!(queue.layout, layout(queue.id.queue));
            assert_eq!(saved.find(queue.id), Some(queue));
        }
    }

    #[test]
    fn no_room() {
        let mut whole = [0; 512];
        let len = three(&mut whole);
        assert_eq!(len, HEADER + ENTRY * 3 + 16);
        let mut out = [0; HEADER + ENTRY + 8];
        let mut writer = Writer::new(&mut out).unwrap();
        let id = QueueId {
            device: 1,
            queue: 2,
        };
        let save = Some(|_: &mut [u8]| Some(0));
        assert_eq!(writer.push(id, &layout(4), 16, save), None);
        assert!(Writer::new(&mut [0; 7]).is_none());
    }

    #[test]
    fn cut_or_grown_is_refused() {
        let mut out = [0; 512];
        let len = three(&mut out);
        for cut in 0..len {
            assert!(SavedQueues::parse(&out[..cut]).is_none(), "{cut}");
        }
        assert!(SavedQueues::parse(&out[..len + 8]).is_none());
    }

    #[test]
    fn padding_and_unknown_flags_are_refused() {
        let mut out = [0; 512];
        let len = three(&mut out);
        for at in [4, HEADER + 36, HEADER + 44, HEADER + ENTRY + 3] {
            let mut bad = out;
            bad[at] |= 0x80;
            assert!(SavedQueues::parse(&bad[..len]).is_none(), "{at}");
        }
    }
}
