// SPDX-License-Identifier: GPL-2.0

//! General purpose events of a machine with a PIIX4.

use super::{check, inb, new_shadow, outb, port, script, Model, Op};
use nvhv_pure::shadow::legacy::Legacy;
use nvhv_pure::shadow::{Access, Machine};
use nvhv_pure_tests::random::Random;
use nvhv_pure_tests::shadow;
use std::fmt::Debug;

const BLOCK: u16 = 0xafe0;

struct Gpe {
    status: [u8; 2],
    enables: [u8; 2],
}

impl Default for Gpe {
    fn default() -> Self {
        Self {
            // Something is pending at all times.
            status: [0xff; 2],
            enables: [0; 2],
        }
    }
}

impl Model for Gpe {
    fn write(&mut self, access: &Access, _: u64) {
        let value = access.value as u8;
        match port(access) - BLOCK {
            at @ (0 | 1) => self.status[usize::from(at)] &= !value,
            at @ (2 | 3) => self.enables[usize::from(at) - 2] = value,
            _ => panic!("{access:x?}"),
        }
    }

    fn read(&mut self, access: &Access, _: u64) -> u64 {
        let all = [self.status, self.enables].concat();
        all[usize::from(port(access) - BLOCK)].into()
    }

    fn visible(&self, _: u64) -> impl Debug {
        (self.status, self.enables)
    }

    fn unharmed(&self) {
        assert_eq!(self.status, [0xff; 2], "no event is cleared");
    }

    fn forget(&mut self, _: u64) {
        self.status = [0xff; 2];
    }

    fn next(&self, random: &mut Random) -> Vec<Op> {
        let at = BLOCK + random.below(4) as u16;
        let value = random.word() as u8;
        vec![inb(at), outb(at, value), inb(at)]
    }
}

#[test]
fn general_purpose_events() {
    check::<Gpe>(2000, new_shadow);
}

#[test]
fn the_block_has_an_end() {
    let shadow = new_shadow();
    let claims = |at| shadow.claims(&Access::port(at, 1, 0));
    assert!((BLOCK..BLOCK + 4).all(claims));
    assert!(!claims(BLOCK - 1) && !claims(BLOCK + 4));
}

/// One write to all of it is one to each of its bytes.
#[test]
fn a_wide_write_enables() {
    let mut shadow: Box<Legacy> = new_shadow();
    shadow.write(&Access::port(BLOCK, 4, 0x1234_ffff), 0);
    let writes: Vec<_> = script(&shadow, 0).iter().map(|s| s.access).collect();
    let enables = [
        Access::port(BLOCK + 2, 1, 0x34),
        Access::port(BLOCK + 3, 1, 0x12),
    ];
    assert_eq!(writes, enables);
}

/// Neither these nor the second I/O APIC of a machine without a chipset are unknown registers.
#[test]
fn they_are_known() {
    let mut machine: Box<Machine> = shadow::empty();
    for access in [
        Access::port(BLOCK, 1, 0xff),
        Access::port(BLOCK + 2, 1, 2),
        Access::memory(0xfec1_0000, 4, 0x10),
        Access::memory(0xfec1_0010, 4, 0x1_0000),
    ] {
        machine.writing(&access, 0);
        machine.written(&access);
    }
    let reports: Vec<String> = machine.report().map(|r| format!("{r:?}")).collect();
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(reports.iter().all(|r| r.starts_with("Chip")), "{reports:?}");
}
