// SPDX-License-Identifier: GPL-2.0

//! `nvhv check`: which prerequisites hold, and how to mend the others.

use crate::bad;
use crate::cli;
use crate::device::{Device, PATH};
use crate::failure::Failure;
use crate::text;
use crate::vm::Vm;
use clap::CommandFactory;
use nvhv_pure::abi::{pool_state, Info};
use nvhv_pure::format::GRANULE;
use nvhv_pure::state::platform;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One prerequisite.
#[derive(Serialize)]
struct Check {
    what: &'static str,
    holds: bool,
    /// Without it nothing works.
    required: bool,
    /// What was found.
    found: String,
    /// What to do if it does not hold.
    mend: &'static str,
}

/// Checks all, from the ground up.
pub fn check(args: &cli::Check) -> Result<(), Failure> {
    let mut checks = vec![
        kernel(),
        signing(),
        kvm(),
        nested_paging(),
        devdax(),
        persistence(),
        saved(),
        module(),
        same_version(),
    ];
    checks.extend(pools());
    checks.extend([after_panic(), by_itself()]);
    checks.extend(libvirt());
    if args.json {
        let json = serde_json::to_string_pretty(&checks);
        println!("{}", json.map_err(|e| Failure::Refused(e.to_string()))?);
    } else {
        for check in &checks {
            let verdict = match (check.holds, check.required) {
                (true, _) => "ok",
                (false, true) => "NO",
                (false, false) => "--",
            };
            println!("{verdict:<3} {:<20} {}", check.what, check.found);
            if !check.holds {
                println!("    {:<20} -> {}", "", check.mend);
            }
        }
    }
    let missing = checks.iter().filter(|c| c.required && !c.holds);
    let missing: Vec<_> = missing.map(|c| c.what).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "not ready: {}",
        missing.join(", ")
    )))
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

fn entries(dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn kernel() -> Check {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let config = read(format!("/boot/config-{release}"));
    let rust = config.is_some_and(|c| c.lines().any(|l| l == "CONFIG_RUST=y"));
    let loaded = Path::new("/sys/module/nvhv").exists();
    Check {
        what: "kernel with Rust",
        holds: rust || loaded,
        required: true,
        found: release,
        mend: "boot the stock linux-image-amd64 of trixie-backports",
    }
}

/// Whether the kernel loads a module that nobody it trusts has signed: lockdown(7), module.sig_enforce.
fn signing() -> Check {
    let enforced = read("/sys/module/module/parameters/sig_enforce").is_some_and(|v| v == "Y");
    let lockdown = read("/sys/kernel/security/lockdown").unwrap_or_default();
    // The one in force is in brackets.
    let locked = !lockdown.is_empty() && !lockdown.contains("[none]");
    let loaded = Path::new("/sys/module/nvhv").exists();
    Check {
        what: "module signing",
        holds: loaded || !enforced && !locked,
        required: true,
        found: match (enforced, locked) {
            (true, _) => "only signed modules are loaded (sig_enforce)".into(),
            (_, true) => format!("the kernel is locked down: {lockdown}"),
            _ => "not demanded".into(),
        },
        mend:
            "sign nvhv.ko with a key that is enrolled ('mokutil --import'), or turn Secure Boot off",
    }
}

fn kvm() -> Check {
    let holds = Path::new("/dev/kvm").exists();
    Check {
        what: "KVM",
        holds,
        required: true,
        found: if holds { "/dev/kvm" } else { "no /dev/kvm" }.into(),
        mend: "'modprobe kvm_amd' or 'modprobe kvm_intel'; enable virtualization in the firmware",
    }
}

fn nested_paging() -> Check {
    let amd = read("/sys/module/kvm_amd/parameters/npt").map(|v| ("kvm_amd npt", v));
    let intel = read("/sys/module/kvm_intel/parameters/ept").map(|v| ("kvm_intel ept", v));
    let found = amd.or(intel);
    let holds = found.as_ref().is_some_and(|(_, v)| v == "Y" || v == "1");
    Check {
        what: "nested paging",
        holds,
        required: true,
        found: found.map_or("unknown".into(), |(what, v)| format!("{what}={v}")),
        mend: "load kvm_amd with npt=1, or kvm_intel with ept=1",
    }
}

fn devdax() -> Check {
    let found: Vec<String> = entries("/sys/bus/dax/devices")
        .iter()
        .filter_map(|path| {
            let size: u64 = read(path.join("size"))?.parse().ok()?;
            let align: u64 = read(path.join("align")).map_or(Some(GRANULE), |a| a.parse().ok())?;
            let name = path.file_name()?.to_string_lossy();
            (size > 0 && align % GRANULE == 0).then(|| format!("{name} {}", text::bytes(size)))
        })
        .collect();
    Check {
        what: "devdax device",
        holds: !found.is_empty(),
        required: true,
        found: if found.is_empty() {
            "none".into()
        } else {
            found.join(", ")
        },
        mend: "'ndctl create-namespace -f -e NAMESPACE -m devdax -M mem --align=2M'",
    }
}

fn persistence() -> Check {
    let domains: Vec<String> = entries("/sys/bus/nd/devices")
        .iter()
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            let domain = read(path.join("persistence_domain"))?;
            name.starts_with("region")
                .then(|| format!("{name} {domain}"))
        })
        .collect();
    let known = |d: &String| d.ends_with("cpu_cache") || d.ends_with("memory_controller");
    Check {
        what: "persistence domain",
        holds: domains.iter().any(known),
        required: false,
        found: if domains.is_empty() { "unknown".into() } else { domains.join(", ") },
        mend: "memory of an unknown domain survives warm reboots at most: use an NVDIMM or CXL region to survive power cuts",
    }
}

