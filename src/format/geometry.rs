// SPDX-License-Identifier: GPL-2.0

//! The superblock: making a pool, and opening one.

use super::{
    bytes::{get, get_u32, get_u64, put, zero_from},
    media::Media,
    Part, Refusal, ENTRY_LEN, GRANULE, HEADER_AT, SLOTS_MAX, SUPERBLOCK_AT, SUPERBLOCK_LEN,
    TABLE_AT, VERSION,
};

/// First bytes of a superblock.
pub(super) const MAGIC: [u8; 8] = *b"NVHVPOOL";

const CRC: usize = 8;
const LENGTH: usize = 12;
const VERSION_AT: usize = 16;
const GRANULE_AT: usize = 20;
const UUID: usize = 24;
const DEVICE_LEN: usize = 40;
const TABLE: usize = 48;
const SLOTS: usize = 56;
const ENTRY: usize = 60;
const FIRST_DATA: usize = 64;
const GRANULES: usize = 68;
const CREATED: usize = 72;
const END: usize = 80;

/// Where things are in a pool: the content of its superblock, checked.
///
/// # Invariants
///
/// `1 <= slots <= SLOTS_MAX`; the VM table lies below granule `first_data`; `first_data < granules`;
/// granule `granules - 1` ends inside the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    uuid: [u8; 16],
    device_len: u64,
    slots: u32,
    first_data: u32,
    granules: u32,
    created_ns: u64,
}

impl Geometry {
    /// Lays out a device of `device_len` bytes.
    pub fn new(
        device_len: u64,
        slots: u32,
        uuid: [u8; 16],
        created_ns: u64,
    ) -> Result<Self, Refusal> {
        if slots == 0 || slots > SLOTS_MAX {
            return Err(Refusal::BadSlots(slots));
        }
        let table_end = TABLE_AT + u64::from(slots) * ENTRY_LEN;
        let too_small = Refusal::DeviceTooSmall {
            len: device_len,
            need: table_end.next_multiple_of(GRANULE) + GRANULE,
        };
        let malformed = |_| Refusal::Malformed {
            part: Part::Superblock,
            why: "the device is larger than the format allows",
        };
        let first_data = u32::try_from(table_end.div_ceil(GRANULE)).map_err(malformed)?;
        let granules = u32::try_from(device_len / GRANULE).map_err(malformed)?;
        if granules <= first_data {
            return Err(too_small);
        }
        // INVARIANT: the checks above.
        Ok(Geometry {
            uuid,
            device_len,
            slots,
            first_data,
            granules,
            created_ns,
        })
    }

    /// The same pool on a device of another length.
    fn with_len(&self, device_len: u64) -> Result<Self, Refusal> {
        Geometry::new(device_len, self.slots, self.uuid, self.created_ns)
    }

    /// What both copies of a superblock say together. If they are the same but for the device's length, a
    /// [`grow`](Pool::grow) was cut between them, and the longer counts: what it has more was zero, durably, before
    /// it was written, and nobody was given anything while they differed.
    fn of_copies(first: Self, second: Self) -> Result<Self, Refusal> {
        let longer = if first.granules > second.granules {
            first
        } else {
            second
        };
        match first.with_len(second.device_len) {
            Ok(same) if same == second => Ok(longer),
            _ => Err(Refusal::SuperblocksDiffer),
        }
    }

    /// The pool's UUID.
    pub fn uuid(&self) -> &[u8; 16] {
        &self.uuid
    }

    /// Entries in the VM table.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// The first granule that VMs may own.
    pub fn first_data(&self) -> u32 {
        self.first_data
    }

    /// The end of the granules that VMs may own.
    pub fn granules(&self) -> u32 {
        self.granules
    }

    /// Granules that VMs may own.
    pub fn data_granules(&self) -> u32 {
        self.granules.saturating_sub(self.first_data)
    }

    /// Length in bytes of the device the pool was made on.
    pub fn device_len(&self) -> u64 {
        self.device_len
    }

    /// When the pool was made, in nanoseconds of real time.
    pub fn created_ns(&self) -> u64 {
        self.created_ns
    }

    /// Where entry `slot` starts.
    pub(super) fn entry_at(&self, slot: u32) -> Result<u64, Refusal> {
        if slot >= self.slots {
            return Err(Refusal::NoSuchSlot(slot));
        }
        Ok(TABLE_AT + u64::from(slot) * ENTRY_LEN)
    }

