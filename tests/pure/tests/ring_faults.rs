// SPDX-License-Identifier: GPL-2.0

//! Shadow rings between a driver and a device that break the rules: each rule by itself, then all.

use nvhv_pure::ring::{Completed, Fault, Layout, Memory, Occasion, Ring, Slot, View};
use nvhv_pure_tests::fuzz;
use nvhv_pure_tests::random::Random;
use nvhv_pure_tests::ring::{Ram, BASE};
use std::cell::RefCell;
use std::panic::catch_unwind;
use std::rc::Rc;

const PAGE: u64 = 4096;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Eight descriptors in a page of their own, the rings in the next two.
const LAYOUT: Layout = Layout {
    size: 8,
    desc: BASE,
    avail: BASE + PAGE,
    used: BASE + 2 * PAGE,
    event_idx: false,
    indirect: true,
};
/// Where nobody has anything yet: in the page of the available ring, and in a page like any other.
const IN_SHADOW: u64 = BASE + PAGE + 0x800;
const ELSEWHERE: u64 = BASE + 3 * PAGE;

struct Rig {
    ram: Ram,
    ring: Ring<Vec<Slot>>,
    made: u16,
    used: u16,
}

impl Rig {
    fn new(layout: Layout) -> Self {
        let ram = Ram::new(5, || 0);
        layout.pages().for_each(|page| ram.shadow(page));
        let mut ring = Ring::new(layout, vec![Slot::default(); 8]).expect("sound");
        ring.start(&ram).expect("RAM");
        Self {
            ram,
            ring,
            made: 0,
            used: 0,
        }
    }

    fn desc(&self, table: u64, index: u64, addr: u64, len: u32, flags: u16, next: u16) {
        let at = table + 16 * index;
        self.ram.put(View::Guest, at, &addr.to_le_bytes());
        self.ram.put(View::Guest, at + 8, &len.to_le_bytes());
        self.ram.put_u16(View::Guest, at + 12, flags);
        self.ram.put_u16(View::Guest, at + 14, next);
    }

    fn make(&mut self, head: u16) {
        let at = LAYOUT.avail + 4 + 2 * u64::from(self.made % 8);
        self.ram.put_u16(View::Guest, at, head);
        self.made = self.made.wrapping_add(1);
        self.ram.put_u16(View::Guest, LAYOUT.avail + 2, self.made);
    }

    fn submit(&mut self, head: u16) -> Result<u16, Fault> {
        self.make(head);
        self.ring.submit(&self.ram)
    }

    fn use_up(&mut self, ids: &[u32]) -> Result<Completed, Fault> {
        for id in ids {
            let at = LAYOUT.used + 4 + 8 * u64::from(self.used % 8);
            self.ram.put(View::Device, at, &id.to_le_bytes());
            self.used = self.used.wrapping_add(1);
        }
        self.ram.put_u16(View::Device, LAYOUT.used + 2, self.used);
        self.ring.complete(&self.ram, Occasion::Interrupt)
    }

    fn save(&self) -> Vec<u8> {
        let mut saved = vec![0; Ring::<Vec<Slot>>::saved_len(8)];
        let len = self.ring.save(&mut saved).expect("room");
        saved.truncate(len);
        saved
    }

    fn restore(&self, saved: &[u8]) -> Result<Ring<Vec<Slot>>, Fault> {
        Ring::restore(LAYOUT, vec![Slot::default(); 8], saved, &self.ram)
    }
}

fn chain_fault(why: &str, make: impl Fn(&Rig)) {
    let mut rig = Rig::new(LAYOUT);
    make(&rig);
    let fault = rig.submit(2).expect_err(why);
    assert!(
        matches!(fault, Fault::Chain { head: 2, why: found } if found.contains(why)),
        "{fault}"
    );
}

#[test]
fn a_driver_that_breaks_the_available_ring() {
    let mut rig = Rig::new(LAYOUT);
    assert_eq!(rig.submit(8), Err(Fault::NoSuchHead(8)));

    let mut rig = Rig::new(LAYOUT);
    assert_eq!(rig.submit(3), Ok(1));
    assert_eq!(rig.submit(3), Err(Fault::HeadInFlight(3)));

    let mut rig = Rig::new(LAYOUT);
    rig.made = 8;
    let ahead = Fault::TooManyAvailable { seen: 0, found: 9 };
    assert_eq!(rig.submit(0), Err(ahead));
    // It stays broken, and nothing is copied.
    let before: [u8; 64] = rig.ram.get(View::Guest, LAYOUT.used);
    assert_eq!(rig.use_up(&[0]), Err(ahead));
    assert_eq!(rig.ring.submit(&rig.ram), Err(ahead));
    assert_eq!(rig.ram.get::<64>(View::Guest, LAYOUT.used), before);
    assert!(matches!(rig.restore(&rig.save()), Err(Fault::Saved(_))));
}

