// SPDX-License-Identifier: GPL-2.0

//! Everything that is known of one VM's devices.
//!
//! The saved form of a machine is its script: who feeds the writes of a script and the answers it expects
//! to an empty machine gets one that makes the same script. So what sees a script being replayed is in
//! step with the VMM afterwards.

use super::access::{mask, Access, Space};
use super::class::{self, Keeping, Unkept};
use super::legacy::{Known, Legacy};
use super::memory::{Memory, Range};
use super::pci::{Function, Pci, Place, Presence, Reset};
use super::script::{Action, Full, Phase, Sink, Step};
use super::virtio::{Control, DeviceId, Site, Target, Virtio, VirtioDevice, VirtioQueue};
use crate::ring;
use core::fmt;

/// The devices of one VM. All bytes zero is a machine just powered on; it is large, so let it be made
/// where it stays.
#[derive(Default)]
pub struct Machine {
    pub(super) pci: Pci,
    virtio: Virtio,
    pub(super) legacy: Legacy,
    memory: Memory,
    /// The `Lack`s of room that there have been, one bit each.
    full: u8,
    /// A device was put to use, and nobody has asked yet.
    news: bool,
}

/// What an access of the guest means to queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// The driver makes a queue live; the device does not know yet.
    Enabled {
        /// The device.
        device: DeviceId,
        /// The queue.
        queue: u16,
    },
    /// The driver has stopped a queue; the device does not touch it any more.
    Disabled {
        /// The device.
        device: DeviceId,
        /// The queue.
        queue: u16,
    },
    /// The device was reset, or is gone; it touches no queue any more.
    Reset {
        /// The device.
        device: DeviceId,
    },
    /// So were all devices that [`Machine::virtio`] has no live queues of.
    ResetSome,
    /// The driver kicks a queue.
    Notify {
        /// The device.
        device: DeviceId,
        /// The queue.
        queue: u16,
    },
    /// The queues of a device may interrupt otherwise than before, or not at all; the device knows.
    Interrupts {
        /// The device.
        device: DeviceId,
    },
    /// The driver has learned that the device has used buffers, or acknowledges it: it looks at its rings
    /// next.
    Looks {
        /// The device.
        device: DeviceId,
    },
}

impl Effect {
    /// The first of two that is one.
    pub(super) fn or(self, other: Effect) -> Effect {
        match self {
            Effect::None => other,
            effect => effect,
        }
    }
}

/// Why a machine cannot be carried over to a fresh VMM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    /// More PCI functions than there is room for.
    Functions,
    /// More virtio devices.
    Devices,
    /// More virtqueues.
    Queues,
    /// More fields that a driver wrote to the configuration of a device.
    Fields,
    /// More MSI-X vectors.
    Vectors,
    /// More registers that are not understood.
    Registers,
    /// A driver has accepted VIRTIO_F_ACCESS_PLATFORM: its queues lie at addresses of the device.
    AccessPlatform(DeviceId),
    /// A driver has accepted features that it was not shown.
    Features(DeviceId),
}

/// Those that are only noted once.
const FULL: [Lack; 6] = [
    Lack::Functions,
    Lack::Devices,
    Lack::Queues,
    Lack::Fields,
    Lack::Vectors,
    Lack::Registers,
];

/// Where a queue is kicked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kick {
    /// Address space.
    pub space: Space,
    /// Address.
    pub addr: u64,
    /// The value written there.
    pub value: u16,
}

/// Bits of the interrupt status (virtio 1.3, sections 4.1.4.5 and 4.2.2).
pub(super) const QUEUE_INTERRUPT: u8 = 1;
const CONFIGURATION_INTERRUPT: u8 = 2;

/// How a device interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupt {
    /// By a message.
    Message {
        /// Where it goes.
        address: u64,
        /// What it says.
        data: u32,
        /// The guest has masked it.
        masked: bool,
    },
    /// By its line, with a bit in its interrupt status: 1 for queues, 2 for configuration changes.
    Status(u8),
    /// Not at all.
    None,
}

