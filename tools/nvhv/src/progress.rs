// SPDX-License-Identifier: GPL-2.0

//! How far a long work has come, for whoever sits at a terminal.

use crate::text;
use std::io::{stderr, IsTerminal};

/// What is to be called with bytes done and bytes in all of what is being done to a device.
pub fn of<'a>(device: &'a str, doing: &'a str) -> impl FnMut(u64, u64) + 'a {
    let tell = stderr().is_terminal();
    let mut last = u64::MAX;
    move |done, all| {
        let percent = done.saturating_mul(100) / all.max(1);
        if tell && percent != last {
            let end = if done == all { "\n" } else { "" };
            eprint!(
                "\r{device}: {doing} {} of {}   {end}",
                text::bytes(done),
                text::bytes(all)
            );
            last = percent;
        }
    }
}
