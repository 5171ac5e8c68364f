// SPDX-License-Identifier: GPL-2.0

//! The structures of `/dev/nvhv`, as `docs/abi.md` has them.

use core::mem::{offset_of, size_of};
use nvhv_pure::abi::{
    self, Bind, DeviceEntry, Devices, Image, Info, Piece, PowerFailing, Select, TextWriter,
    Timings, Vm,
};
use std::fmt::Write;

#[test]
fn offsets() {
    assert_eq!(offset_of!(Info, device), 40);
    assert_eq!(offset_of!(Info, pool_uuid), 88);
    assert_eq!(offset_of!(Info, slots), 108);
    assert_eq!(offset_of!(Info, text), 120);
    assert_eq!(offset_of!(Bind, policy), 64);
    assert_eq!(offset_of!(Vm, uuid), 72);
    assert_eq!(offset_of!(Vm, flags), 88);
    assert_eq!(offset_of!(Vm, pid), 96);
    assert_eq!(offset_of!(Vm, ram_bytes), 112);
    assert_eq!(offset_of!(Vm, cause), 152);
    assert_eq!(offset_of!(Vm, text), 160);
    assert_eq!(offset_of!(Vm, timings), 320);
    assert_eq!(offset_of!(Timings, freeze_ns), 16);
    assert_eq!(offset_of!(Timings, commit_ns), 40);
    assert_eq!(offset_of!(Timings, seal_ns), 48);
    assert_eq!(offset_of!(Timings, budget_ms), 56);
    assert_eq!(offset_of!(Timings, restore_ns), 64);
    assert_eq!(size_of::<Vm>(), 392);
    assert_eq!(offset_of!(PowerFailing, sealed), 8);
    assert_eq!(offset_of!(PowerFailing, flags), 12);
    assert_eq!(offset_of!(PowerFailing, elapsed_ns), 16);
    assert_eq!(offset_of!(Devices, entries), 8);
    assert_eq!(offset_of!(Devices, cached), 20);
    assert_eq!(offset_of!(Image, uuid), 128);
    assert_eq!(offset_of!(Image, created_ns), 168);
    assert_eq!(offset_of!(Image, block), 200);
    assert_eq!(offset_of!(Piece, address), 24);
    assert_eq!(offset_of!(DeviceEntry, place), 8);
    assert_eq!(offset_of!(DeviceEntry, detail), 24);
    assert_eq!(offset_of!(DeviceEntry, text), 32);
}

#[test]
fn numbers() {
    let number = |dir: u32, size: usize, nr: u32| (dir << 30) | ((size as u32) << 16) | 0xe700 | nr;
    assert_eq!(abi::INFO, number(3, size_of::<Info>(), 0));
    assert_eq!(abi::BIND, number(1, size_of::<Bind>(), 1));
    assert_eq!(abi::UNBIND, number(0, 0, 2));
    assert_eq!(abi::VM, number(3, size_of::<Vm>(), 3));
    assert_eq!(abi::DISCARD, number(1, size_of::<Select>(), 4));
    assert_eq!(abi::SEAL, number(1, size_of::<Select>(), 5));
    assert_eq!(abi::DEVICES, number(3, size_of::<Devices>(), 7));
    assert_eq!(abi::THAW, number(1, size_of::<Select>(), 6));
    assert_eq!(abi::POWER_FAILING, number(3, size_of::<PowerFailing>(), 8));
    assert_eq!(abi::HOLD, number(3, size_of::<Image>(), 9));
    assert_eq!(abi::READ, number(1, size_of::<Piece>(), 10));
    assert_eq!(abi::IMPORT, number(1, size_of::<Image>(), 11));
    assert_eq!(abi::WRITE, number(1, size_of::<Piece>(), 12));
    assert_eq!(abi::COMMIT, number(1, size_of::<Piece>(), 13));
    assert_eq!(abi::GIVE_UP, number(0, 0, 14));
}

#[test]
fn text_is_cut_at_a_character() {
    let mut field = [0xff; 8];
    let mut writer = TextWriter::new(&mut field);
    write!(writer, "abc").expect("writes");
    write!(writer, "d").expect("writes");
    assert_eq!(&field, b"abcd\0\0\0\0");
    write!(TextWriter::new(&mut field), "abcdefghi").expect("writes");
    assert_eq!(&field, b"abcdefg\0");
    // What does not fit is dropped, with all that follows.
    let mut writer = TextWriter::new(&mut field);
    write!(writer, "abcdefé").expect("writes");
    write!(writer, "x").expect("writes");
    assert_eq!(&field, b"abcdef\0\0");
}
