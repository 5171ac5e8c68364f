// SPDX-License-Identifier: GPL-2.0

//! What drivers have told their devices through control virtqueues, in a record.
//!
//! A list (`list.rs`) of
//! ```text
//!  0  u64 device    8  u16 queue   10  u16 type of the device   12  u32 bytes of commands
//! 16  commands, padded with zero bytes to a multiple of eight
//! ```
//! All numbers are little-endian. What commands are is `shadow`'s business.

use super::{
    list::{entries, ListWriter},
    queues::QueueId,
};

pub use super::list::header_len;

const ENTRY: usize = 16;

/// The commands of one queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SavedCommands<'a> {
    /// Which queue.
    pub id: QueueId,
    /// The type of its device.
    pub device_type: u16,
    /// What `Commands::saved` gave.
    pub commands: &'a [u8],
}

/// Bytes that the commands of a queue take.
pub const fn entry_len(commands: usize) -> usize {
    ENTRY + commands.next_multiple_of(8)
}

/// Writes the commands of queues one after the other.
pub struct Writer<'a>(ListWriter<'a>);

impl<'a> Writer<'a> {
    /// Starts in `out`. `None` if there is not even room for none.
    pub fn new(out: &'a mut [u8]) -> Option<Self> {
        ListWriter::new(out).map(Self)
    }

    /// Adds a queue. `None` if there is no room.
    pub fn push(&mut self, saved: &SavedCommands<'_>) -> Option<()> {
        let whole = entry_len(saved.commands.len());
        self.0.push(whole, |entry| {
            let (head, room) = entry.split_at_mut_checked(ENTRY)?;
            let len = u32::try_from(saved.commands.len()).ok()?;
            let words = [
                saved.id.device,
                u64::from(saved.id.queue)
                    | (u64::from(saved.device_type) << 16)
                    | (u64::from(len) << 32),
            ];
            for (to, word) in head.chunks_exact_mut(8).zip(words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            room.get_mut(..saved.commands.len())?
                .copy_from_slice(saved.commands);
            Some(whole)
        })
    }

    /// Finishes; returns the bytes written.
    pub fn finish(self) -> Option<usize> {
        self.0.finish()
    }
}

/// The commands in a record, checked for their form.
///
/// # Invariants
///
/// `rest` holds whole queues, and nothing else; all padding is zero.
#[derive(Clone, Copy)]
pub struct AllCommands<'a> {
    rest: &'a [u8],
}

impl<'a> AllCommands<'a> {
    /// Parses what [`Writer`] wrote.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        // INVARIANT: `entries` has split it up.
        entries(bytes, split).map(|rest| Self { rest })
    }

    /// The queues, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = SavedCommands<'a>> {
        let mut rest = self.rest;
        core::iter::from_fn(move || {
            let (saved, more) = split(rest)?;
            rest = more;
            Some(saved)
        })
    }

    /// Those of the queue `id`.
    pub fn find(&self, id: QueueId) -> Option<SavedCommands<'a>> {
        self.iter().find(|saved| saved.id == id)
    }
}

/// The first queue of `bytes`, and what follows it.
fn split(bytes: &[u8]) -> Option<(SavedCommands<'_>, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<ENTRY>()?;
    let (device, numbers) = head.split_first_chunk::<8>()?;
    let numbers = u64::from_le_bytes(*numbers.first_chunk()?);
    // CAST: the parts of a word.
    let (queue, device_type, len) = (numbers as u16, (numbers >> 16) as u16, numbers >> 32);
    let len = usize::try_from(len).ok()?;
    let (commands, rest) = rest.split_at_checked(len)?;
    let padding = len.checked_next_multiple_of(8)?.checked_sub(len)?;
    let (padding, rest) = rest.split_at_checked(padding)?;
    let saved = SavedCommands {
        id: QueueId {
            device: u64::from_le_bytes(*device),
            queue,
        },
        device_type,
        commands,
    };
    padding
        .iter()
        .all(|&byte| byte == 0)
        .then_some((saved, rest))
}
