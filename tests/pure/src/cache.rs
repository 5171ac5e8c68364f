// SPDX-License-Identifier: GPL-2.0

//! A device behind a cache that may write back anything at any time.
//!
//! Between a store and the fence after its line's flush, the word may be durable or not: nobody
//! knows. A cut leaves each such word with any value it has had since it was last known durable,
//! independently of all others. A real cache writes back whole lines, each of them as it was at some
//! moment, so what it can leave is among these images.
//!
//! All images of a cut *inside* a stretch between two fences are images of a cut at its end, so it
//! is enough to look just before each fence.

use crate::image::Image;
use crate::random::Random;
use nvhv_pure::format::{Fault, Media, RecordRoom};
use std::cell::RefCell;
use std::collections::BTreeMap;

const LINE: u64 = 64;

/// A word that was stored and may not be durable.
#[derive(Clone, Default)]
struct Pending {
    /// Its values since it was durable, oldest first.
    values: Vec<u64>,
    /// How many of them were flushed.
    flushed: usize,
}

#[derive(Clone)]
struct State {
    durable: Image,
    pending: BTreeMap<u64, Pending>,
    moments: Vec<Moment>,
    record: bool,
}

/// A moment at which the power may be cut.
#[derive(Clone)]
pub struct Moment {
    durable: Image,
    pending: Vec<(u64, Vec<u64>)>,
}

/// A device behind such a cache.
pub struct Cached {
    state: RefCell<State>,
}

impl Cached {
    /// A device that durably holds `image`.
    pub fn new(image: Image) -> Self {
        Cached {
            state: RefCell::new(State {
                durable: image,
                pending: BTreeMap::new(),
                moments: Vec::new(),
                record: false,
            }),
        }
    }

    /// From now on, notes every moment worth a cut.
    pub fn watch(&self) {
        self.state.borrow_mut().record = true;
    }

    /// All moments noted, with the present.
    pub fn moments(&self) -> Vec<Moment> {
        let mut state = self.state.borrow_mut();
        state.note();
        state.moments.clone()
    }

    /// The device as all that reads it sees it.
    pub fn now(&self) -> Image {
        let state = self.state.borrow();
        let image = state.durable.clone();
        for (&at, pending) in &state.pending {
            let last = *pending.values.last().expect("pending words have values");
            image.write_word(at, last).expect("inside the device");
        }
        image
    }
}

impl State {
    fn note(&mut self) {
        if self.record {
            let pending = self.pending.iter();
            self.moments.push(Moment {
                durable: self.durable.clone(),
                pending: pending.map(|(&at, p)| (at, p.values.clone())).collect(),
            });
        }
    }

    fn current(&self, at: u64) -> u64 {
        match self.pending.get(&at).and_then(|p| p.values.last()) {
            Some(&value) => value,
            None => self.durable.word(at),
        }
    }

    fn store(&mut self, at: u64, value: u64) {
        self.pending.entry(at).or_default().values.push(value);
    }
}

impl Moment {
    /// How many images there are; `None` if too many to count.
    pub fn count(&self) -> Option<u64> {
        self.pending.iter().try_fold(1u64, |n, (_, values)| {
            n.checked_mul(values.len() as u64 + 1)
        })
    }

    /// The image in which word number `i` has had `choice(i, n)` of its `n` new values.
    fn image(&self, mut choice: impl FnMut(usize, u64) -> u64) -> Image {
        let image = self.durable.clone();
        for (i, (at, values)) in self.pending.iter().enumerate() {
            let n = choice(i, values.len() as u64);
            if n > 0 {
                let value = values[n as usize - 1];
                image.write_word(*at, value).expect("inside the device");
            }
        }
        image
    }

