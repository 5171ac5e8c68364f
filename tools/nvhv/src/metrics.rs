// SPDX-License-Identifier: GPL-2.0

//! `nvhv metrics`: pool and VMs in Prometheus's text format, version 0.0.4.

use crate::cli::Metrics;
use crate::device::Device;
use crate::failure::Failure;
use crate::text;
use crate::vm::Vm;
use nvhv_pure::abi::{persistence, pool_state, Info};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process;

/// All states that a VM may be told to be in: each is a series, so that one that it has left is 0.
const STATES: [&str; 5] = ["live", "sealed", "torn", "discarding", "damaged"];

/// Prints the metrics, or puts them into a file in one step.
pub fn metrics(args: &Metrics) -> Result<(), Failure> {
    let device = Device::open()?;
    let page = page(&device.info()?, &device.pools()?, &Vm::all(&device)?);
    match &args.output {
        None => print!("{page}"),
        Some(path) => put(path, &page)
            .map_err(|error| Failure::Refused(format!("{}: {error}", path.display())))?,
    }
    Ok(())
}

/// A collector never sees half of it.
fn put(path: &Path, page: &str) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let new = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), process::id()));
    // Whoever else may write there has nothing followed or overwritten.
    let done = File::create_new(&new)
        .and_then(|mut file| file.write_all(page.as_bytes()))
        .and_then(|()| fs::rename(&new, path));
    if done.is_err() {
        let _ = fs::remove_file(&new);
    }
    done
}

/// One metric with its series.
struct Metric<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl<'a> Metric<'a> {
    fn new(page: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "# HELP nvhv_{name} {help}\n# TYPE nvhv_{name} {kind}");
        Metric { page, name }
    }

    fn put(self, labels: &[(&str, &str)], value: f64) -> Self {
        let escaped = |value: &str| {
            value
                .replace('\\', r"\\")
                .replace('"', r#"\""#)
                .replace('\n', r"\n")
        };
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let braces = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let _ = writeln!(self.page, "nvhv_{}{braces} {value}", self.name);
        self
    }
}

