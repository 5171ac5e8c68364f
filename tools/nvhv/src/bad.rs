// SPDX-License-Identifier: GPL-2.0

//! What of a device's memory is bad, as the platform says: read where the module reads it.

use nvhv_pure::state::platform::{self, Run};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A page: what an attribute in sysfs has at most.
const PAGE: usize = 4096;

/// The bad runs of the devdax device of this name, in bytes from its start. None of a device that says nothing.
pub fn runs(device: &str) -> io::Result<Vec<Run>> {
    let dir = Path::new("/sys/bus/dax/devices").join(device);
    let Some(region) = region(&dir) else {
        return Ok(Vec::new());
    };
    let list = match fs::read_to_string(region.join("badblocks")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let (start, len) = (number(&dir.join("resource"))?, number(&dir.join("size"))?);
    let region_start = number(&region.join("resource"))?;
    let mut runs = Vec::new();
    for run in platform::bad_blocks(&list) {
        let run = run.filter(|_| list.len() < PAGE).ok_or_else(|| {
            io::Error::other(
                "its bad blocks are too many, or make no sense: see 'ndctl list --media-errors'",
            )
        })?;
        let at = run.at.saturating_add(region_start);
        runs.extend(Run { at, ..run }.within(start, len));
    }
    Ok(runs)
}

/// The folder of the region of persistent memory that the device is in.
fn region(device: &Path) -> Option<PathBuf> {
    let mut above = ["..", "../..", "../../.."].iter().map(|up| device.join(up));
    above.find(|dir| dir.join("mapping0").exists())
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let text = text.trim();
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}
