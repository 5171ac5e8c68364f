// SPDX-License-Identifier: GPL-2.0

//! The fuzz targets, driven from the seeds kept in `tests/fuzz/seeds` and from random changes of
//! them. `FUZZ_ROUNDS` sets how many.

use nvhv_pure_tests::fuzz;
use nvhv_pure_tests::random::Random;
use std::fs;
use std::path::Path;

fn drive(target: fn(&[u8]), name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/seeds")
        .join(name);
    let mut seeds: Vec<Vec<u8>> = fs::read_dir(&dir)
        .expect("seeds")
        .map(|entry| fs::read(entry.expect("a seed").path()).expect("a seed"))
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| target(seed));
    let rounds = std::env::var("FUZZ_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok());
    for round in 0..rounds.unwrap_or(4000) {
        let mut random = Random::new(round);
        let mut data = seeds[random.below(seeds.len() as u64) as usize].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut data, &mut random);
        }
        let done = std::panic::catch_unwind(|| target(&data));
        assert!(done.is_ok(), "round {round}: {data:02x?}");
    }
}

fn mutate(data: &mut Vec<u8>, random: &mut Random) {
    const TELLING: [u64; 8] = [0, 1, 7, 8, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX];
    let at = random.below(data.len() as u64 + 1) as usize;
    match random.below(5) {
        0 if at < data.len() => data[at] ^= 1 << random.below(8),
        1 => data.truncate(at),
        2 => data.insert(at, random.word() as u8),
        3 => {
            let telling = TELLING[random.below(8) as usize].to_le_bytes();
            let len = 1 << random.below(4);
            for (to, from) in data.iter_mut().skip(at).zip(&telling[..len]) {
                *to = *from;
            }
        }
        _ => {
            let patch: Vec<u8> = (0..random.below(12)).map(|_| random.word() as u8).collect();
            data.extend(patch);
        }
    }
}

#[test]
fn record() {
    drive(fuzz::record, "record");
}

#[test]
fn pool() {
    drive(fuzz::pool, "pool");
}

#[test]
fn legacy() {
    drive(nvhv_pure_tests::legacy::fuzz, "legacy");
}

#[test]
fn shadow() {
    drive(nvhv_pure_tests::shadow::fuzz, "shadow");
}
