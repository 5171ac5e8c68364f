// SPDX-License-Identifier: GPL-2.0

//! The pool in use: its table and its free memory.
//!
//! An entry of a VM that runs here belongs to that VM, which alone changes it; the lock here
//! serializes looking through the table and giving out memory.

use super::device::Device;
use crate::{
    format::{
        record::{kind, VM_WIDE},
        Allocator, Crc, Entry, EntryState, Fault, HeaderBuilder, HeaderView, Media, Pool,
        RecordRoom, Refusal, SealedRecord, HEADER_LEN, SUPERBLOCK_LEN,
    },
    life::Name,
};
use kernel::{
    fmt, new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
};

/// The claimed device as the format sees it.
pub(crate) struct PoolMedia(Arc<Device>);

impl Media for PoolMedia {
    fn len(&self) -> u64 {
        self.0.memory.len()
    }
    fn read(&self, at: u64, buf: &mut [u8]) -> core::result::Result<(), Fault> {
        self.0.memory.read(at, buf)
    }
    fn write(&self, at: u64, bytes: &[u8]) -> core::result::Result<(), Fault> {
        self.0.memory.write(at, bytes)
    }
    fn in_place<T>(
        &self,
        room: RecordRoom<'_>,
        f: impl FnOnce(&mut [u8]) -> T,
    ) -> core::result::Result<T, Fault> {
        self.0.memory.in_place(room, f)
    }
    fn write_word(&self, at: u64, word: u64) -> core::result::Result<(), Fault> {
        self.0.memory.write_word(at, word)
    }
    fn zero(&self, at: u64, len: u64) -> core::result::Result<(), Fault> {
        self.0.memory.zero(at, len)
    }
    fn flush(&self, at: u64, len: u64) -> core::result::Result<(), Fault> {
        self.0.memory.flush(at, len)
    }
    fn fence(&self) {
        self.0.memory.fence()
    }
    fn crc(&self) -> Crc {
        self.0.memory.crc()
    }
    fn crc_range(&self, crc: u32, at: u64, len: u64) -> core::result::Result<u32, Fault> {
        self.0.memory.crc_range(crc, at, len)
    }
}

/// The allocator over memory of the kernel's.
pub(crate) type Memory = Allocator<KVVec<u64>>;

/// What the lock protects.
pub(crate) struct Table {
    /// `None` only while a damaged entry is being given up.
    alloc: Option<Memory>,
    buf: KVVec<u8>,
}

/// An image that nobody runs.
pub(crate) struct Taken {
    /// The handle on its entry.
    pub(crate) entry: Entry,
    /// Its header.
    pub(crate) header: HeaderBuilder<KVVec<u8>>,
    /// Its record, if it is sealed.
    pub(crate) record: Option<SealedRecord>,
}

/// An open pool.
#[pin_data]
pub(crate) struct Store {
    /// The device it is on.
    pub(crate) device: Arc<Device>,
    /// Its entries and the commit protocol.
    pub(crate) pool: Pool<PoolMedia>,
    #[pin]
    table: Mutex<Table>,
}

/// Works out which memory is free. What is bad is not.
fn survey(
    pool: &Pool<PoolMedia>,
    bits: KVVec<u64>,
    buf: &mut [u8],
) -> core::result::Result<Memory, Refusal> {
    let mut alloc = pool.survey(bits, buf)?;
    for granule in pool.media().0.memory.bad_granules() {
        alloc.reserve(granule);
    }
    Ok(alloc)
}

/// A buffer of `len` zero bytes.
pub(crate) fn buffer(len: usize) -> Result<KVVec<u8>> {
    Ok(KVVec::from_elem(0, len, GFP_KERNEL)?)
}

/// A buffer that holds `bytes`.
pub(crate) fn copied(bytes: &[u8]) -> Result<KVVec<u8>> {
    let mut copy = buffer(bytes.len())?;
    copy.copy_from_slice(bytes);
    Ok(copy)
}

impl From<Refusal> for Error {
    fn from(why: Refusal) -> Self {
        Error::from_errno(-why.errno())
    }
}

/// Logs a refusal of the pool and gives its errno.
pub(crate) fn refused(what: fmt::Arguments<'_>, why: Refusal) -> Error {
    pr_err!("{what}: {why}\n");
    Error::from_errno(-why.errno())
}

