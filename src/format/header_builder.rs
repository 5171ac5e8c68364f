// SPDX-License-Identifier: GPL-2.0

//! A VM's header, as written.

use super::{
    alloc::Extent,
    bytes::{get_u32, put},
    crc::Crc,
    header::{at, MAGIC},
    Area, Block, BlockFlags, Geometry, HeaderView, Refusal, BLOCKS_MAX, EXTENTS_MAX, GRANULE,
    HEADER_LEN, VERSION,
};
use crate::life::{Name, Policy};
use core::ops::DerefMut;

/// What a VM is from birth.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its name.
    pub name: Name,
    /// A fresh random UUID.
    pub vm: [u8; 16],
    /// The user it belongs to, in the initial user namespace.
    pub uid: u32,
    /// Now, in nanoseconds of real time.
    pub created_ns: u64,
    /// What its owner chose.
    pub policy: Policy,
}

/// A header being built in a buffer of [`HEADER_LEN`] bytes.
///
/// The pool's operations fill in slot, pool, sequence and checksum when they write it. A block or
/// extent that was added is only ever removed by [`truncate`](Self::truncate).
///
/// # Invariants
///
/// `buf` has at least [`HEADER_LEN`] bytes and holds a header that meets what [`HeaderView`]
/// demands, as far as it is filled in.
pub struct HeaderBuilder<B> {
    buf: B,
}

/// How much was in a header at some moment; see [`HeaderBuilder::truncate`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    blocks: u32,
    extents: u32,
}

impl<B: DerefMut<Target = [u8]>> HeaderBuilder<B> {
    /// Begins the header of a new VM.
    pub fn new(mut buf: B, id: &Identity) -> Result<Self, Refusal> {
        let len = buf.len();
        let need = HEADER_LEN;
        let bytes = buf.get_mut(..need).ok_or(Refusal::Buffer { len, need })?;
        bytes.fill(0);
        // INVARIANT: the length was just checked; `id` holds only valid values.
        let mut header = HeaderBuilder { buf };
        header.put(0, &MAGIC);
        header.put(at::VERSION, &VERSION.to_le_bytes());
        header.put(at::VM, &id.vm);
        header.put(at::NAME, id.name.field());
        header.put(at::UID, &id.uid.to_le_bytes());
        header.put(at::CREATED, &id.created_ns.to_le_bytes());
        header.set_policy(id.policy);
        Ok(header)
    }

    /// Goes on from `header`, to write a later version of it.
    pub fn edit(mut buf: B, header: &HeaderView<'_>) -> Result<Self, Refusal> {
        let len = buf.len();
        let need = HEADER_LEN;
        let bytes = buf.get_mut(..need).ok_or(Refusal::Buffer { len, need })?;
        bytes.fill(0);
        let fits = put(bytes, 0, header.bytes());
        debug_assert!(fits);
        // INVARIANT: the length was just checked; a `HeaderView` is valid.
        Ok(HeaderBuilder { buf })
    }

