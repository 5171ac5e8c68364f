// SPDX-License-Identifier: GPL-2.0

//! What the platform says of the memory that a pool is on, read where user space reads it: bad blocks
//! (`badblocks` of the region), and of each memory module of the region whether it saved what it held
//! (`state::platform` has the sources).
//!
//! It is asked when the pool is claimed. What an outage did to it is known then, and no outage comes
//! before the module is loaded anew.

use super::sysfs::{line, number, text};
use crate::state::platform::{self, Run, Shutdowns, Today, BOOT_LEN};
use kernel::{prelude::*, str::CString};

/// The most memory modules of one region (`include/linux/libnvdimm.h`, `ND_MAX_MAPPINGS`).
const MODULES: u32 = 32;

/// What a kind of memory module calls what it says: a folder of its device in sysfs.
const KINDS: [&str; 3] = ["nfit", "cxl", "papr"];

/// A page: what an attribute in sysfs has at most.
const PAGE: usize = 4096;

/// What the platform says of a device's memory.
pub(crate) struct Platform {
    /// Bad runs of the device, in bytes from its start.
    pub(super) bad: KVec<Run>,
    boot: [u8; BOOT_LEN],
    /// A module that did not save all when power was lost last, and its word for that.
    failed: Option<CString>,
    shutdowns: KVec<Shutdowns>,
    /// What goes into records: their PLATFORM item.
    item: KVec<u8>,
}

impl Platform {
    /// Asks about the device whose folder in sysfs is `device`, with `len` bytes at physical address `start`.
    pub(super) fn of(device: &str, start: u64, len: u64) -> Result<Self> {
        let mut buf = [0; BOOT_LEN];
        let boot = line(fmt!("/proc/sys/kernel/random/boot_id"), &mut buf)?;
        let mut found = Self {
            bad: KVec::new(),
            boot: platform::field(boot.unwrap_or("")),
            failed: None,
            shutdowns: KVec::new(),
            item: KVec::new(),
        };
        // Only a region of persistent memory has such modules.
        if let Some(region) = region(device)? {
            let region = region.to_str().map_err(|_| EINVAL)?;
            found.ask_region(region, start, len)?;
            for number in 0..MODULES {
                let mut buf = [0; 128];
                match line(fmt!("{region}/mapping{number}"), &mut buf)? {
                    Some(mapping) => {
                        let name = mapping.split(',').next().unwrap_or("");
                        // A platform that says nothing is one like any other.
                        if let Err(e) = found.ask_module(name) {
                            pr_warn!("what {name} says of its health cannot be read: {e:?}\n");
                        }
                    }
                    None => break,
                }
            }
        }
        found.item.extend_from_slice(&found.boot, GFP_KERNEL)?;
        for module in &found.shutdowns {
            found
                .item
                .extend_from_slice(&module.to_bytes(), GFP_KERNEL)?;
        }
        Ok(found)
    }

    fn ask_region(&mut self, region: &str, start: u64, len: u64) -> Result {
        let mut page = KVVec::from_elem(0, PAGE, GFP_KERNEL)?;
        let Some(list) = text(fmt!("{region}/badblocks"), &mut page)? else {
            return Ok(());
        };
        let region_start = number(fmt!("{region}/resource"))?.ok_or(ENXIO)?;
        for run in platform::bad_blocks(list) {
            let Some(run) = run.filter(|_| list.len() < PAGE) else {
                pr_err!("the bad blocks of {region} are too many, or make no sense: see 'ndctl list --media-errors'\n");
                return Err(EIO);
            };
            let at = run.at.saturating_add(region_start);
            if let Some(run) = (Run { at, ..run }).within(start, len) {
                self.bad.push(run, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    fn ask_module(&mut self, name: &str) -> Result {
        for kind in KINDS {
            let mut buf = [0; 128];
            if let Some(flags) = line(fmt!("/sys/bus/nd/devices/{name}/{kind}/flags"), &mut buf)? {
                if let Some(word) = platform::failure(flags) {
                    self.failed = Some(CString::try_from_fmt(fmt!("{name}: {word}"))?);
                }
                if platform::is_disarmed(flags) {
                    pr_warn!("{name} would save nothing if power were lost now (not_armed): see 'ndctl list -DH'\n");
                }
            }
            let count = number(fmt!("/sys/bus/nd/devices/{name}/{kind}/dirty_shutdown"))?;
            if let Some(count) = count {
                let id = line(fmt!("/sys/bus/nd/devices/{name}/{kind}/id"), &mut buf)?;
                let module = Shutdowns::new(id.unwrap_or(name), count);
                self.shutdowns.push(module, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// What it says today.
    pub(super) fn today(&self) -> Today<'_> {
        Today {
            boot: &self.boot,
            failed: self.failed.as_ref().and_then(|why| why.to_str().ok()),
            shutdowns: &self.shutdowns,
        }
    }

    /// What of it a record has.
    pub(crate) fn item(&self) -> &[u8] {
        &self.item
    }
}

/// The folder of the region that the device is in.
fn region(device: &str) -> Result<Option<CString>> {
    for up in ["..", "../..", "../../.."] {
        let mut buf = [0; 128];
        if line(fmt!("{device}/{up}/mapping0"), &mut buf)?.is_some() {
            return Ok(Some(CString::try_from_fmt(fmt!("{device}/{up}"))?));
        }
    }
    Ok(None)
}
