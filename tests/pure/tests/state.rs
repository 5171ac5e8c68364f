// SPDX-License-Identifier: GPL-2.0

//! Blocks of RAM from slots, and CPUID.

use nvhv_pure::state::blocks::{
    self, ram_blocks, RamBlock, ShapeDifference, Slot, SlotError, READONLY,
};
use nvhv_pure::state::cpuid::{self, Difference, Register};
use proptest::prelude::*;

const HVA: u64 = 0x7f00_0000_0000;
const MIB: u64 = 1 << 20;

fn slot(id: u32, gpa: u64, size: u64, hva: u64) -> Slot {
    Slot {
        id,
        flags: 0,
        gpa,
        size,
        hva,
    }
}

fn blocks(mut slots: Vec<Slot>) -> Result<Vec<RamBlock>, SlotError> {
    let mut out = [RamBlock::default(); 8];
    let n = ram_blocks(&mut slots, &mut out)?;
    Ok(out[..n].to_vec())
}

/// A q35 of 6 GiB as QEMU shows it: 0-640 KiB, PAM areas of RAM and of ROM, the rest below 2 GiB, and
/// above 4 GiB the second half of the same memory; in the second address space SMRAM as well; and
/// video memory at its BAR and, of that, a window at 0xA0000.
#[test]
fn q35() {
    let rom = HVA + (100 << 30);
    let video = HVA + (200 << 30);
    let second = 1 << 16;
    let mut slots = vec![
        slot(0, 0, 0xa0000, HVA),
        slot(3, 0xc0000, 0x8000, HVA + 0xc0000),
        slot(4, 0xd0000, 0x20000, HVA + 0xd0000),
        slot(1, 0x100000, (2 << 30) - 0x100000, HVA + 0x100000),
        slot(2, 4 << 30, 4 << 30, HVA + (2 << 30)),
        Slot {
            flags: READONLY,
            ..slot(5, 0xfffc0000, 0x40000, rom)
        },
        Slot {
            flags: READONLY,
            ..slot(6, 0xf0000, 0x10000, rom + 0x30000)
        },
        slot(7, 0xfd000000, 16 * MIB, video),
        slot(8, 0xa0000, 0x10000, video + 0x20000),
        slot(second, 0, 2 << 30, HVA),
        slot(second + 1, 4 << 30, 4 << 30, HVA + (2 << 30)),
        slot(9, 0, 0, 0),
    ];
    let want = vec![
        RamBlock {
            gpa: 0,
            len: 2 << 30,
            hva: HVA,
        },
        RamBlock {
            gpa: 0xfd000000,
            len: 16 * MIB,
            hva: video,
        },
        RamBlock {
            gpa: 4 << 30,
            len: 4 << 30,
            hva: HVA + (2 << 30),
        },
    ];
    assert_eq!(blocks(slots.clone()), Ok(want.clone()));
    // Without the second address space, SMRAM and the rest of the legacy hole are gaps.
    slots.retain(|s| s.id < second);
    assert_eq!(blocks(slots.clone()), Ok(want.clone()));
    // Whatever order they were made in.
    slots.reverse();
    assert_eq!(blocks(slots), Ok(want));
}

#[test]
fn gaps() {
    // Up to a MiB is a hole in a block, more is not, and another offset is not.
    let far = |gap| {
        vec![
            slot(0, 0, MIB, HVA),
            slot(1, MIB + gap, MIB, HVA + MIB + gap),
        ]
    };
    assert_eq!(blocks(far(MIB)).map(|b| b.len()), Ok(1));
    assert_eq!(blocks(far(MIB + 4096)).map(|b| b.len()), Ok(2));
    let other = vec![slot(0, 0, MIB, HVA), slot(1, 4 * MIB, MIB, HVA + MIB)];
    assert_eq!(blocks(other).map(|b| b.len()), Ok(2));
}

#[test]
fn slots_that_cannot_be() {
    let bad = [
        slot(0, 1, 4096, HVA),
        slot(0, 0, 4095, HVA),
        slot(0, 0, 4096, HVA + 1),
        slot(0, u64::MAX - 4095, 8192, HVA),
        slot(0, 0, 8192, u64::MAX - 4095),
    ];
    for slot in bad {
        assert_eq!(blocks(vec![slot]), Err(SlotError::Bad(0)), "{slot:?}");
    }
    let twice = vec![slot(0, 0, 2 * MIB, HVA), slot(1, MIB, MIB, HVA + 9 * MIB)];
    assert_eq!(blocks(twice), Err(SlotError::Overlap(0, 1)));
    // An alias that would put its block below guest address zero.
    let below = vec![
        slot(0, 8 * MIB, MIB, HVA),
        slot(1, 0, 4 * MIB, HVA + MIB / 2),
    ];
    assert_eq!(blocks(below), Err(SlotError::Bad(1)));
    let many = (0..9).map(|i| slot(i, u64::from(i) << 30, MIB, HVA + (u64::from(i) << 40)));
    assert_eq!(blocks(many.collect()), Err(SlotError::TooMany));
    assert_eq!(blocks(vec![]), Ok(vec![]));
}