fn page(info: &Info, pools: &[Info], vms: &[Vm]) -> String {
    let mut page = String::new();
    let version = text::field(&info.module_version);
    let mut metric = Metric::new(&mut page, "info", "gauge", "The module and its pools.");
    if pools.is_empty() {
        let none = [
            ("version", &*version),
            ("device", ""),
            ("persistence_domain", "unknown"),
        ];
        metric = metric.put(&none, 1.0);
    }
    for pool in pools {
        let domain = match pool.persistence {
            persistence::CPU_CACHE => "cpu_cache",
            persistence::MEMORY_CONTROLLER => "memory_controller",
            _ => "unknown",
        };
        let device = text::field(&pool.device);
        metric = metric.put(
            &[
                ("version", &version),
                ("device", &device),
                ("persistence_domain", domain),
            ],
            1.0,
        );
    }
    let good = |pool: &Info| f64::from(u8::from(pool.pool_state == pool_state::GOOD));
    let bytes = |pool: &Info| pool.pool_bytes as f64;
    let free = |pool: &Info| pool.free_bytes as f64;
    let all_good = pools.iter().map(good).reduce(f64::min).unwrap_or(0.0);
    let help = "Whether new VMs get memory from all pools.";
    Metric::new(&mut page, "pool_good", "gauge", help).put(&[], all_good);
    let sum = pools.iter().map(bytes).sum();
    Metric::new(&mut page, "pool_bytes", "gauge", "What VMs may own.").put(&[], sum);
    let sum = pools.iter().map(free).sum();
    Metric::new(&mut page, "pool_free_bytes", "gauge", "What nobody owns.").put(&[], sum);
    type OfPool<'a> = &'a dyn Fn(&Info) -> f64;
    let of_each: [(&'static str, &str, OfPool<'_>); 3] = [
        ("device_good", "As pool_good, of one pool.", &good),
        ("device_bytes", "As pool_bytes, of one pool.", &bytes),
        (
            "device_free_bytes",
            "As pool_free_bytes, of one pool.",
            &free,
        ),
    ];
    for (name, help, value) in of_each {
        let mut metric = Metric::new(&mut page, name, "gauge", help);
        for pool in pools {
            metric = metric.put(&[("device", &text::field(&pool.device))], value(pool));
        }
    }
    let mut metric = Metric::new(
        &mut page,
        "vm_state",
        "gauge",
        "Whether a VM is in a state.",
    );
    for vm in vms {
        for state in STATES {
            let value = f64::from(u8::from(vm.state == state));
            metric = metric.put(&[("vm", &vm.handle()), ("state", state)], value);
        }
    }
    let seconds = |ns: u64| ns as f64 / 1e9;
    let flag = |set: bool| f64::from(u8::from(set));
    type Value<'a> = &'a dyn Fn(&Vm) -> Option<f64>;
    let each: [(&'static str, &str, &str, Value<'_>); 12] = [
        ("vm_frozen", "gauge", "Whether it stands still.", &|vm| {
            Some(flag(vm.frozen))
        }),
        (
            "vm_unkept",
            "gauge",
            "Whether it would not outlive an outage.",
            &|vm| Some(flag(vm.unkept)),
        ),
        (
            "vm_unsaved",
            "gauge",
            "Whether the platform did not save it.",
            &|vm| Some(flag(vm.unsaved)),
        ),
        ("vm_vcpus", "gauge", "Its vCPUs.", &|vm| {
            Some(vm.vcpus.into())
        }),
        ("vm_ram_bytes", "gauge", "Its RAM.", &|vm| {
            Some(vm.ram_bytes as f64)
        }),
        (
            "vm_pool_bytes",
            "gauge",
            "What it owns of the pool.",
            &|vm| Some(vm.pool_bytes as f64),
        ),
        (
            "vm_resumes_total",
            "counter",
            "How often it was resumed.",
            &|vm| Some(vm.resumes.into()),
        ),
        (
            "vm_created_timestamp_seconds",
            "gauge",
            "When it was created.",
            &|vm| Some(seconds(vm.created_ns)),
        ),
        (
            "vm_sealed_timestamp_seconds",
            "gauge",
            "When it was last sealed.",
            &|vm| vm.sealed_ns.map(seconds),
        ),
        (
            "vm_seal_seconds",
            "gauge",
            "How long its last seal took, from the trigger until it was durable.",
            &|vm| (vm.timings.seal_ns != 0).then(|| seconds(vm.timings.seal_ns)),
        ),
        (
            "vm_restore_seconds",
            "gauge",
            "How long its last rebuilding took.",
            &|vm| (vm.timings.restore_ns != 0).then(|| seconds(vm.timings.restore_ns)),
        ),
        (
            "vm_refused",
            "gauge",
            "The errno with which it was last refused.",
            &|vm| vm.refusal.as_ref().map(|refusal| refusal.errno.into()),
        ),
    ];
    for (name, kind, help, value) in each {
        let mut metric = Metric::new(&mut page, name, kind, help);
        for vm in vms {
            if let Some(value) = value(vm) {
                metric = metric.put(&[("vm", &vm.handle())], value);
            }
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvhv_pure::abi;

    #[test]
    fn is_a_page() {
        let mut info = Info {
            pool_state: pool_state::GOOD,
            pool_bytes: 4 << 20,
            ..Info::ZERO
        };
        info.device[..6].copy_from_slice(b"dax0.0");
        let mut vm = abi::Vm {
            state: abi::vm_state::SEALED,
            resumes: 3,
            sealed_ns: 1_500_000_000,
            ..abi::Vm::ZERO
        };
        vm.name[..3].copy_from_slice(b"a-b");
        let mut damaged = Info {
            pool: 1,
            pool_state: pool_state::DAMAGED,
            ..Info::ZERO
        };
        damaged.device[..6].copy_from_slice(b"dax1.0");
        let page = page(&info, &[info, damaged], &[Vm::from(&vm)]);
        for line in [
            "nvhv_info{version=\"\",device=\"dax0.0\",persistence_domain=\"unknown\"} 1",
            "nvhv_pool_good 0",
            "nvhv_device_good{device=\"dax0.0\"} 1",
            "nvhv_device_good{device=\"dax1.0\"} 0",
            "nvhv_pool_bytes 4194304",
            "nvhv_vm_state{vm=\"a-b\",state=\"sealed\"} 1",
            "nvhv_vm_state{vm=\"a-b\",state=\"live\"} 0",
            "nvhv_vm_resumes_total{vm=\"a-b\"} 3",
            "nvhv_vm_sealed_timestamp_seconds{vm=\"a-b\"} 1.5",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("vm_seal_seconds{"), "{page}");
        // Each metric once, with its help and type before it.
        let names: Vec<_> = page
            .lines()
            .filter_map(|l| l.strip_prefix("# TYPE "))
            .collect();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(names.len(), unique.len());
    }

    #[test]
    fn labels_are_escaped() {
        let mut page = String::new();
        Metric::new(&mut page, "x", "gauge", "X.").put(&[("a", "q\"b\\c\n")], 0.5);
        assert!(
            page.ends_with("nvhv_x{a=\"q\\\"b\\\\c\\n\"} 0.5\n"),
            "{page}"
        );
    }
}