fn saved() -> Check {
    let bus = entries("/sys/bus/nd/devices");
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let flagged = bus.iter().filter_map(|path| {
        let flags = read(path.join("nfit/flags"))?;
        let word = platform::failure(&flags)
            .or_else(|| platform::is_disarmed(&flags).then_some("not_armed"))?;
        Some(format!("{}: {word}", name(path)?))
    });
    let bad = bus.iter().filter_map(|path| {
        let list = read(path.join("badblocks")).filter(|list| !list.is_empty())?;
        Some(format!(
            "{}: {} runs of bad blocks",
            name(path)?,
            list.lines().count()
        ))
    });
    let found: Vec<_> = flagged.chain(bad).collect();
    Check {
        what: "memory health",
        holds: found.is_empty(),
        required: false,
        found: if found.is_empty() { "nothing is wrong".into() } else { found.join(", ") },
        mend: "see 'ndctl list -DHM' and 'ndctl clear-errors'; images that were not saved are not resumed: 'nvhv list'",
    }
}

fn module() -> Check {
    let info = Device::open().and_then(|device| device.info());
    Check {
        what: "module",
        holds: info.is_ok(),
        required: true,
        found: match &info {
            Ok(info) => format!("{PATH}, version {}", text::field(&info.module_version)),
            Err(failure) => failure.to_string(),
        },
        mend: "'insmod nvhv.ko', as root",
    }
}

/// After an upgrade the module that is loaded, and keeps the VMs, is the old one.
fn same_version() -> Check {
    // As `nvhv --version` tells it.
    let command = cli::Cli::command();
    let ours = command.get_version().unwrap_or("unknown");
    let info = Device::open().and_then(|device| device.info());
    let loaded = info.map(|info| text::field(&info.module_version));
    Check {
        what: "same version",
        holds: loaded.as_ref().is_ok_and(|loaded| loaded == ours),
        required: false,
        found: match loaded {
            Ok(loaded) if loaded == ours => format!("command and module are {ours}"),
            Ok(loaded) => format!("the command is {ours}, the module that is loaded {loaded}"),
            Err(_) => "unknown".into(),
        },
        mend: "VMs go on with the module that is loaded; the next boot of the host loads the installed one, and so does \
               'modprobe -r nvhv; modprobe nvhv' while no VM is here",
    }
}

