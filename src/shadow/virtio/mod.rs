// SPDX-License-Identifier: GPL-2.0

//! Virtio devices (virtio 1.3): what their drivers have negotiated and where their queues are,
//! whatever the transport.

mod control;
mod device;
mod features;
mod id;
mod mmio;
mod queue;
mod register;
mod script;

pub use control::{Commands, Control, Lost, Used};
pub use device::VirtioDevice;
pub use id::DeviceId;
pub use queue::VirtioQueue;
pub use register::Layout;
pub use script::Site;

use super::access::Access;
use super::machine::{Effect, Lack};
use super::script::{Full, Phase, Sink};
use super::table::Table;
use crate::ring;
use queue::Queues;
use register::Register;

/// Devices of one VM that are kept.
const DEVICES: usize = 64;

/// What part of a device an access is to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// A register at this offset of an interface.
    Register(Layout, u64),
    /// The device's own configuration.
    Config(u64),
    /// PCI's notify structure, at this offset.
    NotifyAt(u64),
    /// PCI's interrupt status.
    Interrupt,
}

impl Target {
    /// A register, or the configuration behind the registers.
    pub(super) fn of(layout: Layout, offset: u64) -> Self {
        match layout.config().and_then(|at| offset.checked_sub(at)) {
            Some(offset) => Target::Config(offset),
            None => Target::Register(layout, offset),
        }
    }

    /// Interface and register of an access of `len` bytes, unless it is configuration.
    fn register(self, len: u8) -> Option<(Layout, Register)> {
        match self {
            Target::Register(layout, offset) => Some((layout, layout.register(offset, len))),
            Target::Interrupt => Some((Layout::PciCommon, Register::Interrupt)),
            Target::Config(_) | Target::NotifyAt(_) => None,
        }
    }

    /// Whether writing here kicks the queue whose index is written.
    pub(super) fn is_notify(self, len: u8) -> bool {
        matches!(self.register(len), Some((_, Register::Notify)))
    }

    fn forward(self, bytes: u64) -> Self {
        match self {
            Target::Register(layout, offset) => {
                Target::Register(layout, offset.wrapping_add(bytes))
            }
            Target::Config(offset) => Target::Config(offset.wrapping_add(bytes)),
            other => other,
        }
    }
}

/// All virtio devices of a VM. All bytes zero are none.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Virtio {
    devices: Table<VirtioDevice, DEVICES>,
    queues: Queues,
    /// The caches of block devices are hidden from their drivers.
    pub(super) write_through: bool,
}

/// Halves of an access of eight bytes; others as they are.
fn halves(access: &Access) -> [Option<Access>; 2] {
    if access.len != 8 {
        return [Some(*access), None];
    }
    let half = |shift: u32| Access {
        addr: access.addr.wrapping_add(u64::from(shift / 8)),
        len: 4,
        value: (access.value >> shift) & 0xffff_ffff,
        ..*access
    };
    [Some(half(0)), Some(half(32))]
}

impl Virtio {
    /// All devices.
    pub fn devices(&self) -> impl Iterator<Item = &VirtioDevice> {
        self.devices.iter()
    }

    fn number(&self, id: DeviceId) -> Option<u16> {
        let at = self.devices.position(|d| d.id() == id)?;
        u16::try_from(at).ok()
    }

    /// One device.
    pub fn device(&self, id: DeviceId) -> Option<&VirtioDevice> {
        self.devices().find(|d| d.id() == id)
    }

    fn device_mut(&mut self, id: DeviceId) -> Option<&mut VirtioDevice> {
        let number = self.number(id)?;
        self.devices.get_mut(usize::from(number))
    }

    /// Adds a device, if it is not there.
    fn add(&mut self, device: VirtioDevice) -> Result<(), Lack> {
        if self.number(device.id()).is_none() {
            let added = self.devices.add(|free| *free = device);
            added.ok_or(Lack::Devices)?;
        }
        Ok(())
    }

