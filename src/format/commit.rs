// SPDX-License-Identifier: GPL-2.0

//! The commit protocol: how an entry of the VM table changes, so that a cut at any moment leaves
//! the old state or the new one.
//!
//! Every operation has the same form: write what is new where nothing committed is; make that
//! durable; then store the commit word, eight bytes that are never torn; make that durable. Cut
//! before the word is durable, the old word names what is old, and that is untouched. Cut after,
//! the new word names what is new, and that is whole.
//!
//! ```text
//!            create           commit_live           make_record, commit_sealed
//!   EMPTY ----------> CREATING ---------> LIVE -----------------------------> SEALED
//!     ^                  |                 | ^                                  |
//!     |                  |  begin_discard  | '----------- commit_live ----------'
//!     | erase            v                 v                                    |
//!   WIPED <--------- DISCARDING <----------+------------------------------------'
//!            wipe
//! ```
//!
//! Who writes what a VM owns: guest RAM belongs to the caller from `create` on. Before
//! `commit_sealed`, the caller has written guest RAM back: the record is only worth what the RAM is.

use super::{
    alloc::Allocator,
    geometry::Pool,
    header::Area,
    header_builder::HeaderBuilder,
    load::{Entry, EntryState},
    media::Media,
    record::RecordInfo,
    record_writer::RecordWriter,
    word::{copy_of, Marks, Word},
    HeaderView, Refusal, State, GRANULE, HEADER_LEN,
};
use core::{marker::PhantomData, ops::DerefMut};

/// Proof that a record is durable in its area.
#[derive(Debug)]
#[must_use = "a record counts only once it is committed"]
pub struct RecordToken {
    slot: u32,
    area: u8,
    len: u32,
    crc: u32,
    header_seq: u64,
    record_seq: u64,
}

impl RecordToken {
    /// Bytes of the record.
    pub fn bytes(&self) -> u32 {
        self.len
    }
}

/// An entry whose granules are durably zero.
#[must_use = "it is not empty yet"]
pub struct WipedEntry(Entry);

/// Where the next record of an entry is made.
///
/// # Invariants
///
/// It is a record area of the VM whose handle is borrowed, which alone changes what is there, and holds no
/// committed record.
pub struct RecordRoom<'a> {
    area: Area,
    _entry: PhantomData<&'a mut Entry>,
}

impl<'a> RecordRoom<'a> {
    /// In the area that `entry` does not name.
    fn of(entry: &'a mut Entry) -> Self {
        // INVARIANT: `next_area` is never where the last record is.
        RecordRoom {
            area: entry.next_area(),
            _entry: PhantomData,
        }
    }

    /// Where it is on the device.
    pub fn area(&self) -> Area {
        self.area
    }
}

impl<M: Media> Pool<M> {
    /// Makes the empty entry `slot` the VM of `header`, in state [`State::Creating`]: it owns its
    /// granules from now on, and the caller may write to them.
    ///
    /// Crash: before the word is durable, the entry is empty and its granules were not written to.
    /// After, the entry is found being created, and [`tidy`](Self::tidy) zeroes its granules.
    pub fn create<B>(&self, slot: u32, header: &mut HeaderBuilder<B>) -> Result<Entry, Refusal>
    where
        B: DerefMut<Target = [u8]>,
    {
        if self.read_word(slot)? != 0 {
            let state = Word::decode(self.read_word(slot)?)?.state;
            return Err(Refusal::WrongState { slot, state });
        }
        let fresh = Entry {
            vm: header.view().vm(),
            ..Entry::empty(slot)
        };
        let mut entry = self.store_header(&fresh, header)?;
        entry.state = State::Creating;
        self.store_word(&entry)?;
        Ok(entry)
    }

