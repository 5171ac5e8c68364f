// SPDX-License-Identifier: GPL-2.0

//! The bodies of the fuzz targets: plain functions, so that an ordinary test drives them too.
//! `tests/fuzz` hands them to cargo-fuzz.

use crate::sums::{put_sums_right, records_of_first, sound_pool};
use crate::vm::{self, SLOTS};
use nvhv_pure::format::crc::crc32c;
use nvhv_pure::format::{EntryState, Media, Record, ENTRY_LEN, HEADER_AT, SUPERBLOCK_AT, TABLE_AT};

/// Parses `data` as a record. The first byte says whether its checksum is put right first.
pub fn record(data: &[u8]) {
    let Some((&mode, bytes)) = data.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if mode & 1 == 1 && bytes.len() >= 16 {
        let length = bytes.len() as u32;
        bytes[..8].copy_from_slice(b"NVHVRECD");
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        let sum = crc32c(0, &bytes[12..]);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    }
    if let Ok(record) = Record::parse(&bytes, crc32c) {
        // What was accepted is all there.
        let items: usize = record
            .items()
            .map(|i| 16 + i.payload.len().next_multiple_of(8))
            .sum();
        assert_eq!(192 + items, bytes.len());
        let _ = record.info();
    }
}

/// Damages a pool and works with it.
///
/// `data` is a list of patches: two bytes say where in the pool's own structures, one how many bytes
/// follow. A first byte with bit 0 set puts all checksums right afterwards.
pub fn pool(data: &[u8]) {
    let Some((&mode, mut data)) = data.split_first() else {
        return;
    };
    let image = sound_pool();
    while let [low, high, len, rest @ ..] = data {
        let place = u16::from_le_bytes([*low, *high]);
        let (bytes, after) = rest.split_at((*len as usize).min(rest.len()));
        image.write(place_of(place), bytes).expect("inside");
        data = after;
    }
    if mode & 1 == 1 {
        put_sums_right(&image);
    }
    let Ok((pool, mut alloc)) = vm::open(image) else {
        return;
    };
    let mut buf = vm::buffer();
    for slot in 0..pool.geometry().slots().min(2 * SLOTS) {
        let Ok(EntryState::Sealed {
            entry,
            header,
            record,
        }) = pool.load(slot, &alloc, &mut buf)
        else {
            continue;
        };
        let owns: u64 = header.extents().map(|e| e.len()).sum();
        assert!(owns <= pool.geometry().device_len());
        for block in header.blocks() {
            let (at, len) = header.locate(&block, block.len - 1).expect("inside");
            assert!(at < pool.geometry().device_len() && len == 1);
            assert_eq!(header.locate(&block, block.len), None);
        }
        let mut bytes = vec![0; record.len()];
        if let Ok(record) = pool.read_record(&entry, &record, &mut bytes) {
            record.items().for_each(drop);
        }
    }
    let _ = pool.tidy(&mut alloc, &mut buf);
    for slot in 0..pool.geometry().slots().min(2 * SLOTS) {
        let bits = vec![0; vm::Alloc::words(pool.geometry())];
        let Ok(alloc) = pool.survey(bits, &mut buf) else {
            return;
        };
        let _ = pool.discard_damaged(slot, alloc, &mut buf);
    }
}

/// Where patch address `place` is: in a superblock, or in the used part of an entry or record.
fn place_of(place: u16) -> u64 {
    let (window, offset) = (u64::from(place >> 12), u64::from(place & 0xfff));
    let entry = |slot| TABLE_AT + slot * ENTRY_LEN;
    match window {
        0 | 1 => SUPERBLOCK_AT[window as usize] + offset % 128,
        2 | 3 => entry(window - 2) + offset % 8,
        4..=7 => entry(window / 2 - 2) + HEADER_AT[window as usize % 2] + offset,
        // Where the first VM's records are.
        8.. => records_of_first() + (window % 2) * (1 << 20) + offset % 256,
    }
}

/// A shadow ring between a driver and a device that keep no rule.
pub fn ring(data: &[u8]) {
    crate::ring::hostile::ring(data);
}
