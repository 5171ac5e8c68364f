// SPDX-License-Identifier: GPL-2.0

//! The commit word: eight bytes that say what an entry of the VM table is.
//!
//! ```text
//!  63            32 31             8 7    6      5    4   3    0
//! +----------------+----------------+-+-------+-----+----+-------+
//! |     check      |   header seq   |0|unsaved|aside|area| state |
//! +----------------+----------------+-+-------+-----+----+-------+
//! ```
//!
//! `check` is the CRC-32C of bits 31..0, the slot, the pool's UUID and the record's CRC (zero unless
//! the state is SEALED). A CRC finds every burst of up to 32 wrong bits, so no damage inside bits
//! 31..0 or inside the check passes, and a word copied to another slot or pool fails as well.

use super::{crc::Crc, Part, Refusal};
use core::fmt;

/// What a commit word says of its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The entry is free. The whole word is zero.
    Empty,
    /// The VM has run since its last record: at start this means that it is torn.
    Live,
    /// The VM's RAM and its record belong together.
    Sealed,
    /// The VM has never run: its granules are its own, their content is not complete yet. At start
    /// this means what `Discarding` means.
    Creating,
    /// The content of the VM's granules is worthless and must be zeroed before they are free.
    Discarding,
    /// The VM's granules are zero; its header may be half erased.
    Wiped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Empty => "empty",
            State::Live => "live",
            State::Sealed => "sealed",
            State::Creating => "being created",
            State::Discarding => "being discarded",
            State::Wiped => "wiped",
        })
    }
}

/// What a commit word says beside the state of its entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// The image was set aside.
    pub(super) aside: bool,
    /// The platform did not save the image.
    pub(super) unsaved: bool,
}

/// The low half of a commit word, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) state: State,
    /// The record area that was committed last: 0 or 1.
    pub(super) area: u8,
    pub(super) marks: Marks,
    /// Low 24 bits of the sequence of the header that counts.
    pub(super) seq: u32,
}

const SEQ_BITS: u32 = 24;
const AREA_SHIFT: u32 = 4;
const ASIDE_SHIFT: u32 = 5;
const UNSAVED_SHIFT: u32 = 6;
const SEQ_SHIFT: u32 = 8;

/// The header copy that a header of sequence `seq` is in.
pub(super) fn copy_of(seq: u64) -> usize {
    usize::from(seq & 1 == 1)
}

impl Word {
    pub(super) fn new(state: State, area: u8, marks: Marks, seq: u64) -> Self {
        // CAST: the low 24 bits are what is wanted.
        let seq = (seq as u32) & ((1 << SEQ_BITS) - 1);
        Word {
            state,
            area,
            marks,
            seq,
        }
    }

    /// Whether this word names a header of sequence `seq`.
    pub(super) fn names(&self, seq: u64) -> bool {
        Word::new(self.state, self.area, self.marks, seq).seq == self.seq
    }

    /// Which header copy this word names.
    pub(super) fn copy(&self) -> usize {
        copy_of(self.seq.into())
    }

    fn low(&self) -> u32 {
        let state = match self.state {
            State::Empty => 0,
            State::Live => 1,
            State::Sealed => 2,
            State::Creating => 3,
            State::Discarding => 4,
            State::Wiped => 5,
        };
        state
            | (u32::from(self.area & 1) << AREA_SHIFT)
            | (u32::from(self.marks.aside) << ASIDE_SHIFT)
            | (u32::from(self.marks.unsaved) << UNSAVED_SHIFT)
            | (self.seq << SEQ_SHIFT)
    }

    /// The whole word, to be stored in `slot` of pool `uuid`. `record` is the committed record's CRC.
    pub(super) fn encode(&self, crc: Crc, slot: u32, uuid: &[u8; 16], record: u32) -> u64 {
        match self.state {
            State::Empty => 0,
            _ => (u64::from(self.check(crc, slot, uuid, record)) << 32) | u64::from(self.low()),
        }
    }

    /// Decodes the low half. The caller has yet to [`verify`](Self::verify) the high half: for that,
    /// it may need a record, which this word tells where to find.
    pub(super) fn decode(raw: u64) -> Result<Self, Refusal> {
        // CAST: the low half is what is wanted.
        let low = raw as u32;
        let state = match low & 0xf {
            _ if raw == 0 => State::Empty,
            1 => State::Live,
            2 => State::Sealed,
            3 => State::Creating,
            4 => State::Discarding,
            5 => State::Wiped,
            _ => return Err(Refusal::Checksum(Part::Word)),
        };
        let bit = |shift: u32| (low >> shift) & 1 == 1;
        let word = Word {
            state,
            area: u8::from(bit(AREA_SHIFT)),
            marks: Marks {
                aside: bit(ASIDE_SHIFT),
                unsaved: bit(UNSAVED_SHIFT),
            },
            seq: low >> SEQ_SHIFT,
        };
        if word.low() != low {
            return Err(Refusal::Checksum(Part::Word));
        }
        Ok(word)
    }

    /// Checks that `raw`, which this word was decoded from, is undamaged.
    pub(super) fn verify(
        &self,
        raw: u64,
        crc: Crc,
        slot: u32,
        uuid: &[u8; 16],
        record: u32,
    ) -> Result<(), Refusal> {
        if self.encode(crc, slot, uuid, record) == raw {
            Ok(())
        } else {
            Err(Refusal::Checksum(Part::Word))
        }
    }

    fn check(&self, crc: Crc, slot: u32, uuid: &[u8; 16], record: u32) -> u32 {
        let record = match self.state {
            State::Sealed => record,
            _ => 0,
        };
        let sum = crc(0, &self.low().to_le_bytes());
        let sum = crc(sum, &slot.to_le_bytes());
        let sum = crc(sum, uuid);
        crc(sum, &record.to_le_bytes())
    }
}
