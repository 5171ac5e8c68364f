// SPDX-License-Identifier: GPL-2.0

//! A device as an ordinary sparse memory: what is stored is there.

use nvhv_pure::format::{Fault, Media, RecordRoom};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const PAGE: u64 = 4096;

type Page = [u8; PAGE as usize];

/// A device of which pages of zeroes take no room. Cloning it is cheap.
#[derive(Clone)]
pub struct Image {
    len: u64,
    pages: RefCell<BTreeMap<u64, Rc<Page>>>,
}

impl Image {
    /// A device of `len` zeroes.
    pub fn new(len: u64) -> Self {
        Image {
            len,
            pages: RefCell::default(),
        }
    }

    /// The same bytes on a device of `len` bytes.
    pub fn longer(&self, len: u64) -> Self {
        Image {
            len,
            pages: self.pages.clone(),
        }
    }

    /// The aligned word at `at`.
    pub fn word(&self, at: u64) -> u64 {
        let mut word = [0; 8];
        self.read(at, &mut word).expect("inside the device");
        u64::from_le_bytes(word)
    }

    /// Flips bits of the byte at `at`.
    pub fn flip(&self, at: u64, bits: u8) {
        let mut byte = [0];
        self.read(at, &mut byte).expect("inside the device");
        self.write(at, &[byte[0] ^ bits])
            .expect("inside the device");
    }

    /// Whether all of `at..at + len` is zero.
    pub fn is_zero(&self, at: u64, len: u64) -> bool {
        self.words_in(at, len).is_empty()
    }

    /// Where the aligned words of `at..at + len` are that are not zero.
    pub fn words_in(&self, at: u64, len: u64) -> Vec<u64> {
        let pages = self.pages.borrow();
        let range = at / PAGE..(at + len).div_ceil(PAGE);
        pages
            .range(range)
            .flat_map(|(page, bytes)| {
                let set = |w: &usize| bytes[8 * w..8 * w + 8].iter().any(|&b| b != 0);
                (0..PAGE as usize / 8)
                    .filter(set)
                    .map(move |w| page * PAGE + 8 * w as u64)
            })
            .filter(|word| (at..at + len).contains(word))
            .collect()
    }

    /// Whether both hold the same bytes in `at..at + len`, which are whole words.
    pub fn same(&self, other: &Image, at: u64, len: u64) -> bool {
        let mut words = self.words_in(at, len);
        words.extend(other.words_in(at, len));
        words.iter().all(|&at| self.word(at) == other.word(at))
    }

    fn check(&self, at: u64, len: u64) -> Result<(), Fault> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Fault { at }),
        }
    }
}

impl Media for Image {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), Fault> {
        self.check(at, buf.len() as u64)?;
        let pages = self.pages.borrow();
        let mut done = 0;
        while done < buf.len() {
            let from = at + done as u64;
            let inside = (from % PAGE) as usize;
            let n = (PAGE as usize - inside).min(buf.len() - done);
            let part = &mut buf[done..done + n];
            match pages.get(&(from / PAGE)) {
                Some(page) => part.copy_from_slice(&page[inside..inside + n]),
                None => part.fill(0),
            }
            done += n;
        }
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.check(at, bytes.len() as u64)?;
        let mut pages = self.pages.borrow_mut();
        let mut done = 0;
        while done < bytes.len() {
            let to = at + done as u64;
            let inside = (to % PAGE) as usize;
            let n = (PAGE as usize - inside).min(bytes.len() - done);
            let page = pages
                .entry(to / PAGE)
                .or_insert_with(|| Rc::new([0; PAGE as usize]));
            Rc::make_mut(page)[inside..inside + n].copy_from_slice(&bytes[done..done + n]);
            done += n;
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
        let done = f(&mut bytes);
        // Pages of zeroes take no room.
        for (page, bytes) in bytes.chunks(PAGE as usize).enumerate() {
            let at = area.start + page as u64 * PAGE;
            match bytes.iter().all(|&byte| byte == 0) {
                true => self.zero(at, bytes.len() as u64)?,
                false => self.write(at, bytes)?,
            }
        }
        Ok(done)
    }

    fn write_word(&self, at: u64, word: u64) -> Result<(), Fault> {
        assert_eq!(at % 8, 0, "a word that may be torn");
        self.write(at, &word.to_le_bytes())
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), Fault> {
        self.check(at, len)?;
        for word in self.words_in(at, len) {
            self.write(word, &[0; 8])?;
        }
        self.pages
            .borrow_mut()
            .retain(|_, page| page.iter().any(|&b| b != 0));
        Ok(())
    }

    fn flush(&self, at: u64, len: u64) -> Result<(), Fault> {
        self.check(at, len)
    }

    fn fence(&self) {}
}
