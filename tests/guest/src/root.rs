// SPDX-License-Identifier: GPL-2.0
//! Hands a Debian over to its own init: with `root=DEVICE` this program only loads modules, mounts
//! that ext4 and starts `/sbin/init` of it. There it comes back as a service of systemd, from `/run`,
//! so the file system itself knows nothing of it.

use crate::sys;
use std::fs::{copy, create_dir_all, write};
use std::io::{Error, Result};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::Command;

const PLACE: &str = "/root";
const UNIT: &str = "[Unit]
After=redis-server.service
[Service]
ExecStart=/run/nvhv-guest
";

/// Returns only if it fails.
pub fn switch(device: &str) -> Error {
    match prepare(device) {
        Ok(()) => Command::new("/sbin/init").env_clear().exec(),
        Err(error) => error,
    }
}

fn prepare(device: &str) -> Result<()> {
    sys::wait_for(device);
    create_dir_all(PLACE)?;
    sys::mount(device, PLACE, "ext4")?;
    let run = format!("{PLACE}/run");
    sys::mount("run", &run, "tmpfs")?;
    copy("/init", format!("{run}/nvhv-guest"))?;
    let units = format!("{run}/systemd/system");
    let wants = format!("{units}/multi-user.target.wants");
    create_dir_all(&wants)?;
    write(format!("{units}/nvhv-guest.service"), UNIT)?;
    symlink(
        "../nvhv-guest.service",
        format!("{wants}/nvhv-guest.service"),
    )?;
    for place in ["dev", "proc", "sys"] {
        sys::move_mount(&format!("/{place}"), &format!("{PLACE}/{place}"))?;
    }
    std::env::set_current_dir(PLACE)?;
    sys::move_mount(".", "/")?;
    std::os::unix::fs::chroot(".")
}