    /// What was built so far.
    pub fn view(&self) -> HeaderView<'_> {
        let end = at::EXTENTS + self.count(at::EXTENT_COUNT) as usize * at::EXTENT_LEN;
        HeaderView::of_built(self.buf.get(..end).unwrap_or(&[]))
    }

    /// Adds an extent and returns its index.
    pub fn add_extent(&mut self, extent: Extent) -> Result<u32, Refusal> {
        let index = self.count(at::EXTENT_COUNT);
        if index >= EXTENTS_MAX {
            return Err(Refusal::Fragmented {
                need: index.saturating_add(1),
                room: EXTENTS_MAX,
            });
        }
        let place = at::EXTENTS + index as usize * at::EXTENT_LEN;
        self.put(place, &extent.first.to_le_bytes());
        self.put(place + 4, &extent.count.to_le_bytes());
        self.put(at::EXTENT_COUNT, &(index + 1).to_le_bytes());
        Ok(index)
    }

    /// How many more extents there is room for.
    pub fn extent_room(&self) -> u32 {
        EXTENTS_MAX.saturating_sub(self.count(at::EXTENT_COUNT))
    }

    /// Adds a RAM block whose granules are the `extents` extents from index `extent` on. Its first
    /// byte is placed so that pool offset and `gpa` agree modulo [`GRANULE`].
    pub fn add_block(
        &mut self,
        gpa: u64,
        len: u64,
        flags: BlockFlags,
        extent: u32,
        extents: u32,
    ) -> Result<Block, Refusal> {
        let bad = Refusal::BadBlock { gpa, len };
        let first_byte = first_byte(gpa);
        let need = Block::granules(gpa, len, first_byte).ok_or(bad)?;
        let block = Block {
            gpa,
            len,
            first_byte,
            flags,
            extent,
            extents,
        };
        let have: u64 = self
            .view()
            .extents_of(&block)
            .map(|e| u64::from(e.count))
            .sum();
        if have != u64::from(need) {
            return Err(bad);
        }
        let index = self.count(at::BLOCK_COUNT);
        if index >= BLOCKS_MAX {
            return Err(Refusal::TooManyBlocks);
        }
        let place = at::BLOCKS + index as usize * at::BLOCK_LEN;
        self.put(place, &gpa.to_le_bytes());
        self.put(place + 8, &len.to_le_bytes());
        self.put(place + 16, &first_byte.to_le_bytes());
        self.put(place + 20, &flags.0.to_le_bytes());
        self.put(place + 24, &extent.to_le_bytes());
        self.put(place + 28, &extents.to_le_bytes());
        self.put(at::BLOCK_COUNT, &(index + 1).to_le_bytes());
        Ok(block)
    }

    /// Says where the record areas are. They must lie in extents that belong to no block.
    pub fn set_areas(&mut self, areas: [Area; 2]) {
        for (place, area) in at::AREAS.into_iter().zip(areas) {
            self.put(place, &area.start.to_le_bytes());
            self.put(place + 8, &area.len.to_le_bytes());
        }
    }

    /// Sets the number of times the VM was resumed.
    pub fn set_resumes(&mut self, resumes: u32) {
        self.put(at::RESUMES, &resumes.to_le_bytes());
    }

    /// Sets the number of vCPUs.
    pub fn set_vcpus(&mut self, vcpus: u32) {
        self.put(at::VCPUS, &vcpus.to_le_bytes());
    }

    /// Sets what the VM's owner chose, as far as it stays.
    pub fn set_policy(&mut self, policy: Policy) {
        self.put(at::POLICY, &policy.lasting().bits().to_le_bytes());
    }

    /// How much is in the header now.
    pub fn mark(&self) -> Mark {
        Mark {
            blocks: self.count(at::BLOCK_COUNT),
            extents: self.count(at::EXTENT_COUNT),
        }
    }

    /// Takes back all blocks and extents added since `mark`, telling `freed` each extent. They must
    /// not have been committed: a committed extent is only given up by discarding the VM.
    pub fn truncate(&mut self, mark: Mark, freed: &mut dyn FnMut(Extent)) {
        let (blocks, extents) = (mark.blocks as usize, mark.extents as usize);
        for extent in self.view().extents().skip(extents) {
            freed(extent);
        }
        let block_end = at::BLOCKS + blocks * at::BLOCK_LEN;
        let extent_end = at::EXTENTS + extents * at::EXTENT_LEN;
        for (from, to) in [(block_end, at::EXTENTS), (extent_end, HEADER_LEN)] {
            self.buf.get_mut(from..to).unwrap_or(&mut []).fill(0);
        }
        self.put(at::BLOCK_COUNT, &mark.blocks.to_le_bytes());
        self.put(at::EXTENT_COUNT, &mark.extents.to_le_bytes());
    }

    /// The header's bytes, ready to be written to `slot` as number `seq`.
    pub(super) fn finish(
        &mut self,
        geometry: &Geometry,
        slot: u32,
        seq: u64,
        crc: Crc,
    ) -> Result<&[u8], Refusal> {
        let len = self.view().bytes().len();
        // CAST: at most `HEADER_LEN`.
        let length = len as u32;
        self.put(at::SLOT, &slot.to_le_bytes());
        self.put(at::POOL, geometry.uuid());
        self.put(at::SEQ, &seq.to_le_bytes());
        self.put(at::LENGTH, &length.to_le_bytes());
        let sum = crc(0, self.buf.get(at::LENGTH..len).unwrap_or(&[]));
        self.put(at::CRC, &sum.to_le_bytes());
        let bytes = self.buf.get(..len).unwrap_or(&[]);
        // What is written must be readable: a fault of the caller is found here, not after a crash.
        HeaderView::parse(bytes, geometry, slot, crc)?;
        Ok(bytes)
    }

    fn count(&self, at: usize) -> u32 {
        get_u32(&self.buf, at)
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        // By the type invariants, every field lies inside the buffer.
        let fits = put(&mut self.buf, at, value);
        debug_assert!(fits);
    }
}

/// Where a block at `gpa` starts inside its first granule.
pub(super) fn first_byte(gpa: u64) -> u32 {
    // CAST: below 2 MiB.
    (gpa % GRANULE) as u32
}