#[test]
fn a_driver_that_breaks_a_chain() {
    chain_fault("loop", |rig| {
        rig.desc(LAYOUT.desc, 2, ELSEWHERE, 8, NEXT, 5);
        rig.desc(LAYOUT.desc, 5, ELSEWHERE, 8, NEXT, 2);
    });
    chain_fault("outside its table", |rig| {
        rig.desc(LAYOUT.desc, 2, ELSEWHERE, 8, NEXT, 8);
    });
    chain_fault("buffer wraps", |rig| {
        rig.desc(LAYOUT.desc, 2, u64::MAX - 3, 8, 0, 0);
    });
    chain_fault("goes on after", |rig| {
        rig.desc(LAYOUT.desc, 2, ELSEWHERE, 16, INDIRECT | NEXT, 3);
    });
    for len in [0, 15, 17, 16 * 65537] {
        chain_fault("length that no table has", |rig| {
            rig.desc(LAYOUT.desc, 2, ELSEWHERE, len, INDIRECT, 0);
        });
    }
    chain_fault("table wraps", |rig| {
        rig.desc(LAYOUT.desc, 2, u64::MAX - 15, 32, INDIRECT, 0);
    });
    chain_fault("where none is allowed", |rig| {
        rig.desc(LAYOUT.desc, 2, ELSEWHERE, 16, INDIRECT, 0);
        rig.desc(ELSEWHERE, 0, ELSEWHERE, 16, INDIRECT, 0);
    });
    chain_fault("outside its table", |rig| {
        rig.desc(LAYOUT.desc, 2, ELSEWHERE, 32, INDIRECT, 0);
        rig.desc(ELSEWHERE, 0, ELSEWHERE, 16, NEXT, 2);
    });
    chain_fault("loop", |rig| {
        rig.desc(LAYOUT.desc, 2, ELSEWHERE, 32, INDIRECT, 0);
        rig.desc(ELSEWHERE, 0, ELSEWHERE, 16, NEXT, 0);
    });

    let mut rig = Rig::new(LAYOUT);
    rig.desc(LAYOUT.desc, 2, 0x5000, 16, INDIRECT, 0);
    assert_eq!(rig.submit(2), Err(Fault::NotRam(0x5000)));

    // An indirect table that was not negotiated; and one behind an ordinary descriptor, which is right.
    let mut rig = Rig::new(Layout {
        indirect: false,
        ..LAYOUT
    });
    rig.desc(LAYOUT.desc, 2, ELSEWHERE, 16, INDIRECT, 0);
    assert!(matches!(rig.submit(2), Err(Fault::Chain { .. })));
    let mut rig = Rig::new(LAYOUT);
    rig.desc(LAYOUT.desc, 2, ELSEWHERE, 16, NEXT, 4);
    rig.desc(LAYOUT.desc, 4, ELSEWHERE, 16, INDIRECT, 0);
    rig.desc(ELSEWHERE, 0, ELSEWHERE, 16, WRITE, 0);
    assert_eq!(rig.submit(2), Ok(1));
}

#[test]
fn a_driver_that_makes_too_much_work() {
    // Each descriptor of a table claims the same four shadowed kilobytes.
    let mut rig = Rig::new(LAYOUT);
    let table = |rig: &Rig, entries: u64| {
        for entry in 0..entries {
            rig.desc(ELSEWHERE, entry, BASE + PAGE, 4096, NEXT, entry as u16 + 1);
        }
        rig.desc(ELSEWHERE, entries, BASE + PAGE, 4096, 0, 0);
    };
    table(&rig, 255);
    rig.desc(LAYOUT.desc, 2, ELSEWHERE, 4096, INDIRECT, 0);
    assert_eq!(rig.submit(2), Ok(1));

    let ram = Ram::new(300, || 0);
    let rings = BASE + 290 * PAGE;
    let layout = Layout {
        avail: rings,
        used: rings + PAGE,
        ..LAYOUT
    };
    layout.pages().for_each(|page| ram.shadow(page));
    let ring = Ring::new(layout, vec![Slot::default(); 8]).expect("sound");
    let mut rig = Rig {
        ram,
        ring,
        made: 0,
        used: 0,
    };
    for entry in 0..8192 {
        rig.desc(ELSEWHERE, entry, rings, 4096, NEXT, entry as u16 + 1);
    }
    rig.desc(LAYOUT.desc, 2, ELSEWHERE, 16 * 8192, INDIRECT, 0);
    rig.ram.put_u16(View::Guest, rings + 4, 2);
    rig.ram.put_u16(View::Guest, rings + 2, 1);
    assert_eq!(rig.ring.submit(&rig.ram), Err(Fault::TooMuchWork));
}

