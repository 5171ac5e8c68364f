// SPDX-License-Identifier: GPL-2.0

//! The tables of beginnings and ends, row by row.

use nvhv_pure::life::{
    asks_s5, claim, end_of_life, may_act_on, Claim, Claimant, Denied, End, Exit, Found, GuestEnd,
    Name, Policy, Verdict, Why,
};

const GUEST: [GuestEnd; 6] = [
    GuestEnd::None,
    GuestEnd::TripleFault,
    GuestEnd::PowerOff,
    GuestEnd::Reset,
    GuestEnd::Crash,
    GuestEnd::AcpiS5,
];

fn end(guest: GuestEnd, exit: Exit) -> End {
    End {
        guest,
        exit,
        was_signalled: false,
        host_going_down: false,
    }
}

#[test]
fn a_guest_that_powered_off_is_discarded_however_its_vmm_ends() {
    for guest in [GuestEnd::PowerOff, GuestEnd::AcpiS5] {
        for exit in [
            Exit::Signal(9),
            Exit::Code(0),
            Exit::Code(1),
            Exit::Exec,
            Exit::Closed,
        ] {
            for bits in 0..4 {
                let end = End {
                    was_signalled: bits & 1 != 0,
                    host_going_down: bits & 2 != 0,
                    ..end(guest, exit)
                };
                assert_eq!(end_of_life(&end), Verdict::Discard(Why::GuestPoweredOff));
            }
        }
    }
}

#[test]
fn a_vmm_killed_by_any_signal_is_kept() {
    for signal in 1..65 {
        for guest in [
            GuestEnd::None,
            GuestEnd::Reset,
            GuestEnd::TripleFault,
            GuestEnd::Crash,
        ] {
            let end = end(guest, Exit::Signal(signal));
            assert_eq!(end_of_life(&end), Verdict::Keep(Why::Killed));
        }
    }
}

#[test]
fn a_vmm_that_was_told_to_end_is_kept() {
    for exit in [Exit::Code(0), Exit::Code(143), Exit::Closed, Exit::Exec] {
        let end = End {
            was_signalled: true,
            ..end(GuestEnd::None, exit)
        };
        assert_eq!(end_of_life(&end), Verdict::Keep(Why::Told));
    }
}

#[test]
fn a_host_that_goes_down_keeps_all_that_did_not_power_off() {
    for exit in [Exit::Signal(15), Exit::Code(0), Exit::Closed, Exit::Exec] {
        for guest in [
            GuestEnd::None,
            GuestEnd::Reset,
            GuestEnd::TripleFault,
            GuestEnd::Crash,
        ] {
            let end = End {
                host_going_down: true,
                ..end(guest, exit)
            };
            assert_eq!(end_of_life(&end), Verdict::Keep(Why::HostGoesDown));
        }
    }
}

#[test]
fn a_vmm_that_ends_on_its_own_is_discarded() {
    let cases = [
        (Exit::Code(0), Why::VmmEnded),
        (Exit::Closed, Why::VmmClosed),
        (Exit::Exec, Why::VmmClosed),
    ];
    for (exit, why) in cases {
        assert_eq!(
            end_of_life(&end(GuestEnd::None, exit)),
            Verdict::Discard(why)
        );
    }
}

#[test]
fn a_vmm_that_fails_is_kept() {
    let end = end(GuestEnd::None, Exit::Code(1));
    assert_eq!(end_of_life(&end), Verdict::Keep(Why::VmmFailed));
}

#[test]
fn a_guest_that_reset_and_whose_vmm_ended_is_discarded() {
    for guest in [GuestEnd::TripleFault, GuestEnd::Reset, GuestEnd::Crash] {
        for exit in [Exit::Code(0), Exit::Code(1), Exit::Closed] {
            let verdict = end_of_life(&end(guest, exit));
            assert_eq!(verdict, Verdict::Discard(Why::GuestFailed));
        }
    }
}

#[test]
fn every_row_says_why() {
    for guest in GUEST {
        let verdict = end_of_life(&end(guest, Exit::Code(0)));
        assert!(verdict.to_string().len() > 15);
    }
}

const ME: u32 = 1000;

fn me(policy: Policy) -> Claimant {
    Claimant {
        uid: ME,
        admin: false,
        policy,
    }
}

