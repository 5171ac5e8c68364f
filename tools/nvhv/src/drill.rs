// SPDX-License-Identifier: GPL-2.0

//! `nvhv drill`

use crate::cli::Drill;
use crate::device::{refused, Device};
use crate::failure::Failure;
use crate::vm::{Refusal, Vm};
use crate::{table, text};
use nix::errno::Errno;
use nvhv_pure::abi::{self, power_flag, vm_flag, vm_state};
use serde::Serialize;

const HEAD: [&str; 8] = [
    "NAME",
    "VCPUS",
    "RAM",
    "FREEZE",
    "CAPTURE",
    "WRITE BACK",
    "COMMIT",
    "TOTAL",
];

/// The JSON of `drill`; `docs/abi.md` documents it.
#[derive(Serialize)]
struct Report {
    version: u32,
    budget_ms: u32,
    asked: u32,
    sealed: u32,
    /// From the trigger until the last VM was durable; nothing if none was sealed.
    durable_ns: Option<u64>,
    exceeded: bool,
    vms: Vec<Row>,
}

/// A VM that ran before the drill.
#[derive(Serialize)]
struct Row {
    name: String,
    slot: u32,
    vcpus: u32,
    ram_bytes: u64,
    sealed: bool,
    /// It does not go on.
    frozen: bool,
    /// Nothing if it was not sealed.
    times: Option<Times>,
    refusal: Option<Refusal>,
}

/// How long the parts of its seal took.
#[derive(Clone, Copy, Serialize)]
struct Times {
    freeze_ns: u64,
    capture_ns: u64,
    writeback_ns: u64,
    commit_ns: u64,
    seal_ns: u64,
}

/// Measures what a power failure costs.
pub fn drill(args: &Drill) -> Result<(), Failure> {
    let device = Device::open()?;
    let mut before = device.vms()?;
    before.retain(|vm| vm.state == vm_state::LIVE && vm.flags & vm_flag::FROZEN == 0);
    if before.is_empty() {
        return Err(Failure::Refused(
            "no VM runs here: there is nothing to measure".into(),
        ));
    }
    if !args.force {
        let all = match before.len() {
            1 => "the VM that runs here".into(),
            n => format!("all {n} VMs that run here"),
        };
        return Err(Failure::Refused(format!(
            "{all} would stand still until the last is sealed: say --force"
        )));
    }
    let done = device
        .power_failing(args.budget.unwrap_or(0), power_flag::DRILL)
        .map_err(|error| match error {
            Errno::EPERM => Failure::Refused("only an administrator may have a drill".into()),
            Errno::EBUSY => Failure::Refused("all VMs are being sealed already".into()),
            Errno::EINTR => Failure::Refused("interrupted: the VMs go on".into()),
            other => refused("all VMs", other),
        })?;
    let after = device.vms()?;
    let report = Report::new(&done, &before, &after);
    if args.json {
        let json = serde_json::to_string_pretty(&report);
        println!("{}", json.map_err(|e| Failure::Refused(e.to_string()))?);
    } else {
        report.print();
    }
    report.verdict()
}

impl Report {
    fn new(done: &abi::PowerFailing, before: &[abi::Vm], after: &[abi::Vm]) -> Self {
        let vms: Vec<_> = before
            .iter()
            .filter_map(|was| {
                let is = |vm: &&abi::Vm| vm.slot == was.slot && vm.uuid == was.uuid;
                after.iter().find(is).map(|vm| Row::new(was, vm))
            })
            .collect();
        let times = vms.iter().filter_map(|row| row.times);
        let durable_ns = times.map(|times| times.seal_ns).max();
        let budget_ns = u64::from(done.budget_ms) * 1_000_000;
        Report {
            version: 1,
            budget_ms: done.budget_ms,
            asked: done.asked,
            sealed: done.sealed,
            durable_ns,
            exceeded: durable_ns.is_some_and(|ns| ns > budget_ns),
            vms,
        }
    }

    fn print(&self) {
        let cells = |row: &Row| {
            let time = |part: fn(&Times) -> u64| {
                row.times
                    .as_ref()
                    .map_or_else(|| "-".into(), |times| text::duration(part(times)))
            };
            vec![
                row.name.clone(),
                row.vcpus.to_string(),
                text::bytes(row.ram_bytes),
                time(|times| times.freeze_ns),
                time(|times| times.capture_ns),
                time(|times| times.writeback_ns),
                time(|times| times.commit_ns),
                time(|times| times.seal_ns),
            ]
        };
        let rows: Vec<_> = self.vms.iter().map(cells).collect();
        table::print(&HEAD, &rows, false);
        if let Some(ns) = self.durable_ns {
            println!(
                "{} of {} VMs sealed, the last {} after the trigger, of {} ms that there would be",
                self.sealed,
                self.asked,
                text::duration(ns),
                self.budget_ms
            );
        }
    }

