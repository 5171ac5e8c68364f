// SPDX-License-Identifier: GPL-2.0

//! A driver and a device that keep no rule at all.

use super::{Desc, Ram, BASE, INDIRECT, PAGE};
use nvhv_pure::ring::{Layout, Memory, Occasion, Request, Ring, Slot, View};
use std::cell::{Cell, RefCell};

const PAGES: u64 = 6;
/// More accesses than any call on a ring this small may make.
const ACCESSES_MAX: u64 = 3_000_000;

/// RAM whose content changes between accesses, as `data` says.
struct Changing<'a> {
    ram: Ram,
    layout: Layout,
    data: RefCell<&'a [u8]>,
    accesses: Cell<u64>,
}

impl Changing<'_> {
    fn next(&self) -> Option<u8> {
        let mut data = self.data.borrow_mut();
        let (&byte, rest) = data.split_first()?;
        *data = rest;
        Some(byte)
    }

    /// Lets either side change something: mostly such that the ring goes on for a while.
    fn change(&self) {
        self.accesses.set(self.accesses.get() + 1);
        assert!(self.accesses.get() < ACCESSES_MAX, "it does not end");
        let Some(what) = self.next() else { return };
        if what < 0xd0 {
            return;
        }
        let (place, value) = (self.next().unwrap_or(0), self.next().unwrap_or(0));
        let at = &self.layout;
        let entry = u64::from(place) % u64::from(at.size);
        let head = u16::from(value) % (at.size + u16::from(value > 250));
        let (view, gpa, value) = match what & 15 {
            0..5 => (View::Guest, at.avail + 2, 1 + u16::from(value > 250)),
            5 | 6 => (View::Guest, at.avail + 4 + 2 * entry, head),
            7..9 => (View::Device, at.used + 2, u16::from(value < 200)),
            9..13 => (View::Device, at.used + 4 + 8 * entry, head),
            13 | 14 => (View::Guest, BASE + 8 * u64::from(place), u16::from(value)),
            _ => (View::Device, BASE + 8 * u64::from(place), u16::from(value)),
        };
        let mut bytes = [0; 2];
        if !self.ram.peek(view, gpa, &mut bytes) {
            return;
        }
        let value = match what & 15 {
            // Indexes count.
            0..5 | 7..9 => u16::from_le_bytes(bytes).wrapping_add(value),
            _ => value,
        };
        self.ram.poke(view, gpa, &value.to_le_bytes());
    }
}

impl Memory for Changing<'_> {
    fn read(&self, view: View, gpa: u64, out: &mut [u8]) -> Option<()> {
        self.change();
        self.ram.peek(view, gpa, out).then_some(())
    }

    fn write(&self, view: View, gpa: u64, data: &[u8]) -> Option<()> {
        self.change();
        self.ram.poke(view, gpa, data).then_some(())
    }

    fn load_u16(&self, view: View, gpa: u64) -> Option<u16> {
        let mut bytes = [0; 2];
        self.read(view, gpa, &mut bytes)?;
        Some(u16::from_le_bytes(bytes))
    }

    fn store_u16(&self, view: View, gpa: u64, value: u16) -> Option<()> {
        self.write(view, gpa, &value.to_le_bytes())
    }

    fn fence(&self) {
        self.change();
    }

    fn is_shadowed(&self, gpa: u64) -> bool {
        self.ram.is_shadowed(gpa)
    }

    fn next_shadowed(&self, first: u64, last: u64) -> Option<u64> {
        self.ram.next_shadowed(first, last)
    }
}

