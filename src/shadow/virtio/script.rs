// SPDX-License-Identifier: GPL-2.0

//! The script of one virtio device: the order of a driver's initialization (virtio 1.3, section 3.1.1),
//! as far as the driver had come.

use super::device::{status, VirtioDevice};
use super::queue::{Queues, VirtioQueue};
use super::register::{Layout, Part, Register};
use crate::shadow::access::mask;
use crate::shadow::{Access, Full, Phase, Sink, Space};

/// Where a device's registers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site {
    /// The interface.
    pub layout: Layout,
    /// Address space of the registers.
    pub space: Space,
    /// Where they begin.
    pub base: u64,
    /// Where the device's own configuration begins, if it has any.
    pub config: Option<u64>,
}

impl Site {
    fn access(&self, register: Register, value: u64) -> Option<Access> {
        let (offset, len) = self.layout.locate(register)?;
        Some(Access {
            space: self.space,
            addr: self.base.checked_add(offset)?,
            len,
            value: value & mask(len),
        })
    }

    fn config(&self, offset: u16, len: u8, value: u64) -> Option<Access> {
        Some(Access {
            space: self.space,
            addr: self.config?.checked_add(offset.into())?,
            len,
            value,
        })
    }
}

/// Puts registers of one device into a script. Registers that its interface has not are left out.
struct Writer<'a> {
    site: &'a Site,
    sink: &'a mut dyn Sink,
}

impl Writer<'_> {
    fn put(&mut self, register: Register, value: u64) -> Result<(), Full> {
        match self.site.access(register, value) {
            Some(access) => self.sink.write(access),
            None => Ok(()),
        }
    }

    fn put_known(&mut self, register: Register, value: Option<u32>) -> Result<(), Full> {
        match value {
            Some(value) => self.put(register, value.into()),
            None => Ok(()),
        }
    }

    fn expect(&mut self, register: Register, value: u64) -> Result<(), Full> {
        match self.site.access(register, value) {
            Some(access) => self.sink.expect(access, mask(access.len)),
            None => Ok(()),
        }
    }

    fn expect_known(&mut self, register: Register, value: Option<u32>) -> Result<(), Full> {
        match value {
            Some(value) => self.expect(register, value.into()),
            None => Ok(()),
        }
    }
}

/// Writes the script of `device`, whose number is `number` in `queues`. A device touches queues only once its
/// driver says that it is ready (DRIVER_OK).
pub(super) fn script(
    device: &VirtioDevice,
    number: u16,
    queues: &Queues,
    site: &Site,
    phase: Phase,
    sink: &mut dyn Sink,
) -> Result<(), Full> {
    let mut to = Writer { site, sink };
    if phase == Phase::Run {
        let runs = device.status & status::DRIVER_OK != 0;
        return to.put_known(Register::Status, runs.then_some(device.status.into()));
    }
    let version = device.version;
    if version != 0 {
        to.expect(Register::Magic, super::mmio::MAGIC)?;
        to.expect(Register::Version, version.into())?;
        if device.typed {
            to.expect(Register::DeviceType, device.kind.into())?;
        }
    }
    if device.touched {
        to.put(Register::Status, 0)?;
        // A device may take its time for a reset, and a driver waits for it by reading.
        if let Some(status) = site.access(Register::Status, 0) {
            to.sink.read(status.space, status.addr, status.len)?;
        }
    }
    let bits = device.status;
    for reached in [
        bits & status::ACKNOWLEDGE,
        bits & (status::ACKNOWLEDGE | status::DRIVER),
    ] {
        if reached != 0 {
            to.put(Register::Status, reached.into())?;
        }
    }
    features(device, &mut to)?;
    to.put_known(Register::PageSize, device.page_size.get())?;
    if bits & status::FEATURES_OK != 0 && !device.is_legacy() {
        let so_far = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        to.put(Register::Status, (bits & so_far).into())?;
        if let Some(access) = site.access(Register::Status, status::FEATURES_OK.into()) {
            to.sink.expect(access, status::FEATURES_OK.into())?;
        }
    }
    configuration(device, &mut to)?;
    to.put_known(Register::ConfigVector, device.config_vector.get())?;
    let mut next = queues.of(number).map(|q| q.index).min();
    while let Some(index) = next {
        if let Some(queue) = queues.get(number, index) {
            self::queue(queue, &mut to)?;
        }
        next = queues
            .of(number)
            .map(|q| q.index)
            .filter(|&i| i > index)
            .min();
    }
    to.put_known(Register::QueueSelect, device.queue_select.get())?;
    if bits & !status::DRIVER_OK != 0 {
        to.put(Register::Status, (bits & !status::DRIVER_OK).into())?;
    }
    Ok(())
}

/// What the device must offer and what the driver has accepted of it.
fn features(device: &VirtioDevice, to: &mut Writer<'_>) -> Result<(), Full> {
    for (word, offered) in (0..).zip(device.offered) {
        if offered.get().is_some() {
            to.put(Register::DeviceFeaturesSelect, word)?;
            to.expect_known(Register::DeviceFeatures, offered.get())?;
        }
    }
    for (word, accepted) in (0..).zip(device.accepted) {
        if accepted.get().is_some() {
            to.put(Register::DriverFeaturesSelect, word)?;
            to.put_known(Register::DriverFeatures, accepted.get())?;
        }
    }
    to.put_known(Register::DeviceFeaturesSelect, device.offered_select.get())?;
    to.put_known(Register::DriverFeaturesSelect, device.accepted_select.get())
}

/// The device's own configuration: what it is known by, and what the driver has set.
fn configuration(device: &VirtioDevice, to: &mut Writer<'_>) -> Result<(), Full> {
    for word in (0u16..).step_by(4).take(super::device::SEEN / 4) {
        let bytes = [0, 1, 2, 3].map(|i| device.identity(word + i));
        if let [Some(a), Some(b), Some(c), Some(d)] = bytes {
            let value = u32::from_le_bytes([a, b, c, d]);
            if let Some(access) = to.site.config(word, 4, value.into()) {
                to.sink.expect(access, mask(4))?;
            }
            continue;
        }
        for (offset, byte) in (word..).zip(bytes) {
            let Some(byte) = byte else { continue };
            if let Some(access) = to.site.config(offset, 1, byte.into()) {
                to.sink.expect(access, mask(1))?;
            }
        }
    }
    for field in device.fields() {
        if let Some(access) = to.site.config(field.offset, field.len, field.value) {
            to.sink.write(access)?;
        }
    }
    Ok(())
}

fn queue(queue: &VirtioQueue, to: &mut Writer<'_>) -> Result<(), Full> {
    to.put(Register::QueueSelect, queue.index.into())?;
    let has_max = to.site.layout.locate(Register::QueueSizeMax).is_some();
    let max = if has_max {
        Register::QueueSizeMax
    } else {
        Register::QueueSize
    };
    to.expect_known(max, queue.max.get())?;
    to.put_known(Register::QueueSize, queue.size.get())?;
    to.expect_known(Register::NotifyOffset, queue.notify_offset.get())?;
    to.put_known(Register::QueueVector, queue.vector.get())?;
    to.put_known(Register::Align, queue.align.get())?;
    for part in [Part::Desc, Part::Driver, Part::Device] {
        for high in [false, true] {
            let half = queue.address_half(part, high);
            to.put_known(Register::Address(part, high), half.get())?;
        }
    }
    to.put_known(Register::Pfn, queue.pfn.get())?;
    if queue.enabled {
        to.put(Register::QueueEnable, 1)?;
    }
    Ok(())
}