#[test]
fn a_device_that_breaks_the_used_ring() {
    let mut rig = Rig::new(LAYOUT);
    assert_eq!(rig.submit(3), Ok(1));
    assert_eq!(rig.use_up(&[4]), Err(Fault::NotInFlight(4)));

    let mut rig = Rig::new(LAYOUT);
    assert_eq!(rig.submit(3), Ok(1));
    let id = 0x1_0003;
    assert_eq!(rig.use_up(&[id]), Err(Fault::NotInFlight(id)));

    let mut rig = Rig::new(LAYOUT);
    assert_eq!(rig.submit(3), Ok(1));
    let many = Fault::TooManyUsed { seen: 0, found: 2 };
    assert_eq!(rig.use_up(&[3, 3]), Err(many));

    // Twice in one batch: none of it is shown.
    let mut rig = Rig::new(LAYOUT);
    assert_eq!((rig.submit(3), rig.submit(5)), (Ok(1), Ok(1)));
    assert_eq!(rig.use_up(&[3, 3]), Err(Fault::NotInFlight(3)));
    assert_eq!(rig.ram.get_u16(View::Guest, LAYOUT.used + 2), 0);

    let mut rig = Rig::new(LAYOUT);
    assert_eq!((rig.submit(3), rig.submit(5)), (Ok(1), Ok(1)));
    assert_eq!(rig.use_up(&[5, 3]).expect("sound").count, 2);
    assert_eq!(rig.submit(3), Ok(1));
}

#[test]
fn what_was_published_at_once_is_seen_at_once() {
    // Network devices spread a packet over several requests (virtio 1.3, section 5.1.6.4).
    let mut rig = Rig::new(LAYOUT);
    for head in [4, 1, 7] {
        assert_eq!(rig.submit(head), Ok(1));
    }
    let ram = Rc::new(rig.ram);
    for (at, id) in (0..).zip([7u32, 4, 1]) {
        let elem = LAYOUT.used + 4 + 8 * at;
        ram.put(View::Device, elem, &id.to_le_bytes());
    }
    ram.put_u16(View::Device, LAYOUT.used + 2, 3);
    let seen = Rc::new(RefCell::new(Vec::new()));
    look(&ram, &seen);
    assert_eq!(
        rig.ring
            .complete(&*ram, Occasion::Interrupt)
            .expect("sound")
            .count,
        3
    );
    let seen = seen.take();
    let shown = seen.iter().filter(|idx| **idx == 3).count();
    assert!(shown > 0 && shown < seen.len(), "{seen:?}");
    assert!(seen.iter().all(|idx| *idx == 0 || *idx == 3), "{seen:?}");

    /// Looks at the guest's used index at each access from now on.
    fn look(ram: &Rc<Ram>, seen: &Rc<RefCell<Vec<u16>>>) {
        let (again, seen) = (ram.clone(), seen.clone());
        let meanwhile = move || {
            let idx = again.get_u16(View::Guest, LAYOUT.used + 2);
            seen.borrow_mut().push(idx);
            look(&again, &seen);
        };
        ram.at_access(1, Some(Box::new(meanwhile)));
    }
}

#[test]
fn a_buffer_over_the_rings_changes_neither() {
    let mut rig = Rig::new(LAYOUT);
    rig.desc(LAYOUT.desc, 1, LAYOUT.avail, 4096, NEXT | WRITE, 2);
    rig.desc(LAYOUT.desc, 2, LAYOUT.used, 4096, WRITE, 0);
    rig.ram.put_u16(View::Guest, LAYOUT.avail, 1);
    assert_eq!(rig.submit(1), Ok(1));
    assert_eq!(rig.ram.get_u16(View::Device, LAYOUT.avail), 0);
    assert_eq!(rig.ram.get_u16(View::Device, LAYOUT.avail + 2), 1);
    rig.ram.put(View::Device, IN_SHADOW, b"answer");
    rig.ram.put(View::Device, LAYOUT.used + 2048, b"here");
    rig.ram.put_u16(View::Device, LAYOUT.used, 1);
    assert!(!rig.use_up(&[1]).expect("sound").interrupt);
    assert_eq!(rig.ram.get(View::Guest, IN_SHADOW), *b"answer");
    assert_eq!(rig.ram.get(View::Guest, LAYOUT.used + 2048), *b"here");
    assert_eq!(rig.ram.get_u16(View::Guest, LAYOUT.used), 0);
    assert_eq!(rig.ram.get_u16(View::Guest, LAYOUT.used + 2), 1);
    assert_eq!(rig.ram.get_u16(View::Guest, LAYOUT.avail), 1);
}

