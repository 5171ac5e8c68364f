// SPDX-License-Identifier: GPL-2.0
//! Watches the guest kernel's log for complaints: each is reported as `splat TEXT`, with what the kernel
//! says next as `detail TEXT`, or as `unstable TEXT` when a clock source lost the kernel's trust.

use crate::report::report;
use std::fs::File;
use std::io::Read;
use std::thread;

const DISTRUST: [&str; 2] = ["Marking clocksource", "Marking TSC"];
const COMPLAINTS: [&str; 10] = [
    "soft lockup",
    "hard LOCKUP",
    "stall",
    "BUG:",
    "WARNING:",
    "Oops",
    "blocked for more than",
    "hung",
    "Corrupted",
    "Call Trace",
];

/// Lines that the kernel prints after a complaint and that a reader wants: registers and a call trace.
const DETAILS: usize = 40;

pub fn watch() {
    thread::spawn(|| {
        let Ok(mut log) = File::open("/dev/kmsg") else {
            return report("fail no /dev/kmsg");
        };
        let mut record = [0; 8192];
        let mut details = 0;
        loop {
            // A record that was overwritten before it was read gives an error; the next read goes on.
            let Ok(length) = log.read(&mut record) else {
                continue;
            };
            let text = String::from_utf8_lossy(&record[..length]);
            let text = text
                .split_once(';')
                .map_or(&*text, |(_, text)| text)
                .lines()
                .next()
                .unwrap_or("");
            if DISTRUST.iter().any(|distrust| text.contains(distrust)) {
                report(&format!("unstable {text}"));
            } else if COMPLAINTS.iter().any(|complaint| text.contains(complaint)) {
                report(&format!("splat {text}"));
                details = DETAILS;
            } else if details > 0 {
                report(&format!("detail {text}"));
                details -= 1;
            }
        }
    });
}