/// Each pool, and what is wrong with what is in it.
fn pools() -> Vec<Check> {
    let told = Device::open().and_then(|device| Ok((device.pools()?, Vm::all(&device)?)));
    let (pools, vms) = match told {
        Ok((pools, vms)) if !pools.is_empty() => (pools, vms),
        told => {
            return vec![Check {
                what: "pool",
                holds: false,
                required: true,
                found: if told.is_ok() { "none" } else { "unknown" }.into(),
                mend: "'rmmod nvhv; nvhv format DEVICE; insmod nvhv.ko'",
            }]
        }
    };
    let is_good = |pool: &Info| pool.pool_state == pool_state::GOOD;
    // Who has one that is good can work.
    let required = !pools.iter().any(is_good);
    let of_each = pools.iter().flat_map(|pool| {
        let health = health(pool, &vms);
        std::iter::once(usable(pool, required)).chain(health)
    });
    of_each.collect()
}

fn usable(pool: &Info, required: bool) -> Check {
    let device = text::field(&pool.device);
    let good = pool.pool_state == pool_state::GOOD;
    Check {
        what: "pool",
        holds: good,
        required,
        found: match good {
            true => format!(
                "{device}: {}, {} free",
                text::bytes(pool.pool_bytes),
                text::bytes(pool.free_bytes)
            ),
            false => format!("{device}: {}", text::field(&pool.text)),
        },
        mend: match pool.pool_state {
            pool_state::SUSPECT => {
                "'nvhv list' names the damaged entry; 'nvhv discard #SLOT --force' gives it up"
            }
            _ => "'nvhv repair DEVICE' says more; restore the device, or give all its VMs up: 'nvhv format --force'",
        },
    }
}

/// What a pool that can be used has of bad memory, and of images that cannot be resumed.
fn health(pool: &Info, vms: &[Vm]) -> Option<Check> {
    if pool.pool_state == pool_state::DAMAGED {
        return None;
    }
    let device = text::field(&pool.device);
    let mut wrong = Vec::new();
    match bad::runs(&device) {
        Ok(runs) if runs.is_empty() => {}
        Ok(runs) => {
            let len = runs.iter().map(|run| run.len).sum();
            wrong.push(format!("{} in bad blocks", text::bytes(len)));
        }
        Err(error) => wrong.push(error.to_string()),
    }
    let here = || vms.iter().filter(|vm| vm.device == device);
    type Is = fn(&Vm) -> bool;
    let kinds: [(&str, Is); 4] = [
        ("unsaved", |vm| vm.unsaved),
        ("torn", |vm| vm.state == "torn"),
        ("damaged", |vm| vm.state == "damaged"),
        ("with a name that another pool has, too", |vm| vm.clash),
    ];
    for (kind, is) in kinds {
        let handles: Vec<_> = here().filter(|vm| is(vm)).map(Vm::handle).collect();
        if !handles.is_empty() {
            wrong.push(format!("{} {kind}: {}", handles.len(), handles.join(" ")));
        }
    }
    Some(Check {
        what: "pool health",
        holds: wrong.is_empty(),
        required: false,
        found: match wrong.is_empty() {
            true => format!("{device}: nothing is wrong"),
            false => format!("{device}: {}", wrong.join(", ")),
        },
        mend: "such images are not resumed: 'nvhv show' says why, 'nvhv discard' gives up; bad blocks: 'ndctl clear-errors'",
    })
}