#[test]
fn pages_shadowed_later_are_looked_at_again() {
    let mut rig = Rig::new(LAYOUT);
    rig.desc(LAYOUT.desc, 1, ELSEWHERE, 16, WRITE, 0);
    assert_eq!(rig.submit(1), Ok(1));
    rig.ram.shadow(ELSEWHERE);
    rig.ring.look_again(&rig.ram).expect("sound");
    rig.ram.put(View::Device, ELSEWHERE, b"answer");
    assert_eq!(rig.use_up(&[1]).expect("sound").count, 1);
    assert_eq!(rig.ram.get(View::Guest, ELSEWHERE), *b"answer");
}

#[test]
fn damaged_records_are_refused() {
    let mut rig = Rig::new(LAYOUT);
    for head in [6, 0, 3] {
        assert_eq!(rig.submit(head), Ok(1));
    }
    let saved = rig.save();
    assert_eq!(rig.restore(&saved).expect("sound").in_flight(), 3);
    for len in 0..saved.len() {
        assert!(matches!(rig.restore(&saved[..len]), Err(Fault::Saved(_))));
    }
    for at in 0..saved.len() {
        for bit in 0..8 {
            let mut damaged = saved.clone();
            damaged[at] ^= 1 << bit;
            match rig.restore(&damaged) {
                Err(Fault::Saved(_)) => {}
                // Another head is as good as the one that was there.
                Ok(_) => assert!(at >= 40, "{at}"),
                Err(fault) => panic!("{at}: {fault}"),
            }
        }
    }
    // The guest's memory is of another time.
    rig.ram.put_u16(View::Guest, LAYOUT.used + 2, 4);
    assert!(matches!(rig.restore(&saved), Err(Fault::Saved(_))));
    rig.ram.put_u16(View::Guest, LAYOUT.used + 2, 0xffff);
    assert!(matches!(rig.restore(&saved), Err(Fault::Saved(_))));
    rig.ram.put_u16(View::Guest, LAYOUT.used + 2, 1);
    rig.ram.put(View::Guest, LAYOUT.used + 4, &[1, 0, 0, 0]);
    assert_eq!(rig.restore(&saved).err(), Some(Fault::NotInFlight(1)));
    // It saw a request as used that the record still has.
    rig.ram.put(View::Guest, LAYOUT.used + 4, &[0, 0, 0, 0]);
    let ring = rig.restore(&saved).expect("sound");
    assert_eq!(ring.in_flight(), 2);
    assert_eq!(rig.ram.get_u16(View::Device, LAYOUT.avail + 2), 2);
    assert_eq!(rig.ram.get_u16(View::Device, LAYOUT.avail + 4), 6);
    assert_eq!(rig.ram.get_u16(View::Device, LAYOUT.avail + 6), 3);
}

#[test]
fn the_look_through_pages_is_the_same_as_the_search() {
    struct Plain<'a>(&'a Ram);
    impl Memory for Plain<'_> {
        fn read(&self, view: View, gpa: u64, out: &mut [u8]) -> Option<()> {
            self.0.read(view, gpa, out)
        }
        fn write(&self, view: View, gpa: u64, data: &[u8]) -> Option<()> {
            self.0.write(view, gpa, data)
        }
        fn load_u16(&self, view: View, gpa: u64) -> Option<u16> {
            self.0.load_u16(view, gpa)
        }
        fn store_u16(&self, view: View, gpa: u64, value: u16) -> Option<()> {
            self.0.store_u16(view, gpa, value)
        }
        fn fence(&self) {}
        fn is_shadowed(&self, gpa: u64) -> bool {
            self.0.is_shadowed(gpa)
        }
    }
    let ram = Ram::new(8, || 0);
    [1, 2, 6]
        .iter()
        .for_each(|page| ram.shadow(BASE + page * PAGE));
    for first in (0..9 * PAGE).step_by(1024) {
        for last in (first..9 * PAGE).step_by(1000) {
            let (first, last) = (BASE + first, BASE + last);
            let found = Plain(&ram).next_shadowed(first, last);
            assert_eq!(found, ram.next_shadowed(first, last), "{first:x} {last:x}");
        }
    }
    assert_eq!(Plain(&ram).next_shadowed(u64::MAX - 9, u64::MAX), None);
}

#[test]
fn all_rules_broken_at_random() {
    let rounds = std::env::var("FUZZ_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60_000);
    for round in 0..rounds {
        let mut random = Random::new(round);
        let len = 40 + random.below(1500);
        let data: Vec<u8> = (0..len).map(|_| random.word() as u8).collect();
        let done = catch_unwind(|| fuzz::ring(&data));
        assert!(done.is_ok(), "round {round}");
    }
}
