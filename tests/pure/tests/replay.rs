// SPDX-License-Identifier: GPL-2.0

//! Scripts as they are kept, and going through them with a VMM.

use nvhv_pure::shadow::replay::{decode, each, encode, STEP_LEN};
use nvhv_pure::shadow::{Access, Action, Full, Keep, Next, Replay, Sink, Space, Step};
use proptest::prelude::*;

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Write),
        Just(Action::Read),
        any::<u64>().prop_map(|mask| Action::Expect { mask }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let port = (0..0x1_0000u64, prop::sample::select(vec![1, 2, 4]));
    let memory = (any::<u64>(), prop::sample::select(vec![1, 2, 4, 8]));
    let place = prop_oneof![
        port.prop_map(|(addr, len)| (Space::Port, addr, len)),
        memory.prop_map(|(addr, len)| (Space::Memory, addr, len)),
    ];
    (place, any::<u64>(), action()).prop_map(|((space, addr, len), value, action)| Step {
        access: Access {
            space,
            addr,
            len,
            value,
        },
        action,
    })
}

fn kept(steps: &[Step]) -> Vec<u8> {
    let mut room = vec![0xaa; steps.len() * STEP_LEN];
    let mut keep = Keep::new(&mut room);
    for step in steps {
        keep.step(*step).expect("there is room for all");
    }
    assert_eq!(keep.left(), 0);
    room
}

proptest! {
    #[test]
    fn what_was_kept_is_read(step in step(), more in prop::collection::vec(any::<u8>(), 0..9)) {
        let mut bytes = encode(&step).to_vec();
        prop_assert_eq!(decode(&bytes), Some(step));
        bytes.extend(more);
        prop_assert_eq!(decode(&bytes), Some(step));
    }

    /// There is one form for each step.
    #[test]
    fn rubbish_is_refused_or_is_a_step(mut bytes in any::<[u8; STEP_LEN]>(), head in any::<[u8; 3]>(), plain in any::<bool>()) {
        if plain {
            // What is nearly a step.
            bytes[2..8].fill(0);
            bytes[16..].fill(0);
            bytes[24..27].copy_from_slice(&head.map(|byte| byte % 9));
        }
        if let Some(step) = decode(&bytes) {
            prop_assert_eq!(encode(&step), bytes);
        }
    }

    #[test]
    fn scripts_come_back_in_order(steps in prop::collection::vec(step(), 0..40), cut in 1..STEP_LEN) {
        let bytes = kept(&steps);
        let mut read = Vec::new();
        prop_assert_eq!(each(&bytes, |step| read.push(step)), Some(()));
        prop_assert_eq!(&read, &steps);

        let mut replay = Replay::new(&bytes[..]);
        for (number, step) in steps.iter().enumerate() {
            prop_assert_eq!(replay.steps(), number);
            prop_assert_eq!(replay.ask(), Next::Step(*step));
            prop_assert_eq!(replay.asked(), Some(*step));
            prop_assert_eq!(replay.answer(step.access.value), Ok(()));
            prop_assert_eq!(replay.asked(), None);
        }
        prop_assert_eq!(replay.ask(), Next::Done);
        prop_assert_eq!(replay.ask(), Next::Done);
        prop_assert_eq!(replay.asked(), None);
        prop_assert_eq!(replay.steps(), steps.len());

        if !bytes.is_empty() {
            prop_assert_eq!(each(&bytes[..bytes.len() - cut], |_| {}), None);
        }
    }

    /// Exactly the bits under the mask of an expectation count; those of other steps never do.
    #[test]
    fn answers_are_compared_under_the_mask(step in step(), answer in any::<u64>(), close in any::<bool>()) {
        let answer = if close { step.access.value ^ (answer & (answer << 1) & (answer << 2)) } else { answer };
        let bytes = kept(&[step]);
        let mut replay = Replay::new(&bytes[..]);
        replay.ask();
        let same = match step.action {
            Action::Expect { mask } => answer & mask == step.access.value & mask,
            Action::Write | Action::Read => true,
        };
        prop_assert_eq!(replay.answer(answer).is_ok(), same);
        prop_assert_eq!(replay.asked(), None);
    }
}