/// Works with a ring in RAM that says, and goes on to say, what `data` wants.
///
/// Head: the size, the feature bits, where the parts are, descriptors, a record; then calls, with
/// changes of the RAM at each access between them.
pub fn ring(data: &[u8]) {
    let [shape, desc, avail, used, rest @ ..] = data else {
        return;
    };
    let at = |byte: u8, align: u64| BASE + u64::from(byte) * 16 / align * align;
    let layout = Layout {
        size: 1 << (shape & 3),
        desc: at(*desc, 16),
        avail: at(*avail, 2),
        used: at(*used, 4),
        event_idx: shape & 4 != 0,
        indirect: shape & 8 != 0,
    };
    let (descs, rest) = rest.split_at(rest.len().min(6 * usize::from(layout.size) + 96));
    let (saved, rest) = rest.split_at(rest.len().min(4 * usize::from(shape >> 4)));
    let ram = Ram::new(PAGES, || 0);
    // The table, and what may be taken for an indirect one behind it.
    for (i, raw) in (0..).zip(descs.chunks_exact(6)) {
        let addr = BASE + u64::from(u16::from_le_bytes([raw[0], raw[1]])) % (PAGES * PAGE + 64);
        let desc = Desc {
            addr: if raw[2] == 0xff {
                u64::MAX - addr
            } else {
                addr
            },
            len: u32::from(raw[2]) << if raw[5] & 7 == 0 { 24 } else { 4 },
            flags: match raw[3] & 0x78 {
                0 => u16::from(raw[3] & 7),
                0x40 => INDIRECT,
                _ => u16::from(raw[3] & 2) | u16::from(raw[5] > 200),
            },
            next: u16::from(raw[4]) % (layout.size + u16::from(raw[5] > 250)),
        };
        ram.poke(View::Guest, layout.desc + 16 * i, &desc.to_bytes());
    }
    layout.pages().for_each(|page| ram.shadow(page));
    if shape & 0x40 != 0 {
        layout.table_pages().for_each(|page| ram.shadow(page));
    }
    ram.shadow(BASE + 2 * PAGE);
    let m = Changing {
        ram,
        layout,
        data: RefCell::new(rest),
        accesses: Cell::new(0),
    };
    let slots = || vec![Slot::default(); usize::from(layout.size)];
    let Ok(mut ring) = Ring::new(layout, slots()) else {
        assert_eq!(layout.pages().count(), 0);
        return;
    };
    let _ = Ring::restore(layout, slots(), saved, &m);
    let mut fault = ring.start(&m).err();
    for _ in 0..64 {
        let now = match m.next() {
            None => break,
            Some(0..100) => ring.submit(&m).err(),
            Some(100..180) => ring.complete(&m, Occasion::Interrupt).err(),
            Some(180..190) => ring.complete(&m, Occasion::Other).err(),
            Some(190..200) => ring.expects_interrupt(&m).err(),
            Some(200..210) => ring.look_again(&m).err(),
            Some(210..218) => ring.tell(&m, [&[1, 2], &[3]], true).err(),
            Some(218..226) => ring.told(&m).err(),
            Some(226..228) => ring.told_all(&m).err(),
            Some(228..230) => {
                ring.give_up_telling();
                fault
            }
            Some(230..240) => {
                let seen = |request: Request<'_, _>| {
                    let read = request.read(&mut [0; 40]);
                    assert!(read.is_none_or(|(len, _)| len <= 1 << 43));
                };
                ring.complete_seen(&m, Occasion::Interrupt, seen).err()
            }
            Some(how) => {
                let mut saved = vec![0; Ring::<Vec<Slot>>::saved_len(layout.size)];
                let len = ring.save(&mut saved).expect("room");
                if fault.is_none() {
                    let restore = match how & 1 {
                        0 => Ring::restore,
                        _ => Ring::restore_telling,
                    };
                    match restore(layout, slots(), &saved[..len], &m) {
                        Ok(restored) => ring = restored,
                        Err(_) => return,
                    }
                }
                fault
            }
        };
        assert!(ring.in_flight() <= layout.size);
        // A fault stays.
        assert!(fault.is_none() || fault == now, "{fault:?}, then {now:?}");
        fault = now;
    }
}