    /// Calls `check` with every image if there are at most `limit`, otherwise with `limit` of them:
    /// nothing and everything written back, up to each word and from each word on, all words but one
    /// and one alone, whole lines at random, and words at random.
    pub fn images(&self, limit: u64, seed: u64, mut check: impl FnMut(&Image)) {
        if let Some(count) = self.count().filter(|&count| count <= limit) {
            for mut index in 0..count {
                check(&self.image(|_, n| {
                    let choice = index % (n + 1);
                    index /= n + 1;
                    choice
                }));
            }
            return;
        }
        check(&self.image(|_, _| 0));
        check(&self.image(|_, n| n));
        let mut random = Random::new(seed);
        let words = self.pending.len() as u64;
        for round in 2..limit {
            let pick = random.below(words) as usize;
            let salt = random.word();
            check(&match round % 6 {
                0 => self.image(|i, n| if i < pick { n } else { 0 }),
                1 => self.image(|i, n| if i >= pick { n } else { 0 }),
                2 => self.image(|i, n| if i != pick { n } else { 0 }),
                3 => self.image(|i, n| if i == pick { n } else { 0 }),
                4 => self.image(|i, n| {
                    let line = self.pending[i].0 / LINE;
                    Random::new(salt ^ line).below(n + 1)
                }),
                _ => self.image(|_, n| random.below(n + 1)),
            });
        }
    }
}

impl Media for Cached {
    fn len(&self) -> u64 {
        self.state.borrow().durable.len()
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let state = self.state.borrow();
        state.durable.read(at, buf)?;
        let end = at + buf.len() as u64;
        for (&word, pending) in state.pending.range(at.saturating_sub(7)..end) {
            let last = *pending.values.last().expect("pending words have values");
            for (i, byte) in last.to_le_bytes().into_iter().enumerate() {
                let to = word + i as u64;
                if (at..end).contains(&to) {
                    buf[(to - at) as usize] = byte;
                }
            }
        }
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
        let mut state = self.state.borrow_mut();
        let end = at.checked_add(bytes.len() as u64).ok_or(Fault { at })?;
        if end > state.durable.len() {
            return Err(Fault { at });
        }
        let mut word = at & !7;
        while word < end {
            let mut value = state.current(word).to_le_bytes();
            for (i, byte) in value.iter_mut().enumerate() {
                let to = word + i as u64;
                if (at..end).contains(&to) {
                    *byte = bytes[(to - at) as usize];
                }
            }
            state.store(word, u64::from_le_bytes(value));
            word += 8;
        }
        Ok(())
    }

    fn in_place<T>(
        &self,
        room: RecordRoom<'_>,
        f: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, Fault> {
        let area = room.area();
        let mut bytes = vec![0; area.len as usize];
        self.read(area.start, &mut bytes)?;
        let was = bytes.clone();
        let done = f(&mut bytes);
        // What was stored with the same value makes no difference to what a cut leaves. What was changed may
        // have had any value in between.
        for (word, (is, was)) in bytes.chunks(8).zip(was.chunks(8)).enumerate() {
            if is != was {
                let at = area.start + 8 * word as u64;
                let between: Vec<u8> = is.iter().map(|byte| !byte).collect();
                self.write(at, &between)?;
                self.write(at, is)?;
            }
        }
        Ok(done)
    }

    fn write_word(&self, at: u64, word: u64) -> Result<(), Fault> {
        assert_eq!(at % 8, 0, "a word that may be torn");
        self.write(at, &word.to_le_bytes())
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), Fault> {
        let mut state = self.state.borrow_mut();
        if at
            .checked_add(len)
            .is_none_or(|end| end > state.durable.len())
        {
            return Err(Fault { at });
        }
        assert!(at % 8 == 0 && len % 8 == 0);
        // A zero over a word that always was zero changes nothing.
        let mut words = state.durable.words_in(at, len);
        words.extend(state.pending.range(at..at + len).map(|(&at, _)| at));
        words.sort_unstable();
        words.dedup();
        for word in words {
            state.store(word, 0);
        }
        Ok(())
    }

    fn flush(&self, at: u64, len: u64) -> Result<(), Fault> {
        let mut state = self.state.borrow_mut();
        let lines = at / LINE * LINE..(at + len).next_multiple_of(LINE);
        for (_, pending) in state.pending.range_mut(lines) {
            pending.flushed = pending.values.len();
        }
        Ok(())
    }

    fn fence(&self) {
        let mut state = self.state.borrow_mut();
        state.note();
        let State {
            durable, pending, ..
        } = &mut *state;
        pending.retain(|&at, word| {
            if word.flushed > 0 {
                let value = word.values[word.flushed - 1];
                durable.write_word(at, value).expect("inside the device");
                word.values.drain(..word.flushed);
                word.flushed = 0;
            }
            !word.values.is_empty()
        });
    }
}