    /// Replaces the header of a VM that is live or being created.
    ///
    /// The new header owns all that the old one does: granules are given up only with the VM. New
    /// ones may be written to once this has returned.
    ///
    /// Crash: the header goes to the copy that the word does not name; the word decides.
    pub fn update_header<B>(
        &self,
        entry: &mut Entry,
        header: &mut HeaderBuilder<B>,
    ) -> Result<(), Refusal>
    where
        B: DerefMut<Target = [u8]>,
    {
        self.expect(entry, &[State::Live, State::Creating])?;
        let next = self.store_header(entry, header)?;
        self.commit(entry, next)
    }

    /// Makes a VM live, with a new header. To be called before the first guest instruction; when it
    /// has returned, no older record of this VM can be resumed any more.
    ///
    /// Crash: the word decides. Before, a created VM is zeroed at start, and a sealed one is sealed
    /// still: the caller has not let it run. After, the VM is torn.
    pub fn commit_live<B>(
        &self,
        entry: &mut Entry,
        header: &mut HeaderBuilder<B>,
    ) -> Result<(), Refusal>
    where
        B: DerefMut<Target = [u8]>,
    {
        self.expect(entry, &[State::Creating, State::Sealed])?;
        if entry.marks.aside {
            return Err(Refusal::Aside { slot: entry.slot });
        }
        if entry.marks.unsaved {
            return Err(Refusal::Unsaved { slot: entry.slot });
        }
        let next = self.store_header(entry, header)?;
        self.commit(
            entry,
            Entry {
                state: State::Live,
                ..next
            },
        )
    }

