// SPDX-License-Identifier: GPL-2.0

//! A device (virtio 1.3, sections 2.7.7, 2.7.8, 2.7.14).

use super::{passed, pattern, Desc, Ram, INDIRECT, NEXT, WRITE};
use crate::random::Random;
use nvhv_pure::ring::{Layout, View};
use std::rc::Rc;

const DEVICE: View = View::Device;

/// A device that knows nothing but its own view.
pub struct Device {
    layout: Layout,
    ram: Rc<Ram>,
    random: Random,
    last_avail: u16,
    used_idx: u16,
    held: Vec<Held>,
    /// Heads as they came.
    log: Vec<u16>,
}

struct Held {
    head: u16,
    buffers: Vec<Desc>,
}

impl Device {
    /// A fresh device.
    pub fn new(layout: Layout, ram: Rc<Ram>, seed: u64) -> Self {
        Self {
            layout,
            ram,
            random: Random::new(seed),
            last_avail: 0,
            used_idx: 0,
            held: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Heads that came since the last call.
    pub fn take_log(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.log)
    }

    /// How many requests it has.
    pub fn holds(&self) -> usize {
        self.held.len()
    }

    /// Takes what is available.
    pub fn take_available(&mut self) {
        let idx = self.ram.get_u16(DEVICE, self.layout.avail + 2);
        let new = idx.wrapping_sub(self.last_avail);
        assert!(usize::from(new) + self.held.len() <= usize::from(self.layout.size));
        while self.last_avail != idx {
            let at = u64::from(self.last_avail & (self.layout.size - 1));
            let head = self.ram.get_u16(DEVICE, self.layout.avail + 4 + 2 * at);
            assert!(self.held.iter().all(|held| held.head != head));
            let buffers = self.chain(head);
            self.check(&buffers);
            self.held.push(Held { head, buffers });
            self.log.push(head);
            self.last_avail = self.last_avail.wrapping_add(1);
        }
    }

    /// Uses up to `n` requests, the oldest ones seldom, and publishes them at once. Whether it
    /// interrupts.
    pub fn finish(&mut self, n: u64) -> bool {
        let old = self.publish(n);
        self.interrupts(old)
    }

    /// Uses requests without having looked yet whether to interrupt. The index before.
    pub fn publish(&mut self, n: u64) -> u16 {
        let old = self.used_idx;
        for _ in 0..n.min(self.held.len() as u64) {
            let mut at = self.random.below(self.held.len() as u64);
            if at == 0 {
                at = self.random.below(self.held.len() as u64);
            }
            let held = self.held.remove(at as usize);
            let id = self.check(&held.buffers);
            let room: u32 = held.writable().map(|desc| desc.len).sum();
            // How much it writes depends on the request only: it may be done twice.
            let len = match id % 3 {
                0 => Random::new(u64::from(id)).below(u64::from(room) + 1) as u32,
                _ => room,
            };
            let mut done = 0;
            for desc in held.writable() {
                let bytes: Vec<u8> = (done..len.min(done + desc.len))
                    .map(|at| pattern(1, id, at as usize))
                    .collect();
                self.ram.put(DEVICE, desc.addr, &bytes);
                done += desc.len;
            }
            let elem = self.layout.used + 4 + 8 * u64::from(self.used_idx & (self.layout.size - 1));
            self.ram
                .put(DEVICE, elem, &u32::from(held.head).to_le_bytes());
            self.ram.put(DEVICE, elem + 4, &len.to_le_bytes());
            self.used_idx = self.used_idx.wrapping_add(1);
        }
        if self.used_idx == old {
            return old;
        }
        self.ram
            .put_u16(DEVICE, self.layout.used + 2, self.used_idx);
        // Noise in what the device owns besides: suppression that is not to get through.
        self.ram.put_u16(DEVICE, self.layout.used, 1);
        if self.layout.event_idx {
            let size = u64::from(self.layout.size);
            let away = self.last_avail.wrapping_add(9999);
            self.ram
                .put_u16(DEVICE, self.layout.used + 4 + 8 * size, away);
        }
        old
    }

    /// Whether it interrupts for what it has published since its index was `old`.
    pub fn interrupts(&mut self, old: u16) -> bool {
        if self.used_idx == old {
            return false;
        }
        if self.layout.event_idx {
            let size = u64::from(self.layout.size);
            let event = self.ram.get_u16(DEVICE, self.layout.avail + 4 + 2 * size);
            passed(event, old, self.used_idx)
        } else {
            self.ram.get_u16(DEVICE, self.layout.avail) & 1 == 0
        }
    }

    /// Takes the one request that is available, which must say `parts`, each in a buffer of its own, and
    /// uses it with this answer, if it has room for one.
    pub fn take_told(&mut self, parts: &[&[u8]], answer: Option<u8>) {
        let idx = self.ram.get_u16(DEVICE, self.layout.avail + 2);
        assert_eq!(idx, self.last_avail.wrapping_add(1), "one at a time");
        let at = u64::from(self.last_avail & (self.layout.size - 1));
        let head = self.ram.get_u16(DEVICE, self.layout.avail + 4 + 2 * at);
        self.last_avail = idx;
        let mut buffers = self.chain(head).into_iter();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let buffer = buffers.next().expect("a buffer");
            assert_eq!(buffer.flags & WRITE, 0);
            let mut said = vec![0; buffer.len as usize];
            assert!(self.ram.peek(DEVICE, buffer.addr, &mut said));
            assert_eq!(said, *part);
        }
        if let Some(answer) = answer {
            let buffer = buffers.next().expect("room for an answer");
            assert_eq!((buffer.len, buffer.flags), (1, WRITE));
            self.ram.put(DEVICE, buffer.addr, &[answer]);
        }
        assert!(buffers.next().is_none());
        let elem = self.layout.used + 4 + 8 * u64::from(self.used_idx & (self.layout.size - 1));
        self.ram.put(DEVICE, elem, &u32::from(head).to_le_bytes());
        self.used_idx = self.used_idx.wrapping_add(1);
        self.ram
            .put_u16(DEVICE, self.layout.used + 2, self.used_idx);
    }

    fn chain(&self, head: u16) -> Vec<Desc> {
        let mut buffers = Vec::new();
        let (mut table, mut index) = (self.layout.desc, head);
        loop {
            let at = table + 16 * u64::from(index);
            let desc = Desc::from_bytes(self.ram.get(DEVICE, at));
            if desc.flags & INDIRECT != 0 {
                (table, index) = (desc.addr, 0);
                continue;
            }
            buffers.push(desc);
            if desc.flags & NEXT == 0 {
                return buffers;
            }
            index = desc.next;
        }
    }

    /// Checks what the driver says in a request. Its number.
    fn check(&self, buffers: &[Desc]) -> u32 {
        let first = buffers[0];
        let mut data = vec![0; first.len as usize];
        assert!(self.ram.peek(DEVICE, first.addr, &mut data));
        let id = u32::from_le_bytes(data[..4].try_into().expect("4 bytes"));
        for (at, byte) in data.iter().enumerate().skip(4) {
            assert_eq!(*byte, pattern(0, id, at), "byte {at} of request {id}");
        }
        id
    }
}

impl Held {
    fn writable(&self) -> impl Iterator<Item = &Desc> {
        self.buffers.iter().filter(|desc| desc.flags & WRITE != 0)
    }
}
