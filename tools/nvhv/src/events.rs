// SPDX-License-Identifier: GPL-2.0

//! `nvhv events`: the module's tracepoints, from an instance of tracefs of this command's own.

use crate::cli::Events;
use crate::failure::Failure;
use nix::fcntl::OFlag;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use serde_json::{json, Map, Value};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

const TRACEFS: &str = "/sys/kernel/tracing";

/// Prints what becomes of VMs as it happens, until it is interrupted.
pub fn events(args: &Events) -> Result<(), Failure> {
    if !Path::new(crate::device::PATH).exists() {
        return Err(Failure::NoModule("the module is not loaded".into()));
    }
    follow(args.json).map_err(|error| {
        Failure::Refused(match error.kind() {
            io::ErrorKind::PermissionDenied => "only an administrator may trace the kernel".into(),
            _ => format!("{TRACEFS}: {error}"),
        })
    })
}

fn follow(as_json: bool) -> io::Result<()> {
    // Taken when they come, so that the instance goes with us.
    let mut ends = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].map(|signal| ends.add(signal));
    ends.thread_block()?;
    let ended = SignalFd::new(&ends)?;
    let instance = Instance::make()?;
    let mut pipe = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(instance.0.join("trace_pipe"))?;
    let mut text = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        match pipe.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => {
                text.extend_from_slice(&chunk[..read?]);
                let mut out = io::stdout().lock();
                for event in whole_lines(&mut text).iter().filter_map(|line| parse(line)) {
                    let told = if as_json {
                        event.to_string()
                    } else {
                        words(&event)
                    };
                    if writeln!(out, "{told}").is_err() {
                        // Nobody listens any more.
                        return Ok(());
                    }
                }
                continue;
            }
        }
        let mut waits = [pipe.as_fd(), ended.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut waits, PollTimeout::NONE)?;
        if waits[1].any() == Some(true) {
            return Ok(());
        }
    }
}

/// Takes the whole lines from the start of what was read.
fn whole_lines(text: &mut Vec<u8>) -> Vec<String> {
    let end = text
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    let whole: Vec<u8> = text.drain(..end).collect();
    String::from_utf8_lossy(&whole)
        .lines()
        .map(String::from)
        .collect()
}

/// A buffer of our own, so that nobody else's reader takes our events; gone with this.
struct Instance(PathBuf);

impl Instance {
    fn make() -> io::Result<Self> {
        let path = Path::new(TRACEFS)
            .join("instances")
            .join(format!("nvhv-{}", process::id()));
        fs::create_dir(&path)?;
        let instance = Instance(path);
        fs::write(instance.0.join("trace_clock"), "mono")?;
        fs::write(instance.0.join("events/nvhv/enable"), "1")?;
        Ok(instance)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Who still reads it keeps it: nobody but us knows its name.
        let _ = fs::remove_dir(&self.0);
    }
}

/// A line of a trace, such as `  nvhv/a-12  [000] .....  7.1: nvhv_freeze: vm=a ns=12`; nothing if it is of another kind.
fn parse(line: &str) -> Option<Value> {
    let (head, rest) = line.split_once(": nvhv_")?;
    let time: f64 = head.rsplit(' ').next()?.parse().ok()?;
    let (event, fields) = rest.trim_end().split_once(": ")?;
    let mut all = Map::new();
    all.insert("time".into(), json!(time));
    all.insert("event".into(), json!(event));
    let mut fields = fields;
    while let Some((name, rest)) = fields.split_once('=') {
        // The last one is text.
        let (value, rest) = match name {
            "why" => (rest, ""),
            _ => rest.split_once(' ').unwrap_or((rest, "")),
        };
        // A name may look like a number, and so may a reason.
        let is_text = matches!(name, "vm" | "why");
        let number = value.parse::<i64>().ok().filter(|_| !is_text);
        let value = number.map_or_else(|| json!(value), |number| json!(number));
        all.insert(name.into(), value);
        fields = rest;
    }
    all.contains_key("vm").then_some(Value::Object(all))
}

/// An event for people: time, VM, what.
fn words(event: &Value) -> String {
    let text = |name: &str| match &event[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let rest = event
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !matches!(name.as_str(), "time" | "event" | "vm"));
    let rest: Vec<_> = rest
        .map(|(name, _)| match name.as_str() {
            "ns" => format!(
                "after {}",
                crate::text::duration(event["ns"].as_u64().unwrap_or(0))
            ),
            name => format!("{name} {}", text(name)),
        })
        .collect();
    let time = event["time"].as_f64().unwrap_or(0.0);
    format!(
        "{time:.6}  {:<12}  {:<8}  {}",
        text("vm"),
        text("event"),
        rest.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_trace() {
        let line = "        nvhv/a-162     [000] .....    98.765432: nvhv_seal: vm=007 cause=request bytes=15128 ns=2500000\n";
        let event = parse(line).expect("an event");
        assert_eq!(
            event,
            json!({"time": 98.765432, "event": "seal", "vm": "007", "cause": "request", "bytes": 15128, "ns": 2500000})
        );
        assert_eq!(
            words(&event),
            "98.765432  007           seal      bytes 15128, cause request, after 2.5 ms"
        );
        let line = " qemu-1 [001] d..1. 1.0: nvhv_refuse: vm=a.b errno=22 why=its image is torn: see 'a=b'\n";
        let event = parse(line).expect("an event");
        assert_eq!(event["why"], "its image is torn: see 'a=b'");
        assert_eq!(event["errno"], 22);
    }

    #[test]
    fn json_is_as_its_schema_says() {
        for event in [
            "bind: vm=7 policy=0",
            "adopt: vm=7 pages=3 ns=5",
            "freeze: vm=7 ns=0",
            "seal: vm=a cause=vmm-died bytes=15128 ns=2500000",
            "replay: vm=a.b steps=0",
            "resume: vm=a number=1 ns=4",
            "refuse: vm=a errno=22 why=12",
        ] {
            let event = parse(&format!(" x-1 [000] ..... 1.5: nvhv_{event}\n"));
            nvhv_schemas::assert_described("events", &event.expect("an event"));
        }
    }

    #[test]
    fn skips_what_is_no_event() {
        assert_eq!(parse("CPU:0 [LOST 12 EVENTS]\n"), None);
        assert_eq!(parse(" x-1 [000] ..... 1.0: sched_switch: a=b\n"), None);
        assert_eq!(parse(" x-1 [000] ..... 1.0: nvhv_what: \n"), None);
        assert_eq!(parse(""), None);
    }
}