/// A host that stands still after a panic has sealed its VMs, but does not come back to resume them.
fn after_panic() -> Check {
    let seconds = read("/proc/sys/kernel/panic").and_then(|v| v.parse::<i64>().ok());
    let crash_kernel = read("/sys/kernel/kexec_crash_loaded").is_some_and(|v| v == "1");
    Check {
        what: "restart after panic",
        holds: crash_kernel || seconds.is_some_and(|s| s != 0),
        required: false,
        found: match (crash_kernel, seconds) {
            (true, _) => "a crash kernel is loaded".into(),
            (_, Some(0)) => "the host stands still".into(),
            (_, Some(s)) if s < 0 => "at once".into(),
            (_, Some(s)) => format!("after {s} s"),
            (_, None) => "unknown".into(),
        },
        mend: "'sysctl kernel.panic=10', and in /etc/sysctl.d; or a crash kernel: kdump-tools",
    }
}

/// Whether units are there and enabled that do what is to be done without anybody.
fn is_enabled(unit: &str) -> bool {
    let links = [
        "/etc/systemd/system/multi-user.target.wants",
        "/usr/lib/systemd/system/multi-user.target.wants",
    ];
    links.iter().any(|dir| Path::new(dir).join(unit).exists())
}

fn is_active(unit: &str) -> bool {
    let asked = Command::new("systemctl")
        .args(["is-active", "--quiet", unit])
        .status();
    asked.is_ok_and(|status| status.success())
}

fn by_itself() -> Check {
    let units = ["nvhv.service", "nvhv-resume.service", "nvhv-seal.service"];
    let missing: Vec<_> = units.into_iter().filter(|unit| !is_enabled(unit)).collect();
    Check {
        what: "works by itself",
        holds: missing.is_empty(),
        required: false,
        found: match missing.is_empty() {
            true => "the units are enabled".into(),
            false => format!("not enabled: {}", missing.join(", ")),
        },
        mend: "'systemctl enable nvhv nvhv-resume nvhv-seal'",
    }
}

/// Whether libvirt, if it is here, lets its domains' QEMUs have the module's device.
fn libvirt() -> Option<Check> {
    let conf = read("/etc/libvirt/qemu.conf")?;
    let missing: Vec<_> = [
        (!libvirt_shows(&conf), "its domains do not see /dev/nvhv"),
        (
            !is_enabled("nvhv-libvirt.service"),
            "not enabled: nvhv-libvirt.service",
        ),
        // What does not run is not stopped either, when the host goes down.
        (
            !is_active("nvhv-libvirt.service"),
            "not started: nvhv-libvirt.service",
        ),
    ]
    .into_iter()
    .filter_map(|(lacks, what)| lacks.then_some(what))
    .collect();
    Some(Check {
        what: "libvirt",
        holds: missing.is_empty(),
        required: false,
        found: match missing.is_empty() {
            true => "its domains may be marked".into(),
            false => missing.join(", "),
        },
        mend: "add \"/dev/nvhv\" to cgroup_device_acl in /etc/libvirt/qemu.conf, 'systemctl enable --now nvhv-libvirt', 'systemctl restart libvirtd'; if domains are to be kept",
    })
}

/// Whether the list of devices in libvirt's `qemu.conf` names the module's.
fn libvirt_shows(conf: &str) -> bool {
    let uncommented: String = conf
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let list = uncommented
        .split_once("cgroup_device_acl")
        .map(|(_, rest)| rest);
    let list = list
        .and_then(|rest| rest.split_once(']'))
        .map(|(list, _)| list);
    list.is_some_and(|list| list.contains("\"/dev/nvhv\""))
}

#[cfg(test)]
mod tests {
    use super::libvirt_shows;

    #[test]
    fn reads_libvirts_list() {
        let commented = "#cgroup_device_acl = [\n#    \"/dev/kvm\", \"/dev/nvhv\"\n#]\n";
        assert!(!libvirt_shows(commented));
        assert!(libvirt_shows(
            "cgroup_device_acl = [\n    \"/dev/kvm\",\n    \"/dev/nvhv\"\n]\n"
        ));
        assert!(!libvirt_shows(
            "cgroup_device_acl = [ \"/dev/kvm\" ]\nother = [ \"/dev/nvhv\" ]\n"
        ));
        assert!(!libvirt_shows(""));
    }
}