/// What is known of one device, for the operator.
#[derive(Clone, Copy, Debug)]
pub enum Report<'a> {
    /// A virtio device.
    Virtio(&'a VirtioDevice),
    /// Another PCI function: only its configuration space is understood.
    Function(&'a Function),
    /// A chip of a PC.
    Chip(Known),
    /// Registers that nothing here understands.
    Unknown(&'a Range),
}

impl Machine {
    /// What an access is to, where virtio devices are; where it goes to on its way to a device.
    pub(super) fn place(&self, access: &Access) -> Option<Place> {
        if let Some((id, target)) = self.virtio.find_mmio(access) {
            return Some(Place::Virtio(id, target));
        }
        self.pci.place(access)
    }

    /// Notes what there was no room for.
    fn keep<T: Default>(&mut self, result: Result<T, Lack>) -> T {
        result.unwrap_or_else(|lack| {
            let bit = FULL.iter().position(|&one| one == lack).unwrap_or(0);
            self.full |= 1 << bit;
            T::default()
        })
    }

    /// A guest's write, on its way to the VMM. `now_ns` is the guest's time.
    pub fn writing(&mut self, access: &Access, now_ns: u64) -> Effect {
        match self.place(access) {
            Some(Place::Latch) => self.pci.latch(access.value),
            Some(Place::Config { bdf, at }) => return self.configuring(bdf, at, access),
            Some(Place::Virtio(id, target)) => return self.writing_virtio(id, target, access),
            Some(Place::Vector { bdf, index, word }) => {
                let done = self.pci.write_vector(bdf, index, word, access);
                self.keep(done);
                return self.interrupts_of(bdf);
            }
            Some(Place::Bar { bdf }) if !self.is_virtio_function(bdf) => {
                self.news |= self.pci.uses(bdf, access);
            }
            // What a device does that nothing here understands is not guessed.
            Some(Place::Bar { .. }) => {
                let done = self.memory.write(access, false);
                self.keep(done);
            }
            None if class::is_ide_command(access) => self.news |= self.pci.uses_ide(),
            None => {
                if !self.legacy.write(access, now_ns) {
                    let done = self.memory.write(access, true);
                    self.keep(done);
                }
            }
        }
        Effect::None
    }

    fn writing_virtio(&mut self, id: DeviceId, target: Target, access: &Access) -> Effect {
        if let Target::NotifyAt(offset) = target {
            return match self.notified(id, offset, Some(access.value)) {
                Some(queue) => Effect::Notify { device: id, queue },
                None => Effect::None,
            };
        }
        let ran = self.runs(id);
        let done = self.virtio.writing_to(id, target, access);
        self.news |= !ran && self.runs(id);
        self.keep(done)
    }

    /// Whether the driver of a virtio device has put it to use.
    fn runs(&self, id: DeviceId) -> bool {
        self.virtio.device(id).is_some_and(VirtioDevice::runs)
    }

    fn is_virtio_function(&self, bdf: u16) -> bool {
        self.pci.function(bdf).is_some_and(Function::is_virtio)
    }

    /// The guest writes to the configuration space of a function.
    fn configuring(&mut self, bdf: u16, at: u8, access: &Access) -> Effect {
        if let Some((place, inner)) = self.pci.through_window(bdf, at, access) {
            return match place {
                Place::Virtio(id, target) => self.writing_virtio(id, target, &inner),
                _ => Effect::None,
            };
        }
        let msix = self.pci.msix_enabled(DeviceId::pci(bdf));
        let done = self.pci.write(bdf, at, access);
        self.keep(done);
        self.follow_chipset();
        if self.pci.msix_enabled(DeviceId::pci(bdf)) != msix {
            return self.interrupts_of(bdf);
        }
        Effect::None
    }

    /// A function's MSI-X has changed: what that is to queues.
    fn interrupts_of(&self, bdf: u16) -> Effect {
        let device = DeviceId::pci(bdf);
        match self.virtio.device(device) {
            Some(_) => Effect::Interrupts { device },
            None => Effect::None,
        }
    }

    /// Registers that move other registers may have changed.
    fn follow_chipset(&mut self) {
        if let Some(base) = self.pci.pm_base() {
            self.legacy.set_pm_base(base);
        }
    }

    /// The VMM has handled that write: the guest's processor is about to go on.
    pub fn written(&mut self, access: &Access) -> Effect {
        match self.place(access) {
            Some(Place::Virtio(id, target)) => self.virtio.written_to(id, target, access),
            Some(Place::Config { bdf, at }) => {
                if let Some((place, inner)) = self.pci.through_window(bdf, at, access) {
                    return match place {
                        Place::Virtio(id, target) => self.virtio.written_to(id, target, &inner),
                        _ => Effect::None,
                    };
                }
                match self.pci.resets(bdf, at, access) {
                    Some(reset) => self.reset_functions(reset),
                    None => Effect::None,
                }
            }
            _ => Effect::None,
        }
    }

    fn reset_functions(&mut self, reset: Reset) -> Effect {
        self.pci.reset_functions(reset);
        self.virtio
            .reset_devices(|id| id.bdf().is_some_and(|bdf| reset.covers(bdf)));
        match reset {
            Reset::Function(bdf) => Effect::Reset {
                device: DeviceId::pci(bdf),
            },
            Reset::Buses(..) => Effect::ResetSome,
        }
    }

    /// The VMM's answer to a guest's read. What the guest must not see as it is, is altered: features
    /// that cannot be carried are hidden, and the interrupt status that is owed is added.
    pub fn read(&mut self, access: &mut Access, now_ns: u64) -> Effect {
        access.value &= mask(access.len);
        match self.place(access) {
            Some(Place::Latch | Place::Vector { .. } | Place::Bar { .. }) => Effect::None,
            Some(Place::Config { bdf, at }) => self.configured(bdf, at, access),
            Some(Place::Virtio(id, target)) => {
                let magic = self.virtio.discover(access);
                self.keep(magic);
                let done = self.virtio.read_from(id, target, access);
                self.keep(done)
            }
            None => {
                let magic = self.virtio.discover(access);
                self.keep(magic);
                let host = self.pci.discover(access);
                self.keep(host);
                if !self.legacy.read(access, now_ns) {
                    self.memory.read(access);
                }
                Effect::None
            }
        }
    }

    /// The configuration space of a function has answered.
    fn configured(&mut self, bdf: u16, at: u8, access: &mut Access) -> Effect {
        if let Some((Place::Virtio(id, target), mut inner)) =
            self.pci.through_window(bdf, at, access)
        {
            let done = self.virtio.read_from(id, target, &mut inner);
            access.value = inner.value;
            return self.keep(done);
        }
        let done = self.pci.read(bdf, at, access);
        let presence = match done {
            Ok(presence) => presence,
            Err(lack) => {
                self.keep::<()>(Err(lack));
                Presence::Same
            }
        };
        let effect = match presence {
            Presence::Same => Effect::None,
            Presence::Gone(bdf) => self.virtio.gone(DeviceId::pci(bdf)),
        };
        let device = self.pci.function(bdf).filter(|f| f.is_virtio());
        if let Some(kind) = device.map(Function::virtio_type) {
            let done = self.virtio.found(DeviceId::pci(bdf), kind);
            self.keep(done);
        }
        self.follow_chipset();
        effect
    }

    /// The VMM reset the whole VM: all devices are as after power-on.
    pub fn reset(&mut self) {
        self.pci.reset();
        self.virtio.reset();
        self.legacy.reset();
        self.memory.reset();
        self.full = 0;
        self.news = false;
    }

    /// The caches of block devices are hidden from drivers that negotiate from now on, so that a
    /// device must not acknowledge what it has not stored.
    pub fn set_write_through(&mut self, on: bool) {
        self.virtio.write_through = on;
    }

    /// The configuration as a script for a fresh VMM. `now_ns` is the guest's time.
    pub fn script(&self, now_ns: u64, phase: Phase, sink: &mut dyn Sink) -> Result<(), Full> {
        if phase == Phase::Run {
            self.virtio_scripts(phase, sink)?;
            return self.legacy.start(sink);
        }
        let in_use = |bdf| {
            let device = self.virtio.device(DeviceId::pci(bdf));
            device.is_some_and(VirtioDevice::is_in_use)
        };
        self.pci.script(in_use, sink)?;
        self.legacy.script(now_ns, sink)?;
        self.virtio_scripts(phase, sink)?;
        self.memory.script(sink)?;
        self.pci.script_end(in_use, sink)
    }

    fn virtio_scripts(&self, phase: Phase, sink: &mut dyn Sink) -> Result<(), Full> {
        let mut next = self.virtio.devices().map(VirtioDevice::id).min();
        while let Some(id) = next {
            if let Some(site) = self.site(id) {
                self.virtio.script_of(id, &site, phase, sink)?;
            }
            let others = self.virtio.devices().map(VirtioDevice::id);
            next = others.filter(|&other| other > id).min();
        }
        Ok(())
    }

    fn site(&self, id: DeviceId) -> Option<Site> {
        let legacy = self.virtio.device(id)?.is_legacy();
        match id.bdf() {
            Some(_) => self.pci.site(id, legacy),
            None => self.virtio.mmio_site(id),
        }
    }

    /// Learns a step of a script that was kept: what made it is so again.
    pub fn relearn(&mut self, step: &Step, now_ns: u64) {
        let mut access = step.access;
        match step.action {
            Action::Write => {
                self.writing(&access, now_ns);
                self.written(&access);
            }
            Action::Expect { .. } | Action::Read => {
                self.read(&mut access, now_ns);
            }
        }
    }

    /// All virtio devices.
    pub fn virtio(&self) -> impl Iterator<Item = (DeviceId, &VirtioDevice)> {
        self.virtio.devices().map(|device| (device.id(), device))
    }

    /// The queues of a device, in no order.
    pub fn queues(&self, device: DeviceId) -> impl Iterator<Item = &VirtioQueue> {
        self.virtio.queues(device)
    }

    /// Where a queue lies, if it is live.
    pub fn layout(&self, device: DeviceId, queue: u16) -> Option<ring::Layout> {
        self.virtio.layout(device, queue)
    }

    /// Whose commands go through a queue, if it is a control queue.
    pub fn control(&self, device: DeviceId, queue: u16) -> Option<Control> {
        self.virtio.control(device, queue)
    }

    /// Where a queue is kicked.
    pub fn kick(&self, id: DeviceId, queue: u16) -> Option<Kick> {
        let value = queue;
        if let Some(base) = id.base() {
            let addr = base.checked_add(0x50)?;
            return self.virtio.device(id).map(|_| Kick {
                space: Space::Memory,
                addr,
                value,
            });
        }
        let legacy = self.virtio.device(id)?.is_legacy();
        let offset = if legacy {
            0
        } else {
            self.virtio.notify_offset(id, queue)?
        };
        let (space, addr) = self.pci.notify(id, legacy, offset)?;
        Some(Kick { space, addr, value })
    }

    fn notified(&self, id: DeviceId, offset: u64, value: Option<u64>) -> Option<u16> {
        let offset = self.pci.notify_offset(id, offset)?;
        self.virtio.notified(id, offset, value)
    }

    /// The queue that an access kicks, if it kicks one.
    pub fn device_at(&self, access: &Access) -> Option<(DeviceId, u16)> {
        match self.place(access)? {
            Place::Virtio(id, Target::NotifyAt(offset)) => {
                Some((id, self.notified(id, offset, Some(access.value))?))
            }
            // CAST: the queue's index is the low half.
            Place::Virtio(id, target) if target.is_notify(access.len) => {
                Some((id, access.value as u16))
            }
            _ => None,
        }
    }

    /// Whether an access is to the registers of a virtio device.
    pub fn is_virtio(&self, access: &Access) -> bool {
        match self.place(access) {
            Some(Place::Virtio(..)) => true,
            Some(Place::Config { bdf, at }) => self.pci.through_window(bdf, at, access).is_some(),
            _ => false,
        }
    }

    /// How a device interrupts for a queue, or for a change of its configuration.
    pub fn interrupt(&self, id: DeviceId, queue: Option<u16>) -> Interrupt {
        if !self.pci.msix_enabled(id) {
            return Interrupt::Status(match queue {
                Some(_) => QUEUE_INTERRUPT,
                None => CONFIGURATION_INTERRUPT,
            });
        }
        let vector = self.virtio.vector(id, queue);
        match vector.and_then(|vector| self.pci.message(id, vector)) {
            Some((address, data, masked)) => Interrupt::Message {
                address,
                data,
                masked,
            },
            None => Interrupt::None,
        }
    }

    /// An interrupt of the device was raised by us: until the driver takes note of it, its interrupt
    /// status shows `bits`.
    pub fn owe(&mut self, device: DeviceId, bits: u8) {
        self.virtio.owe(device, bits);
    }

    /// The queues of every device that interrupts by its line are owed an interrupt.
    pub fn owe_all(&mut self) {
        let Self { pci, virtio, .. } = self;
        virtio.owe_all(|id| !pci.msix_enabled(id), QUEUE_INTERRUPT);
    }

    /// The messages by which queues interrupt, address and data, but for those that the guest has
    /// masked. Queues that share one give it once each.
    pub fn messages(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        let queues = self
            .virtio()
            .flat_map(|(id, _)| self.queues(id).map(move |queue| (id, queue.index)));
        queues.filter_map(|(id, queue)| match self.interrupt(id, Some(queue)) {
            Interrupt::Message {
                address,
                data,
                masked: false,
            } => Some((address, data)),
            _ => None,
        })
    }

    /// Why this machine cannot be carried over, if so.
    pub fn lack(&self) -> Option<Lack> {
        let full = FULL.iter().enumerate();
        full.filter(|&(bit, _)| (self.full >> bit) & 1 != 0)
            .map(|(_, &lack)| lack)
            .next()
            .or_else(|| self.virtio.lack())
    }

    /// Whether the script is all there is.
    pub fn complete(&self) -> bool {
        self.lack().is_none()
    }

    /// What is in use that a VM cannot be kept with, as far as accesses tell.
    pub fn unkept(&self) -> impl Iterator<Item = Unkept> + '_ {
        let running = self.virtio.devices().filter(|d| d.runs());
        let lost = running.filter(|d| d.keeping() == Keeping::Lost);
        let virtio = lost.map(|d| Unkept::Virtio {
            device: d.id(),
            kind: d.kind,
        });
        let used = self.pci.functions().filter(|f| f.used);
        let lost = used.filter(|f| class::function(f.class()) == Keeping::Lost);
        virtio.chain(lost.map(|f| Unkept::Function {
            bdf: f.bdf,
            class: f.class(),
            identity: f.identity(),
        }))
    }

    /// Whether a device was put to use since this was asked last.
    pub fn take_news(&mut self) -> bool {
        core::mem::take(&mut self.news)
    }

    /// What is known, device by device.
    pub fn report(&self) -> impl Iterator<Item = Report<'_>> {
        let functions = self.pci.functions().filter(|f| !f.is_virtio());
        let virtio = self.virtio.devices().map(Report::Virtio);
        virtio
            .chain(functions.map(Report::Function))
            .chain(self.legacy.report().map(Report::Chip))
            .chain(self.memory.ranges().map(Report::Unknown))
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Functions => f.write_str("too many PCI functions"),
            Lack::Devices => f.write_str("too many virtio devices"),
            Lack::Queues => f.write_str("too many virtqueues"),
            Lack::Fields => f.write_str("a virtio driver writes too many configuration fields"),
            Lack::Vectors => f.write_str("too many MSI-X vectors"),
            Lack::Registers => f.write_str("too many device registers that are not understood"),
            Lack::AccessPlatform(id) => write!(f, "{id}: the driver uses device addresses"),
            Lack::Features(id) => write!(f, "{id}: the driver accepted features that are hidden"),
        }
    }
}
