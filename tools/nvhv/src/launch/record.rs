// SPDX-License-Identifier: GPL-2.0

//! What is recorded of a start. Its JSON is what the files in the store hold.

use super::limits::{self, Limit};
use nix::unistd::{getgid, getgroups, getuid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::{env, fs, io};

/// Raised when a reader of an older record would do something wrong.
const VERSION: u32 = 1;

/// Variables that are recorded without being asked for.
const VARIABLES: [&str; 11] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TERM",
    "XDG_RUNTIME_DIR",
];

/// How a VM was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Of this structure.
    pub version: u32,
    /// The VM's name.
    pub name: String,
    /// The arguments of `nvhv`, without its own name.
    pub arguments: Vec<String>,
    /// The working directory.
    pub directory: PathBuf,
    /// Those variables that are on the list, or were asked for.
    pub environment: BTreeMap<String, String>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    /// By the name that `prlimit` has for each.
    pub limits: BTreeMap<String, Limit>,
    /// The path in the unified hierarchy.
    pub cgroup: Option<String>,
    /// Whether `nvhv resume --all` starts it.
    #[serde(default)]
    pub enabled: bool,
    /// Higher ones come first.
    #[serde(default)]
    pub priority: u8,
}

impl Launch {
    /// That of this process, with `more` variables. What cannot be written down as text is said in the error.
    pub fn of_this_process(name: &str, more: &[String]) -> io::Result<Self> {
        let text = |what: OsString| {
            what.into_string().map_err(|what| {
                io::Error::other(format!("'{}' is not UTF-8", what.to_string_lossy()))
            })
        };
        let wanted = |name: &str| {
            name.starts_with("LC_") || VARIABLES.contains(&name) || more.iter().any(|m| m == name)
        };
        let mut environment = BTreeMap::new();
        for (variable, value) in env::vars_os() {
            if let Some(variable) = variable.to_str().filter(|name| wanted(name)) {
                environment.insert(variable.into(), text(value)?);
            }
        }
        Ok(Launch {
            version: VERSION,
            name: name.into(),
            arguments: env::args_os().skip(1).map(text).collect::<Result<_, _>>()?,
            directory: env::current_dir()?,
            environment,
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
            groups: getgroups()?
                .into_iter()
                .map(|group| group.as_raw())
                .collect(),
            umask: umask()?,
            limits: limits::of_this_process()?,
            cgroup: cgroup(),
            enabled: false,
            priority: 0,
        })
    }

    /// Parses a record; another version is an error.
    pub fn parse(json: &[u8]) -> io::Result<Self> {
        let launch: Self = serde_json::from_slice(json)?;
        if launch.version != VERSION {
            let why = format!(
                "it is of version {}, this tool knows {VERSION}",
                launch.version
            );
            return Err(io::Error::other(why));
        }
        Ok(launch)
    }
}

/// umask(2) can be read by changing it only; /proc tells it.
fn umask() -> io::Result<u32> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let mask = line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    mask.ok_or_else(|| io::Error::other("/proc/self/status has no umask"))
}

fn cgroup() -> Option<String> {
    let all = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = all.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_of_this_process() {
        let launch = Launch::of_this_process("a", &[]).expect("text");
        assert_eq!(launch.uid, getuid().as_raw());
        assert_eq!(launch.directory, env::current_dir().expect("one"));
        assert_eq!(
            launch.environment.get("PATH").map(String::as_str),
            env::var("PATH").ok().as_deref()
        );
        assert!(!launch
            .environment
            .keys()
            .any(|name| name.starts_with("CARGO")));
        assert!(launch.limits.contains_key("nofile"));
        let more = Launch::of_this_process("a", &["CARGO_PKG_NAME".into()]).expect("text");
        assert_eq!(more.environment["CARGO_PKG_NAME"], "nvhv");
    }

    #[test]
    fn is_the_same_once_written() {
        let launch = Launch::of_this_process("a", &[]).expect("text");
        let json = serde_json::to_vec(&launch).expect("JSON");
        assert_eq!(Launch::parse(&json).expect("a record"), launch);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let mut json =
            serde_json::to_value(Launch::of_this_process("a", &[]).expect("text")).expect("JSON");
        let parse = |json: &serde_json::Value| Launch::parse(json.to_string().as_bytes());
        json["version"] = 2.into();
        assert!(parse(&json)
            .expect_err("refused")
            .to_string()
            .contains("version 2"));
        json["version"] = 1.into();
        json["more"] = 1.into();
        assert!(parse(&json).is_err());
        assert!(Launch::parse(b"{").is_err());
    }
}
