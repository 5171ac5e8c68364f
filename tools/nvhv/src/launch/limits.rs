// SPDX-License-Identifier: GPL-2.0

//! Resource limits, by the names that prlimit(1) has for them; getrlimit(2).

use nix::sys::resource::{getrlimit, rlim_t, setrlimit, Resource, RLIM_INFINITY};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;

/// A limit; nothing is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    soft: Option<rlim_t>,
    hard: Option<rlim_t>,
}

const ALL: [(&str, Resource); 16] = [
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("locks", Resource::RLIMIT_LOCKS),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nice", Resource::RLIMIT_NICE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("rss", Resource::RLIMIT_RSS),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("rttime", Resource::RLIMIT_RTTIME),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("stack", Resource::RLIMIT_STACK),
];

/// All limits of this process.
pub fn of_this_process() -> io::Result<BTreeMap<String, Limit>> {
    let some = |n: rlim_t| (n != RLIM_INFINITY).then_some(n);
    let limit = |(name, resource): (&str, Resource)| {
        let (soft, hard) = getrlimit(resource)?;
        Ok((
            name.into(),
            Limit {
                soft: some(soft),
                hard: some(hard),
            },
        ))
    };
    ALL.into_iter().map(limit).collect()
}

/// Gives this process `limits`, as far as it may have them; says where they were higher.
pub fn take(limits: &BTreeMap<String, Limit>) -> Vec<&'static str> {
    let number = |n: Option<rlim_t>| n.unwrap_or(RLIM_INFINITY);
    let lower = ALL.into_iter().filter(|(name, resource)| {
        let Some(limit) = limits.get(*name) else {
            return false;
        };
        let (soft, hard) = (number(limit.soft), number(limit.hard));
        setrlimit(*resource, soft, hard).is_err() && {
            let most = getrlimit(*resource).map_or(hard, |(_, most)| most);
            // RLIM_INFINITY is the highest number.
            let _ = setrlimit(*resource, soft.min(most), hard.min(most));
            true
        }
    });
    lower.map(|(name, _)| name).collect()
}
