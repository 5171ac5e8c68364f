// SPDX-License-Identifier: GPL-2.0

//! Giving a VM its granules: a header and the allocator, changed together or not at all.

use super::{
    header_builder::first_byte, Allocator, Area, Block, BlockFlags, HeaderBuilder, Refusal,
    AREA_MAX, AREA_MIN, GRANULE, PAGE,
};
use core::ops::DerefMut;

/// Allocates `count` granules as extents of `header`; returns the first's index and their number.
fn take<H, A>(
    header: &mut HeaderBuilder<H>,
    alloc: &mut Allocator<A>,
    count: u32,
) -> Result<(u32, u32), Refusal>
where
    H: DerefMut<Target = [u8]>,
    A: DerefMut<Target = [u64]>,
{
    let first = header.view().extent_count();
    let room = header.extent_room();
    alloc.alloc(count, room, &mut |extent| {
        // There is room: at most `room` extents are handed out.
        let added = header.add_extent(extent);
        debug_assert!(added.is_ok());
    })?;
    Ok((first, header.view().extent_count().saturating_sub(first)))
}

/// Gives `header`'s VM a RAM block of `len` bytes at `gpa`. On a refusal nothing has changed.
pub fn place_block<H, A>(
    header: &mut HeaderBuilder<H>,
    alloc: &mut Allocator<A>,
    gpa: u64,
    len: u64,
    flags: BlockFlags,
) -> Result<Block, Refusal>
where
    H: DerefMut<Target = [u8]>,
    A: DerefMut<Target = [u64]>,
{
    let need = Block::granules(gpa, len, first_byte(gpa)).ok_or(Refusal::BadBlock { gpa, len })?;
    let mark = header.mark();
    let (extent, extents) = take(header, alloc, need)?;
    header
        .add_block(gpa, len, flags, extent, extents)
        .inspect_err(|_| header.truncate(mark, &mut |extent| alloc.free(extent)))
}

/// Gives `header`'s VM its two record areas of at least `len` bytes each, side by side in one
/// extent. On a refusal nothing has changed.
pub fn place_areas<H, A>(
    header: &mut HeaderBuilder<H>,
    alloc: &mut Allocator<A>,
    len: u64,
) -> Result<[Area; 2], Refusal>
where
    H: DerefMut<Target = [u8]>,
    A: DerefMut<Target = [u64]>,
{
    if len > AREA_MAX {
        return Err(Refusal::RecordTooBig { room: AREA_MAX });
    }
    let len = len.max(AREA_MIN).next_multiple_of(PAGE);
    let count = u32::try_from((2 * len).div_ceil(GRANULE))
        .map_err(|_| Refusal::RecordTooBig { room: AREA_MAX })?;
    let mut start = None;
    let room = header.extent_room().min(1);
    alloc.alloc(count, room, &mut |extent| {
        // There is room: one extent is handed out, if any.
        let added = header.add_extent(extent);
        debug_assert!(added.is_ok());
        start = Some(extent.start());
    })?;
    let start = start.unwrap_or(0);
    let areas = [
        Area { start, len },
        Area {
            start: start + len,
            len,
        },
    ];
    header.set_areas(areas);
    Ok(areas)
}
