// SPDX-License-Identifier: GPL-2.0

//! Damage: every wrong bit of every structure is found, and never makes one valid state another.

use nvhv_pure::format::{
    Media, Pool, Refusal, ENTRY_LEN, GRANULE, SUPERBLOCK_AT, SUPERBLOCK_LEN, TABLE_AT,
};
use nvhv_pure_tests::image::Image;
use nvhv_pure_tests::vm::{self, Holds, DEVICE};

const ENTRY: u64 = TABLE_AT;
const COPY_0: u64 = ENTRY + 0x1000;
const COPY_1: u64 = ENTRY + 0x4000;

/// A pool with a VM in slot 0, sealed or live, and one live in slot 1.
fn pool(sealed: bool) -> Image {
    let image = Image::new(DEVICE);
    vm::format(&image);
    let (pool, mut alloc) = vm::open(image).expect("opens");
    let mut first = vm::start(&pool, &mut alloc, 0, "first", 1).expect("starts");
    if sealed {
        vm::seal(&pool, &mut first, 1).expect("seals");
    }
    vm::start(&pool, &mut alloc, 1, "second", 2).expect("starts");
    pool.media().clone()
}

fn first(image: &Image) -> Holds {
    let (pool, alloc) = vm::open(image.clone()).expect("opens");
    assert_eq!(vm::holds(&pool, &alloc, 1), Holds::Torn);
    vm::holds(&pool, &alloc, 0)
}

/// Damages each byte of `at..at + len` in each of nine ways, one at a time.
fn each_damage(image: &Image, at: u64, len: u64, mut check: impl FnMut(&Image, u64)) {
    for byte in at..at + len {
        for bits in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let bad = image.clone();
            bad.flip(byte, bits);
            check(&bad, byte);
        }
    }
}

#[test]
fn superblock() {
    let image = pool(true);
    let [one, two] = SUPERBLOCK_AT;
    // With one copy damaged, the other serves.
    each_damage(&image, one, 128, |bad, at| {
        assert_eq!(first(bad), Holds::Whole(1, 0), "{at:#x}");
        let mut pool = vm::open(bad.clone()).expect("opens").0;
        assert_eq!(pool.heal(&mut vm::page()), Ok(true));
        let whole = pool.media();
        assert!(whole.same(&image, 0, DEVICE));
    });
    // With that one gone, any damage is a refusal.
    image.zero(one, SUPERBLOCK_LEN as u64).expect("zeroes");
    for at in (two..two + 96).chain([two + 1000, two + SUPERBLOCK_LEN as u64 - 1]) {
        each_damage(&image, at, 1, |bad, at| {
            let why = vm::open(bad.clone()).err().expect("refused");
            assert!(
                matches!(why, Refusal::NotAPool | Refusal::Checksum(_)),
                "{at:#x}: {why}"
            );
        });
    }
}

#[test]
fn superblocks_that_differ() {
    let image = pool(true);
    let other = Image::new(DEVICE);
    nvhv_pure::format::Pool::format(&other, 1, [1; 16], 1, &mut vm::page(), &mut |_, _| {})
        .expect("formats");
    let mut page = vm::page();
    other.read(0, &mut page).expect("reads");
    image.write(SUPERBLOCK_AT[1], &page).expect("writes");
    let why = vm::open(image).err();
    assert_eq!(why, Some(Refusal::SuperblocksDiffer));
}