proptest! {
    /// Cutting blocks into slots and putting them together again gives the blocks.
    #[test]
    fn slots_of_blocks(lens in prop::collection::vec(1u64..2000, 1..8), cuts in prop::collection::vec(1u64..50, 1..20), seed in any::<u64>()) {
        let mut want = Vec::new();
        let mut slots = Vec::new();
        for (i, &pages) in lens.iter().enumerate() {
            let block = RamBlock { gpa: (i as u64) << 32, len: pages * 4096, hva: HVA - ((i as u64) << 36) };
            want.push(block);
            let mut done = 0;
            for &cut in cuts.iter().cycle() {
                let n = (cut * 4096).min(block.len - done);
                slots.push(slot(slots.len() as u32, block.gpa + done, n, block.hva + done));
                done += n;
                if done == block.len { break; }
            }
        }
        let mut random = nvhv_pure_tests::random::Random::new(seed);
        for i in (1..slots.len()).rev() {
            slots.swap(i, random.below(i as u64 + 1) as usize);
        }
        prop_assert_eq!(blocks(slots), Ok(want));
    }
}

#[test]
fn shapes() {
    let is = [
        RamBlock {
            gpa: 0,
            len: MIB,
            hva: 1,
        },
        RamBlock {
            gpa: 4 * MIB,
            len: MIB,
            hva: 2,
        },
    ];
    let compare = |was: &[(u64, u64)]| blocks::compare(was.iter().copied(), &is);
    assert_eq!(compare(&[(4 * MIB, MIB), (0, MIB)]), Ok(()));
    let (gpa, len) = (4 * MIB, MIB);
    assert_eq!(
        compare(&[(0, MIB)]),
        Err(ShapeDifference::Added { gpa, len })
    );
    let more = compare(&[(0, MIB), (gpa, MIB), (8 * MIB, MIB)]);
    let gpa = 8 * MIB;
    assert_eq!(more, Err(ShapeDifference::Missing { gpa, len }));
    let other = compare(&[(0, 2 * MIB), (4 * MIB, MIB)]).unwrap_err();
    assert_eq!(
        other.to_string(),
        "RAM at 0x0 had 0x200000 bytes, now has 0x100000"
    );
}

#[test]
fn a_file_is_storage_but_where_ram_begins() {
    for gpa in [0, 0xa_0000] {
        assert!(!blocks::may_be_storage(gpa), "{gpa:#x}");
    }
    for gpa in [MIB, 4 << 30] {
        assert!(blocks::may_be_storage(gpa), "{gpa:#x}");
    }
}

/// Leaf, index, flags, eax, ebx, ecx, edx.
type Leaf = [u32; 7];

fn array(leaves: &[Leaf]) -> Vec<u8> {
    let words = leaves
        .iter()
        .flat_map(|leaf| leaf.iter().copied().chain([0; 3]));
    words.flat_map(u32::to_le_bytes).collect()
}

const CPU: [Leaf; 4] = [
    [1, 0, 0, 0xa20f10, 0x0001_0800, 0x7ffa_3203, 0x1f8b_fbff],
    [7, 0, 1, 0, 0x219c_91a9, 0x10, 0],
    [0xd, 0, 1, 7, 0x340, 0x340, 0],
    [0xd, 1, 1, 0xf, 0x340, 0, 0],
];

fn compare(change: impl FnOnce(&mut Vec<Leaf>)) -> Result<(), Difference> {
    let mut is = CPU.to_vec();
    change(&mut is);
    cpuid::compare(&array(&CPU), &array(&is))
}

#[test]
fn the_same_cpu() {
    assert_eq!(compare(|_| ()), Ok(()));
    assert_eq!(compare(|is| is.reverse()), Ok(()));
    // What follows the guest's own control registers and MSRs.
    assert_eq!(compare(|is| is[0][5] ^= (1 << 27) | (1 << 3)), Ok(()));
    assert_eq!(compare(|is| is[0][6] ^= 1 << 9), Ok(()));
    assert_eq!(compare(|is| is[1][5] ^= 1 << 4), Ok(()));
    assert_eq!(compare(|is| is[2][4] = 0x240), Ok(()));
    assert_eq!(compare(|is| is[3][4] = 0), Ok(()));
    // An index where the leaf has no subleaves.
    assert_eq!(compare(|is| is[0][1] = 9), Ok(()));
}

#[test]
fn every_other_bit_is_a_difference() {
    let runtime = [(0, 5, 27), (0, 5, 3), (0, 6, 9), (1, 5, 4)];
    for leaf in 0..CPU.len() {
        for reg in 3..7 {
            for bit in 0..32 {
                if runtime.contains(&(leaf, reg, bit)) || (leaf >= 2 && reg == 4) {
                    continue;
                }
                let found = compare(|is| is[leaf][reg] ^= 1 << bit);
                assert!(found.is_err(), "leaf {leaf} word {reg} bit {bit}");
            }
        }
    }
}

#[test]
fn leaves_that_come_and_go() {
    let gone = compare(|is| {
        is.remove(2);
    });
    assert_eq!(
        gone,
        Err(Difference::Missing {
            leaf: 0xd,
            subleaf: 0
        })
    );
    let new = compare(|is| is.push([0x19, 0, 0, 0, 0, 0, 0]));
    assert_eq!(
        new,
        Err(Difference::Added {
            leaf: 0x19,
            subleaf: 0
        })
    );
    let bad = cpuid::compare(&array(&CPU), &array(&CPU)[1..]);
    assert_eq!(bad, Err(Difference::Malformed { len: 159 }));
    let value = compare(|is| is[0][4] ^= 1 << 24).unwrap_err();
    assert!(matches!(
        value,
        Difference::Value {
            reg: Register::Ebx,
            ..
        }
    ));
    let text = "CPUID leaf 0x1.0x0 ebx was 0x00010800, now is 0x01010800";
    assert_eq!(value.to_string(), text);
}
