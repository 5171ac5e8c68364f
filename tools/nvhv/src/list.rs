// SPDX-License-Identifier: GPL-2.0

//! `nvhv list`

use crate::cli::List;
use crate::device::Device;
use crate::failure::Failure;
use crate::vm::{user, Vm};
use crate::{table, text};
use nvhv_pure::abi::{pool_state, Info, SLOTS_PER_POOL};
use serde_json::{json, Value};
use uuid::Uuid;

const HEAD: [&str; 10] = [
    "NAME", "STATE", "RAM", "POOL", "VCPUS", "OWNER", "PID", "SEALED", "CAUSE", "RESUMES",
];

/// One more if there are several pools.
const DEVICE: &str = "DEVICE";

/// A number as text.
type Words = fn(u64) -> String;

/// Lists the VMs of all pools.
pub fn list(args: &List) -> Result<(), Failure> {
    let device = Device::open()?;
    let info = device.info()?;
    let pools = device.pools()?;
    let vms = Vm::all(&device)?;
    if args.json {
        println!("{:#}", as_json(&info, &pools, &vms));
        return Ok(());
    }
    let (size, time): (Words, Words) = if args.exact {
        (|n| n.to_string(), |n| n.to_string())
    } else {
        (text::bytes, text::time)
    };
    let none = || String::from("-");
    let several = pools.len() > 1;
    let row = |vm: &Vm| {
        let mut row = vec![
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
        ];
        row.extend(several.then(|| vm.device.clone()));
        row
    };
    let rows: Vec<_> = vms.iter().map(row).collect();
    let mut head = HEAD.to_vec();
    head.extend(several.then_some(DEVICE));
    table::print(&head, &rows, args.plain);
    for pool in pools
        .iter()
        .filter(|pool| pool.pool_state != pool_state::GOOD)
    {
        let device = text::field(&pool.device);
        eprintln!(
            "nvhv: the pool on {device} is {}: {}",
            state(pool),
            text::field(&pool.text)
        );
    }
    Ok(())
}

/// The state of a pool in a word.
fn state(pool: &Info) -> &'static str {
    match pool.pool_state {
        pool_state::GOOD => "good",
        pool_state::SUSPECT => "suspect",
        pool_state::DAMAGED => "damaged",
        _ => "unknown",
    }
}

fn as_json(info: &Info, pools: &[Info], vms: &[Vm]) -> Value {
    let of_each = pools.iter().map(|pool| {
        json!({
            "device": text::field(&pool.device),
            "state": state(pool),
            "uuid": Uuid::from_bytes(pool.pool_uuid).to_string(),
            "bytes": pool.pool_bytes,
            "free_bytes": pool.free_bytes,
            "first_slot": u32::from(pool.pool) * SLOTS_PER_POOL,
            "slots": pool.slots,
            "text": text::field(&pool.text),
        })
    });
    json!({
        "version": 1,
        "pool": {
            "device": text::field(&info.device),
            "bytes": info.pool_bytes,
            "free_bytes": info.free_bytes,
            "slots": info.slots,
        },
        "pools": of_each.collect::<Vec<_>>(),
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
        let pool = Info {
            pool_state: pool_state::GOOD,
            ..Info::ZERO
        };
        assert_described("list", &as_json(&Info::ZERO, &[pool], &vms));
    }
}
