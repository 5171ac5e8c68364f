// SPDX-License-Identifier: GPL-2.0

//! Telling a fresh device what the driver had told the one before it, by the same queue.
//!
//! That comes before anything that the driver has under way, as it came before it then. So until all is
//! told, requests in flight are not shown to the device. It is asked by requests that the driver knows
//! nothing of: descriptors and buffers lie where the driver has its descriptor table, in the device's
//! view only. As no request of the driver is shown yet, that whole room is free; and as the device's
//! indexes count by themselves, the driver's requests simply come after.

use super::{
    engine::{Completed, Ring},
    fault::Fault,
    layout::{Layout, DESC_LEN},
    memory::{Memory, View},
    slots::Slot,
};

/// VIRTQ_DESC_F_NEXT
const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE
const WRITE: u16 = 2;

/// The first descriptor of what is told.
const HEAD: u16 = 0;
/// Parts that are told at once, the answer not counted.
const PARTS: usize = 2;
/// Bytes of an answer.
const ANSWER: u64 = 1;
/// What stands there before the device has answered: no answer of any.
const UNANSWERED: u8 = 0xff;

/// Bytes that can be told at once by a queue that lies so.
pub fn told_room(layout: &Layout) -> usize {
    let taken = DESC_LEN * (PARTS as u64 + 1) + ANSWER;
    // CAST: a page at most.
    layout.table_len().saturating_sub(taken) as usize
}

/// Where telling stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Telling {
    /// The device has been told something and has not used it yet.
    told: bool,
    /// Where its answer will be, if it is to give one.
    answer: Option<u64>,
    /// Nobody waits for that any more.
    given_up: bool,
}

/// What became of what the device was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// The device has not used it yet, or has not been told anything.
    Waiting,
    /// The device has used it. What it answered, if it could.
    Used(Option<u8>),
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>> Ring<S> {
    /// As [`Ring::restore`], but the device is shown nothing before [`Ring::told_all`]. The pages of
    /// [`Layout::table_pages`] differ between the views as well.
    pub fn restore_telling<M: Memory>(
        layout: Layout,
        slots: S,
        saved: &[u8],
        m: &M,
    ) -> Result<Self, Fault> {
        let mut ring = Self::restore_quiet(layout, slots, saved, m)?;
        ring.telling = Some(Telling {
            told: false,
            answer: None,
            given_up: false,
        });
        Ok(ring)
    }

    /// Makes one request of `parts` available to the device, with a byte for its answer if it `answers`.
    /// `false` if there is no room for it, or if it is not its time.
    pub fn tell<M: Memory>(
        &mut self,
        m: &M,
        parts: [&[u8]; PARTS],
        answers: bool,
    ) -> Result<bool, Fault> {
        self.unless_broken(|ring| ring.show_told(m, parts, answers))
    }

    fn show_told<M: Memory>(
        &mut self,
        m: &M,
        parts: [&[u8]; PARTS],
        answers: bool,
    ) -> Result<bool, Fault> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let shown = self.layout.table_pages().all(|page| m.is_shadowed(page));
        let idle = self.telling.is_some_and(|telling| !telling.told);
        if len > told_room(&self.layout) || len == 0 || !shown || !idle {
            return Ok(false);
        }
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let count = parts.clone().count() as u64 + u64::from(answers);
        // No overflow here and below: all of it lies inside the table, by the check of the length.
        let mut data = self.layout.desc + DESC_LEN * count;
        let mut index = 0;
        let mut put = |bytes: &[u8], flags: u16| {
            let gpa = data;
            m.write(View::Device, gpa, bytes)
                .ok_or(Fault::NotRam(gpa))?;
            data += bytes.len() as u64;
            index += 1;
            let more = if u64::from(index) < count { NEXT } else { 0 };
            // CAST: less than a page.
            let desc = desc(gpa, bytes.len() as u32, flags | more, index);
            let at = self.layout.desc + DESC_LEN * u64::from(index - 1);
            m.write(View::Device, at, &desc).ok_or(Fault::NotRam(at))?;
            Ok(gpa)
        };
        let mut last = self.layout.desc;
        for part in parts {
            last = put(part, 0)?;
        }
        if answers {
            last = put(&[UNANSWERED], WRITE)?;
        }
        self.show_available(m, HEAD)?;
        self.store(m, View::Device, self.layout.avail_idx(), self.avail_shown)?;
        m.fence();
        if let Some(telling) = &mut self.telling {
            telling.told = true;
            telling.answer = answers.then_some(last);
        }
        Ok(true)
    }

    /// Whether the device has used what it was told.
    pub fn told<M: Memory>(&mut self, m: &M) -> Result<Told, Fault> {
        self.unless_broken(|ring| ring.look_told(m))
    }

    fn look_told<M: Memory>(&mut self, m: &M) -> Result<Told, Fault> {
        let Some(Telling {
            told: true, answer, ..
        }) = self.telling
        else {
            return Ok(Told::Waiting);
        };
        let found = self.load(m, View::Device, self.layout.used_idx())?;
        match found.wrapping_sub(self.used_seen) {
            0 => return Ok(Told::Waiting),
            1 => {}
            _ => {
                return Err(Fault::TooManyUsed {
                    seen: self.used_seen,
                    found,
                })
            }
        }
        let [i0, i1, i2, i3, ..] = self.used_elem(m, View::Device, self.used_seen)?;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        if id != u32::from(HEAD) {
            return Err(Fault::NotInFlight(id));
        }
        self.used_seen = found;
        if self.layout.event_idx {
            self.store(m, View::Device, self.layout.used_event(), self.used_seen)?;
        }
        if let Some(telling) = &mut self.telling {
            telling.told = false;
        }
        let Some(answer) = answer else {
            return Ok(Told::Used(None));
        };
        let mut byte = [0];
        m.read(View::Device, answer, &mut byte)
            .ok_or(Fault::NotRam(answer))?;
        let [byte] = byte;
        Ok(Told::Used(Some(byte)))
    }

    /// The device has been told all: from here on it is shown what the driver has under way.
    pub fn told_all<M: Memory>(&mut self, m: &M) -> Result<(), Fault> {
        self.unless_broken(|ring| match ring.telling.take() {
            Some(_) => ring.show_in_flight(m),
            None => Ok(()),
        })
    }

    /// Nobody waits for the device any more. Should it answer after all, it is shown what the driver has
    /// under way; before that, it may still be reading what it was told.
    pub fn give_up_telling(&mut self) {
        if let Some(telling) = &mut self.telling {
            telling.given_up = true;
        }
    }

    /// The device may have answered what nobody waits for any more.
    pub(super) fn told_late<M: Memory>(&mut self, m: &M) -> Result<Completed, Fault> {
        let given_up = self.telling.is_some_and(|telling| telling.given_up);
        if given_up && self.look_told(m)? != Told::Waiting {
            self.telling = None;
            self.show_in_flight(m)?;
        }
        Ok(Completed {
            count: 0,
            interrupt: false,
        })
    }
}

/// `struct virtq_desc`
fn desc(addr: u64, len: u32, flags: u16, next: u16) -> [u8; DESC_LEN as usize] {
    let words = [
        addr,
        u64::from(len) | (u64::from(flags) << 32) | (u64::from(next) << 48),
    ];
    let mut bytes = [0; DESC_LEN as usize];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
