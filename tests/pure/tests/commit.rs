// SPDX-License-Identifier: GPL-2.0

//! The commit protocol behind a cache that may write back anything at any time: every image that a
//! cut can leave loads as what was there before the operation or as what is there after it, and
//! never as a wrong resume; the other VM of the pool does not notice.

use nvhv_pure::format::{place_block, BlockFlags, Media, RecordInfo, Refusal, State, GRANULE};
use nvhv_pure_tests::cache::Cached;
use nvhv_pure_tests::image::Image;
use nvhv_pure_tests::vm::{self, Alloc, Holds, Vm, DEVICE, SLOTS};

type Pool = nvhv_pure::format::Pool<Cached>;

/// Images looked at per moment.
const LIMIT: u64 = 1500;

/// Slot of the VM that nothing happens to, and the number in its RAM.
const OTHER: u32 = 2;
const OTHER_NUMBER: u64 = 77;

/// A pool with the other VM, sealed.
fn pool() -> Image {
    let image = Image::new(DEVICE);
    vm::format(&image);
    let (pool, mut alloc) = vm::open(image.clone()).expect("opens");
    let mut other = vm::start(&pool, &mut alloc, OTHER, "other", OTHER_NUMBER).expect("starts");
    vm::seal(&pool, &mut other, OTHER_NUMBER).expect("seals");
    pool.media().clone()
}

/// Runs `before` on a pool, then `operation` with a cut at every moment. Each image has to hold in
/// slot 0 one of `allowed`; what holds in the end has to be the last of them.
fn cut<T>(
    before: impl FnOnce(&Pool, &mut Alloc) -> T,
    operation: impl FnOnce(&Pool, &mut Alloc, T),
    allowed: &[Holds],
) {
    let (pool, mut alloc) = vm::open(Cached::new(pool())).expect("opens");
    let state = before(&pool, &mut alloc);
    // What came before is durable: an operation may rely on it.
    pool.media().flush(0, DEVICE).expect("flushes");
    pool.media().fence();
    pool.media().watch();
    operation(&pool, &mut alloc, state);
    let mut seen = vec![0; allowed.len()];
    for (i, moment) in pool.media().moments().iter().enumerate() {
        moment.images(LIMIT, i as u64, |image| {
            let found = check(image);
            match allowed.iter().position(|a| *a == found) {
                Some(which) => seen[which] += 1,
                None => panic!("moment {i}: a cut leaves {found:?}, allowed is {allowed:?}"),
            }
        });
    }
    assert_eq!(Some(&check(&pool.media().now())), allowed.last());
    assert!(
        seen.iter().all(|&n| n > 0),
        "of {allowed:?} were seen {seen:?}"
    );
}

/// What slot 0 of `image` holds, once all of the image was found sound.
fn check(image: &Image) -> Holds {
    let (pool, mut alloc) = vm::open(image.clone()).expect("a pool always opens");
    assert_eq!(alloc.suspect(), None, "a cut alone is never damage");
    let found = vm::holds(&pool, &alloc, 0);
    pool.tidy(&mut alloc, &mut vm::buffer()).expect("tidies");
    if found == Holds::Leftover {
        assert_eq!(vm::holds(&pool, &alloc, 0), Holds::Nothing);
    } else {
        assert_eq!(vm::holds(&pool, &alloc, 0), found);
    }
    assert_eq!(
        vm::holds(&pool, &alloc, OTHER),
        Holds::Whole(OTHER_NUMBER, 0)
    );
    // Free granules are zero, and all that nobody owns is free.
    let free = alloc.free_granules();
    let mut seen = 0;
    while alloc
        .alloc(1, 1, &mut |extent| {
            assert!(pool.media().is_zero(extent.start(), GRANULE));
            seen += 1;
        })
        .is_ok()
    {}
    assert_eq!(seen, free);
    found
}

fn started(pool: &Pool, alloc: &mut Alloc) -> Vm {
    vm::start(pool, alloc, 0, "vm", 1).expect("starts")
}

fn sealed(pool: &Pool, alloc: &mut Alloc) -> Vm {
    let mut vm = started(pool, alloc);
    vm::seal(pool, &mut vm, 1).expect("seals");
    vm
}

#[test]
fn create() {
    cut(
        |_, _| (),
        |pool, alloc, ()| {
            let mut header = vm::header(alloc, "vm", vm::RAM).expect("fits");
            pool.create(0, &mut header).expect("creates");
            vm::write_ram(pool, &header.view(), 1);
        },
        &[Holds::Nothing, Holds::Leftover],
    );
}

