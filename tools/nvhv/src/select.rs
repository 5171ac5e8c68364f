// SPDX-License-Identifier: GPL-2.0

//! `nvhv discard`, `nvhv seal`, `nvhv thaw`

use crate::cli::{Discard, Seal, Which};
use crate::device::{refused, Device};
use crate::failure::Failure;
use crate::launch::Store;
use crate::text;
use crate::vm::Vm;
use nix::errno::Errno;
use nvhv_pure::abi::{Select, NAME_LEN};

/// Gives up an image.
pub fn discard(args: &Discard) -> Result<(), Failure> {
    let device = Device::open()?;
    let vm = Vm::find(&device, &args.name)?;
    if !args.force {
        let ram = text::bytes(vm.ram_bytes);
        return Err(Failure::Refused(format!(
            "{}: this would destroy the {} VM of {ram} for good: say --force",
            args.name,
            vm.state_text()
        )));
    }
    let done = device.discard(&select(&args.name)?);
    done.map_err(|error| explained(&device, &args.name, error))?;
    // Of one that was set aside the name may be another VM's by now. There may be no record.
    if !vm.aside {
        let _ = Store::of(vm.uid).remove(&vm.name);
    }
    Ok(())
}

/// Freezes and seals.
pub fn seal(args: &Seal) -> Result<(), Failure> {
    if args.now {
        return seal_now(args.budget.unwrap_or(0));
    }
    act(args.name.as_deref(), Device::seal)
}

/// Freezes and seals all VMs before all else.
fn seal_now(budget_ms: u32) -> Result<(), Failure> {
    let done = Device::open()?
        .power_failing(budget_ms, 0)
        .map_err(|error| match error {
            Errno::EPERM => {
                Failure::Refused("only an administrator may say that power fails".into())
            }
            Errno::EBUSY => Failure::Refused("all VMs are being sealed already".into()),
            other => refused("all VMs", other),
        })?;
    let ms = done.elapsed_ns as f64 / 1e6;
    let late = ms > f64::from(done.budget_ms);
    let budget = if late {
        format!(", of {} ms that there are", done.budget_ms)
    } else {
        String::new()
    };
    if done.sealed < done.asked {
        return Err(Failure::Refused(format!(
            "only {} of {} VMs are sealed after {ms:.1} ms{budget}: see 'nvhv list' and the kernel's log",
            done.sealed, done.asked
        )));
    }
    println!("{} VMs sealed in {ms:.1} ms{budget}", done.sealed);
    Ok(())
}

/// Lets go on.
pub fn thaw(args: &Which) -> Result<(), Failure> {
    act(args.name.as_deref(), Device::thaw)
}

/// Acts on one VM, or on all without a name.
fn act(name: Option<&str>, act: fn(&Device, &Select) -> Result<(), Errno>) -> Result<(), Failure> {
    let device = Device::open()?;
    let name = name.unwrap_or("");
    let what = if name.is_empty() { "all VMs" } else { name };
    act(&device, &select(name)?).map_err(|error| explained(&device, what, error))
}

/// The VM that is meant: its name, or `#` and its slot.
pub fn select(name: &str) -> Result<Select, Failure> {
    let mut field = [0; NAME_LEN];
    if name.len() >= NAME_LEN {
        return Err(Failure::NoVm(format!("{name}: there is no such VM")));
    }
    field[..name.len()].copy_from_slice(name.as_bytes());
    Ok(Select { name: field })
}

/// The module's own words for a refusal, if it left any with the VM.
pub fn explained(device: &Device, name: &str, error: Errno) -> Failure {
    let vm = Vm::find(device, name).ok();
    match vm
        .and_then(|vm| vm.refusal)
        .filter(|r| r.errno == error as i32)
    {
        Some(refusal) => Failure::Refused(format!("{name}: {}", refusal.text)),
        None => refused(name, error),
    }
}
