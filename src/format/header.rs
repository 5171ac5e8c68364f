// SPDX-License-Identifier: GPL-2.0

//! A VM's header, as read: who it is, what it owns and where its RAM is.

use super::{
    alloc::Extent,
    bytes::{get, get_u32, get_u64, zero_from},
    crc::Crc,
    Geometry, Part, Refusal, AREA_MAX, AREA_MIN, BLOCKS_MAX, EXTENTS_MAX, GRANULE, HEADER_LEN,
    PAGE, VERSION,
};
use crate::life::{Name, Policy};

/// First bytes of a header.
pub(super) const MAGIC: [u8; 8] = *b"NVHVHEAD";

/// Offsets of the fields; see `docs/format.md`.
pub(super) mod at {
    pub(in super::super) const CRC: usize = 8;
    pub(in super::super) const LENGTH: usize = 12;
    pub(in super::super) const VERSION: usize = 16;
    pub(in super::super) const SLOT: usize = 20;
    pub(in super::super) const SEQ: usize = 24;
    pub(in super::super) const POOL: usize = 32;
    pub(in super::super) const VM: usize = 48;
    pub(in super::super) const NAME: usize = 64;
    pub(in super::super) const UID: usize = 128;
    pub(in super::super) const RESERVED_A: usize = 132;
    pub(in super::super) const CREATED: usize = 136;
    pub(in super::super) const POLICY: usize = 144;
    pub(in super::super) const RESUMES: usize = 152;
    pub(in super::super) const VCPUS: usize = 156;
    pub(in super::super) const BLOCK_COUNT: usize = 160;
    pub(in super::super) const EXTENT_COUNT: usize = 164;
    pub(in super::super) const AREAS: [usize; 2] = [168, 184];
    pub(in super::super) const RESERVED: usize = 200;
    pub(in super::super) const BLOCKS: usize = 256;
    pub(in super::super) const EXTENTS: usize = BLOCKS + super::BLOCKS_MAX as usize * BLOCK_LEN;
    pub(in super::super) const BLOCK_LEN: usize = 32;
    pub(in super::super) const EXTENT_LEN: usize = 8;
}

const _: () = assert!(at::EXTENTS + EXTENTS_MAX as usize * at::EXTENT_LEN <= HEADER_LEN);

/// Properties of a RAM block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockFlags(pub(super) u32);

impl BlockFlags {
    /// None.
    pub const NONE: BlockFlags = BlockFlags(0);
    /// The block appeared after the VM's first instruction.
    pub const LATE: BlockFlags = BlockFlags(1 << 0);

    /// As they are in a header.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// From a header's bits; `None` if some have no meaning.
    pub fn from_bits(bits: u32) -> Option<Self> {
        (bits & !Self::LATE.0 == 0).then_some(BlockFlags(bits))
    }

    /// Whether all flags of `other` are set.
    pub fn has(self, other: BlockFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A block of guest RAM and where it is in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Guest physical address of its first byte; page-aligned.
    pub gpa: u64,
    /// Bytes; whole pages, not zero.
    pub len: u64,
    /// Offset of its first byte inside its first granule; page-aligned.
    pub first_byte: u32,
    /// Its properties.
    pub flags: BlockFlags,
    /// Its first extent.
    pub extent: u32,
    /// How many extents it has.
    pub extents: u32,
}

impl Block {
    fn decode(bytes: &[u8]) -> Self {
        Block {
            gpa: get_u64(bytes, 0),
            len: get_u64(bytes, 8),
            first_byte: get_u32(bytes, 16),
            flags: BlockFlags(get_u32(bytes, 20)),
            extent: get_u32(bytes, 24),
            extents: get_u32(bytes, 28),
        }
    }

    /// Granules a block needs, or `None` if `gpa` and `len` are not acceptable.
    pub(super) fn granules(gpa: u64, len: u64, first_byte: u32) -> Option<u32> {
        let whole = len > 0 && gpa % PAGE == 0 && len % PAGE == 0;
        let first_byte = u64::from(first_byte);
        let inside = first_byte < GRANULE && first_byte % PAGE == 0;
        if !whole || !inside {
            return None;
        }
        // The last byte, not the end: a block may touch the end of the address space.
        gpa.checked_add(len - 1)?;
        let span = first_byte.checked_add(len)?;
        u32::try_from(span.div_ceil(GRANULE)).ok()
    }
}

/// Where one record area is, in bytes from the start of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Area {
    /// Its first byte; page-aligned.
    pub start: u64,
    /// Its length; whole pages.
    pub len: u64,
}