    /// Where header copy `copy` of entry `slot` starts.
    pub(super) fn header_at(&self, slot: u32, copy: usize) -> Result<u64, Refusal> {
        let [a, b] = HEADER_AT;
        Ok(self.entry_at(slot)? + if copy == 0 { a } else { b })
    }

    /// Writes the superblock into `page`.
    fn encode(&self, page: &mut [u8], crc: super::Crc) -> Result<(), Refusal> {
        let len = page.len();
        page.fill(0);
        // CAST: a constant of 4096.
        let length = SUPERBLOCK_LEN as u32;
        // CAST: a constant of 2 MiB, and one of 32 KiB.
        let (granule, entry) = (GRANULE as u32, ENTRY_LEN as u32);
        let mut ok = put(page, 0, &MAGIC)
            && put(page, LENGTH, &length.to_le_bytes())
            && put(page, VERSION_AT, &VERSION.to_le_bytes())
            && put(page, GRANULE_AT, &granule.to_le_bytes())
            && put(page, UUID, &self.uuid)
            && put(page, DEVICE_LEN, &self.device_len.to_le_bytes())
            && put(page, TABLE, &TABLE_AT.to_le_bytes())
            && put(page, SLOTS, &self.slots.to_le_bytes())
            && put(page, ENTRY, &entry.to_le_bytes())
            && put(page, FIRST_DATA, &self.first_data.to_le_bytes())
            && put(page, GRANULES, &self.granules.to_le_bytes())
            && put(page, CREATED, &self.created_ns.to_le_bytes());
        let sum = crc(0, page.get(LENGTH..SUPERBLOCK_LEN).unwrap_or(&[]));
        ok = ok && put(page, CRC, &sum.to_le_bytes()) && len == SUPERBLOCK_LEN;
        if ok {
            Ok(())
        } else {
            Err(Refusal::Buffer {
                len,
                need: SUPERBLOCK_LEN,
            })
        }
    }

    /// Parses and checks a superblock.
    fn decode(page: &[u8], crc: super::Crc) -> Result<Self, Refusal> {
        let part = Part::Superblock;
        let malformed = |why| Err(Refusal::Malformed { part, why });
        if page.len() != SUPERBLOCK_LEN || get(page, 0) != MAGIC {
            return Err(Refusal::NotAPool);
        }
        if crc(0, page.get(LENGTH..).unwrap_or(&[])) != get_u32(page, CRC) {
            return Err(Refusal::Checksum(part));
        }
        let found = get_u32(page, VERSION_AT);
        if found != VERSION {
            return Err(Refusal::Version { part, found });
        }
        let made = Geometry::new(
            get_u64(page, DEVICE_LEN),
            get_u32(page, SLOTS),
            get(page, UUID),
            get_u64(page, CREATED),
        )?;
        // Everything else follows from those four. A later version may loosen this.
        if u64::from(get_u32(page, GRANULE_AT)) != GRANULE {
            return malformed("granules are not 2 MiB");
        }
        if get_u64(page, TABLE) != TABLE_AT
            || u64::from(get_u32(page, ENTRY)) != ENTRY_LEN
            || get_u32(page, FIRST_DATA) != made.first_data
            || get_u32(page, GRANULES) != made.granules
        {
            return malformed("the layout contradicts itself");
        }
        if get_u32(page, LENGTH) as usize != SUPERBLOCK_LEN || !zero_from(page, END) {
            return malformed("reserved bytes are in use");
        }
        Ok(made)
    }
}

/// An open pool: a device whose superblock was found good.
///
/// What may be done with its entries is in [`load`](Self::load) and the operations of the commit
/// protocol ([`create`](Self::create) and following).
pub struct Pool<M> {
    pub(super) media: M,
    pub(super) geometry: Geometry,
    whole: bool,
}