#[test]
fn start() {
    cut(
        |_, _| (),
        |pool, alloc, ()| {
            let vm = started(pool, alloc);
            vm::write_ram(pool, &vm.header.view(), 2);
        },
        &[Holds::Nothing, Holds::Leftover, Holds::Torn],
    );
}

#[test]
fn a_record_that_cannot_be_made_leaves_what_was() {
    cut(
        sealed,
        |pool, _, mut vm| {
            // The other area is written to, and the committed one is not.
            let about = vm::about(&vm.entry);
            let made = pool.make_record(&mut vm.entry, &about, |writer| {
                writer.push(1, 0, &[0xa5; 100])?;
                Err(Refusal::TableFull)
            });
            assert_eq!(made.map(|_| ()), Err(Refusal::TableFull));
            // Neither counts a record of another moment.
            let about = RecordInfo {
                header_seq: about.header_seq + 1,
                ..about
            };
            let made = pool.make_record(&mut vm.entry, &about, |_| Ok(()));
            assert_eq!(made.map(|_| ()), Err(Refusal::RecordStale));
        },
        &[Holds::Whole(1, 0)],
    );
}

/// It never ran here: there is no torn image in between.
#[test]
fn import() {
    cut(
        |_, _| (),
        |pool, alloc, ()| {
            let mut header = vm::header(alloc, "vm", vm::RAM).expect("fits");
            let entry = pool.create(0, &mut header).expect("creates");
            let mut vm = Vm { entry, header };
            vm::write_ram(pool, &vm.header.view(), 3);
            vm::seal(pool, &mut vm, 3).expect("seals");
        },
        &[Holds::Nothing, Holds::Leftover, Holds::Whole(3, 0)],
    );
}

/// An import that is given up leaves nothing.
#[test]
fn import_and_give_up() {
    cut(
        |pool, alloc| {
            let mut header = vm::header(alloc, "vm", vm::RAM).expect("fits");
            let entry = pool.create(0, &mut header).expect("creates");
            vm::write_ram(pool, &header.view(), 3);
            (entry, header)
        },
        |pool, _, (mut entry, header)| {
            pool.begin_discard(&mut entry).expect("begins");
            vm::finish_discard(pool, entry, &header.view()).expect("ends");
        },
        &[Holds::Leftover, Holds::Nothing],
    );
}

#[test]
fn seal() {
    cut(
        started,
        |pool, _, mut vm| {
            vm::write_ram(pool, &vm.header.view(), 2);
            vm::seal(pool, &mut vm, 2).expect("seals");
        },
        &[Holds::Torn, Holds::Whole(2, 0)],
    );
}

#[test]
fn resume() {
    cut(
        sealed,
        |pool, alloc, _| {
            let vm = vm::resume(pool, alloc, 0).expect("resumes");
            vm::write_ram(pool, &vm.header.view(), 2);
        },
        &[Holds::Whole(1, 0), Holds::Torn],
    );
}

#[test]
fn thaw_and_seal_again() {
    cut(
        sealed,
        |pool, _, mut vm| {
            pool.commit_live(&mut vm.entry, &mut vm.header)
                .expect("thaws");
            vm::write_ram(pool, &vm.header.view(), 2);
            vm::seal(pool, &mut vm, 2).expect("seals");
        },
        &[Holds::Whole(1, 0), Holds::Torn, Holds::Whole(2, 0)],
    );
}

#[test]
fn seal_while_sealed() {
    cut(
        sealed,
        |pool, _, mut vm| vm::seal(pool, &mut vm, 1).expect("seals"),
        &[Holds::Whole(1, 0)],
    );
}

#[test]
fn twenty_outages() {
    cut(
        sealed,
        |pool, alloc, _| {
            for number in 2..6 {
                let mut vm = vm::resume(pool, alloc, 0).expect("resumes");
                vm::write_ram(pool, &vm.header.view(), number);
                vm::seal(pool, &mut vm, number).expect("seals");
            }
        },
        &[
            Holds::Whole(1, 0),
            Holds::Torn,
            Holds::Whole(2, 1),
            Holds::Whole(3, 2),
            Holds::Whole(4, 3),
            Holds::Whole(5, 4),
        ],
    );
}

