// SPDX-License-Identifier: GPL-2.0

//! A driver (virtio 1.3, sections 2.7.13 and 2.7.14).

use super::{passed, pattern, Desc, Ram, BASE, INDIRECT, NEXT, PAGE, WRITE};
use crate::random::Random;
use nvhv_pure::ring::{Layout, Memory, View};
use std::collections::BTreeMap;
use std::rc::Rc;

const GUEST: View = View::Guest;

/// A driver, and all that it has under way.
pub struct Driver {
    layout: Layout,
    ram: Rc<Ram>,
    random: Random,
    free: Vec<u16>,
    /// Bytes of RAM that are in use now, and that ever were.
    taken: Vec<bool>,
    ever: Vec<bool>,
    /// What RAM was filled with.
    fill: Vec<u8>,
    /// The available ring and descriptor table, as the driver left them.
    avail: Vec<u8>,
    descs: Vec<u8>,
    avail_idx: u16,
    last_used: u16,
    requests: BTreeMap<u16, Request>,
    /// Heads of requests, the oldest first.
    order: Vec<u16>,
    next_id: u32,
    done: u64,
    /// What the driver asks for in `used_event`, or in the flags.
    quiet: bool,
}

struct Request {
    id: u32,
    descs: Vec<u16>,
    areas: Vec<(u64, u64)>,
    writable: Vec<(u64, u32)>,
}

impl Driver {
    /// A driver that has just set its queue up.
    pub fn new(layout: Layout, ram: Rc<Ram>, seed: u64) -> Self {
        let len = ram.len() as usize;
        let s = u64::from(layout.size);
        let parts = [
            (layout.desc, 16 * s),
            (layout.avail, if layout.event_idx { 6 } else { 4 } + 2 * s),
            (layout.used, if layout.event_idx { 6 } else { 4 } + 8 * s),
        ];
        let mut taken = vec![false; len];
        for (at, len) in parts {
            taken[(at - BASE) as usize..(at - BASE + len) as usize].fill(true);
            ram.put(GUEST, at, &vec![0; len as usize]);
        }
        let mut fill = vec![0; len];
        ram.peek(GUEST, BASE, &mut fill);
        Self {
            layout,
            random: Random::new(seed),
            free: (0..layout.size).collect(),
            ever: taken.clone(),
            taken,
            fill,
            avail: vec![0; parts[1].1 as usize],
            descs: vec![0; parts[0].1 as usize],
            avail_idx: 0,
            last_used: 0,
            requests: BTreeMap::new(),
            order: Vec::new(),
            next_id: 1,
            done: 0,
            quiet: false,
            ram,
        }
    }

    /// How many requests are done.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// How many requests are under way.
    pub fn waiting(&self) -> usize {
        self.requests.len()
    }

    /// Heads of the requests that the driver cannot see as used, the oldest first.
    pub fn outstanding(&self) -> Vec<u16> {
        let used = self.ram.get_u16(GUEST, self.layout.used + 2);
        let mut order = self.order.clone();
        let mut at = self.last_used;
        while at != used {
            let (id, _) = self.used_elem(at);
            order.retain(|head| u32::from(*head) != id);
            at = at.wrapping_add(1);
        }
        order
    }

    /// Makes up to `n` requests available. Whether it kicks.
    pub fn make(&mut self, n: u64) -> bool {
        let old = self.avail_idx;
        for _ in 0..n {
            if self.make_one().is_none() {
                break;
            }
        }
        if self.avail_idx == old {
            return false;
        }
        self.put_avail(2, self.avail_idx);
        if self.layout.event_idx {
            let at = self.layout.used + 4 + 8 * u64::from(self.layout.size);
            passed(self.ram.get_u16(GUEST, at), old, self.avail_idx)
        } else {
            self.ram.get_u16(GUEST, self.layout.used) & 1 == 0
        }
    }

