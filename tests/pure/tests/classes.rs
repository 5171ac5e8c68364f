// SPDX-License-Identifier: GPL-2.0

//! What a VM can be kept with: the rules, when they begin to count, and what a record says of them.

use nvhv_pure::shadow::class::{self, UNKEPT_LEN};
use nvhv_pure::shadow::{Access, DeviceId, Keeping, Machine, Space, Unkept};
use nvhv_pure_tests::shadow::{empty, script};

const MMIO: u64 = 0xfeb0_0000;

#[test]
fn virtio_types() {
    let kept = [1, 2, 3, 4, 5, 8, 19, 27];
    for kind in 0..100 {
        let expected = match kept.contains(&kind) {
            true => Keeping::Kept,
            false => Keeping::Lost,
        };
        assert_eq!(class::virtio(kind, 0), expected, "type {kind}");
    }
    // An append to a zone is not the same twice.
    assert_eq!(class::virtio(2, 1 << 17), Keeping::Lost);
    assert_eq!(class::virtio(1, 1 << 17), Keeping::Kept);
}

#[test]
fn pci_classes() {
    for kept in [0x06_0000, 0x06_0100, 0x06_0400, 0x0c_0500] {
        assert_eq!(class::function(kept), Keeping::Kept, "{kept:06x}");
    }
    assert_eq!(class::function(0x03_0000), Keeping::Fresh);
    for lost in [0, 0x01_0601, 0x01_0802, 0x02_0000, 0x0c_0330, 0xff_0000] {
        assert_eq!(class::function(lost), Keeping::Lost, "{lost:06x}");
    }
}

/// A virtio-mmio device of this type appears, and its driver writes these to the status.
fn virtio(machine: &mut Machine, kind: u64, statuses: &[u64]) {
    for (addr, value) in [(0, 0x7472_6976), (4, 2), (8, kind)] {
        machine.read(&mut Access::memory(MMIO + addr, 4, value), 0);
    }
    for &status in statuses {
        let access = Access::memory(MMIO + 0x70, 4, status);
        machine.writing(&access, 0);
        machine.written(&access);
    }
}

#[test]
fn a_virtio_device_counts_while_its_driver_runs_it() {
    let fs = Unkept::Virtio {
        device: DeviceId::mmio(MMIO),
        kind: 26,
    };
    let mut machine = empty();
    virtio(&mut machine, 26, &[1, 3, 11]);
    assert_eq!(machine.unkept().count(), 0);
    assert!(!machine.take_news());
    virtio(&mut machine, 26, &[15]);
    assert!(machine.take_news());
    assert!(!machine.take_news());
    assert!(machine.unkept().eq([fs]));
    // Whoever is resumed without its state uses it as well.
    let mut next = empty();
    for step in &script(&machine, 0).0 {
        next.relearn(step, 0);
    }
    assert!(next.unkept().eq([fs]));
    virtio(&mut machine, 26, &[0]);
    assert_eq!(machine.unkept().count(), 0);
    virtio(&mut machine, 26, &[15]);
    machine.reset();
    assert_eq!(machine.unkept().count(), 0);
    assert!(!machine.take_news());
    virtio(&mut machine, 2, &[1, 3, 11, 15]);
    assert_eq!(machine.unkept().count(), 0);
}

const BDF: u16 = 0x20;
const BASE: u64 = 0xfe00_0000;

fn config(machine: &mut Machine, at: u64, len: u8, value: u64, write: bool) {
    let latch = 0x8000_0000 | (u64::from(BDF) << 8) | (at & 0xfc);
    machine.writing(&Access::port(0xcf8, 4, latch), 0);
    let mut access = Access::port(0xcfc | (at & 3) as u16, len, value);
    if write {
        machine.writing(&access, 0);
        machine.written(&access);
    } else {
        machine.read(&mut access, 0);
    }
}

/// A function of this class, with 4 KiB of registers behind `bar`.
fn function(class: u64, bar: u64) -> Box<Machine> {
    let mut machine = empty();
    config(&mut machine, 0, 4, 0x10d3_8086, false);
    config(&mut machine, 8, 4, class << 8, false);
    config(&mut machine, 0xe, 1, 0, false);
    let at = 0x10 + 4 * bar;
    config(&mut machine, at, 4, 0xffff_ffff, true);
    config(&mut machine, at, 4, 0xffff_f000, false);
    config(&mut machine, at, 4, BASE, true);
    config(&mut machine, 4, 2, 6, true);
    machine
}

