// SPDX-License-Identifier: GPL-2.0

//! Reading the VM table: what each entry is, and who owns which granule.

use super::{
    alloc::Allocator,
    bytes::zero_from,
    geometry::Pool,
    header::Area,
    media::Media,
    record::{self, Head, OwnedRecord},
    word::{Marks, Word},
    HeaderView, Part, Record, Refusal, State, HEADER_LEN,
};
use core::ops::DerefMut;

/// A handle on an entry of the VM table that is in use, and on what was committed there.
///
/// There is one per entry: it changes with every operation of the commit protocol.
#[derive(Debug)]
pub struct Entry {
    pub(super) slot: u32,
    pub(super) state: State,
    /// The record area that was committed last.
    pub(super) area: u8,
    pub(super) marks: Marks,
    /// The checksum of the committed record, if it is sealed.
    pub(super) record: u32,
    pub(super) seq: u64,
    pub(super) record_seq: u64,
    pub(super) vm: [u8; 16],
    pub(super) areas: [Area; 2],
    pub(super) extents: u32,
}

/// A committed record that belongs to its VM's RAM. Its checksum was found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedRecord {
    pub(super) at: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
}

/// What an entry of the VM table is.
#[derive(Debug)]
pub enum EntryState<'a> {
    /// Free.
    Empty,
    /// The VM has run since its last record. Found at start: it is torn, and never resumed.
    Live {
        /// The entry.
        entry: Entry,
        /// Its header.
        header: HeaderView<'a>,
    },
    /// The VM is whole and may be resumed.
    Sealed {
        /// The entry.
        entry: Entry,
        /// Its header.
        header: HeaderView<'a>,
        /// Its record.
        record: SealedRecord,
    },
    /// The VM was being created or discarded; [`Pool::tidy`] finishes that.
    Discarding {
        /// The entry.
        entry: Entry,
        /// Its header.
        header: HeaderView<'a>,
    },
    /// The VM's discard is all but finished; [`Pool::tidy`] finishes that.
    Wiped {
        /// The entry.
        entry: Entry,
    },
    /// The entry is damaged. Never used, never overwritten;
    /// [`Pool::discard_damaged`] gives it up.
    Damaged {
        /// What is wrong.
        why: Refusal,
        /// The last header that can be read, if any. It may not be the one that counted.
        header: Option<HeaderView<'a>>,
    },
}

impl Entry {
    /// A handle on a slot where nothing was committed.
    pub(super) fn empty(slot: u32) -> Self {
        Entry {
            slot,
            state: State::Empty,
            area: 0,
            marks: Marks::default(),
            record: 0,
            seq: 0,
            record_seq: 0,
            vm: [0; 16],
            areas: [Area::default(); 2],
            extents: 0,
        }
    }

    /// Its index in the VM table.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it was set aside: its name is free, and it is never resumed.
    pub fn aside(&self) -> bool {
        self.marks.aside
    }

    /// Whether the platform did not save it when its host was lost: it is never resumed.
    pub fn unsaved(&self) -> bool {
        self.marks.unsaved
    }

    /// The sequence of its header.
    pub fn header_seq(&self) -> u64 {
        self.seq
    }

    /// The UUID of its VM.
    pub fn vm(&self) -> &[u8; 16] {
        &self.vm
    }

    /// The sequence that its next record gets.
    pub fn next_record_seq(&self) -> u64 {
        self.record_seq.saturating_add(1)
    }

    /// Where its next record goes: never where the last one is.
    pub fn next_area(&self) -> Area {
        let [a, b] = self.areas;
        if self.area == 0 {
            b
        } else {
            a
        }
    }

    /// Where its last record is.
    pub(super) fn last_area(&self) -> Area {
        let [a, b] = self.areas;
        if self.area == 0 {
            a
        } else {
            b
        }
    }
}

