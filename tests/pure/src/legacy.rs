// SPDX-License-Identifier: GPL-2.0

//! Arbitrary accesses to the chips of a PC.

use nvhv_pure::shadow::legacy::Legacy;
use nvhv_pure::shadow::{Access, Action, Full, Sink, Space, Step};

/// Where the chips are, and some places where none is.
const PORTS: [u16; 25] = [
    0x00, 0x08, 0x20, 0x40, 0x60, 0x61, 0x64, 0x70, 0x80, 0x92, 0xa0, 0xb2, 0xc0, 0xd0, 0x2e8,
    0x2f8, 0x3e8, 0x3f8, 0x4d0, 0x510, 0x600, 0x630, 0xafe0, 0xcf8, 0xfff8,
];
const PAGES: [u64; 9] = [
    0xfec0_0000,
    0xfec0_1000,
    0xfec0_f000,
    0xfec1_0000,
    0xfec1_1000,
    0xfed0_0000,
    0xfed0_0100,
    0xfed0_0300,
    u64::MAX - 0xff,
];

/// An access made of `word`'s numbers: mostly to where something is.
pub fn access(word: &mut dyn FnMut() -> u64) -> Access {
    let choice = word();
    let pick = (choice >> 8) as usize;
    let len = [1, 1, 1, 2, 4, 4, 8, 3][(choice >> 4) as usize % 8];
    let value = word();
    if choice & 1 == 0 {
        let port = PORTS[pick % PORTS.len()].wrapping_add((choice >> 32) as u16 % 16);
        Access::port(port, len, value)
    } else {
        let offset = (choice >> 32) % 0x40 * (1 + 3 * ((choice >> 1) & 1));
        Access::memory(PAGES[pick % PAGES.len()].wrapping_add(offset), len, value)
    }
}

/// Counts steps, and keeps them.
#[derive(Default)]
struct Script(Vec<Step>);

impl Sink for Script {
    fn step(&mut self, step: Step) -> Result<(), Full> {
        self.0.push(step);
        Ok(())
    }
}

/// No chip writes more steps than this: four I/O APICs with 120 entries of six steps.
const MOST: usize = 4000;

fn script(shadow: &Legacy, now: u64) -> Vec<Step> {
    let mut script = Script::default();
    shadow.script(now, &mut script).expect("there is room");
    shadow.start(&mut script).expect("there is room");
    assert!(script.0.len() <= MOST);
    script.0
}

/// The body of the fuzz target: accesses from `data`, and what has to hold after any.
pub fn fuzz(data: &[u8]) {
    let mut words = data.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let mut shadow = Box::<Legacy>::default();
    let base = words.next().unwrap_or(0);
    let base = if base & 1 == 0 { 0x600 } else { base as u16 };
    shadow.set_pm_base(base);
    let mut now = 0u64;
    while let Some(first) = words.next() {
        let mut pending = Some(first);
        let mut word = || pending.take().or_else(|| words.next()).unwrap_or(0);
        let access = access(&mut word);
        now = match first >> 60 {
            15 => word(),
            more => now.wrapping_add(more << 20),
        };
        let claims = shadow.claims(&access);
        let there = match (first >> 2) & 3 {
            3 => shadow.read(&access, now),
            _ => shadow.write(&access, now),
        };
        assert_eq!(there, claims);
    }
    let steps = script(&shadow, now);
    let mut again = Box::<Legacy>::default();
    again.set_pm_base(base);
    for step in &steps {
        assert!(matches!(step.access.space, Space::Port | Space::Memory));
        match step.action {
            Action::Write => again.write(&step.access, now),
            _ => again.read(&step.access, now),
        };
    }
    // A PM block may lie over another chip's ports: then the guest's bytes are that chip's.
    if base == 0x600 {
        assert_eq!(script(&again, now), steps);
    }
    shadow.report().for_each(drop);
    shadow.reset();
    assert!(script(&shadow, now).is_empty());
}