fn store(machine: &mut Machine, offset: u64, value: u64) {
    let access = Access::memory(BASE + offset, 4, value);
    machine.writing(&access, 0);
    machine.written(&access);
}

#[test]
fn a_function_counts_once_its_registers_are_written() {
    let mut machine = function(0x02_0000, 0);
    assert_eq!(machine.unkept().count(), 0);
    store(&mut machine, 0x10, 1);
    assert!(machine.take_news());
    let lost = Unkept::Function {
        bdf: BDF,
        class: 0x02_0000,
        identity: 0x10d3_8086,
    };
    assert!(machine.unkept().eq([lost]));
    store(&mut machine, 0x10, 1);
    assert!(!machine.take_news());
    for harmless in [0x03_0000, 0x06_0400] {
        let mut machine = function(harmless, 0);
        store(&mut machine, 0x10, 1);
        assert_eq!(machine.unkept().count(), 0, "{harmless:06x}");
    }
}

#[test]
fn disks_of_a_pc_count_with_their_first_command() {
    let mut machine = function(0x01_0601, 5);
    for (offset, value) in [(4, 0x8000_0002), (0x118, 0x16), (0x138, 0), (0x38, 1)] {
        store(&mut machine, offset, value);
        assert_eq!(machine.unkept().count(), 0, "{offset:#x}");
    }
    store(&mut machine, 0x1b8, 1);
    assert_eq!(machine.unkept().count(), 1);

    let mut machine = function(0x01_0180, 4);
    machine.writing(&Access::port(0x1f2, 1, 0x55), 0);
    assert_eq!(machine.unkept().count(), 0);
    machine.writing(&Access::port(0x177, 1, 0xec), 0);
    assert!(machine.take_news());
    assert_eq!(machine.unkept().count(), 1);
}

#[test]
fn records_say_it() {
    let all = [
        Unkept::Virtio {
            device: DeviceId::mmio(MMIO),
            kind: 26,
        },
        Unkept::Function {
            bdf: BDF,
            class: 0x01_0802,
            identity: 0xffff_ffff,
        },
        Unkept::Queue {
            device: DeviceId::pci(8),
            queue: u16::MAX,
        },
        Unkept::PassedThrough,
        Unkept::Elsewhere,
        Unkept::Moved,
    ];
    let item: Vec<u8> = all.iter().flat_map(Unkept::encode).collect();
    assert!(Unkept::each(&item).expect("sound").eq(all));
    assert!(Unkept::each(&item[1..]).is_none());
    // What is, number, where, and more: each must mean something.
    for (one, at) in [
        (0, 0),
        (0, 20),
        (1, 10),
        (2, 6),
        (3, 5),
        (3, 8),
        (3, 23),
        (5, 4),
        (5, 9),
    ] {
        let mut raw = all[one].encode();
        raw[at] ^= 0x80;
        assert_eq!(Unkept::decode(&raw), None, "{one} {at}");
    }
    assert_eq!(Unkept::decode(&[0; UNKEPT_LEN]), None);
    let words = all.map(|unkept| unkept.to_string());
    assert_eq!(words[0], "virtio-fs (type 26) at mmio@feb00000");
    assert_eq!(words[1], "NVMe controller (ffff:ffff) at 00:04.0");
    assert_eq!(words[2], "queue 65535 of 00:01.0");
    assert!(all.map(|unkept| unkept.is_dispensable()) == [true, true, false, false, false, false]);
}

#[test]
fn debug_ports_keep_nothing() {
    let ranges = |machine: &Machine| {
        let unknown = machine.report().filter_map(|report| match report {
            nvhv_pure::shadow::Report::Unknown(range) => Some((range.space, range.first)),
            _ => None,
        });
        unknown.collect::<Vec<_>>()
    };
    let mut machine = empty();
    machine.writing(&Access::port(0xe9, 1, 4), 0);
    machine.writing(&Access::port(0x4e0, 1, 4), 0);
    machine.writing(&Access::port(0x3d4, 1, 4), 0);
    assert_eq!(
        ranges(&machine),
        [(Space::Port, 0x4e0), (Space::Port, 0x3d4)]
    );
}