    /// Makes a record in the area that holds no committed one, and makes it durable. `fill` adds its
    /// items there, so a record takes no other memory and is copied nowhere.
    ///
    /// Crash: nothing that is committed was touched. That holds as well if `fill` fails.
    ///
    /// A VM that is being created has a record if it was brought here from another pool.
    pub fn make_record<E: From<Refusal>>(
        &self,
        entry: &mut Entry,
        about: &RecordInfo,
        fill: impl FnOnce(&mut RecordWriter<'_>) -> Result<(), E>,
    ) -> Result<RecordToken, E> {
        self.expect(entry, &[State::Creating, State::Live, State::Sealed])?;
        if about.vm != entry.vm || about.header_seq != entry.seq {
            return Err(Refusal::RecordStale.into());
        }
        let area = entry.next_area();
        let room = RecordRoom::of(entry);
        let crc = self.media.crc();
        let made = self.media.in_place(room, |bytes| {
            let mut writer = RecordWriter::new(bytes)?;
            fill(&mut writer)?;
            let record = writer.finish(about, crc);
            // CAST: a record's length is a `u32`.
            Ok::<_, E>((record.bytes().len() as u32, record.crc()))
        });
        let (len, crc) = made.map_err(Refusal::from)??;
        self.media
            .flush(area.start, len.into())
            .map_err(Refusal::from)?;
        self.media.fence();
        Ok(RecordToken {
            slot: entry.slot,
            area: 1 - (entry.area & 1),
            len,
            crc,
            header_seq: entry.seq,
            record_seq: about.record_seq,
        })
    }

    /// Seals a VM: its record and its RAM, which the caller has written back, belong together.
    ///
    /// Crash: the word decides between the old state and sealed with this record. One that was being created
    /// is zeroed at start, or whole.
    pub fn commit_sealed(&self, entry: &mut Entry, token: RecordToken) -> Result<(), Refusal> {
        self.expect(entry, &[State::Creating, State::Live, State::Sealed])?;
        let next = 1 - (entry.area & 1);
        if token.slot != entry.slot || token.header_seq != entry.seq || token.area != next {
            return Err(Refusal::RecordStale);
        }
        self.commit(
            entry,
            Entry {
                state: State::Sealed,
                area: token.area,
                record: token.crc,
                record_seq: token.record_seq,
                ..*entry
            },
        )
    }

    /// Sets a torn or mismatching image aside: its name is free from then on, and it is never
    /// resumed. Its granules and its state stay.
    ///
    /// Crash: the word decides; nothing else is written.
    pub fn set_aside(&self, entry: &mut Entry) -> Result<(), Refusal> {
        self.expect(entry, &[State::Live, State::Sealed])?;
        let marks = Marks {
            aside: true,
            ..entry.marks
        };
        self.commit(entry, Entry { marks, ..*entry })
    }

    /// Notes that the platform did not save a sealed image when its host was lost: it is never resumed,
    /// also if later nothing tells of that any more. It stays as it is.
    ///
    /// Crash: the word decides; nothing else is written.
    pub fn mark_unsaved(&self, entry: &mut Entry) -> Result<(), Refusal> {
        self.expect(entry, &[State::Sealed])?;
        let marks = Marks {
            unsaved: true,
            ..entry.marks
        };
        self.commit(entry, Entry { marks, ..*entry })
    }

    /// Gives a VM up for good. Its granules stay its own until [`finish_discard`](Self::finish_discard).
    ///
    /// Crash: the word decides.
    pub fn begin_discard(&self, entry: &mut Entry) -> Result<(), Refusal> {
        self.expect(entry, &[State::Creating, State::Live, State::Sealed])?;
        self.commit(
            entry,
            Entry {
                state: State::Discarding,
                ..*entry
            },
        )
    }

    /// Zeroes all that a VM owned, which nothing may write to any more. `header` is its header.
    ///
    /// Crash: it is found being discarded, and `tidy` does it again.
    pub fn wipe(&self, entry: Entry, header: &HeaderView<'_>) -> Result<WipedEntry, Refusal> {
        self.expect(&entry, &[State::Discarding])?;
        if header.vm() != entry.vm || header.extent_count() != entry.extents {
            return Err(Refusal::RecordStale);
        }
        for extent in header.extents() {
            self.zero(extent.start(), extent.len())?;
        }
        self.media.fence();
        Ok(WipedEntry(entry))
    }

    /// Empties an entry whose granules are zero; afterwards the caller frees them in the allocator.
    ///
    /// Crash: the word says that they are zero before the header is erased: no half of it is ever needed. The
    /// entry is empty when there is nothing left of the VM.
    pub fn finish_discard(&self, entry: WipedEntry) -> Result<(), Refusal> {
        self.erase(entry.0)
    }

    /// Finishes every discard that a crash interrupted. To be called once, after
    /// [`survey`](Self::survey) and before any other operation. Returns how many there were.
    pub fn tidy<B>(&self, alloc: &mut Allocator<B>, buf: &mut [u8]) -> Result<u32, Refusal>
    where
        B: DerefMut<Target = [u64]>,
    {
        let mut count = 0;
        for slot in 0..self.geometry.slots() {
            match self.load(slot, alloc, buf)? {
                EntryState::Discarding { mut entry, header } => {
                    entry.state = State::Discarding;
                    let wiped = self.wipe(entry, &header);
                    match wiped.and_then(|entry| self.finish_discard(entry)) {
                        Ok(()) => alloc.free_all(&header),
                        // Memory that cannot be written to stays its own.
                        Err(Refusal::Media(_)) => continue,
                        Err(why) => return Err(why),
                    }
                }
                EntryState::Wiped { entry } => self.erase(entry)?,
                _ => continue,
            }
            count += 1;
        }
        Ok(count)
    }

    /// Gives up a damaged entry: zeroes what it is known to own alone and, if it may own more, all
    /// that nobody owns. `alloc` is used up: it has to be [surveyed](Self::survey) again.
    ///
    /// Crash: the entry stays damaged, and so possibly the owner of anything, until all is zero.
    pub fn discard_damaged<B>(
        &self,
        slot: u32,
        alloc: Allocator<B>,
        buf: &mut [u8],
    ) -> Result<B, Refusal>
    where
        B: DerefMut<Target = [u64]>,
    {
        match self.load(slot, &alloc, buf)? {
            EntryState::Damaged { .. } => {}
            EntryState::Empty => {
                let state = State::Empty;
                return Err(Refusal::WrongState { slot, state });
            }
            EntryState::Live { entry, .. }
            | EntryState::Sealed { entry, .. }
            | EntryState::Discarding { entry, .. }
            | EntryState::Wiped { entry } => {
                let state = entry.state;
                return Err(Refusal::WrongState { slot, state });
            }
        }
        for copy in [0, 1] {
            let Ok(header) = self.read_header(slot, copy, buf) else {
                continue;
            };
            for granule in header.extents().flat_map(|e| e.granules()) {
                if !alloc.contested(granule) {
                    self.zero(u64::from(granule) * GRANULE, GRANULE)?;
                }
            }
        }
        if alloc.suspect().is_some() {
            for granule in self.geometry.first_data()..self.geometry.granules() {
                if alloc.is_free(granule) {
                    self.zero(u64::from(granule) * GRANULE, GRANULE)?;
                }
            }
        }
        self.media.fence();
        self.erase(Entry::empty(slot))?;
        Ok(alloc.into_bits())
    }

    /// Empties an entry whose granules are zero, durably: says so, erases its headers, frees it.
    fn erase(&self, mut entry: Entry) -> Result<(), Refusal> {
        entry.state = State::Wiped;
        self.store_word(&entry)?;
        for copy in [0, 1] {
            let at = self.geometry.header_at(entry.slot, copy)?;
            self.zero(at, HEADER_LEN as u64)?;
        }
        self.media.fence();
        entry.state = State::Empty;
        self.store_word(&entry)
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), Refusal> {
        self.media.zero(at, len)?;
        self.media.flush(at, len)?;
        Ok(())
    }

    /// Writes `header` where the word does not point, durably. Returns the entry with this header.
    fn store_header<B>(
        &self,
        entry: &Entry,
        header: &mut HeaderBuilder<B>,
    ) -> Result<Entry, Refusal>
    where
        B: DerefMut<Target = [u8]>,
    {
        let view = header.view();
        let (vm, areas, extents) = (view.vm(), view.areas(), view.extent_count());
        let grown = extents >= entry.extents && (entry.seq == 0 || areas == entry.areas);
        if vm != entry.vm || !grown {
            return Err(Refusal::RecordStale);
        }
        let seq = entry.seq.saturating_add(1);
        let at = self.geometry.header_at(entry.slot, copy_of(seq))?;
        let bytes = header.finish(&self.geometry, entry.slot, seq, self.media.crc())?;
        self.media.write(at, bytes)?;
        self.media.flush(at, bytes.len() as u64)?;
        self.media.fence();
        Ok(Entry {
            seq,
            areas,
            extents,
            record: 0,
            ..*entry
        })
    }

    /// Makes `next` what is committed, and `entry` its handle.
    fn commit(&self, entry: &mut Entry, next: Entry) -> Result<(), Refusal> {
        self.store_word(&next)?;
        *entry = next;
        Ok(())
    }

    /// Stores the commit word for `entry`, durably.
    fn store_word(&self, entry: &Entry) -> Result<(), Refusal> {
        let word = Word::new(entry.state, entry.area, entry.marks, entry.seq);
        let (crc, uuid) = (self.media.crc(), self.geometry.uuid());
        let raw = word.encode(crc, entry.slot, uuid, entry.record);
        let at = self.geometry.entry_at(entry.slot)?;
        self.media.write_word(at, raw)?;
        self.media.flush(at, 8)?;
        self.media.fence();
        Ok(())
    }

    fn expect(&self, entry: &Entry, states: &[State]) -> Result<(), Refusal> {
        if states.contains(&entry.state) {
            return Ok(());
        }
        Err(Refusal::WrongState {
            slot: entry.slot,
            state: entry.state,
        })
    }
}
