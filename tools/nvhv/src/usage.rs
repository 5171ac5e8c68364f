// SPDX-License-Identifier: GPL-2.0

//! What processes take of the processors: proc_pid_stat(5).

use nix::unistd::{sysconf, SysconfVar};
use std::collections::HashMap;
use std::fs;

/// Processor time of a process, in ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Usage {
    /// After the boot; tells it from another process of its number.
    started: f64,
    used: f64,
}

/// Processes that are looked at again and again.
pub struct Usages {
    /// Ticks a second.
    hertz: f64,
    /// The last look: when, in ticks after the boot, and at what.
    last: f64,
    known: HashMap<i32, Usage>,
}

impl Usages {
    pub fn new() -> Self {
        let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten();
        Usages {
            hertz: hertz.unwrap_or(100) as f64,
            last: 0.0,
            known: HashMap::new(),
        }
    }

    /// Looks at these processes. Gives the percentage of one processor that each has taken since the last look, or, if
    /// it was not there then, since its start.
    pub fn look(&mut self, pids: impl Iterator<Item = i32>) -> HashMap<i32, f64> {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = uptime.split(' ').next().and_then(|text| text.parse().ok());
        let now = uptime.unwrap_or(0.0) * self.hertz;
        let all = pids.filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, Usage::parse(&stat)?))
        });
        let all: HashMap<_, _> = all.collect();
        let share = |(pid, usage): (&i32, &Usage)| {
            let before = self.known.get(pid).map(|known| (self.last, *known));
            (*pid, usage.percent(now, before))
        };
        let shares = all.iter().map(share).collect();
        (self.last, self.known) = (now, all);
        shares
    }
}

impl Usage {
    fn parse(stat: &str) -> Option<Self> {
        // The name, in brackets, may hold anything. The state comes after it, the third field.
        let (_, fields) = stat.rsplit_once(") ")?;
        let field = |number: usize| fields.split(' ').nth(number - 3)?.parse::<f64>().ok();
        Some(Usage {
            started: field(22)?,
            used: field(14)? + field(15)?,
        })
    }

    fn percent(&self, now: f64, before: Option<(f64, Usage)>) -> f64 {
        let before = before.filter(|(_, before)| before.started == self.started);
        let (then, used) = before.map_or((self.started, 0.0), |(then, b)| (then, b.used));
        // Less than a tick cannot be measured.
        100.0 * (self.used - used) / (now - then).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "71 (a) b (c) S 1 71 71 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 4 0 1000 9 9";

    #[test]
    fn reads_what_the_kernel_says() {
        let usage = Usage::parse(STAT).expect("a usage");
        assert_eq!((usage.started, usage.used), (1000.0, 300.0));
        assert_eq!(Usage::parse("71 (a) S 1"), None);
        assert_eq!(Usage::parse(""), None);
    }

    #[test]
    fn counts_from_the_last_look() {
        let usage = |used| Usage {
            started: 1000.0,
            used,
        };
        // Since its start; since the last look; of another process that had its number.
        assert_eq!(usage(300.0).percent(1600.0, None), 50.0);
        let before = Some((1600.0, usage(300.0)));
        assert_eq!(usage(450.0).percent(1700.0, before), 150.0);
        let another = Usage {
            started: 7.0,
            used: 300.0,
        };
        assert_eq!(usage(300.0).percent(1600.0, Some((1500.0, another))), 50.0);
        // At once.
        assert_eq!(usage(0.0).percent(1000.0, None), 0.0);
    }

    #[test]
    fn looks_at_this_process() {
        let mut usages = Usages::new();
        let me = std::process::id() as i32;
        let shares = usages.look([me, i32::MAX].into_iter());
        assert_eq!(shares.keys().collect::<Vec<_>>(), [&me]);
        assert!(usages.look([me].into_iter())[&me] >= 0.0);
    }
}