impl Store {
    /// Opens the pool on `device`, finishing what a crash interrupted.
    pub(crate) fn open(
        device: Device,
    ) -> core::result::Result<Arc<Self>, (Error, Option<Refusal>)> {
        let other = |e: Error| (e, None);
        let refusal = |why: Refusal| (Error::from_errno(-why.errno()), Some(why));
        let device = Arc::new(device, GFP_KERNEL).map_err(|e| other(e.into()))?;
        let mut page = buffer(SUPERBLOCK_LEN).map_err(other)?;
        let mut pool = Pool::open(PoolMedia(device.clone()), &mut page).map_err(refusal)?;
        match pool.heal(&mut page) {
            Ok(false) => {}
            Ok(true) => pr_warn!(
                "one of the pool's two superblocks was damaged: rewritten from the other\n"
            ),
            Err(why @ Refusal::Media(_)) => {
                pr_warn!("one of the pool's two superblocks cannot be mended: {why}\n");
            }
            Err(why) => return Err(refusal(why)),
        }
        let mut buf = buffer(HEADER_LEN).map_err(other)?;
        let words = Memory::words(pool.geometry());
        let bits = KVVec::from_elem(0, words, GFP_KERNEL).map_err(|e| other(e.into()))?;
        let mut alloc = survey(&pool, bits, &mut buf).map_err(refusal)?;
        let tidied = pool.tidy(&mut alloc, &mut buf).map_err(refusal)?;
        if tidied > 0 {
            pr_info!("finished {tidied} interrupted discards\n");
        }
        let table = Table {
            alloc: Some(alloc),
            buf,
        };
        Arc::pin_init(
            pin_init!(Self {
                device,
                pool,
                table <- new_mutex!(table, "nvhv_pool_table"),
            }),
            GFP_KERNEL,
        )
        .map_err(other)
    }

    /// Works with the memory that VMs may get. What `f` hands out, it also commits: nobody else
    /// looks at the pool meanwhile, and what is not committed when `f` fails has been taken back.
    pub(crate) fn with_memory<T>(
        &self,
        f: impl FnOnce(&mut Memory) -> core::result::Result<T, Refusal>,
    ) -> core::result::Result<T, Refusal> {
        let mut table = self.table.lock();
        match &mut table.alloc {
            Some(alloc) => f(alloc),
            None => Err(Refusal::PoolSuspect { slot: 0 }),
        }
    }

    /// Creates the VM of `header` in a free entry; `place` gives it its memory.
    pub(crate) fn create(
        &self,
        header: &mut HeaderBuilder<KVVec<u8>>,
        place: impl FnOnce(
            &mut HeaderBuilder<KVVec<u8>>,
            &mut Memory,
        ) -> core::result::Result<(), Refusal>,
    ) -> core::result::Result<Entry, Refusal> {
        let mut table = self.table.lock();
        let Table { alloc, buf } = &mut *table;
        let alloc = alloc.as_mut().ok_or(Refusal::PoolSuspect { slot: 0 })?;
        let mark = header.mark();
        let created = (|| {
            let slot = self.free_slot(alloc, buf)?;
            place(header, alloc)?;
            self.pool.create(slot, header)
        })();
        if created.is_err() {
            // Nothing of it was committed, so what it was given is simply free again.
            header.truncate(mark, &mut |extent| alloc.free(extent));
        }
        created
    }

