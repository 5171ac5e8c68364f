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

/// Gives this process `limits`, as far as it may have them; says which it may not.
pub fn take(limits: &BTreeMap<String, Limit>) -> Vec<&'static str> {
    let number = |n: Option<rlim_t>| n.unwrap_or(RLIM_INFINITY);
    let refused = ALL.into_iter().filter(|(name, resource)| {
        let limit = limits.get(*name);
        limit.is_some_and(|l| setrlimit(*resource, number(l.soft), number(l.hard)).is_err())
    });
    refused.map(|(name, _)| name).collect()
}