    fn make_one(&mut self) -> Option<()> {
        let id = self.next_id;
        let mut buffers = vec![(4 + self.random.below(40), 0)];
        for _ in 0..self.random.below(4) {
            let len = match self.random.below(8) {
                0 => 1 + self.random.below(5000),
                _ => 1 + self.random.below(64),
            };
            buffers.push((len, WRITE));
        }
        let indirect = self.layout.indirect && self.random.below(2) == 0;
        let table = 16 * buffers.len() as u64;
        let direct = if indirect { 1 } else { buffers.len() };
        if self.free.len() < direct {
            buffers.truncate(self.free.len());
        }
        if buffers.is_empty() {
            return None;
        }
        let mut areas = Vec::new();
        for &(len, _) in &buffers {
            match self.take(len) {
                Some(at) => areas.push((at, len)),
                None => break,
            }
        }
        let table_at = indirect.then(|| self.take(table));
        if areas.len() < buffers.len() || table_at == Some(None) {
            if let Some(Some(at)) = table_at {
                areas.push((at, table));
            }
            self.give_back(&areas);
            return None;
        }
        let table_at = table_at.flatten();
        // Anywhere in the table, not in order.
        let mut descs = Vec::new();
        for _ in 0..if indirect { 1 } else { buffers.len() } {
            let at = self.random.below(self.free.len() as u64) as usize;
            descs.push(self.free.swap_remove(at));
        }
        let mut writable = Vec::new();
        let mut before = 0;
        for (i, (&(at, len), &(_, flags))) in areas.iter().zip(&buffers).enumerate() {
            let data: Vec<u8> = if flags & WRITE != 0 {
                writable.push((at, len as u32));
                let bytes = (before..).take(len as usize);
                before += len as usize;
                bytes.map(|n| pattern(2, id, n)).collect()
            } else {
                let bytes = (0..len as usize).map(|n| pattern(0, id, n));
                let mut data: Vec<u8> = bytes.collect();
                data[..4].copy_from_slice(&id.to_le_bytes());
                data
            };
            self.ram.put(GUEST, at, &data);
            let last = i + 1 == buffers.len();
            let next = if table_at.is_some() {
                i as u16 + 1
            } else {
                descs.get(i + 1).copied().unwrap_or(0x7777)
            };
            let desc = Desc {
                addr: at,
                len: len as u32,
                flags: flags | if last { 0 } else { NEXT },
                next,
            };
            match table_at {
                Some(table) => self.ram.put(GUEST, table + 16 * i as u64, &desc.to_bytes()),
                None => self.put_desc(descs[i], desc),
            }
        }
        if let Some(table_at) = table_at {
            let desc = Desc {
                addr: table_at,
                len: table as u32,
                flags: INDIRECT,
                next: 0x7777,
            };
            self.put_desc(descs[0], desc);
            areas.push((table_at, table));
        }
        let head = descs[0];
        self.put_avail(4 + 2 * (self.avail_idx & (self.layout.size - 1)), head);
        self.avail_idx = self.avail_idx.wrapping_add(1);
        self.next_id += 1;
        self.order.push(head);
        let request = Request {
            id,
            descs,
            areas,
            writable,
        };
        assert!(self.requests.insert(head, request).is_none());
        Some(())
    }

    /// Takes what was used, and checks it.
    pub fn take_used(&mut self) {
        loop {
            let used = self.ram.get_u16(GUEST, self.layout.used + 2);
            if used == self.last_used {
                break;
            }
            let (id, len) = self.used_elem(self.last_used);
            let head = u16::try_from(id).expect("a head");
            let request = self.requests.remove(&head).expect("used once");
            self.order.retain(|other| *other != head);
            let mut at = 0;
            for &(gpa, room) in &request.writable {
                let mut data = vec![0; room as usize];
                self.ram.peek(GUEST, gpa, &mut data);
                for byte in data {
                    let kind = if at < len as usize { 1 } else { 2 };
                    assert_eq!(byte, pattern(kind, request.id, at), "byte {at} of {len}");
                    at += 1;
                }
            }
            self.give_back(&request.areas);
            self.free.extend(request.descs);
            self.last_used = self.last_used.wrapping_add(1);
            self.done += 1;
        }
    }