    /// Looks at entry `slot`.
    pub(crate) fn entry<T>(
        &self,
        slot: u32,
        f: impl FnOnce(EntryState<'_>) -> T,
    ) -> core::result::Result<T, Refusal> {
        let mut table = self.table.lock();
        let Table { alloc, buf } = &mut *table;
        let alloc = alloc.as_ref().ok_or(Refusal::PoolSuspect { slot })?;
        Ok(f(self.pool.load(slot, alloc, buf)?))
    }

    /// The entry that holds `name`, not counting images that were set aside.
    pub(crate) fn find(&self, name: &Name) -> core::result::Result<Option<u32>, Refusal> {
        for slot in 0..self.pool.geometry().slots() {
            let here = self.entry(slot, |entry| {
                !is_aside(&entry) && header_of(&entry).is_some_and(|h| h.name() == *name)
            })?;
            if here {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// An entry that holds the VM with this UUID, whatever its name and state.
    pub(crate) fn find_vm(&self, vm: &[u8; 16]) -> core::result::Result<Option<u32>, Refusal> {
        for slot in 0..self.pool.geometry().slots() {
            let here = self.entry(slot, |entry| {
                header_of(&entry).is_some_and(|h| h.vm() == *vm)
            })?;
            if here {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// An empty entry.
    fn free_slot(&self, alloc: &Memory, buf: &mut [u8]) -> core::result::Result<u32, Refusal> {
        for slot in 0..self.pool.geometry().slots() {
            if matches!(self.pool.load(slot, alloc, buf)?, EntryState::Empty) {
                return Ok(slot);
            }
        }
        Err(Refusal::TableFull)
    }

    /// Marks the sealed images that the platform has not saved: an outage came that they were to survive, and
    /// did not.
    pub(crate) fn mark_unsaved(&self) -> Result {
        for slot in 0..self.pool.geometry().slots() {
            let in_question = self.entry(slot, |entry| {
                matches!(entry, EntryState::Sealed { .. }) && !is_unsaved(&entry)
            })?;
            if !in_question {
                continue;
            }
            let Some(Taken {
                mut entry,
                header,
                record: Some(record),
            }) = self.take(slot)?
            else {
                continue;
            };
            if self.is_distrusted(&entry, &header.view(), &record)? {
                self.pool.mark_unsaved(&mut entry)?;
            }
        }
        Ok(())
    }

    /// Whether the platform has not saved a sealed image. Says so.
    fn is_distrusted(
        &self,
        entry: &Entry,
        header: &HeaderView<'_>,
        record: &SealedRecord,
    ) -> Result<bool> {
        let name = header.name();
        let say =
            |why: fmt::Arguments<'_>| pr_err!("{}: it is not resumed: {why}\n", name.as_str());
        let memory = &self.device.memory;
        let mut bad = header
            .extents()
            .filter_map(|extent| memory.first_bad(extent.start(), extent.len()));
        if let Some(at) = bad.next() {
            say(fmt!("its memory is bad at offset {at:#x} of the device: see 'ndctl list --media-errors'"));
            return Ok(true);
        }
        let mut buf = buffer(record.len())?;
        let Ok(record) = self.pool.read_record(entry, record, &mut buf) else {
            // It is refused for that when it is asked for.
            return Ok(false);
        };
        let item = record.find(kind::PLATFORM, VM_WIDE);
        let today = self.device.platform.today();
        match today.trusts(item.map(|item| item.payload)) {
            Ok(()) => Ok(false),
            Err(why) => {
                say(fmt!("{why}"));
                Ok(true)
            }
        }
    }

    /// Takes the handle on an image that nobody runs, with a copy of its header and, if it is
    /// sealed, what is known of its record.
    pub(crate) fn take(&self, slot: u32) -> Result<Option<Taken>> {
        let buf = buffer(HEADER_LEN)?;
        let found = self.entry(slot, |state| {
            let (entry, header, record) = match state {
                EntryState::Sealed {
                    entry,
                    header,
                    record,
                } => (entry, header, Some(record)),
                EntryState::Live { entry, header } => (entry, header, None),
                _ => return Ok(None),
            };
            Ok(Some(Taken {
                entry,
                header: HeaderBuilder::edit(buf, &header)?,
                record,
            }))
        });
        found
            .and_then(|inner| inner)
            .map_err(|why| refused(fmt!("slot {slot}"), why))
    }

    /// Discards a VM that nobody runs: zeroes its memory and frees it. The caller has made sure
    /// that no mapping and no I/O holds its pages.
    pub(crate) fn finish_discard(
        &self,
        entry: Entry,
        header: &HeaderView<'_>,
    ) -> core::result::Result<(), Refusal> {
        let entry = self.pool.wipe(entry, header)?;
        self.with_memory(|memory| {
            self.pool.finish_discard(entry)?;
            memory.free_all(header);
            Ok(())
        })
    }

    /// Gives up the damaged entry `slot`.
    pub(crate) fn discard_damaged(&self, slot: u32) -> core::result::Result<(), Refusal> {
        let mut table = self.table.lock();
        let Table { alloc, buf } = &mut *table;
        let Some(old) = alloc.take() else {
            return Err(Refusal::PoolSuspect { slot });
        };
        let done = self.pool.discard_damaged(slot, old, buf);
        let words = Memory::words(self.pool.geometry());
        let bits = match done {
            Ok(bits) => bits,
            Err(why) => {
                // The bitmap went with the attempt; a new one is made the same way.
                if let Ok(bits) = KVVec::from_elem(0, words, GFP_KERNEL) {
                    *alloc = survey(&self.pool, bits, buf).ok();
                }
                return Err(why);
            }
        };
        *alloc = Some(survey(&self.pool, bits, buf)?);
        Ok(())
    }

    /// Whether any page of a VM is mapped or pinned.
    pub(crate) fn is_referenced(&self, header: &HeaderView<'_>) -> bool {
        header.extents().any(|extent| {
            (0..u64::from(extent.count)).any(|n| {
                self.device
                    .memory
                    .is_referenced(extent.start() + n * crate::format::GRANULE)
            })
        })
    }
}

/// The header of an entry in use, if it can be read.
pub(crate) fn header_of<'a>(entry: &EntryState<'a>) -> Option<HeaderView<'a>> {
    match entry {
        EntryState::Live { header, .. }
        | EntryState::Sealed { header, .. }
        | EntryState::Discarding { header, .. } => Some(*header),
        EntryState::Damaged { header, .. } => *header,
        EntryState::Empty | EntryState::Wiped { .. } => None,
    }
}

/// Whether the platform has not saved an image: it is never resumed.
pub(crate) fn is_unsaved(entry: &EntryState<'_>) -> bool {
    matches!(entry, EntryState::Sealed { entry, .. } if entry.unsaved())
}

/// Whether an image was set aside: its name is free.
pub(crate) fn is_aside(entry: &EntryState<'_>) -> bool {
    match entry {
        EntryState::Live { entry, .. } | EntryState::Sealed { entry, .. } => entry.aside(),
        _ => false,
    }
}
