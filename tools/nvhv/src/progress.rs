// SPDX-License-Identifier: GPL-2.0

//! How far a long operation is, on a terminal.

use crate::text;
use std::fmt::Display;
use std::io::{stderr, IsTerminal};

/// Tells how far something is, if somebody looks.
pub struct Progress {
    /// What is done with what; none if nobody looks.
    line: Option<String>,
    percent: u64,
}

impl Progress {
    /// Of `doing` something with `what`.
    pub fn new(what: &dyn Display, doing: &str) -> Self {
        Progress {
            line: stderr().is_terminal().then(|| format!("{what}: {doing}")),
            percent: u64::MAX,
        }
    }

    /// `done` of `all` bytes are.
    pub fn tell(&mut self, done: u64, all: u64) {
        let percent = done.saturating_mul(100) / all.max(1);
        if let Some(line) = self.line.as_ref().filter(|_| percent != self.percent) {
            let (done, all) = (text::bytes(done), text::bytes(all));
            eprint!("\r{line} {done} of {all}   ");
            self.percent = percent;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.line.is_some() && self.percent != u64::MAX {
            eprintln!();
        }
    }
}