    /// Takes what was used, as long as it asks for no interrupt at the next one.
    pub fn interrupt(&mut self) {
        self.quiet = false;
        self.take_used();
        self.ask(self.last_used, 0);
        self.take_used();
    }

    /// Asks for an interrupt only after `n` more, or for none.
    pub fn hush(&mut self, n: Option<u16>) {
        match n {
            Some(n) if self.layout.event_idx => {
                self.ask(self.last_used.wrapping_add(n), 0);
                self.quiet = true;
            }
            _ => {
                self.quiet = true;
                self.ask(self.last_used.wrapping_sub(1), 1);
            }
        }
    }

    /// Whether it has looked at all that it can see as used.
    pub fn has_looked(&self) -> bool {
        self.ram.get_u16(GUEST, self.layout.used + 2) == self.last_used
    }

    /// Whether it may miss interrupts of its own will.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    fn ask(&mut self, event: u16, flags: u16) {
        if self.layout.event_idx {
            self.put_avail(4 + 2 * self.layout.size, event);
        } else {
            self.put_avail(0, flags);
        }
    }

    /// Checks that nothing of the guest's was changed but what it gave to the device.
    pub fn check(&self) {
        let mut avail = vec![0; self.avail.len()];
        self.ram.peek(GUEST, self.layout.avail, &mut avail);
        assert_eq!(avail, self.avail, "available ring");
        let mut descs = vec![0; self.descs.len()];
        self.ram.peek(GUEST, self.layout.desc, &mut descs);
        assert_eq!(descs, self.descs, "descriptor table");
        let mut bytes = vec![0; self.fill.len()];
        self.ram.peek(GUEST, BASE, &mut bytes);
        for (at, ever) in self.ever.iter().enumerate() {
            assert!(*ever || bytes[at] == self.fill[at], "byte {at:#x}");
        }
    }

    fn used_elem(&self, idx: u16) -> (u32, u32) {
        let at = u64::from(idx & (self.layout.size - 1));
        let bytes: [u8; 8] = self.ram.get(GUEST, self.layout.used + 4 + 8 * at);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
        (word(0), word(4))
    }

    fn put_avail(&mut self, at: u16, value: u16) {
        let at = usize::from(at);
        self.avail[at..at + 2].copy_from_slice(&value.to_le_bytes());
        self.ram
            .put_u16(GUEST, self.layout.avail + at as u64, value);
    }

    fn put_desc(&mut self, index: u16, desc: Desc) {
        let at = 16 * usize::from(index);
        self.descs[at..at + 16].copy_from_slice(&desc.to_bytes());
        self.ram
            .put(GUEST, self.layout.desc + at as u64, &desc.to_bytes());
    }

    /// A free place of `len` bytes, more often than not in or at a shadowed page.
    fn take(&mut self, len: u64) -> Option<u64> {
        for _ in 0..30 {
            let at = BASE + self.random.below(self.ram.len() - len);
            if !self.ram.is_shadowed(at) && self.random.below(4) != 0 {
                continue;
            }
            let range = (at - BASE) as usize..(at - BASE + len) as usize;
            if self.taken[range.clone()].contains(&true) {
                continue;
            }
            self.taken[range.clone()].fill(true);
            self.ever[range].fill(true);
            return Some(at);
        }
        None
    }

    fn give_back(&mut self, areas: &[(u64, u64)]) {
        for &(at, len) in areas {
            self.taken[(at - BASE) as usize..(at - BASE + len) as usize].fill(false);
        }
        debug_assert!(self.ram.len() % PAGE == 0);
    }
}