#[test]
fn each_rule_of_the_form_holds() {
    let step = Step {
        access: Access::memory(0xfee0_1234, 4, 0x5678),
        action: Action::Expect { mask: 0xff00 },
    };
    let good = encode(&step);
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        decode(&bytes)
    };
    assert_eq!(decode(&good), Some(step));
    for space in 2..=255 {
        assert_eq!(with(24, space), None, "space {space}");
    }
    for len in (0..=255).filter(|len| ![1, 2, 4, 8].contains(len)) {
        assert_eq!(with(25, len), None, "length {len}");
    }
    for action in 3..=255 {
        assert_eq!(with(26, action), None, "action {action}");
    }
    for at in 27..STEP_LEN {
        assert_eq!(with(at, 1), None, "padding at {at}");
    }
    // Only an expectation has a mask.
    assert_eq!(with(26, 0), None);
    assert_eq!(with(26, 2), None);
    let port = encode(&Step {
        access: Access::port(0xffff, 4, 1),
        action: Action::Write,
    });
    assert!(decode(&port).is_some());
    for (at, byte) in [(2, 1), (7, 1), (25, 8)] {
        let mut bytes = port;
        bytes[at] = byte;
        assert_eq!(decode(&bytes), None, "no port has {byte} at {at}");
    }
    for len in 0..STEP_LEN {
        assert_eq!(decode(&good[..len]), None, "{len} bytes");
    }
    // One bad step makes the script bad, wherever it is.
    let mut script = kept(&[step, step, step]);
    script[STEP_LEN + 24] = 2;
    let mut count = 0;
    assert_eq!(each(&script, |_| count += 1), None);
    assert_eq!(count, 1);
}

#[test]
fn a_full_room_keeps_what_was_there() {
    let step = |value| Step {
        access: Access::port(0x70, 1, value),
        action: Action::Write,
    };
    let mut room = [0xaa; 2 * STEP_LEN + STEP_LEN - 1];
    let mut keep = Keep::new(&mut room);
    assert_eq!(keep.step(step(1)), Ok(()));
    assert_eq!(keep.step(step(2)), Ok(()));
    assert_eq!(keep.step(step(3)), Err(Full));
    // A script that lacks a step does not go on.
    assert_eq!(keep.step(step(4)), Err(Full));
    assert_eq!(&room[..2 * STEP_LEN], kept(&[step(1), step(2)]));
    assert!(room[2 * STEP_LEN..].iter().all(|&byte| byte == 0xaa));
}

#[test]
fn a_difference_says_what_and_where() {
    let script = kept(&[
        Step {
            access: Access::port(0xcfc, 4, 0x1041_1af4),
            action: Action::Expect { mask: 0xffff_0000 },
        },
        Step {
            access: Access::memory(0xfeb0_0008, 4, 2),
            action: Action::Expect { mask: 0xffff_ffff },
        },
    ]);
    let mut replay = Replay::new(&script[..]);
    assert!(matches!(replay.ask(), Next::Step(_)));
    let why = replay.answer(0x1042_1af4).expect_err("another device");
    assert_eq!(
        why.to_string(),
        "port 0xcfc answers 0x10420000 where the image has 0x10410000 \
         (4 bytes, mask 0xffff0000)"
    );
    assert!(matches!(replay.ask(), Next::Step(_)));
    let why = replay.answer(1).expect_err("another device");
    assert!(why.to_string().contains("address 0xfeb00008 answers 0x1"));
}

#[test]
fn an_answer_to_nothing_is_none() {
    let mut replay = Replay::new(&[][..]);
    assert_eq!(replay.answer(7), Ok(()));
    assert_eq!(replay.ask(), Next::Done);
}