    /// There is a device of type `kind` at `id`.
    pub(super) fn found(&mut self, id: DeviceId, kind: u32) -> Result<(), Lack> {
        self.add(VirtioDevice::new(id, kind))?;
        if let Some(device) = self.device_mut(id) {
            device.kind = kind;
        }
        Ok(())
    }

    /// The device is gone.
    pub(super) fn gone(&mut self, id: DeviceId) -> Effect {
        let Some(number) = self.number(id) else {
            return Effect::None;
        };
        self.queues.clear(number);
        self.devices.remove(|device| device.id() == id);
        Effect::Reset { device: id }
    }

    /// Devices were reset from outside: by their function or their bus.
    pub(super) fn reset_devices(&mut self, which: impl Fn(DeviceId) -> bool) {
        for number in 0..DEVICES as u16 {
            let device = self.devices.get_mut(number.into());
            if let Some(device) = device.filter(|device| which(device.id())) {
                device.reset();
                self.queues.clear(number);
            }
        }
    }

    /// The queues of a device, in no order.
    pub fn queues(&self, id: DeviceId) -> impl Iterator<Item = &VirtioQueue> {
        // No device has that number.
        self.queues.of(self.number(id).unwrap_or(u16::MAX))
    }

    /// Where a queue lies, if it is live.
    pub fn layout(&self, id: DeviceId, queue: u16) -> Option<ring::Layout> {
        let device = self.device(id)?;
        let queue = self.queues.get(self.number(id)?, queue)?;
        queue.layout(device.is_legacy(), device.page_size(), device.accepted())
    }

    /// Whose commands go through a queue, if it is a control queue.
    pub fn control(&self, id: DeviceId, queue: u16) -> Option<Control> {
        let (control, index) = self.device(id)?.control_queue()?;
        (index == queue).then_some(control)
    }

    /// MSI-X vectors as the driver chose them: of a queue, or of configuration changes.
    pub fn vector(&self, id: DeviceId, queue: Option<u16>) -> Option<u16> {
        let known = match queue {
            Some(queue) => self.queues.get(self.number(id)?, queue)?.vector,
            None => self.device(id)?.config_vector,
        };
        known.get().and_then(|vector| u16::try_from(vector).ok())
    }

    /// The notify offset of a queue, as the device told it.
    pub(super) fn notify_offset(&self, id: DeviceId, queue: u16) -> Option<u32> {
        self.queues
            .get(self.number(id)?, queue)?
            .notify_offset
            .get()
    }

    /// The queue that is notified by writing `value` where queues of this notify offset are. The
    /// value is the queue's index (section 4.1.5.2); a device may look at the address alone, and what the
    /// VMM has registered with KVM may have no value.
    pub(super) fn notified(&self, id: DeviceId, offset: u32, value: Option<u64>) -> Option<u16> {
        let is_there = |q: &&VirtioQueue| q.notify_offset.get() == Some(offset);
        // CAST: the queue's index is the low half; the rest is NOTIFICATION_DATA's.
        let named = value.and_then(|value| {
            let mut queues = self.queues(id).filter(is_there);
            queues.find(|q| q.index == value as u16)
        });
        named
            .or_else(|| self.queues(id).find(is_there))
            .map(|queue| queue.index)
    }

    /// Why a device cannot be carried over.
    pub(super) fn lack(&self) -> Option<Lack> {
        self.devices().find_map(VirtioDevice::lack)
    }

    /// From now until it is acknowledged, the device's interrupt status shows `bits`.
    pub(super) fn owe(&mut self, id: DeviceId, bits: u8) {
        if let Some(device) = self.device_mut(id) {
            device.owe(bits);
        }
    }

    /// The same for all devices whose driver works with them, and which `which` names.
    pub(super) fn owe_all(&mut self, which: impl Fn(DeviceId) -> bool, bits: u8) {
        let in_use = self.devices.iter_mut().filter(|d| d.is_in_use());
        for device in in_use.filter(|d| which(d.id())) {
            device.owe(bits);
        }
    }

    /// The VMM reset the whole VM.
    pub(super) fn reset(&mut self) {
        self.devices.remove(|_| true);
        self.queues.clear_all();
    }

