// SPDX-License-Identifier: GPL-2.0

//! `nvhv list`

use crate::cli::List;
use crate::device::Device;
use crate::failure::Failure;
use crate::vm::{user, Vm};
use crate::{table, text};
use nvhv_pure::abi::Info;
use serde_json::{json, Value};

const HEAD: [&str; 10] = [
    "NAME", "STATE", "RAM", "POOL", "VCPUS", "OWNER", "PID", "SEALED", "CAUSE", "RESUMES",
];

/// A number as text.
type Words = fn(u64) -> String;

/// Lists the VMs of the pool.
pub fn list(args: &List) -> Result<(), Failure> {
    let device = Device::open()?;
    let info = device.info()?;
    let vms: Vec<Vm> = device.vms()?.iter().map(Vm::from).collect();
    if args.json {
        println!("{:#}", as_json(&info, &vms));
        return Ok(());
    }
    let (size, time): (Words, Words) = if args.exact {
        (|n| n.to_string(), |n| n.to_string())
    } else {
        (text::bytes, text::time)
    };
    let none = || String::from("-");
    let row = |vm: &Vm| {
        vec![
            vm.handle(),
            vm.state_text(),
            size(vm.ram_bytes),
            size(vm.pool_bytes),
            vm.vcpus.to_string(),
            if args.exact {
                vm.uid.to_string()
            } else {
                user(vm.uid)
            },
            vm.pid.map_or_else(none, |pid| pid.to_string()),
            vm.sealed_ns.map_or_else(none, time),
            vm.cause.clone().unwrap_or_else(none),
            vm.resumes.to_string(),
        ]
    };
    let rows: Vec<_> = vms.iter().map(row).collect();
    table::print(&HEAD, &rows, args.plain);
    Ok(())
}

fn as_json(info: &Info, vms: &[Vm]) -> Value {
    json!({
        "version": 1,
        "pool": {
            "device": text::field(&info.device),
            "bytes": info.pool_bytes,
            "free_bytes": info.free_bytes,
            "slots": info.slots,
        },
        "vms": vms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::samples;
    use nvhv_schemas::assert_described;

    #[test]
    fn json_is_as_its_schema_says() {
        let vms = samples::all().map(|vm| Vm::from(&vm));
        assert_described("list", &as_json(&Info::ZERO, &vms));
    }
}