    /// Whether power could fail.
    fn verdict(&self) -> Result<(), Failure> {
        let failed = |text| Err(Failure::Refused(text));
        let frozen: Vec<_> = self.vms.iter().filter(|row| row.frozen).collect();
        if let Some(first) = frozen.first() {
            return failed(format!(
                "{} VMs stay frozen, {} among them: see the kernel's log, and 'nvhv thaw'",
                frozen.len(),
                first.name
            ));
        }
        if self.sealed < self.asked {
            let unsealed = self.vms.iter().find(|row| !row.sealed);
            let which = unsealed.map_or_else(String::new, |row| {
                let why = row.refusal.as_ref().map(|refusal| refusal.text.as_str());
                format!(": {}: {}", row.name, why.unwrap_or("see the kernel's log"))
            });
            return failed(format!(
                "only {} of {} VMs were sealed{which}",
                self.sealed, self.asked
            ));
        }
        match self.durable_ns {
            None => failed("no VM was sealed: see the kernel's log".into()),
            Some(ns) if self.exceeded => failed(format!(
                "the budget is exceeded: {} were needed, of {} ms that there would be",
                text::duration(ns),
                self.budget_ms
            )),
            Some(_) => Ok(()),
        }
    }
}

impl Row {
    /// Of a VM before and after the drill.
    fn new(was: &abi::Vm, vm: &abi::Vm) -> Self {
        let times = &vm.timings;
        // To the nanosecond as long as before: that is what an earlier seal took.
        let sealed = times.seal_ns != 0 && times.seal_ns != was.timings.seal_ns;
        let Vm {
            name,
            slot,
            vcpus,
            ram_bytes,
            frozen,
            refusal,
            ..
        } = Vm::from(vm);
        Row {
            name,
            slot,
            vcpus,
            ram_bytes,
            sealed,
            frozen,
            times: sealed.then_some(Times {
                freeze_ns: times.freeze_ns,
                capture_ns: times.capture_ns,
                writeback_ns: times.writeback_ns,
                commit_ns: times.commit_ns,
                seal_ns: times.seal_ns,
            }),
            refusal: refusal.filter(|_| !sealed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(slot: u32, flags: u32, seal_ns: u64) -> abi::Vm {
        let mut vm = abi::Vm {
            slot,
            flags,
            state: vm_state::LIVE,
            ..abi::Vm::ZERO
        };
        vm.timings.seal_ns = seal_ns;
        vm
    }

    fn report(budget_ms: u32, asked: u32, sealed: u32, after: &[abi::Vm]) -> Report {
        let done = abi::PowerFailing {
            budget_ms,
            asked,
            sealed,
            flags: power_flag::DRILL,
            elapsed_ns: 9_000_000,
        };
        // One of them was sealed before, and went on.
        Report::new(&done, &[vm(0, 0, 0), vm(1, 0, 7)], after)
    }

    #[test]
    fn the_last_vm_counts() {
        let all = [vm(0, 0, 3_000_000), vm(1, 0, 5_000_000), vm(2, 0, 8)];
        let good = report(5, 2, 2, &all);
        assert_eq!(good.durable_ns, Some(5_000_000));
        assert_eq!(good.vms.len(), 2);
        assert!(!good.exceeded && good.verdict().is_ok());
        let late = report(4, 2, 2, &all);
        assert!(late.exceeded && late.verdict().is_err());
    }

    #[test]
    fn an_earlier_seal_does_not_count() {
        let one = report(5, 2, 1, &[vm(0, 0, 3_000_000), vm(1, 0, 7)]);
        assert!(one.vms[0].sealed && !one.vms[1].sealed);
        assert!(one.vms[1].times.is_none() && one.verdict().is_err());
        let none = report(5, 0, 0, &[vm(1, 0, 7)]);
        assert!(none.durable_ns.is_none() && none.verdict().is_err());
    }

    #[test]
    fn json_is_as_its_schema_says() {
        let after = [vm(0, 0, 3_000_000), vm(1, 0, 7)];
        nvhv_schemas::assert_described("drill", &serde_json::json!(report(5, 2, 1, &after)));
    }

    #[test]
    fn who_stays_frozen_is_told() {
        let after = [vm(0, vm_flag::FROZEN, 3_000_000), vm(1, 0, 5_000_000)];
        let why = report(9, 2, 2, &after)
            .verdict()
            .expect_err("one stays frozen");
        assert!(why.to_string().starts_with("1 VMs stay frozen"), "{why}");
    }
}
