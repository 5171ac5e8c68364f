// SPDX-License-Identifier: GPL-2.0

//! Shadow rings between a driver and a device that keep the rules, while hosts are lost.

use nvhv_pure::ring::{Occasion, View};
use nvhv_pure_tests::random::Random;
use nvhv_pure_tests::ring::World;
use std::panic::catch_unwind;

/// Runs `test` with many seeds, and says which one failed.
fn with_seeds(seeds: u64, test: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in 0..seeds {
        let done = catch_unwind(|| test(seed));
        assert!(done.is_ok(), "seed {seed}");
    }
}

fn size(seed: u64) -> u16 {
    [1, 2, 4, 8, 16, 32, 64, 256][Random::new(seed ^ 0x517e).below(8) as usize]
}

#[test]
fn requests_are_neither_lost_nor_doubled() {
    with_seeds(250, |seed| {
        let mut world = World::new(size(seed), seed);
        for _ in 0..400 {
            world.step(false);
        }
        world.finish_all();
        assert!(world.done() > 0);
    });
}

#[test]
fn lost_hosts_lose_nothing() {
    with_seeds(350, |seed| {
        let mut world = World::new(size(seed), seed);
        for _ in 0..400 {
            world.step(true);
        }
        world.finish_all();
        let (restores, _) = world.seen();
        assert!(restores > 5);
    });
}

#[test]
fn who_waits_by_looking_is_known() {
    with_seeds(250, |seed| {
        let mut world = World::new(size(seed), seed);
        for _ in 0..20 {
            world.finish_all();
            world.wait_by_looking(1 + seed % 5);
        }
        world.finish_all();
    });
}

#[test]
fn indexes_wrap_around() {
    with_seeds(6, |seed| {
        let mut world = World::new(1 << (seed / 2), seed);
        let mut steps = 0u64;
        while world.done() < 70_000 {
            world.make(3);
            world.pass_on();
            world.finish(2);
            world.pass_on();
            steps += 1;
            if steps % 9973 == 0 {
                world.restore();
            }
        }
        world.finish_all();
    });
}

#[test]
fn the_largest_ring() {
    with_seeds(2, |seed| {
        let mut world = World::new(32768, seed);
        for _ in 0..40 {
            world.make(400);
            world.pass_on();
            world.finish(100);
            world.pass_on();
        }
        world.restore();
        world.finish_all();
    });
}

#[test]
fn devices_are_told_before_they_are_shown_requests() {
    let told = std::sync::atomic::AtomicU64::new(0);
    with_seeds(60, |seed| {
        let mut world = World::new(1 << (2 + seed % 5), seed);
        for _ in 0..60 {
            world.step(true);
            world.restore();
        }
        world.finish_all();
        told.fetch_add(world.told(), std::sync::atomic::Ordering::Relaxed);
    });
    assert!(told.into_inner() > 1000);
}

#[test]
fn who_counts_alike_can_be_followed_by_another_device() {
    with_seeds(100, |seed| {
        let mut world = World::new(size(seed), seed);
        for _ in 0..100 {
            world.step(false);
        }
        world.pass_on();
        let layout = world.layout();
        let (ring, ram) = world.ring();
        ring.submit(ram).expect("sound");
        ring.complete(ram, Occasion::Other).expect("sound");
        assert!(ring.counts_alike());
        // Where the shadow is copied, another device finds all that driver and device have said.
        for (start, index) in layout.rings().map(|(start, _)| (start, start + 2)) {
            assert_eq!(start % 2, 0);
            let at = |view| ram.get_u16(view, index);
            assert_eq!(at(View::Device), at(View::Guest));
        }
        world.restore();
        let none_was_used = world.done() == 0;
        world.finish_all();
        let (ring, _) = world.ring();
        assert_eq!(ring.counts_alike(), none_was_used);
    });
}
