// SPDX-License-Identifier: GPL-2.0

//! The bytes of a pool, as `docs/format.md` has them: read here without the code that wrote them.

use nvhv_pure::format::{EntryState, Media};
use nvhv_pure_tests::image::Image;
use nvhv_pure_tests::vm::{self, DEVICE, POOL_UUID};

const ENTRY: u64 = 2 << 20;

fn bytes(image: &Image, at: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    image.read(at, &mut bytes).expect("inside");
    bytes
}

fn u32_at(image: &Image, at: u64) -> u32 {
    u32::from_le_bytes(bytes(image, at, 4).try_into().expect("four bytes"))
}

fn sum(image: &Image, at: u64) -> u32 {
    let length = u64::from(u32_at(image, at + 12));
    crc32c::crc32c(&bytes(image, at + 12, length - 12))
}

fn sealed() -> Image {
    let image = Image::new(DEVICE + 12345 * 8);
    vm::format(&image);
    let (pool, mut alloc) = vm::open(image).expect("opens");
    let mut vm = vm::start(&pool, &mut alloc, 0, "a-vm", 5).expect("starts");
    vm::seal(&pool, &mut vm, 5).expect("seals");
    pool.media().clone()
}

#[test]
fn checksum() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(nvhv_pure::format::crc::crc32c(0, b"123456789"), 0xe306_9283);
}

#[test]
fn superblock() {
    let image = sealed();
    let at = bytes(&image, 0, 4096);
    assert_eq!(at, bytes(&image, 1 << 20, 4096));
    assert_eq!(&at[..8], b"NVHVPOOL");
    assert_eq!(u32_at(&image, 8), sum(&image, 0));
    let words = [
        (12, 4096),
        (16, 1),
        (20, 2 << 20),
        (56, 3),
        (60, 32768),
        (64, 2),
        (68, 14),
    ];
    for (offset, value) in words {
        assert_eq!(u32_at(&image, offset), value, "at {offset}");
    }
    assert_eq!(at[24..40], POOL_UUID);
    assert_eq!(image.word(40), DEVICE + 12345 * 8);
    assert_eq!(image.word(48), 2 << 20);
    assert_eq!(image.word(72), 1);
    assert!(at[80..].iter().all(|&b| b == 0));
}

#[test]
fn word() {
    let image = sealed();
    let word = image.word(ENTRY);
    // The second header counts, and the first record, which is in the second area.
    let low = 2 | (1 << 4) | (2 << 8);
    assert_eq!(word as u32, low);
    let records = image.word(ENTRY + 0x1000 + 184);
    let mut summed = low.to_le_bytes().to_vec();
    summed.extend(0u32.to_le_bytes());
    summed.extend(POOL_UUID);
    summed.extend(u32_at(&image, records + 8).to_le_bytes());
    assert_eq!((word >> 32) as u32, crc32c::crc32c(&summed));
}

#[test]
fn header() {
    let image = sealed();
    let first = ENTRY + 0x4000;
    let at = ENTRY + 0x1000;
    assert_eq!(image.word(first + 24), 1);
    assert_eq!(image.word(at + 24), 2);
    for at in [first, at] {
        assert_eq!(bytes(&image, at, 8), b"NVHVHEAD");
        assert_eq!(u32_at(&image, at + 8), sum(&image, at));
        let words = [
            (12, 2304 + 16),
            (16, 1),
            (20, 0),
            (128, 1000),
            (132, 0),
            (152, 0),
            (156, 2),
            (160, 1),
            (164, 2),
        ];
        for (offset, value) in words {
            assert_eq!(u32_at(&image, at + offset), value, "at {offset}");
        }
        assert_eq!(bytes(&image, at + 32, 16), POOL_UUID);
        assert_eq!(bytes(&image, at + 48, 5), b"a-vm\0");
        assert_eq!(bytes(&image, at + 64, 5), b"a-vm\0");
        assert_eq!(image.word(at + 136), 7);
        assert_eq!(image.word(at + 144), 0);
        let area = image.word(at + 168);
        assert_eq!(image.word(at + 176), 1 << 20);
        assert_eq!(image.word(at + 184), area + (1 << 20));
        assert_eq!(image.word(at + 192), 1 << 20);
        // The block: 3 MiB at 1 MiB, in the second extent.
        assert_eq!(image.word(at + 256), 1 << 20);
        assert_eq!(image.word(at + 264), 3 << 20);
        let words = [(272, 1 << 20), (276, 0), (280, 1), (284, 1)];
        for (offset, value) in words {
            assert_eq!(u32_at(&image, at + offset), value, "at {offset}");
        }
        assert_eq!(u64::from(u32_at(&image, at + 2304)) << 21, area);
        assert_eq!(u32_at(&image, at + 2308), 1);
        assert_eq!(u32_at(&image, at + 2316), 2);
        // RAM is where that says.
        let ram = (u64::from(u32_at(&image, at + 2312)) << 21) + (1 << 20);
        assert_eq!(image.word(ram), 5);
        assert_eq!(image.word(ram + (3 << 20) - 8), 5);
    }
}

#[test]
fn record() {
    let image = sealed();
    let at = image.word(ENTRY + 0x1000 + 184);
    assert_eq!(bytes(&image, at, 8), b"NVHVRECD");
    assert_eq!(u32_at(&image, at + 8), sum(&image, at));
    // Three items of a padded 8 bytes each.
    let words = [(12, 192 + 3 * 24), (16, 1), (20, 3), (64, 2), (68, 0)];
    for (offset, value) in words {
        assert_eq!(u32_at(&image, at + offset), value, "at {offset}");
    }
    assert_eq!(bytes(&image, at + 24, 5), b"a-vm\0");
    assert_eq!(image.word(at + 40), 2);
    assert_eq!(image.word(at + 48), 1);
    assert_eq!(image.word(at + 56), 99);
    let items = [
        (0xe700, u32::MAX, 5),
        (0x4090_ae82, 0, 8),
        (0x4090_ae82, 1, 8),
    ];
    for (item, (kind, vcpu, len)) in (at + 192..).step_by(24).zip(items) {
        let words = [(0, kind), (4, vcpu), (8, len), (12, 0)];
        for (offset, value) in words {
            assert_eq!(u32_at(&image, item + offset), value, "at {offset}");
        }
    }
    assert_eq!(bytes(&image, at + 208, 8), b"shape\0\0\0");
}

/// Entry of the second slot, and what an empty one looks like.
#[test]
fn table() {
    let image = sealed();
    let (pool, mut alloc) = vm::open(image).expect("opens");
    vm::start(&pool, &mut alloc, 1, "b-vm", 6).expect("starts");
    let image = pool.media();
    assert_eq!(bytes(image, ENTRY + 0x8000 + 0x1000 + 64, 4), b"b-vm");
    assert!(image.is_zero(ENTRY + 0x10000, 0x8000));
    assert!(image.is_zero(ENTRY + 8, 0x1000 - 8));
    assert!(image.is_zero(ENTRY + 0x7000, 0x1000));
    let state = pool
        .load(2, &alloc, &mut vm::buffer())
        .map(|s| matches!(s, EntryState::Empty));
    assert_eq!(state, Ok(true));
    assert!(pool.load(3, &alloc, &mut vm::buffer()).is_err());
}
