// SPDX-License-Identifier: GPL-2.0

//! The time during which a VM ran: what timers of its devices count that stand still while it does.

/// A clock that can be stopped. It is told the time of another one, which never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTime {
    /// Nanoseconds until it was last started or stopped.
    passed_ns: u64,
    /// The other clock's time when it was started; `None` while it stands still.
    since_ns: Option<u64>,
}

impl RunTime {
    /// It goes on, if it stood still.
    pub fn start(&mut self, now_ns: u64) {
        self.since_ns.get_or_insert(now_ns);
    }

    /// It stands still.
    pub fn stop(&mut self, now_ns: u64) {
        self.passed_ns = self.ns(now_ns);
        self.since_ns = None;
    }

    /// What it shows, in nanoseconds.
    pub fn ns(&self, now_ns: u64) -> u64 {
        let running = self
            .since_ns
            .map_or(0, |since| now_ns.saturating_sub(since));
        self.passed_ns.saturating_add(running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_only_while_it_runs() {
        let mut time = RunTime::default();
        assert_eq!(time.ns(500), 0);
        time.start(1_000);
        assert_eq!(time.ns(1_030), 30);
        time.start(1_040);
        assert_eq!(time.ns(1_050), 50);
        time.stop(1_060);
        time.stop(7_000);
        assert_eq!(time.ns(9_000), 60);
        time.start(10_000);
        assert_eq!(time.ns(10_005), 65);
    }
}
