// SPDX-License-Identifier: GPL-2.0

//! `nvhv enable`, `nvhv disable`

use crate::cli::{Disable, Enable};
use crate::failure::Failure;
use crate::launch::{Launch, Store};
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
    Store::open()
        .change(name, change)
        .map_err(|error| unknown(name, &error))
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
