// SPDX-License-Identifier: GPL-2.0

//! What the format needs of a device of persistent memory.

use super::{
    commit::RecordRoom,
    crc::{crc32c, Crc},
};
use core::fmt;

/// The device could not read or write at this offset: out of range, or poisoned memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Offset in bytes from the start of the device.
    pub at: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the device fails at offset {:#x}", self.at)
    }
}

/// A device of persistent memory.
///
/// Stores are cached: what was stored is durable only once its lines were flushed and a fence
/// followed. A line may become durable earlier by itself, at any time. An aligned 8-byte word is
/// never torn. Offsets and lengths are in bytes. An access that is not wholly inside the device is
/// a [`Fault`], never a panic.
///
/// Methods take `&self`: different entries of the VM table may be worked on at the same time.
pub trait Media {
    /// The device's length.
    fn len(&self) -> u64;

    /// Whether the device has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads `buf.len()` bytes at `at`.
    fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), Fault>;

    /// Stores `bytes` at `at`, in any order.
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Fault>;

    /// Lets `f` store to a record area in place, in any order.
    fn in_place<T>(&self, room: RecordRoom<'_>, f: impl FnOnce(&mut [u8]) -> T)
        -> Result<T, Fault>;

    /// Stores one aligned little-endian word, whole or not at all.
    fn write_word(&self, at: u64, word: u64) -> Result<(), Fault>;

    /// Stores zeroes. May take long for a large `len`; an implementation may sleep in it.
    fn zero(&self, at: u64, len: u64) -> Result<(), Fault>;

    /// Writes back every line that holds a byte of `at..at + len`.
    fn flush(&self, at: u64, len: u64) -> Result<(), Fault>;

    /// Waits until everything flushed so far is durable, and orders later stores after it.
    fn fence(&self);

    /// The fastest CRC-32C there is here.
    fn crc(&self) -> Crc {
        crc32c
    }

    /// Continues a CRC-32C over `at..at + len` of the device.
    fn crc_range(&self, mut crc: u32, mut at: u64, mut len: u64) -> Result<u32, Fault> {
        let mut chunk = [0; 256];
        while len > 0 {
            // CAST: at most 256.
            let n = len.min(chunk.len() as u64) as usize;
            let part = chunk.get_mut(..n).ok_or(Fault { at })?;
            self.read(at, part)?;
            crc = self.crc()(crc, part);
            at = at.checked_add(n as u64).ok_or(Fault { at })?;
            len -= n as u64;
        }
        Ok(crc)
    }
}

impl<M: Media + ?Sized> Media for &M {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), Fault> {
        (**self).read(at, buf)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
        (**self).write(at, bytes)
    }

    fn in_place<T>(
        &self,
        room: RecordRoom<'_>,
        f: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, Fault> {
        (**self).in_place(room, f)
    }

    fn write_word(&self, at: u64, word: u64) -> Result<(), Fault> {
        (**self).write_word(at, word)
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), Fault> {
        (**self).zero(at, len)
    }

    fn flush(&self, at: u64, len: u64) -> Result<(), Fault> {
        (**self).flush(at, len)
    }

    fn fence(&self) {
        (**self).fence();
    }

    fn crc(&self) -> Crc {
        (**self).crc()
    }

    fn crc_range(&self, crc: u32, at: u64, len: u64) -> Result<u32, Fault> {
        (**self).crc_range(crc, at, len)
    }
}
