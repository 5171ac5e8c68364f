// SPDX-License-Identifier: GPL-2.0
//! No request to a device may hang: whoever waits for one says so here, and is reported as
//! `fail hang ...` when it waits longer than `patience=SECONDS`. An outage does not count: the
//! guest's monotonic clock stands still meanwhile.

use crate::report::report;
use crate::{sys, Orders};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const IDLE: u64 = 0;

static WATCHED: Mutex<Vec<(String, Arc<AtomicU64>)>> = Mutex::new(Vec::new());

/// One who waits now and then.
pub struct Waiter(Arc<AtomicU64>);

impl Waiter {
    pub fn new(name: impl Into<String>) -> Self {
        let since = Arc::new(AtomicU64::new(IDLE));
        lock().push((name.into(), since.clone()));
        Self(since)
    }

    /// Does something that must come to an end.
    pub fn wait<T>(&self, request: impl FnOnce() -> T) -> T {
        self.0.store(sys::monotonic(), Relaxed);
        let result = request();
        self.0.store(IDLE, Relaxed);
        result
    }
}

pub fn start(orders: &Orders) {
    let patience = orders.number("patience", 60) * 1_000_000_000;
    std::thread::spawn(move || loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = sys::monotonic();
        lock().retain(|(name, since)| {
            let since = since.load(Relaxed);
            let hangs = since != IDLE && now.saturating_sub(since) > patience;
            if hangs {
                report(&format!("fail hang {name} since t={}", since / 1_000_000));
            }
            !hangs
        });
    });
}

fn lock() -> std::sync::MutexGuard<'static, Vec<(String, Arc<AtomicU64>)>> {
    WATCHED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
