// SPDX-License-Identifier: GPL-2.0

//! What a request said, for those who have to know.

use super::{
    chain::{self, Said},
    layout::Layout,
    memory::{Memory, View},
};

/// Work that reading a request may be: the commands of drivers have some few descriptors.
const WORK_MAX: u32 = 1024;

/// A request that the device has used.
pub struct Request<'a, M> {
    m: &'a M,
    layout: &'a Layout,
    head: u16,
}

impl<'a, M: Memory> Request<'a, M> {
    pub(super) fn new(m: &'a M, layout: &'a Layout, head: u16) -> Self {
        Self { m, layout, head }
    }

    /// Reads what the driver said, as much as there is room for. How many bytes that was, and the last
    /// byte that the device could write, if it could write any. `None` if the chain is not a sound one
    /// any more.
    pub fn read(&self, room: &mut [u8]) -> Option<(usize, Option<u8>)> {
        let mut said = Said::new(room);
        chain::read(self.m, self.layout, self.head, WORK_MAX, &mut said).ok()?;
        let answer = match said.last {
            Some(at) => {
                let mut byte = [0];
                self.m.read(View::Guest, at, &mut byte)?;
                let [byte] = byte;
                Some(byte)
            }
            None => None,
        };
        Some((said.len, answer))
    }
}
