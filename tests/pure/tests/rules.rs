// SPDX-License-Identifier: GPL-2.0

//! Every rule of `docs/format.md` broken in turn, with all checksums right: what is found is the rule.

use nvhv_pure::format::{Media, Refusal};
use nvhv_pure_tests::image::Image;
use nvhv_pure_tests::sums::{put_sums_right, records_of_first, sound_pool};
use nvhv_pure_tests::vm::{self, Holds};

const HEADER: u64 = (2 << 20) + 0x1000;

/// Writes `patches` to a sound pool at `base`, puts the sums right, and says what slot 0 holds then.
fn with(base: u64, patches: &[(u64, &[u8])]) -> Holds {
    let image = sound_pool();
    for (at, bytes) in patches {
        image.write(base + at, bytes).expect("inside");
    }
    put_sums_right(&image);
    first(&image)
}

fn first(image: &Image) -> Holds {
    let (pool, alloc) = vm::open(image.clone()).expect("opens");
    assert_eq!(vm::holds(&pool, &alloc, 1), Holds::Torn);
    vm::holds(&pool, &alloc, 0)
}

fn broken(base: u64, patches: &[(u64, &[u8])], rule: &str) {
    match with(base, patches) {
        Holds::Damaged(Refusal::Malformed { why, .. }) => {
            assert!(why.contains(rule), "{patches:x?}: {why}, not {rule}");
        }
        other => panic!("{patches:x?}: {other:?}, not {rule}"),
    }
}

fn word(n: u64) -> [u8; 8] {
    n.to_le_bytes()
}

fn half(n: u32) -> [u8; 4] {
    n.to_le_bytes()
}

#[test]
fn nothing_broken() {
    assert_eq!(with(HEADER, &[]), Holds::Whole(1, 0));
}

#[test]
fn versions() {
    let later = |base| match with(base, &[(16, &half(2))]) {
        Holds::Damaged(Refusal::Version { found: 2, .. }) => {}
        other => panic!("{other:?}"),
    };
    later(HEADER);
    later(records_of_first() + (1 << 20));
    let image = sound_pool();
    for at in [16, (1 << 20) + 16] {
        image.write(at, &half(2)).expect("inside");
    }
    put_sums_right(&image);
    let why = vm::open(image).err();
    assert!(
        matches!(why, Some(Refusal::Version { found: 2, .. })),
        "{why:?}"
    );
}

#[test]
fn header_fields() {
    let rows: [(u64, &[u8], &str); 12] = [
        (20, &half(1), "another slot or pool"),
        (32, &word(0), "another slot or pool"),
        (24, &word(0), "sequence is zero"),
        (64, b"/", "not a name"),
        (64, &[0; 64], "not a name"),
        (100, b"x", "not a name"),
        (144, &word(8), "policy of a later version"),
        (132, &half(1), "reserved"),
        (255, &[1], "reserved"),
        (160, &half(65), "too long"),
        (164, &half(1025), "too long"),
        (164, &half(1), "length contradicts"),
    ];
    for (at, bytes, rule) in rows {
        broken(HEADER, &[(at, bytes)], rule);
    }
    broken(HEADER, &[(256 + 32, &[1])], "block table is longer");
}

#[test]
fn extents() {
    let rows: [(u64, &[u8]); 6] = [
        (2304, &half(1)),
        (2304, &half(14)),
        (2304, &half(u32::MAX)),
        (2308, &half(0)),
        (2308, &half(13)),
        (2308, &half(u32::MAX)),
    ];
    for row in rows {
        broken(HEADER, &[row], "outside the pool");
    }
}

#[test]
fn blocks() {
    let rows: [(u64, &[u8], &str); 12] = [
        (256, &word(1), "not whole pages"),
        (264, &word(0), "not whole pages"),
        (264, &word(4095), "not whole pages"),
        (264, &word(u64::MAX - 4095), "not whole pages"),
        (272, &half(1), "not whole pages"),
        (272, &half(2 << 20), "not whole pages"),
        (276, &half(2), "flags of a later version"),
        (280, &half(2), "do not exist"),
        (280, &half(u32::MAX), "do not exist"),
        (284, &half(u32::MAX), "do not exist"),
        (284, &half(0), "too few or too many"),
        (2316, &half(1), "too few or too many"),
    ];
    for (at, bytes, rule) in rows {
        broken(HEADER, &[(at, bytes)], rule);
    }
    // A second block in the first one's extent.
    let image = sound_pool();
    let mut block = [0; 32];
    image.read(HEADER + 256, &mut block).expect("inside");
    let second: [(u64, &[u8]); 2] = [(160, &half(2)), (288, &block)];
    broken(HEADER, &second, "share an extent");
}

#[test]
fn areas() {
    let image = sound_pool();
    let start = image.word(HEADER + 168);
    let ram = image.word(HEADER + 2312) as u32;
    let ram = u64::from(ram) << 21;
    let rule = "not where one can be";
    let rows: [(u64, u64, &str); 9] = [
        (168, 0, rule),
        (168, start + 1, rule),
        (168, start - 4096, rule),
        (168, u64::MAX - 4095, rule),
        (176, 4096, rule),
        (176, (1 << 20) + 1, rule),
        (192, (1 << 20) + 4096, rule),
        (168, ram, "lies in guest RAM"),
        (184, start, "overlap"),
    ];
    for (at, value, rule) in rows {
        broken(HEADER, &[(at, &word(value))], rule);
    }
}

#[test]
fn records() {
    let record = records_of_first() + (1 << 20);
    let rows: [(u64, &[u8], &str); 9] = [
        (20, &half(4), "as many items"),
        (68, &half(1), "reserved"),
        (136, &[1], "reserved"),
        (191, &[1], "reserved"),
        (192 + 8, &half(1000), "longer than the record"),
        (192 + 8, &half(u32::MAX), "longer than the record"),
        (192 + 12, &[1], "item's reserved"),
        (192 + 16 + 5, &[1], "item's reserved"),
        (192 + 24 + 4, &half(5), "out of order"),
    ];
    for (at, bytes, rule) in rows {
        broken(record, &[(at, bytes)], rule);
    }
    for (at, bytes) in [(24, word(0)), (40, word(1)), (40, word(3))] {
        let found = with(record, &[(at, &bytes)]);
        assert_eq!(found, Holds::Damaged(Refusal::RecordStale), "{at}");
    }
}
