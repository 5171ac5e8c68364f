// SPDX-License-Identifier: GPL-2.0

//! Finding and claiming a devdax device.
//!
//! The kernel has no in-kernel interface to a devdax device. What the module needs is stable user
//! ABI, so it is read where user space reads it: `/sys/bus/dax/devices/DEV/{resource,size}`
//! (`Documentation/ABI/testing/sysfs-bus-dax`) and the region's `persistence_domain`
//! (`Documentation/ABI/testing/sysfs-bus-nvdimm`). The memory itself is the kernel's direct mapping of
//! the device's pages, which exist while device_dax is bound to it; a reference to their
//! `dev_pagemap` and an open device file keep it so.

use super::{
    memory::Memory,
    platform::Platform,
    sysfs::{line, number},
};
use crate::sys::{c, file::FileRef};
use kernel::{fmt, prelude::*, str::CString};

/// How stores become durable on a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Domain {
    /// The platform saves CPU caches on power loss (eADR): a fence is enough.
    CpuCache,
    /// What reached the memory controller is saved (ADR): caches must be written back.
    MemoryController,
    /// The device does not say: as for `MemoryController`.
    Unknown,
}

impl Domain {
    /// As the nvdimm bus calls it in sysfs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Domain::CpuCache => "cpu_cache",
            Domain::MemoryController => "memory_controller",
            Domain::Unknown => "unknown",
        }
    }
}

/// A claimed devdax device.
pub(crate) struct Device {
    /// Its name: `dax0.0`.
    pub(crate) name: CString,
    /// Its memory.
    pub(crate) memory: Memory,
    /// How stores become durable.
    pub(crate) domain: Domain,
    /// The NUMA node that it is on; -1 if there are none.
    pub(crate) node: i32,
    /// What the platform says of its memory.
    pub(crate) platform: Platform,
    /// The region's `deep_flush`, where it has flush hints.
    deep_flush: Option<FileRef>,
    _file: FileRef,
}

/// How many regions and devices per region are looked at.
const REGIONS: u32 = 32;
const DEVICES: u32 = 16;

/// Calls `f` with the name of every devdax device there is, and the device if it can be claimed.
pub(crate) fn each(mut f: impl FnMut(CString, Result<Device>) -> Result) -> Result {
    for region in 0..REGIONS {
        for number in 0..DEVICES {
            let name = || CString::try_from_fmt(fmt!("dax{region}.{number}"));
            match Device::claim(name()?) {
                Err(e) if e == ENOENT || e == ENXIO => {}
                claimed => f(name()?, claimed)?,
            }
        }
    }
    Ok(())
}

impl Device {
    /// Claims the device called `name`.
    pub(crate) fn claim(name: CString) -> Result<Self> {
        let label = name.to_str().map_err(|_| EINVAL)?;
        let dir = CString::try_from_fmt(fmt!("/sys/bus/dax/devices/{label}"))?;
        let dir = dir.to_str().map_err(|_| EINVAL)?;
        let start = number(fmt!("{dir}/resource"))?.ok_or(ENOENT)?;
        let len = number(fmt!("{dir}/size"))?.ok_or(ENOENT)?;
        if start == 0 || len == 0 {
            return Err(ENXIO);
        }
        let path = CString::try_from_fmt(fmt!("/dev/{label}"))?;
        let file = FileRef::open(&path, c::O_RDWR | c::O_CLOEXEC)?;
        let above = ["..", "../..", "../../.."];
        let domain = above
            .iter()
            .find_map(|up| domain(fmt!("{dir}/{up}/persistence_domain")))
            .unwrap_or(Domain::Unknown);
        let deep_flush = above.iter().find_map(|up| {
            let attr = CString::try_from_fmt(fmt!("{dir}/{up}/deep_flush"));
            FileRef::open(&attr.ok()?, c::O_RDWR).ok()
        });
        let platform = Platform::of(dir, start, len)?;
        let mut buf = [0; 16];
        let node = line(fmt!("{dir}/numa_node"), &mut buf)?.and_then(|node| node.parse().ok());
        Ok(Self {
            deep_flush,
            node: node.unwrap_or(-1),
            memory: Memory::claim(start, len, domain, &platform.bad)?,
            platform,
            name,
            domain,
            _file: file,
        })
    }
}

impl Device {
    /// Its name as text.
    pub(crate) fn label(&self) -> &str {
        self.name.to_str().unwrap_or("?")
    }

    /// Makes what reached the memory controller durable where the platform does not by itself
    /// (flush hint addresses, ACPI 6.5, 5.2.25.9).
    pub(crate) fn flush_region(&self) {
        if let Some(deep_flush) = &self.deep_flush {
            if let Err(e) = deep_flush.write(b"1") {
                pr_err!("the region's deep flush fails: {e:?}\n");
            }
        }
    }
}

fn domain(path: fmt::Arguments<'_>) -> Option<Domain> {
    let mut buf = [0; 32];
    Some(match line(path, &mut buf).ok()?? {
        "cpu_cache" => Domain::CpuCache,
        "memory_controller" => Domain::MemoryController,
        _ => Domain::Unknown,
    })
}