impl SealedRecord {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has no bytes at all; never true.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What `examine` found, without the header: that is read again by whoever wants it, so that the
/// buffer is borrowed once.
enum Finding {
    Empty,
    Whole {
        entry: Entry,
        copy: usize,
        record: Option<SealedRecord>,
    },
    Wiped(Entry),
    Damaged(Refusal),
}

impl<M: Media> Pool<M> {
    /// Reads entry `slot`. `buf` is a buffer of [`HEADER_LEN`] bytes for its header.
    ///
    /// An error means that there is no such slot or that `buf` is too small; anything wrong with the
    /// entry is [`EntryState::Damaged`].
    pub fn load<'a, B>(
        &self,
        slot: u32,
        alloc: &Allocator<B>,
        buf: &'a mut [u8],
    ) -> Result<EntryState<'a>, Refusal>
    where
        B: DerefMut<Target = [u64]>,
    {
        self.geometry.entry_at(slot)?;
        let len = buf.len();
        let need = HEADER_LEN;
        let buf = buf.get_mut(..need).ok_or(Refusal::Buffer { len, need })?;
        let damaged = |why, buf: &'a mut [u8]| EntryState::Damaged {
            why,
            header: self.newest_header(slot, buf),
        };
        let (entry, copy, record) = match self.examine(slot, buf) {
            Finding::Empty => return Ok(EntryState::Empty),
            Finding::Wiped(entry) => return Ok(EntryState::Wiped { entry }),
            Finding::Damaged(why) => return Ok(damaged(why, buf)),
            Finding::Whole {
                entry,
                copy,
                record,
            } => (entry, copy, record),
        };
        let header = match self.read_header(slot, copy, buf) {
            Ok(header) => header,
            Err(why) => return Ok(EntryState::Damaged { why, header: None }),
        };
        if let Err(why) = alloc.check(&header) {
            let header = Some(header);
            return Ok(EntryState::Damaged { why, header });
        }
        Ok(match (entry.state, record) {
            (State::Sealed, Some(record)) => EntryState::Sealed {
                entry,
                header,
                record,
            },
            (State::Live, _) => EntryState::Live { entry, header },
            _ => EntryState::Discarding { entry, header },
        })
    }

    /// Works out which granules are free, from the headers of all VMs. `bits` has
    /// [`Allocator::words`] words, `buf` [`HEADER_LEN`] bytes.
    ///
    /// A damaged entry owns what its readable header copies say. If they may not say all, the
    /// allocator gives out nothing: better no new VM than a damaged one overwritten.
    pub fn survey<B>(&self, bits: B, buf: &mut [u8]) -> Result<Allocator<B>, Refusal>
    where
        B: DerefMut<Target = [u64]>,
    {
        let len = buf.len();
        let need = HEADER_LEN;
        let buf = buf.get_mut(..need).ok_or(Refusal::Buffer { len, need })?;
        let mut alloc = Allocator::new(bits, &self.geometry)?;
        for slot in 0..self.geometry.slots() {
            match self.examine(slot, buf) {
                Finding::Empty | Finding::Wiped(_) => {}
                Finding::Whole { copy, .. } => match self.read_header(slot, copy, buf) {
                    Ok(header) => header.extents().for_each(|e| alloc.claim(e)),
                    Err(_) => alloc.suspect_slot(slot),
                },
                Finding::Damaged(_) => self.claim_damaged(slot, &mut alloc, buf),
            }
        }
        Ok(alloc)
    }

    /// Reads the record of a sealed entry into `buf`, of [`SealedRecord::len`] bytes, and checks it.
    pub fn read_record<'a>(
        &self,
        entry: &Entry,
        sealed: &SealedRecord,
        buf: &'a mut [u8],
    ) -> Result<Record<'a>, Refusal> {
        let (len, need) = (buf.len(), sealed.len());
        let buf = buf.get_mut(..need).ok_or(Refusal::Buffer { len, need })?;
        self.media.read(sealed.at, buf)?;
        let record = Record::parse(buf, self.media.crc())?;
        let info = record.info();
        if record.crc() != sealed.crc {
            return Err(Refusal::Checksum(Part::Record));
        }
        if info.vm != entry.vm || info.header_seq != entry.seq {
            return Err(Refusal::RecordStale);
        }
        Ok(record)
    }

    /// As [`read_record`](Self::read_record), into a buffer that the record keeps.
    pub fn take_record<B>(
        &self,
        entry: &Entry,
        sealed: &SealedRecord,
        mut buf: B,
    ) -> Result<OwnedRecord<B>, Refusal>
    where
        B: DerefMut<Target = [u8]>,
    {
        let (len, need) = (buf.len(), sealed.len());
        if len != need {
            return Err(Refusal::Buffer { len, need });
        }
        self.read_record(entry, sealed, &mut buf)?;
        Ok(OwnedRecord::of_checked(buf))
    }

    /// Reads one copy of the header of `slot`.
    pub(super) fn read_header<'a>(
        &self,
        slot: u32,
        copy: usize,
        buf: &'a mut [u8],
    ) -> Result<HeaderView<'a>, Refusal> {
        self.media.read(self.geometry.header_at(slot, copy)?, buf)?;
        HeaderView::parse(buf, &self.geometry, slot, self.media.crc())
    }

    /// Whether a header copy was never written since it was last erased.
    fn blank(&self, slot: u32, copy: usize, buf: &mut [u8]) -> Result<bool, Refusal> {
        self.media.read(self.geometry.header_at(slot, copy)?, buf)?;
        Ok(zero_from(buf, 0))
    }

    pub(super) fn read_word(&self, slot: u32) -> Result<u64, Refusal> {
        let mut raw = [0; 8];
        self.media.read(self.geometry.entry_at(slot)?, &mut raw)?;
        Ok(u64::from_le_bytes(raw))
    }

    fn examine(&self, slot: u32, buf: &mut [u8]) -> Finding {
        self.try_examine(slot, buf).unwrap_or_else(Finding::Damaged)
    }

    fn try_examine(&self, slot: u32, buf: &mut [u8]) -> Result<Finding, Refusal> {
        let (crc, uuid) = (self.media.crc(), self.geometry.uuid());
        let raw = self.read_word(slot)?;
        let word = Word::decode(raw)?;
        let mut entry = Entry {
            slot,
            state: word.state,
            area: word.area,
            marks: word.marks,
            ..Entry::empty(slot)
        };
        match word.state {
            // The first header of a VM goes to copy 1. Copy 0 is first written by a commit that
            // the word of an empty entry knows nothing of.
            State::Empty if self.blank(slot, 0, buf)? => return Ok(Finding::Empty),
            State::Empty => return Err(Refusal::WordLost),
            State::Wiped => {
                word.verify(raw, crc, slot, uuid, 0)?;
                return Ok(Finding::Wiped(entry));
            }
            State::Live | State::Creating | State::Discarding => {
                word.verify(raw, crc, slot, uuid, 0)?;
            }
            State::Sealed => {}
        }
        let header = self.read_header(slot, word.copy(), buf)?;
        if !word.names(header.seq()) {
            // Word or header: one of them is not what was committed.
            return Err(Refusal::Checksum(Part::Header));
        }
        entry.seq = header.seq();
        entry.vm = header.vm();
        entry.areas = header.areas();
        entry.extents = header.extent_count();
        for area in entry.areas {
            let head = self.read_head(area).ok().flatten();
            let seq = head.filter(|h| h.vm() == entry.vm).map_or(0, |h| h.seq());
            entry.record_seq = entry.record_seq.max(seq);
        }
        let mut record = None;
        if word.state == State::Sealed {
            let sealed = self.check_record(&entry)?;
            word.verify(raw, crc, slot, uuid, sealed.crc)?;
            entry.record = sealed.crc;
            record = Some(sealed);
        }
        Ok(Finding::Whole {
            entry,
            copy: word.copy(),
            record,
        })
    }

    /// The head of the record in `area`, if there is one.
    fn read_head(&self, area: Area) -> Result<Option<Head>, Refusal> {
        let mut head = [0; record::HEAD_LEN];
        self.media.read(area.start, &mut head)?;
        Ok(Head::decode(&head))
    }

    /// Checks the record that `entry` says was committed, but for its items.
    fn check_record(&self, entry: &Entry) -> Result<SealedRecord, Refusal> {
        let damaged = Refusal::Checksum(Part::Record);
        let area = entry.last_area();
        let head = self.read_head(area)?.ok_or(damaged)?;
        if u64::from(head.len()) > area.len {
            return Err(damaged);
        }
        let body = record::SUMMED_FROM as u64;
        let rest = u64::from(head.len()).checked_sub(body).ok_or(damaged)?;
        let sum = self.media.crc_range(0, area.start + body, rest)?;
        if sum != head.crc() {
            return Err(damaged);
        }
        if head.vm() != entry.vm || head.header_seq() != entry.seq {
            return Err(Refusal::RecordStale);
        }
        Ok(SealedRecord {
            at: area.start,
            len: head.len(),
            crc: sum,
        })
    }

    /// The newest header copy that can be read.
    fn newest_header<'a>(&self, slot: u32, buf: &'a mut [u8]) -> Option<HeaderView<'a>> {
        let seqs = [0, 1].map(|copy| self.read_header(slot, copy, buf).map_or(0, |h| h.seq()));
        let [a, b] = seqs;
        self.read_header(slot, usize::from(b > a), buf).ok()
    }

    /// Claims what a damaged entry is known to own. Its headers only ever grow, so two readable
    /// copies tell all; so does the first one while there is no second.
    fn claim_damaged<B>(&self, slot: u32, alloc: &mut Allocator<B>, buf: &mut [u8])
    where
        B: DerefMut<Target = [u64]>,
    {
        let seqs = [0, 1].map(|copy| self.read_header(slot, copy, buf).map_or(0, |h| h.seq()));
        let all_known = match seqs {
            [0, 1] => self.blank(slot, 0, buf).unwrap_or(false),
            [a, b] => a.abs_diff(b) == 1 && a != 0 && b != 0,
        };
        if !all_known {
            alloc.suspect_slot(slot);
        }
        // The newer copy has all that the older one has, and the older one in the same place.
        let [a, b] = seqs;
        let copies = if all_known {
            [Some(usize::from(b > a)), None]
        } else {
            [Some(0), Some(1)]
        };
        for copy in copies.into_iter().flatten() {
            if let Ok(header) = self.read_header(slot, copy, buf) {
                header.extents().for_each(|e| alloc.claim(e));
            }
        }
    }
}
