// SPDX-License-Identifier: GPL-2.0

//! What holds for all of them.

use super::{new_shadow, script};
use nvhv_pure::shadow::{Access, Action, Space};
use nvhv_pure_tests::random::Random;

#[test]
fn untouched_makes_no_script() {
    let shadow = new_shadow();
    assert_eq!(script(&shadow, 1 << 50), []);
    assert_eq!(shadow.report().count(), 0);
}

/// Acts are known, so that nobody takes their ports for a device's, and leave nothing.
#[test]
fn acts_are_claimed_and_forgotten() {
    let mut shadow = new_shadow();
    for port in [0x80, 0xb2, 0xb3, 0xe9, 0x402, 0x505, 0xcf9] {
        let access = Access::port(port, 1, 0xff);
        assert!(shadow.claims(&access), "{port:x}");
        shadow.write(&access, 0);
    }
    assert_eq!(script(&shadow, 0), []);
    // PCI's address register is not the reset register.
    assert!(!shadow.claims(&Access::port(0xcf8, 4, 0x8000_0000)));
}

#[test]
fn resets_and_dma_are_never_replayed() {
    let mut shadow = new_shadow();
    shadow.write(&Access::port(0x92, 1, 3), 0);
    shadow.write(&Access::port(0x64, 1, 0xfe), 0);
    shadow.write(&Access::port(0x510, 2, 0x19), 0);
    shadow.write(&Access::port(0x514, 4, 0x1234), 0);
    shadow.write(&Access::port(0x518, 4, 0x5678), 0);
    let steps = script(&shadow, 0);
    let writes: Vec<_> = steps.iter().map(|s| s.access).collect();
    assert_eq!(
        writes,
        [Access::port(0x92, 1, 2), Access::port(0x510, 2, 0x19)]
    );
}

/// A wide access to chips of one byte is one to each of their ports.
#[test]
fn wide_accesses_are_split() {
    let (mut wide, mut single) = (new_shadow(), new_shadow());
    wide.write(&Access::port(0x70, 2, 0x550b), 0);
    single.write(&Access::port(0x70, 1, 0x0b), 0);
    single.write(&Access::port(0x71, 1, 0x55), 0);
    assert_ne!(script(&wide, 0), []);
    assert_eq!(script(&wide, 0), script(&single, 0));
}

/// Interrupts are lost at an input that is masked or not programmed.
#[test]
fn interrupt_controllers_come_first() {
    let mut shadow = new_shadow();
    shadow.write(&Access::port(0x3f9, 1, 2), 0);
    shadow.write(&Access::port(0x21, 1, 0xef), 0);
    shadow.write(&Access::memory(0xfec0_0000, 4, 0x18), 0);
    let steps = script(&shadow, 0);
    let at = |addr| steps.iter().position(|s| s.access.addr == addr);
    assert!(at(0x21) < at(0x3f9) && at(0xfec0_0000) < at(0x3f9));
}

#[test]
fn a_reset_forgets_all() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut shadow = new_shadow();
        shadow.set_pm_base(0x600);
        for _ in 0..50 {
            let access = nvhv_pure_tests::legacy::access(&mut || random.word());
            shadow.write(&access, random.word());
            shadow.read(&access, random.word());
        }
        shadow.reset();
        assert_eq!(script(&shadow, random.word()), []);
    }
}

/// More I/O APICs than there is room for are told of.
#[test]
fn what_does_not_fit_is_reported() {
    let mut shadow = new_shadow();
    for page in 0..5 {
        assert!(shadow.report().all(|known| known.lost.is_none()));
        shadow.write(&Access::memory(0xfec0_0000 + page * 0x1000, 4, 0x10), 0);
    }
    assert!(shadow.report().any(|known| known.lost.is_some()));
}

/// Data registers are not written, but those that are a chip's only way to be told things.
#[test]
fn steps_are_to_known_places() {
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let mut shadow = new_shadow();
        for _ in 0..40 {
            let access = nvhv_pure_tests::legacy::access(&mut || random.word());
            shadow.write(&access, random.word());
        }
        let mut dlab = [false; 2];
        let mut rtc = 0;
        for step in script(&shadow, random.word()) {
            let (addr, value) = (step.access.addr, step.access.value);
            assert!(shadow.claims(&step.access));
            if step.action != Action::Write || step.access.space != Space::Port {
                continue;
            }
            match addr {
                0x3fb => dlab[0] = value & 0x80 != 0,
                0x2fb => dlab[1] = value & 0x80 != 0,
                0x3f8 => assert!(dlab[0], "THR"),
                0x2f8 => assert!(dlab[1], "THR"),
                0x64 => assert!(value < 0xf0, "a pulse of the reset line"),
                0x92 => assert_eq!(value & 1, 0),
                0x70 => rtc = value & 0x7f,
                0x71 => assert!(rtc != 0x0c && (rtc, value) != (0x0f, 0)),
                0x80 | 0xb2 | 0xb3 | 0xe9 | 0x402 | 0x505 | 0xcf9 => panic!("{addr:x}"),
                0x511..=0x51b => panic!("{addr:x}"),
                _ => {}
            }
        }
    }
}