/// A VM's header, checked.
///
/// # Invariants
///
/// `bytes` is as long as the header says, and passed [`check`](Self::parse): all counts are in
/// range, all extents lie inside the pool, every block's extents exist, belong to no other block
/// and make up as many granules as the block needs, and each record area lies in one extent that
/// belongs to no block. Whether *another* VM claims the same granules only the
/// [`Allocator`](super::Allocator) knows.
#[derive(Clone, Copy, Debug)]
pub struct HeaderView<'a> {
    bytes: &'a [u8],
}

impl<'a> HeaderView<'a> {
    /// Parses and checks the header of `slot`. `bytes` may be longer than the header.
    pub(super) fn parse(
        bytes: &'a [u8],
        geometry: &Geometry,
        slot: u32,
        crc: Crc,
    ) -> Result<Self, Refusal> {
        let part = Part::Header;
        if bytes.len() < at::EXTENTS || get(bytes, 0) != MAGIC {
            return Err(Refusal::Checksum(part));
        }
        let length = get_u32(bytes, at::LENGTH) as usize;
        let bytes = match bytes.get(..length) {
            Some(bytes) if length >= at::EXTENTS => bytes,
            _ => return Err(Refusal::Checksum(part)),
        };
        let sum = crc(0, bytes.get(at::LENGTH..).unwrap_or(&[]));
        if sum != get_u32(bytes, at::CRC) {
            return Err(Refusal::Checksum(part));
        }
        let found = get_u32(bytes, at::VERSION);
        if found != VERSION {
            return Err(Refusal::Version { part, found });
        }
        // INVARIANT: `length` above, the rest in `check`.
        let view = HeaderView { bytes };
        match view.check(geometry, slot) {
            Ok(()) => Ok(view),
            Err(why) => Err(Refusal::Malformed { part, why }),
        }
    }

    /// Views a header that is being built.
    pub(super) fn of_built(bytes: &'a [u8]) -> Self {
        // INVARIANT: the builder establishes them for what it adds.
        HeaderView { bytes }
    }

