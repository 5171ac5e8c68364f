// SPDX-License-Identifier: GPL-2.0

//! Virtio over MMIO (virtio 1.3, section 4.2): devices without a bus, known by the magic number that
//! a driver reads first.

use super::device::VirtioDevice;
use super::id::DeviceId;
use super::register::{Layout, Register};
use super::script::Site;
use crate::shadow::{Access, Space};

/// MagicValue: "virt"
pub(super) const MAGIC: u64 = 0x7472_6976;

/// The largest room that a device's registers are given, and the smallest.
const ROOM: u64 = 0x1000;
const ALIGN: u64 = 0x200;

/// Whether an access reads the magic number of a device.
pub(super) fn is_magic(access: &Access) -> bool {
    let at = (access.space, access.len, access.addr % ALIGN);
    at == (Space::Memory, 4, 0) && access.value == MAGIC && access.addr != 0
}

/// The device that an access is to, and its offset there: the last one that begins before it.
pub(super) fn find<'a>(
    devices: impl Iterator<Item = &'a VirtioDevice>,
    access: &Access,
) -> Option<(&'a VirtioDevice, u64)> {
    if access.space != Space::Memory {
        return None;
    }
    let offset = |device: &VirtioDevice| {
        let base = device.id().base()?;
        access.offset_in(Space::Memory, base, ROOM)
    };
    devices
        .filter_map(|device| Some((device, offset(device)?)))
        .min_by_key(|&(_, offset)| offset)
}

/// The interface of a device.
pub(super) fn layout(device: &VirtioDevice) -> Layout {
    if device.version == 1 {
        Layout::MmioLegacy
    } else {
        Layout::Mmio
    }
}

/// Where the registers of a device are.
pub(super) fn site(device: &VirtioDevice) -> Option<Site> {
    let base = device.id().base()?;
    let layout = layout(device);
    Some(Site {
        layout,
        space: Space::Memory,
        base,
        config: base.checked_add(layout.config()?),
    })
}

/// Notes what the registers of identity say.
pub(super) fn identify(device: &mut VirtioDevice, register: Register, value: u64) {
    // CAST: registers of four bytes.
    match register {
        Register::Version => device.version = value as u32,
        Register::DeviceType => {
            device.typed = true;
            device.kind = value as u32;
        }
        _ => {}
    }
}

/// A device seen for the first time.
pub(super) fn device(access: &Access) -> VirtioDevice {
    VirtioDevice::new(DeviceId::mmio(access.addr), 0)
}
