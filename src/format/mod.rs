// SPDX-License-Identifier: GPL-2.0

//! The pool's format: layout, validation and the commit protocol.
//!
//! A pool is one device of persistent memory. `docs/format.md` specifies it byte by byte; the
//! constants and offsets here are that page in code. Everything read from a pool is untrusted: it is
//! checked once, whole, by the constructor of a view ([`Geometry`], [`HeaderView`], [`Record`]), and
//! only then read. Nothing in this room allocates, recurses or panics on what it reads.
//!
//! This room does not know what guest RAM or a vCPU is, and it decides nothing about lifecycles.

pub mod alloc;
mod bytes;
mod commit;
pub mod crc;
mod geometry;
mod header;
mod header_builder;
mod load;
mod media;
mod place;
pub mod record;
mod record_writer;
mod refusal;
mod word;

pub use alloc::{Allocator, Extent};
pub use commit::{RecordRoom, RecordToken, WipedEntry};
pub use crc::Crc;
pub use geometry::{Geometry, Pool};
pub use header::{Area, Block, BlockFlags, HeaderView};
pub use header_builder::{HeaderBuilder, Identity};
pub use load::{Entry, EntryState, SealedRecord};
pub use media::{Fault, Media};
pub use place::{place_areas, place_block};
pub use record::{Cause, Item, OwnedRecord, Record, RecordInfo, VcpuItems};
pub use record_writer::{FinishedRecord, RecordWriter};
pub use refusal::{Part, Refusal};
pub use word::State;

/// Version of every structure of this format.
pub const VERSION: u32 = 1;

/// Bytes in a granule, the unit of allocation: one huge page.
pub const GRANULE: u64 = 2 << 20;

/// Bytes in a page, the unit of RAM blocks and record areas.
pub const PAGE: u64 = 4096;

/// Bytes in one copy of the superblock.
pub const SUPERBLOCK_LEN: usize = 4096;

/// Where the superblock and its second copy start.
pub const SUPERBLOCK_AT: [u64; 2] = [0, 1 << 20];

/// Where the VM table starts.
pub const TABLE_AT: u64 = GRANULE;

/// Bytes in one entry of the VM table.
pub const ENTRY_LEN: u64 = 32 << 10;

/// Where an entry's two header copies start, from the start of the entry. The commit word is at 0.
pub const HEADER_AT: [u64; 2] = [0x1000, 0x4000];

/// Bytes in one copy of a VM header, and in the buffers that hold one.
pub const HEADER_LEN: usize = 12 << 10;

/// Entries in the VM table unless `format` is told otherwise: they fill one granule.
pub const SLOTS_DEFAULT: u32 = 64;

/// The most entries a VM table may have.
pub const SLOTS_MAX: u32 = 4096;

/// The most RAM blocks of one VM.
pub const BLOCKS_MAX: u32 = 64;

/// The most extents of one VM.
pub const EXTENTS_MAX: u32 = 1024;

/// Bytes in the smallest record area.
pub const AREA_MIN: u64 = 1 << 20;

/// Bytes in the largest record area: a record's length is a `u32`.
pub const AREA_MAX: u64 = 1 << 30;