    fn check(&self, geometry: &Geometry, slot: u32) -> Result<(), &'static str> {
        let bytes = self.bytes;
        if get_u32(bytes, at::SLOT) != slot || get(bytes, at::POOL) != *geometry.uuid() {
            return Err("it belongs to another slot or pool");
        }
        if self.seq() == 0 {
            return Err("its sequence is zero");
        }
        if Name::from_field(&get(bytes, at::NAME)).is_err() {
            return Err("its name is not a name");
        }
        if Policy::from_bits(get_u64(bytes, at::POLICY)).is_none_or(|p| p != p.lasting()) {
            return Err("it has a policy of a later version");
        }
        if get_u32(bytes, at::RESERVED_A) != 0
            || !zero_from(bytes.get(..at::BLOCKS).unwrap_or(&[]), at::RESERVED)
        {
            return Err("reserved bytes are in use");
        }
        let (blocks, extents) = (self.block_count(), self.extent_count());
        if blocks > BLOCKS_MAX || extents > EXTENTS_MAX {
            return Err("its tables are too long");
        }
        if bytes.len() != at::EXTENTS + extents as usize * at::EXTENT_LEN {
            return Err("its length contradicts its tables");
        }
        let used = at::BLOCKS + blocks as usize * at::BLOCK_LEN;
        if !zero_from(bytes.get(..at::EXTENTS).unwrap_or(&[]), used) {
            return Err("its block table is longer than it says");
        }
        if !self.extents().all(|e| e.inside(geometry)) {
            return Err("an extent lies outside the pool");
        }
        self.check_blocks()?;
        self.check_areas()
    }

    fn check_blocks(&self) -> Result<(), &'static str> {
        for (i, block) in self.blocks().enumerate() {
            if BlockFlags::from_bits(block.flags.bits()).is_none() {
                return Err("a RAM block has flags of a later version");
            }
            let need = Block::granules(block.gpa, block.len, block.first_byte)
                .ok_or("a RAM block is not whole pages")?;
            let end = block.extent.checked_add(block.extents);
            if end.is_none_or(|end| end > self.extent_count()) {
                return Err("a RAM block has extents that do not exist");
            }
            let have: u64 = self.extents_of(&block).map(|e| u64::from(e.count)).sum();
            if have != u64::from(need) {
                return Err("a RAM block has too few or too many granules");
            }
            for other in self.blocks().take(i) {
                let (a, b) = (u64::from(block.extent), u64::from(other.extent));
                if meet(a, block.extents.into(), b, other.extents.into()) {
                    return Err("two RAM blocks share an extent");
                }
            }
        }
        Ok(())
    }

    fn check_areas(&self) -> Result<(), &'static str> {
        let areas = self.areas();
        for area in areas {
            let sane = area.start % PAGE == 0
                && area.len % PAGE == 0
                && (AREA_MIN..=AREA_MAX).contains(&area.len);
            let home = self.extents().position(|e| e.holds(area.start, area.len));
            let Some(home) = home.filter(|_| sane) else {
                return Err("a record area is not where one can be");
            };
            let home = home as u64;
            if self
                .blocks()
                .any(|b| meet(b.extent.into(), b.extents.into(), home, 1))
            {
                return Err("a record area lies in guest RAM");
            }
        }
        let [a, b] = areas;
        if meet(a.start, a.len, b.start, b.len) {
            return Err("its record areas overlap");
        }
        Ok(())
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How many times this header was written.
    pub fn seq(&self) -> u64 {
        get_u64(self.bytes, at::SEQ)
    }

    /// The VM's UUID: names this image among all that ever bore the name.
    pub fn vm(&self) -> [u8; 16] {
        get(self.bytes, at::VM)
    }

    /// The VM's name.
    pub fn name(&self) -> Name {
        // By the type invariants the field holds a name.
        Name::from_field(&get(self.bytes, at::NAME)).unwrap_or(Name::NONE)
    }

    /// The user that the image belongs to, in the initial user namespace.
    pub fn uid(&self) -> u32 {
        get_u32(self.bytes, at::UID)
    }

    /// When the VM was created, in nanoseconds of real time.
    pub fn created_ns(&self) -> u64 {
        get_u64(self.bytes, at::CREATED)
    }

    /// What the VM's owner chose.
    pub fn policy(&self) -> Policy {
        Policy::from_bits(get_u64(self.bytes, at::POLICY)).unwrap_or_default()
    }

    /// How many times the VM was resumed.
    pub fn resumes(&self) -> u32 {
        get_u32(self.bytes, at::RESUMES)
    }

    /// How many vCPUs the VM had when the header was written.
    pub fn vcpus(&self) -> u32 {
        get_u32(self.bytes, at::VCPUS)
    }

    /// How many RAM blocks there are.
    pub fn block_count(&self) -> u32 {
        get_u32(self.bytes, at::BLOCK_COUNT)
    }

    /// How many extents there are, of RAM and records.
    pub fn extent_count(&self) -> u32 {
        get_u32(self.bytes, at::EXTENT_COUNT)
    }

    /// The two record areas.
    pub fn areas(&self) -> [Area; 2] {
        at::AREAS.map(|at| Area {
            start: get_u64(self.bytes, at),
            len: get_u64(self.bytes, at + 8),
        })
    }

    /// The RAM blocks, in the order they were placed.
    pub fn blocks(&self) -> impl Iterator<Item = Block> + 'a {
        self.bytes
            .get(at::BLOCKS..at::EXTENTS)
            .unwrap_or(&[])
            .chunks_exact(at::BLOCK_LEN)
            .take(self.block_count() as usize)
            .map(Block::decode)
    }

    /// All extents that the VM owns.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + 'a {
        self.bytes
            .get(at::EXTENTS..)
            .unwrap_or(&[])
            .chunks_exact(at::EXTENT_LEN)
            .take(self.extent_count() as usize)
            .map(|bytes| Extent {
                first: get_u32(bytes, 0),
                count: get_u32(bytes, 4),
            })
    }

    /// The extents of one of its blocks, in order of guest physical address.
    pub fn extents_of(&self, block: &Block) -> impl Iterator<Item = Extent> + 'a {
        self.extents()
            .skip(block.extent as usize)
            .take(block.extents as usize)
    }

    /// Where byte `offset` of `block` is in the pool, and for how many bytes the block goes on there
    /// without a break. `None` past its end.
    pub fn locate(&self, block: &Block, offset: u64) -> Option<(u64, u64)> {
        let left = block.len.checked_sub(offset).filter(|&left| left > 0)?;
        let mut at = offset.checked_add(block.first_byte.into())?;
        for extent in self.extents_of(block) {
            let len = extent.len();
            if at < len {
                return Some((extent.start() + at, left.min(len - at)));
            }
            at -= len;
        }
        None
    }

    /// Bytes of guest RAM.
    pub fn ram_bytes(&self) -> u64 {
        self.blocks().fold(0, |sum, b| b.len.saturating_add(sum))
    }

    /// Bytes of the pool that the VM owns.
    pub fn pool_bytes(&self) -> u64 {
        self.extents().fold(0, |sum, e| e.len().saturating_add(sum))
    }
}

/// Whether two ranges share anything.
fn meet(a: u64, a_len: u64, b: u64, b_len: u64) -> bool {
    if a_len == 0 || b_len == 0 {
        return false;
    }
    a <= b.saturating_add(b_len - 1) && b <= a.saturating_add(a_len - 1)
}