/// Two good copies that differ in the device's length are a growth that was cut; in anything else besides, they are
/// not, and nor is one for which the device is too short.
#[test]
fn superblocks_of_two_lengths() {
    let make = |len, slots, uuid, created| {
        let image = Image::new(len);
        let done = Pool::format(
            &image,
            slots,
            uuid,
            created,
            &mut vm::page(),
            &mut |_, _| {},
        );
        done.expect("formats");
        let mut page = vm::page();
        image.read(0, &mut page).expect("reads");
        page
    };
    let longer = DEVICE + GRANULE;
    let (old, new) = (make(DEVICE, 3, [7; 16], 1), make(longer, 3, [7; 16], 1));
    let open = |len, first: &[u8], second: &[u8]| {
        let image = Image::new(len);
        image.write(SUPERBLOCK_AT[0], first).expect("writes");
        image.write(SUPERBLOCK_AT[1], second).expect("writes");
        vm::open(image).map(|(pool, _)| pool.geometry().device_len())
    };
    assert_eq!(open(longer, &old, &new), Ok(longer));
    assert_eq!(open(longer, &new, &old), Ok(longer));
    assert!(matches!(
        open(DEVICE, &old, &new),
        Err(Refusal::DeviceShrunk { .. })
    ));
    for other in [
        make(longer, 4, [7; 16], 1),
        make(longer, 3, [8; 16], 1),
        make(longer, 3, [7; 16], 2),
    ] {
        assert_eq!(open(longer, &old, &other), Err(Refusal::SuperblocksDiffer));
    }
}

#[test]
fn shorter_device() {
    let image = Image::new(DEVICE + GRANULE);
    vm::format(&image);
    let short = Image::new(DEVICE);
    let mut page = vm::page();
    image.read(0, &mut page).expect("reads");
    short.write(0, &page).expect("writes");
    let why = vm::open(short).err();
    assert!(matches!(why, Some(Refusal::DeviceShrunk { .. })));
}

#[test]
fn word() {
    for sealed in [true, false] {
        let image = pool(sealed);
        each_damage(&image, ENTRY, 8, |bad, at| {
            let found = first(bad);
            assert!(matches!(found, Holds::Damaged(_)), "{at:#x}: {found:?}");
        });
        // Every pair of wrong bits, too.
        for a in 0..64 {
            for b in 0..a {
                let bad = image.clone();
                bad.flip(ENTRY + a / 8, 1 << (a % 8));
                bad.flip(ENTRY + b / 8, 1 << (b % 8));
                assert!(matches!(first(&bad), Holds::Damaged(_)), "bits {a} and {b}");
            }
        }
        let bad = image.clone();
        bad.zero(ENTRY, 8).expect("zeroes");
        assert_eq!(first(&bad), Holds::Damaged(Refusal::WordLost));
    }
}

/// A word that belongs to another slot.
#[test]
fn word_of_another() {
    let image = pool(false);
    let other = image.word(ENTRY + ENTRY_LEN);
    image.write_word(ENTRY, other).expect("writes");
    assert!(matches!(first(&image), Holds::Damaged(_)));
}

#[test]
fn header() {
    for sealed in [true, false] {
        let image = pool(sealed);
        // The second header of a VM is in copy 0.
        let len = 256 + 64 * 32 + 2 * 8;
        each_damage(&image, COPY_0, len, |bad, at| {
            let found = first(bad);
            assert!(matches!(found, Holds::Damaged(_)), "{at:#x}: {found:?}");
            // What it owned may be more than the other copy says.
            let (pool, mut alloc) = vm::open(bad.clone()).expect("opens");
            assert_eq!(alloc.suspect(), Some(0));
            let refused = alloc.alloc(1, 1, &mut |_| {});
            assert_eq!(refused, Err(Refusal::PoolSuspect { slot: 0 }));
            drop(pool);
        });
        // The copy that does not count does not matter.
        each_damage(&image, COPY_1, 256, |bad, _| {
            assert_eq!(first(bad), first(&image));
        });
    }
}