#[test]
fn late_block() {
    cut(
        started,
        |pool, alloc, mut vm| {
            place_block(&mut vm.header, alloc, 1 << 32, 4096, BlockFlags::LATE).expect("fits");
            pool.update_header(&mut vm.entry, &mut vm.header)
                .expect("updates");
            vm::write_ram(pool, &vm.header.view(), 2);
            vm::seal(pool, &mut vm, 2).expect("seals");
        },
        &[Holds::Torn, Holds::Whole(2, 0)],
    );
}

#[test]
fn set_aside() {
    cut(
        sealed,
        |pool, _, mut vm| pool.set_aside(&mut vm.entry).expect("sets aside"),
        &[Holds::Whole(1, 0)],
    );
    cut(
        started,
        |pool, _, mut vm| pool.set_aside(&mut vm.entry).expect("sets aside"),
        &[Holds::Torn],
    );
}

/// An image that the platform has not saved is never resumed again, whatever else is done with it.
#[test]
fn mark_unsaved() {
    let mark = |pool: &Pool, _: &mut Alloc, mut vm: Vm| {
        pool.mark_unsaved(&mut vm.entry).expect("marks");
        let refused = pool.commit_live(&mut vm.entry, &mut vm.header);
        assert_eq!(refused, Err(Refusal::Unsaved { slot: 0 }));
    };
    cut(sealed, mark, &[Holds::Whole(1, 0), Holds::Unsaved]);
    cut(
        sealed,
        |pool, alloc, mut vm| {
            pool.mark_unsaved(&mut vm.entry).expect("marks");
            pool.set_aside(&mut vm.entry).expect("sets aside");
            vm::discard(pool, alloc, vm).expect("discards");
        },
        &[
            Holds::Whole(1, 0),
            Holds::Unsaved,
            Holds::Leftover,
            Holds::Nothing,
        ],
    );
    let (pool, mut alloc) = vm::open(pool()).expect("opens");
    let mut torn = vm::start(&pool, &mut alloc, 0, "vm", 1).expect("starts");
    let state = State::Live;
    let refused = pool.mark_unsaved(&mut torn.entry);
    assert_eq!(refused, Err(Refusal::WrongState { slot: 0, state }));
}

#[test]
fn discard() {
    cut(
        started,
        |pool, alloc, vm| vm::discard(pool, alloc, vm).expect("discards"),
        &[Holds::Torn, Holds::Leftover, Holds::Nothing],
    );
    cut(
        sealed,
        |pool, alloc, vm| vm::discard(pool, alloc, vm).expect("discards"),
        &[Holds::Whole(1, 0), Holds::Leftover, Holds::Nothing],
    );
}

#[test]
fn discard_and_create_in_its_place() {
    cut(
        sealed,
        |pool, alloc, vm| {
            vm::discard(pool, alloc, vm).expect("discards");
            let mut vm = vm::start(pool, alloc, 0, "next", 5).expect("starts");
            vm::seal(pool, &mut vm, 5).expect("seals");
        },
        &[
            Holds::Whole(1, 0),
            Holds::Leftover,
            Holds::Nothing,
            Holds::Torn,
            Holds::Whole(5, 0),
        ],
    );
}

/// A cut inside `tidy`, which itself repairs what a cut left.
#[test]
fn tidy() {
    cut(
        |pool, alloc| {
            let mut vm = sealed(pool, alloc);
            pool.begin_discard(&mut vm.entry).expect("begins");
        },
        |pool, alloc, ()| {
            pool.tidy(alloc, &mut vm::buffer()).expect("tidies");
        },
        &[Holds::Leftover, Holds::Nothing],
    );
}

/// A format leaves the old pool, no pool, or an empty one.
#[test]
fn format() {
    let device = Cached::new(pool());
    device.watch();
    vm::format(&device);
    let (mut old, mut none, mut new) = (0, 0, 0);
    for (i, moment) in device.moments().iter().enumerate() {
        moment.images(LIMIT, i as u64, |image| match vm::open(image.clone()) {
            Err(_) => none += 1,
            Ok((pool, alloc)) => {
                let holds = vm::holds(&pool, &alloc, OTHER);
                match holds {
                    Holds::Nothing => {
                        new += 1;
                        assert!(image.is_zero(2 << 20, DEVICE - (2 << 20)));
                        assert!((0..SLOTS).all(|s| vm::holds(&pool, &alloc, s) == Holds::Nothing));
                    }
                    _ => {
                        old += 1;
                        assert_eq!(holds, Holds::Whole(OTHER_NUMBER, 0));
                    }
                }
            }
        });
    }
    assert!(old > 0 && none > 0 && new > 0, "{old} {none} {new}");
}
