// SPDX-License-Identifier: GPL-2.0

//! Machines of the shadow room, and its fuzz target.

use nvhv_pure::shadow::{Access, Full, Machine, Phase, Sink, Space, Step, Unkept};
use std::alloc::{alloc_zeroed, handle_alloc_error, Layout};

/// An empty machine, made as the module makes it: of zeroes, where it stays.
pub fn empty() -> Box<Machine> {
    let layout = Layout::new::<Machine>();
    // SAFETY: A machine is not of size zero.
    let memory = unsafe { alloc_zeroed(layout) }.cast::<Machine>();
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: Allocated just now with the layout of a machine; all bytes zero are one, as its
    // description says.
    unsafe { Box::from_raw(memory) }
}

/// A script as a list.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct List(pub Vec<Step>);

impl Sink for List {
    fn step(&mut self, step: Step) -> Result<(), Full> {
        self.0.push(step);
        Ok(())
    }
}

/// One of the two scripts of a machine.
pub fn phase(machine: &Machine, now_ns: u64, phase: Phase) -> List {
    let mut list = List::default();
    let done = machine.script(now_ns, phase, &mut list);
    done.expect("a list has room");
    list
}

/// All that is done to a fresh VMM: both scripts, in order.
pub fn script(machine: &Machine, now_ns: u64) -> List {
    let mut list = phase(machine, now_ns, Phase::Configure);
    list.0.extend(phase(machine, now_ns, Phase::Run).0);
    list
}

/// Places that mean something, so that arbitrary accesses come somewhere.
const PLACES: [(Space, u64); 16] = [
    (Space::Port, 0xcf8),
    (Space::Port, 0xcfc),
    (Space::Port, 0xcfe),
    (Space::Port, 0xc000),
    (Space::Port, 0x3f8),
    (Space::Port, 0x600),
    (Space::Port, 0xae00),
    (Space::Memory, 0xfeb0_0000),
    (Space::Memory, 0xfeb0_0200),
    (Space::Memory, 0xfe00_0000),
    (Space::Memory, 0xfe00_1000),
    (Space::Memory, 0xfec0_0000),
    (Space::Memory, 0xb000_0000),
    (Space::Memory, 0xe000_0000),
    (Space::Memory, u64::MAX - 8),
    (Space::Memory, 0xfed0_0000),
];

/// Values that mean something.
const VALUES: [u64; 16] = [
    0,
    0x7472_6976,
    0x1041_1af4,
    0x1000_1af4,
    0x29c0_8086,
    0x2918_8086,
    0x8000_0000,
    0x8000_0840,
    0x0604_0000,
    0x0600_0000,
    0xfe00_0004,
    0xb000_0001,
    0x0900_4009,
    0xffff_ffff,
    0xfe00_0000,
    u64::MAX,
];

/// What no script is longer than.
const LONGEST: usize = 200_000;

/// Does what `data` says, eight bytes an access: kind and width, place, offset, which value, the value.
/// Nothing panics, and the script is of a bounded length; it can be shown to an empty machine.
pub fn fuzz(data: &[u8]) {
    let mut machine = empty();
    for (time, bytes) in (0..).zip(data.chunks_exact(8)) {
        let &[how, place, low, high, value, v0, v1, v2] = bytes else {
            return;
        };
        let (space, base) = PLACES[usize::from(place % 16)];
        let own = u64::from_le_bytes([v0, v1, v2, 0, 0, 0, 0, 0]);
        let telling = VALUES[usize::from(value % 16)];
        let mut access = Access {
            space,
            addr: base.wrapping_add((u64::from(high) << 8) | u64::from(low)),
            len: [1, 2, 4, 8, 4, 4, 2, 0][usize::from((how >> 2) & 7)],
            value: if value & 0x80 != 0 {
                own
            } else {
                telling ^ own
            },
        };
        match how & 3 {
            0 => drop(machine.writing(&access, time)),
            1 => {
                machine.writing(&access, time);
                machine.written(&access);
            }
            _ => drop(machine.read(&mut access, time)),
        }
        if let Some((device, queue)) = machine.device_at(&access) {
            let _ = (machine.layout(device, queue), machine.kick(device, queue));
            let _ = machine.interrupt(device, Some(queue));
            machine.owe(device, 3);
        }
    }
    let list = script(&machine, 7);
    assert!(list.0.len() < LONGEST, "{} steps", list.0.len());
    let mut next = empty();
    for step in &list.0 {
        next.relearn(step, 7);
    }
    let _ = (machine.complete(), machine.report().count());
    let _ = (machine.unkept().count(), machine.take_news());
    let _ = Unkept::each(data).map(Iterator::count);
}
