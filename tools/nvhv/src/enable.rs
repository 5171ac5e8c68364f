// SPDX-License-Identifier: GPL-2.0

//! `nvhv enable`, `nvhv disable`

use crate::cli::{Disable, Enable};
use crate::device::Device;
use crate::failure::Failure;
use crate::launch::{Launch, Store};
use crate::vm::Vm;
use std::io;

/// Has a VM started when the host has booted.
pub fn enable(args: &Enable) -> Result<(), Failure> {
    change(&args.name, |launch| {
        (launch.enabled, launch.priority) = (true, args.priority);
    })
}

/// Has it not.
pub fn disable(args: &Disable) -> Result<(), Failure> {
    change(&args.name, |launch| launch.enabled = false)
}

fn change(name: &str, change: impl FnOnce(&mut Launch)) -> Result<(), Failure> {
    let done = store_of(name)?.change(name, change);
    done.map_err(|error| unknown(name, &error))
}

/// The records among which that of a VM is: its user's.
pub fn store_of(name: &str) -> Result<Store, Failure> {
    let vm = Vm::find(&Device::open()?, name)?;
    Ok(Store::of(vm.uid))
}

/// What it means that a VM's record cannot be had.
pub fn unknown(name: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure::NoVm(format!(
            "{name}: nothing is known of how it is started: 'nvhv run' records it"
        )),
        _ => Failure::Refused(format!("{name}: {error}")),
    }
}