#[test]
fn claims() {
    let denied = Claim::Denied;
    let (uid, cold) = (ME, Policy::TORN_COLD);
    let rows = [
        (Found::Nothing, Claim::New, Claim::New),
        (
            Found::Here { uid },
            denied(Denied::Busy),
            denied(Denied::Busy),
        ),
        (
            Found::Copied { uid },
            denied(Denied::Copied),
            denied(Denied::Copied),
        ),
        (Found::Sealed { uid }, Claim::Resume, Claim::Resume),
        (Found::Torn { uid }, denied(Denied::Torn), Claim::ColdStart),
        (
            Found::Mismatch { uid },
            denied(Denied::Mismatch),
            Claim::ColdStart,
        ),
        (
            Found::Unsaved { uid },
            denied(Denied::Unsaved),
            Claim::ColdStart,
        ),
        (
            Found::Discarding,
            denied(Denied::Discarding),
            denied(Denied::Discarding),
        ),
        (
            Found::Damaged { uid: Some(uid) },
            denied(Denied::Damaged),
            denied(Denied::Damaged),
        ),
        (
            Found::Damaged { uid: None },
            denied(Denied::Damaged),
            denied(Denied::Damaged),
        ),
    ];
    for (found, refuse, start_cold) in rows {
        assert_eq!(claim(&me(Policy::default()), found), refuse, "{found:?}");
        assert_eq!(claim(&me(cold), found), start_cold, "{found:?} cold");
    }
}

#[test]
fn another_user_gets_nothing_and_learns_nothing() {
    let uid = ME + 1;
    let theirs = [
        Found::Here { uid },
        Found::Copied { uid },
        Found::Sealed { uid },
        Found::Torn { uid },
        Found::Mismatch { uid },
        Found::Unsaved { uid },
        Found::Damaged { uid: Some(uid) },
    ];
    for found in theirs {
        for policy in [Policy::default(), Policy::TORN_COLD] {
            let denied = Claim::Denied(Denied::NotOwner);
            assert_eq!(claim(&me(policy), found), denied);
            let admin = Claimant {
                admin: true,
                ..me(policy)
            };
            assert_ne!(claim(&admin, found), denied);
        }
    }
    assert!(may_act_on(ME, false, ME));
    assert!(!may_act_on(0, false, ME), "root without the capability");
    assert!(may_act_on(1, true, ME));
}

#[test]
fn denials_have_their_errno() {
    let errnos = [
        (Denied::Busy, 16),
        (Denied::Copied, 16),
        (Denied::NotOwner, 1),
        (Denied::Torn, 117),
        (Denied::Damaged, 117),
        (Denied::Mismatch, 18),
        (Denied::Unsaved, 117),
        (Denied::Discarding, 16),
    ];
    for (denied, errno) in errnos {
        assert_eq!(denied.errno(), errno);
        assert!(!denied.to_string().is_empty());
    }
}

#[test]
fn names() {
    for good in ["a", "_", "redis-1", "a.b_c-d", "0", &"x".repeat(63)] {
        let name = Name::new(good.as_bytes()).expect(good);
        assert_eq!(name.as_str(), good);
        assert_eq!(Name::from_field(name.field()), Ok(name));
    }
    for bad in [
        "",
        ".",
        "..",
        "-a",
        ".a",
        "a b",
        "a/b",
        "#1",
        "é",
        "a\n",
        &"x".repeat(64),
    ] {
        assert!(Name::new(bad.as_bytes()).is_err(), "{bad:?}");
    }
    let mut field = [0; 64];
    field[..3].copy_from_slice(b"a\0b");
    assert!(Name::from_field(&field).is_err());
    assert!(Name::from_field(&[b'x'; 64]).is_err());
}

#[test]
fn policies() {
    assert_eq!(Policy::from_bits(1), Some(Policy::TORN_COLD));
    assert_eq!(Policy::from_bits(2), Some(Policy::PARTIAL));
    assert_eq!(Policy::from_bits(4), Some(Policy::WRITE_THROUGH));
    assert_eq!(Policy::from_bits(8), Some(Policy::NOT_MOVED));
    assert_eq!(Policy::from_bits(16), None);
    let both = Policy::TORN_COLD.with(Policy::WRITE_THROUGH);
    assert_eq!(both.bits(), 5);
    assert!(both.has(Policy::TORN_COLD) && !both.has(Policy::PARTIAL));
    assert!(!Policy::default().has(Policy::TORN_COLD));
    assert_eq!(both.with(Policy::NOT_MOVED).lasting(), both);
}

#[test]
fn soft_off() {
    // What QEMU's q35 guests write: SLP_TYP 0 and SLP_EN, above what the register had (SCI_EN).
    assert!(asks_s5(0x604, &[0x01, 0x20]));
    assert!(asks_s5(0xb004, &[0x00, 0x20]));
    // First SLP_TYP alone, as Linux does: not yet.
    assert!(!asks_s5(0x604, &[0x01, 0x00]));
    // S3.
    assert!(!asks_s5(0x604, &[0x01, 0x24]));
    // Another port, another width.
    assert!(!asks_s5(0x608, &[0x01, 0x20]));
    assert!(!asks_s5(0x604, &[0x20]));
    assert!(!asks_s5(0x604, &[0x01, 0x20, 0, 0]));
    // Hardware-reduced ACPI: SLP_TYP 5 with SLP_EN, without it, and S3; another width.
    assert!(asks_s5(0x600, &[0x34]));
    assert!(!asks_s5(0x600, &[0x14]));
    assert!(!asks_s5(0x600, &[0x24]));
    assert!(!asks_s5(0x600, &[0, 0x34]));
}