    /// The device and the part of it that an access outside of any bus is to.
    pub(super) fn find_mmio(&self, access: &Access) -> Option<(DeviceId, Target)> {
        let (device, offset) = mmio::find(self.devices(), access)?;
        Some((device.id(), Target::of(mmio::layout(device), offset)))
    }

    /// Looks whether the answer to a read shows a device that was not known.
    pub(super) fn discover(&mut self, access: &Access) -> Result<(), Lack> {
        if mmio::is_magic(access) {
            self.add(mmio::device(access))?;
        }
        Ok(())
    }

    /// The driver writes to a device, which has not seen it yet.
    pub(super) fn writing_to(
        &mut self,
        id: DeviceId,
        target: Target,
        access: &Access,
    ) -> Result<Effect, Lack> {
        let Some(number) = self.number(id) else {
            return Ok(Effect::None);
        };
        let Some(device) = self.devices.get_mut(usize::from(number)) else {
            return Ok(Effect::None);
        };
        let mut effect = Effect::None;
        for (half, target) in halves(access).into_iter().zip([target, target.forward(4)]) {
            let Some(Access { len, value, .. }) = half else {
                continue;
            };
            match (target, target.register(len)) {
                (_, Some((layout, register))) => {
                    let one = device.writing(layout, register, value, number, &mut self.queues)?;
                    effect = effect.or(one);
                }
                (Target::Config(offset), None) => device.configure(offset, len, value)?,
                _ => {}
            }
        }
        Ok(effect)
    }

    /// The device has handled the driver's write.
    pub(super) fn written_to(&mut self, id: DeviceId, target: Target, access: &Access) -> Effect {
        let Some(number) = self.number(id) else {
            return Effect::None;
        };
        let Some(device) = self.devices.get_mut(usize::from(number)) else {
            return Effect::None;
        };
        let mut effect = Effect::None;
        for (half, target) in halves(access).into_iter().zip([target, target.forward(4)]) {
            let Some(Access { len, value, .. }) = half else {
                continue;
            };
            if let Some((layout, register)) = target.register(len) {
                let one = device.written(layout, register, value, number, &mut self.queues);
                effect = effect.or(one);
            }
        }
        effect
    }

    /// The device has answered the driver.
    pub(super) fn read_from(
        &mut self,
        id: DeviceId,
        target: Target,
        access: &mut Access,
    ) -> Result<Effect, Lack> {
        let write_through = self.write_through;
        let Some(number) = self.number(id) else {
            return Ok(Effect::None);
        };
        let Some(device) = self.devices.get_mut(usize::from(number)) else {
            return Ok(Effect::None);
        };
        if access.len == 8 {
            // Not an access that a conforming driver makes to what could be altered (4.1.3.1, 4.2.2.2);
            // but the capacity of a disk may be read so.
            if let Target::Config(offset) = target {
                device.configured(offset, 8, access.value);
            }
            return Ok(Effect::None);
        }
        match (target, target.register(access.len)) {
            (_, Some((layout, register))) => {
                if matches!(layout, Layout::Mmio | Layout::MmioLegacy) {
                    mmio::identify(device, register, access.value);
                }
                let (value, queues) = (&mut access.value, &mut self.queues);
                device.read(layout, register, value, write_through, number, queues)
            }
            (Target::Config(offset), None) => {
                device.configured(offset, access.len, access.value);
                Ok(Effect::None)
            }
            _ => Ok(Effect::None),
        }
    }

    /// The script of one device, whose registers are at `site`.
    pub(super) fn script_of(
        &self,
        id: DeviceId,
        site: &Site,
        phase: Phase,
        sink: &mut dyn Sink,
    ) -> Result<(), Full> {
        let (Some(number), Some(device)) = (self.number(id), self.device(id)) else {
            return Ok(());
        };
        script::script(device, number, &self.queues, site, phase, sink)
    }

    /// Where the registers of a device outside of any bus are.
    pub(super) fn mmio_site(&self, id: DeviceId) -> Option<Site> {
        let device = self.device(id).filter(|d| d.version != 0)?;
        mmio::site(device)
    }
}