impl<M: Media> Pool<M> {
    /// Makes an empty pool on `media`: everything that it held is zeroed. `page` is a scratch buffer
    /// of [`SUPERBLOCK_LEN`] bytes; `progress` is called with bytes done and bytes in all.
    ///
    /// Crash: both superblocks are erased durably first and written last, after the zeroes are
    /// durable. So a pool that opens is either the old one, untouched, or the new one, all zero.
    pub fn format(
        media: &M,
        slots: u32,
        uuid: [u8; 16],
        created_ns: u64,
        page: &mut [u8],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Geometry, Refusal> {
        let geometry = Geometry::new(media.len(), slots, uuid, created_ns)?;
        geometry.encode(page, media.crc())?;
        let [first, second] = SUPERBLOCK_AT;
        for at in [first, second] {
            media.zero(at, SUPERBLOCK_LEN as u64)?;
            media.flush(at, SUPERBLOCK_LEN as u64)?;
        }
        media.fence();
        let end = u64::from(geometry.granules) * GRANULE;
        let mut at = 0;
        while at < end {
            progress(at, end);
            media.zero(at, GRANULE)?;
            media.flush(at, GRANULE)?;
            at += GRANULE;
        }
        media.fence();
        for at in [second, first] {
            media.write(at, page)?;
            media.flush(at, SUPERBLOCK_LEN as u64)?;
            media.fence();
        }
        progress(end, end);
        Ok(geometry)
    }

    /// Opens the pool on `media`, reading only. `page` is a scratch buffer of [`SUPERBLOCK_LEN`] bytes.
    ///
    /// One good superblock is enough; two good ones must agree, but for an interrupted [`grow`](Self::grow).
    pub fn open(media: M, page: &mut [u8]) -> Result<Self, Refusal> {
        let (len, crc) = (page.len(), media.crc());
        let page = page.get_mut(..SUPERBLOCK_LEN).ok_or(Refusal::Buffer {
            len,
            need: SUPERBLOCK_LEN,
        })?;
        let mut read = |at| -> Result<Geometry, Refusal> {
            media.read(at, page)?;
            Geometry::decode(page, crc)
        };
        let [first, second] = SUPERBLOCK_AT;
        let (geometry, whole) = match (read(first), read(second)) {
            (Ok(a), Ok(b)) => (Geometry::of_copies(a, b)?, a == b),
            (Ok(good), Err(_)) | (Err(_), Ok(good)) => (good, false),
            // Damage says more than absence.
            (Err(Refusal::NotAPool), Err(why)) | (Err(why), Err(_)) => return Err(why),
        };
        if media.len() < geometry.device_len {
            return Err(Refusal::DeviceShrunk {
                len: media.len(),
                need: geometry.device_len,
            });
        }
        Ok(Pool {
            media,
            geometry,
            whole,
        })
    }

    /// Rewrites a damaged superblock copy from the good one, or the shorter of two from the longer. Says whether
    /// there was one.
    ///
    /// Crash: the copy that counts is rewritten as well, with the same bytes, which changes nothing.
    pub fn heal(&mut self, page: &mut [u8]) -> Result<bool, Refusal> {
        if self.whole {
            return Ok(false);
        }
        self.geometry.encode(page, self.media.crc())?;
        for at in SUPERBLOCK_AT {
            self.media.write(at, page)?;
            self.media.flush(at, SUPERBLOCK_LEN as u64)?;
            self.media.fence();
        }
        self.whole = true;
        Ok(true)
    }

    /// Takes into the pool what its device has become longer by. Says how many granules that are. `progress` is
    /// called with bytes done and bytes in all.
    ///
    /// Crash: the new granules are zero, durably, before a superblock has them, and one copy is whole and durable
    /// before the other is written to. So what opens is the pool as it was, or with all of them.
    pub fn grow(
        &mut self,
        page: &mut [u8],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u32, Refusal> {
        self.heal(page)?;
        let grown = self.geometry.with_len(self.media.len())?;
        let (old, new) = (self.geometry.granules, grown.granules);
        let all = u64::from(new.saturating_sub(old)) * GRANULE;
        for granule in old..new {
            progress(u64::from(granule - old) * GRANULE, all);
            let at = u64::from(granule) * GRANULE;
            self.media.zero(at, GRANULE)?;
            self.media.flush(at, GRANULE)?;
        }
        self.media.fence();
        progress(all, all);
        if new > old {
            self.geometry = grown;
            self.whole = false;
            // As `heal` would go on if it were interrupted here.
            self.heal(page)?;
        }
        Ok(new.saturating_sub(old))
    }

    /// Where things are.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The device.
    pub fn media(&self) -> &M {
        &self.media
    }
}