#[test]
fn record() {
    let image = pool(true);
    let (pool, alloc) = vm::open(image.clone()).expect("opens");
    let mut buf = vm::buffer();
    let state = pool.load(0, &alloc, &mut buf).expect("loads");
    let nvhv_pure::format::EntryState::Sealed { header, record, .. } = state else {
        panic!("not sealed");
    };
    // The first record goes to the second area.
    let at = header.areas()[1].start;
    each_damage(&image, at, record.len() as u64, |bad, at| {
        let found = first(bad);
        assert!(matches!(found, Holds::Damaged(_)), "{at:#x}: {found:?}");
        // Only the record is damaged: what the VM owns is known.
        let (_, alloc) = vm::open(bad.clone()).expect("opens");
        assert_eq!(alloc.suspect(), None);
    });
}

/// A record that was cut short, and an older one in its place.
#[test]
fn record_of_another_time() {
    let image = pool(true);
    let (pool, alloc) = vm::open(image).expect("opens");
    let before = pool.media().clone();
    let mut vm = vm::resume(&pool, &alloc, 0).expect("resumes");
    vm::write_ram(&pool, &vm.header.view(), 2);
    vm::seal(&pool, &mut vm, 2).expect("seals");
    let [a, b] = vm.header.view().areas();
    let after = pool.media().clone();
    assert_eq!(first(&after), Holds::Whole(2, 1));
    for area in [a, b] {
        let mixed = after.clone();
        mixed.zero(area.start, area.len).expect("zeroes");
        let mut old = vec![0; 4096];
        before.read(b.start, &mut old).expect("reads");
        mixed.write(a.start, &old).expect("writes");
        assert!(matches!(first(&mixed), Holds::Damaged(_)));
    }
}

/// Two VMs that own the same granules are both damaged.
#[test]
fn contested() {
    let image = pool(true);
    // A third VM, made in a pool where the first two were not known.
    let (pool, _) = vm::open(image.clone()).expect("opens");
    let empty = Image::new(DEVICE);
    vm::format(&empty);
    let mut alloc = vm::open(empty).expect("opens").1;
    vm::start(&pool, &mut alloc, 2, "thief", 9).expect("starts");
    let (pool, alloc) = vm::open(pool.media().clone()).expect("opens");
    for slot in [0, 2] {
        let found = vm::holds(&pool, &alloc, slot);
        assert!(matches!(found, Holds::Damaged(Refusal::Contested(_))));
    }
    assert_eq!(vm::holds(&pool, &alloc, 1), Holds::Torn);
}

/// Giving up a damaged entry frees what it owned, zeroed, and spares the others.
#[test]
fn discard_damaged() {
    let damages: [(u64, bool); 3] = [(ENTRY, true), (COPY_0 + 100, true), (COPY_0 + 100, false)];
    for (at, sealed) in damages {
        let image = pool(sealed);
        image.flip(at, 1);
        let (pool, alloc) = vm::open(image).expect("opens");
        let bits = pool
            .discard_damaged(0, alloc, &mut vm::buffer())
            .expect("discards");
        let mut alloc = pool.survey(bits, &mut vm::buffer()).expect("surveys");
        assert_eq!(alloc.suspect(), None);
        assert_eq!(vm::holds(&pool, &alloc, 0), Holds::Nothing);
        assert_eq!(vm::holds(&pool, &alloc, 1), Holds::Torn);
        let mut seen = 0;
        while alloc
            .alloc(1, 1, &mut |e| {
                seen += 1;
                assert!(pool.media().is_zero(e.start(), e.len()));
            })
            .is_ok()
        {}
        // The second VM's: two of RAM, one of records.
        assert_eq!(seen, vm::GRANULES - 3);
    }
}

/// A damaged entry is not given up by `tidy`, nor made anew by `create`.
#[test]
fn damaged_is_left_alone() {
    let image = pool(true);
    image.flip(ENTRY + 5, 1);
    let (pool, mut alloc) = vm::open(image.clone()).expect("opens");
    assert_eq!(pool.tidy(&mut alloc, &mut vm::buffer()), Ok(0));
    let mut header = vm::header(&mut alloc, "new", 4096).expect("fits");
    assert!(pool.create(0, &mut header).is_err());
    assert!(pool.media().same(&image, 0, DEVICE));
}
