// SPDX-License-Identifier: GPL-2.0

//! A pool to damage, and its checksums put right afterwards as `docs/format.md` has them: so that
//! what lies behind a checksum is tested too.

use crate::image::Image;
use crate::vm::{self, DEVICE, SLOTS};
use nvhv_pure::format::crc::crc32c;
use nvhv_pure::format::{
    EntryState, Media, ENTRY_LEN, HEADER_AT, SUPERBLOCK_AT, SUPERBLOCK_LEN, TABLE_AT,
};

/// Where the record areas of the first VM of [`sound_pool`] start; each has 1 MiB.
pub fn records_of_first() -> u64 {
    let (pool, alloc) = vm::open(sound_pool()).expect("opens");
    let mut buf = vm::buffer();
    match pool.load(0, &alloc, &mut buf) {
        Ok(EntryState::Sealed { header, .. }) => header.areas()[0].start,
        other => panic!("not sealed: {other:?}"),
    }
}

/// A pool with a sealed VM and a live one.
pub fn sound_pool() -> Image {
    thread_local! {
        static SOUND: Image = {
            let image = Image::new(DEVICE);
            vm::format(&image);
            let (pool, mut alloc) = vm::open(image).expect("opens");
            let mut first = vm::start(&pool, &mut alloc, 0, "first", 1).expect("starts");
            vm::seal(&pool, &mut first, 1).expect("seals");
            vm::start(&pool, &mut alloc, 1, "second", 2).expect("starts");
            pool.media().clone()
        };
    }
    SOUND.with(Image::clone)
}

/// Makes every checksum right that can be, so that what lies behind them is reached.
pub fn put_sums_right(image: &Image) {
    let fix = |at: u64, most: u64| {
        let mut head = [0; 16];
        image.read(at, &mut head).expect("inside");
        let length = u32::from_le_bytes([head[12], head[13], head[14], head[15]]).into();
        if (16..=most).contains(&length) {
            let sum = image.crc_range(0, at + 12, length - 12).expect("inside");
            image.write(at + 8, &sum.to_le_bytes()).expect("inside");
        }
    };
    SUPERBLOCK_AT
        .into_iter()
        .for_each(|at| fix(at, SUPERBLOCK_LEN as u64));
    let records = records_of_first();
    fix(records, 1 << 20);
    fix(records + (1 << 20), 1 << 20);
    let mut uuid = [0; 16];
    image.read(24, &mut uuid).expect("inside");
    for slot in 0..u64::from(SLOTS) {
        let entry = TABLE_AT + slot * ENTRY_LEN;
        HEADER_AT
            .into_iter()
            .for_each(|at| fix(entry + at, 12 << 10));
        // The commit word, as docs/format.md says.
        let low = image.word(entry) as u32;
        if image.word(entry) != 0 {
            let area = records + (u64::from(low >> 4) & 1) * (1 << 20);
            let record = if low & 0xf == 2 {
                image.word(area + 8) as u32
            } else {
                0
            };
            let sum = crc32c(0, &low.to_le_bytes());
            let sum = crc32c(sum, &(slot as u32).to_le_bytes());
            let sum = crc32c(crc32c(sum, &uuid), &record.to_le_bytes());
            let word = (u64::from(sum) << 32) | u64::from(low);
            image.write_word(entry, word).expect("inside");
        }
    }
}
