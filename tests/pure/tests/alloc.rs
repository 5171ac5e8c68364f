// SPDX-License-Identifier: GPL-2.0

//! The allocator against a set of numbers.

use nvhv_pure::format::{
    place_areas, place_block, BlockFlags, Extent, Refusal, BLOCKS_MAX, EXTENTS_MAX, GRANULE,
};
use nvhv_pure_tests::image::Image;
use nvhv_pure_tests::vm;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn empty(granules: u64) -> vm::Alloc {
    let image = Image::new((2 + granules) * GRANULE);
    vm::format(&image);
    vm::open(image).expect("opens").1
}

fn all(extents: &[Extent]) -> impl Iterator<Item = u32> + '_ {
    extents.iter().flat_map(|e| e.first..e.first + e.count)
}

/// The longest run of consecutive numbers.
fn longest(free: &BTreeSet<u32>) -> u32 {
    let (mut best, mut run, mut last) = (0, 0, None);
    for &n in free {
        run = if last == Some(n - 1) { run + 1 } else { 1 };
        best = best.max(run);
        last = Some(n);
    }
    best
}

proptest! {
    #[test]
    fn agrees_with_a_set(
        size in 1u64..200,
        steps in prop::collection::vec((any::<bool>(), 0u32..40, 1u32..6), 0..60),
    ) {
        let mut alloc = empty(size);
        let mut free: BTreeSet<u32> = (2..2 + size as u32).collect();
        let mut held: Vec<Vec<Extent>> = Vec::new();
        for (take, n, max) in steps {
            if take {
                let mut got = Vec::new();
                let done = alloc.alloc(n, max, &mut |e| got.push(e));
                match done {
                    Ok(()) => {
                        prop_assert_eq!(all(&got).count() as u32, n);
                        prop_assert!(got.len() as u32 <= max);
                        // In one piece if there is one.
                        prop_assert!(n == 0 || longest(&free) < n || got.len() == 1);
                        for granule in all(&got) {
                            prop_assert!(free.remove(&granule));
                        }
                        held.push(got);
                    }
                    Err(Refusal::PoolFull { .. }) => prop_assert!(n as usize > free.len()),
                    Err(Refusal::Fragmented { need, room }) => {
                        prop_assert!(need > room && longest(&free) < n);
                    }
                    Err(other) => prop_assert!(false, "{}", other),
                }
                if done.is_err() {
                    prop_assert!(alloc.free_granules() as usize == free.len());
                }
            } else if !held.is_empty() {
                for extent in held.swap_remove(n as usize % held.len()) {
                    free.extend(extent.first..extent.first + extent.count);
                    alloc.free(extent);
                }
            }
            prop_assert_eq!(alloc.free_granules() as usize, free.len());
        }
    }

    #[test]
    fn a_block_is_where_its_header_says(pages in 1u64..3000, gpa in 0u64..100_000, holes in 0u32..30) {
        let mut alloc = empty(64);
        // Every other granule is taken.
        let mut taken = Vec::new();
        alloc.alloc(2 * holes, 1, &mut |e| taken.push(e)).expect("fits");
        for granule in all(&taken).step_by(2) {
            alloc.free(Extent { first: granule, count: 1 });
        }
        let before = alloc.free_granules();
        let mut header = vm::header(&mut alloc, "vm", 4096).expect("fits");
        let (gpa, len) = (gpa * 4096 + (1 << 40), pages * 4096);
        let mark = header.mark();
        let block = place_block(&mut header, &mut alloc, gpa, len, BlockFlags::LATE).expect("fits");
        let view = header.view();
        let mut offset = 0;
        let mut seen = BTreeSet::new();
        while let Some((at, n)) = view.locate(&block, offset) {
            // Whole huge pages, wherever the guest's address allows one.
            prop_assert_eq!(at % GRANULE, (gpa + offset) % GRANULE);
            prop_assert!(n > 0 && at + n <= 66 * GRANULE);
            for page in (at..at + n).step_by(4096) {
                prop_assert!(seen.insert(page));
            }
            offset += n;
        }
        prop_assert_eq!(offset, len);
        prop_assert_eq!(view.ram_bytes(), len + 4096);
        header.truncate(mark, &mut |e| alloc.free(e));
        // One granule of RAM and one of records are left.
        prop_assert_eq!(alloc.free_granules(), before - 2);
    }
}

#[test]
fn a_refusal_changes_nothing() {
    let mut alloc = empty(8);
    let mut header = vm::header(&mut alloc, "vm", 4096).expect("fits");
    let before = (alloc.free_granules(), header.mark());
    let refusals = [
        place_block(&mut header, &mut alloc, 0, 100 * GRANULE, BlockFlags::NONE).err(),
        place_block(&mut header, &mut alloc, 0, 0, BlockFlags::NONE).err(),
        place_block(&mut header, &mut alloc, 1, 4096, BlockFlags::NONE).err(),
        place_block(
            &mut header,
            &mut alloc,
            u64::MAX - 4095,
            8192,
            BlockFlags::NONE,
        )
        .err(),
        place_areas(&mut header, &mut alloc, 64 << 20).err(),
        place_areas(&mut header, &mut alloc, u64::MAX).err(),
    ];
    assert!(refusals.iter().all(Option::is_some), "{refusals:?}");
    assert_eq!(alloc.free_granules(), before.0);
    assert_eq!(format!("{:?}", header.mark()), format!("{:?}", before.1));
}

#[test]
fn tables_that_are_full_refuse() {
    let mut alloc = empty(2 * u64::from(EXTENTS_MAX) + 64);
    let mut header = vm::header(&mut alloc, "vm", 4096).expect("fits");
    let mut gpa = 1 << 40;
    let mut place = |header: &mut vm::Header, alloc: &mut vm::Alloc| {
        gpa += GRANULE;
        place_block(header, alloc, gpa, 4096, BlockFlags::NONE)
    };
    for _ in 1..BLOCKS_MAX {
        place(&mut header, &mut alloc).expect("fits");
    }
    let free = alloc.free_granules();
    assert_eq!(place(&mut header, &mut alloc), Err(Refusal::TooManyBlocks));
    assert_eq!(alloc.free_granules(), free);
    let extent = Extent { first: 2, count: 1 };
    while header.extent_room() > 0 {
        header.add_extent(extent).expect("room");
    }
    assert!(header.add_extent(extent).is_err());
}

#[test]
fn what_is_reserved_is_given_to_nobody() {
    let mut alloc = empty(5);
    for granule in [3, 3, 4, 0, u32::MAX] {
        alloc.reserve(granule);
    }
    assert_eq!(alloc.free_granules(), 3);
    let mut got = Vec::new();
    alloc.alloc(3, 3, &mut |e| got.push(e)).expect("the rest");
    assert_eq!(all(&got).collect::<BTreeSet<_>>(), [2, 5, 6].into());
}
