// SPDX-License-Identifier: GPL-2.0

//! `nvhv show`

use crate::cli::Show;
use crate::device::Device;
use crate::devices::DeviceReport;
use crate::failure::Failure;
use crate::text;
use crate::vm::{user, Vm};
use serde::Serialize;

/// The JSON of `show`.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    vm: &'a Vm,
    /// Nothing if the VM is not here.
    devices: Option<&'a [DeviceReport]>,
    cached_files: Option<u32>,
}

/// Shows all that is known of a VM.
pub fn show(args: &Show) -> Result<(), Failure> {
    let device = Device::open()?;
    let vm = Vm::find(&device, &args.name)?;
    let told = device.devices(vm.slot)?;
    let cached = told.as_ref().map(|(_, cached)| *cached);
    let devices: Option<Vec<_>> =
        told.map(|(entries, _)| entries.iter().map(DeviceReport::from).collect());
    if args.json {
        let shown = Shown {
            vm: &vm,
            devices: devices.as_deref(),
            cached_files: cached,
        };
        let json = serde_json::to_string_pretty(&shown);
        println!("{}", json.map_err(|e| Failure::Refused(e.to_string()))?);
        return Ok(());
    }
    let t = &vm.timings;
    let line = |what: &str, value: String| println!("{what:<10} {value}");
    line("name", vm.name.clone());
    line("slot", vm.slot.to_string());
    line("state", vm.state_text());
    if let Some(refusal) = &vm.refusal {
        line("refused", refusal.text.clone());
    }
    line("uuid", vm.uuid.clone());
    line("owner", user(vm.uid));
    if let Some(pid) = vm.pid {
        line("VMM", format!("process {pid}"));
    }
    line("vCPUs", vm.vcpus.to_string());
    let ram = text::bytes(vm.ram_bytes);
    line("RAM", format!("{ram} in {} blocks", vm.blocks));
    line("pool", text::bytes(vm.pool_bytes));
    line("policy", vm.policy.join(","));
    line("created", text::time(vm.created_ns));
    if let Some(sealed) = vm.sealed_ns {
        let cause = vm.cause.as_deref().unwrap_or("unknown");
        line("sealed", format!("{} ({cause})", text::time(sealed)));
    }
    line("resumes", vm.resumes.to_string());
    let times = [
        ("adopt", t.adopt_ns),
        ("freeze", t.freeze_ns),
        ("capture", t.capture_ns),
        ("write back", t.writeback_ns),
        ("commit", t.commit_ns),
        ("seal", t.seal_ns),
        ("restore", t.restore_ns),
    ];
    for (what, ns) in times.into_iter().filter(|(_, ns)| *ns > 0) {
        let more = match (what, t.budget_ms) {
            ("adopt", _) => format!(" ({} pages copied)", t.adopted_pages),
            ("seal", Some(budget)) => format!(" of {budget} ms after power was said to fail"),
            ("seal", None) => " in all".into(),
            _ => String::new(),
        };
        line(what, format!("{}{more}", text::duration(ns)));
    }
    for (number, device) in devices.iter().flatten().enumerate() {
        line(if number == 0 { "devices" } else { "" }, device.line());
    }
    if cached.is_some_and(|count| count > 0) && vm.policy.contains(&"disk=as-is") {
        line(
            "hint",
            "a power cut loses what is in the host's page cache only: use 'nvhv run \
             --disk=writethrough', or cache=directsync (for a block device without a cache of its \
             own, cache=none)"
                .into(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::samples;
    use nvhv_pure::abi::{keeping, DeviceEntry};
    use nvhv_schemas::assert_described;
    use serde_json::json;

    #[test]
    fn json_is_as_its_schema_says() {
        // Of each kind, one that is not known among them.
        let mut entries = [DeviceEntry::ZERO; 10];
        for (kind, entry) in (0..).zip(&mut entries) {
            entry.kind = kind;
            entry.keeping = kind % (keeping::LOST + 2);
        }
        let devices = entries.each_ref().map(DeviceReport::from);
        for vm in samples::all() {
            let vm = &Vm::from(&vm);
            for (devices, cached_files) in [(Some(&devices[..]), Some(2)), (None, None)] {
                let shown = Shown {
                    vm,
                    devices,
                    cached_files,
                };
                assert_described("show", &json!(shown));
            }
        }
    }
}
