// SPDX-License-Identifier: GPL-2.0

//! `nvhv run`

use crate::cli::{Disk, Run};
use crate::device::Device;
use crate::failure::Failure;
use crate::launch::{Launch, Store};
use crate::select::explained;
use nvhv_pure::abi::Bind;
use nvhv_pure::life::{Name, Policy};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Binds this process to a name and becomes the VMM. Returns only if that failed.
pub fn run(args: &Run) -> Result<(), Failure> {
    let usage = |why: String| Failure::Usage(format!("{}: {why}", args.name));
    let name = Name::new(args.name.as_bytes()).map_err(|why| usage(why.to_string()))?;
    let policy = policy(args)?;
    let bind = Bind {
        name: *name.field(),
        policy: policy.bits(),
    };
    let (vmm, vmm_args) = args.command.split_first().expect("clap demands a VMM");
    {
        // Closed before the VMM starts: the binding is the process's, not the file's.
        let device = Device::open().map_err(|f| Failure::NotRun(f.to_string()))?;
        let bound = device.bind(&bind);
        bound
            .map_err(|error| Failure::NotRun(explained(&device, &args.name, error).to_string()))?;
    }
    let store = Store::of(nix::unistd::geteuid().as_raw());
    // That the VM lives nowhere else is true of one image only.
    let once = policy != policy.lasting();
    let old = if args.as_recorded || once {
        None
    } else {
        record(args, &store)
    };
    let error = Command::new(vmm).args(vmm_args).exec();
    // What could not be started does not take the place of what could.
    if let Some(old) = old {
        let _ = store.write(&old);
    }
    let text = format!("{}: {error}", vmm.to_string_lossy());
    Err(match error.kind() {
        io::ErrorKind::NotFound => Failure::NoVmm(text),
        _ => Failure::CannotRun(text),
    })
}

/// Records how the VM was started, and gives what was recorded before. It starts without that as well.
fn record(args: &Run, store: &Store) -> Option<Launch> {
    let launch = Launch::of_this_process(&args.name, &args.env);
    let saved = launch.and_then(|launch| store.save(launch));
    saved.unwrap_or_else(|error| {
        eprintln!(
            "nvhv: {}: 'nvhv resume' will not know how it is started: {error}",
            args.name
        );
        None
    })
}

fn policy(args: &Run) -> Result<Policy, Failure> {
    let (mut torn, mut moved) = (Policy::default(), Policy::default());
    for rule in &args.policy {
        match rule.as_str() {
            "torn=refuse" => torn = Policy::default(),
            "torn=cold" => torn = Policy::TORN_COLD,
            "moved=refuse" => moved = Policy::default(),
            "moved=resume" => moved = Policy::NOT_MOVED,
            _ => {
                let why = format!("{rule}: no such rule; there are torn=refuse, torn=cold, moved=refuse and moved=resume");
                return Err(Failure::Usage(why));
            }
        }
    }
    let mut policy = torn.with(moved);
    if args.allow_partial {
        policy = policy.with(Policy::PARTIAL);
    }
    if args.disk == Disk::Writethrough {
        policy = policy.with(Policy::WRITE_THROUGH);
    }
    Ok(policy)
}
