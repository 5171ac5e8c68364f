// SPDX-License-Identifier: GPL-2.0

//! What a driver has written to one virtio device, whatever its transport.

use super::control::Control;
use super::features;
use super::id::DeviceId;
use super::queue::{Known, Queues};
use super::register::{Layout, Register};
use crate::shadow::access::mask;
use crate::shadow::class::{self, Keeping};
use crate::shadow::machine::{Effect, Lack, QUEUE_INTERRUPT};
use crate::shadow::table::Slot;

/// Device status (virtio 1.3, section 2.1).
pub mod status {
    /// ACKNOWLEDGE
    pub const ACKNOWLEDGE: u8 = 1;
    /// DRIVER
    pub const DRIVER: u8 = 2;
    /// DRIVER_OK
    pub const DRIVER_OK: u8 = 4;
    /// FEATURES_OK
    pub const FEATURES_OK: u8 = 8;
}

/// Bytes of the device's own configuration whose answers are kept.
pub const SEEN: usize = 64;
/// Fields of it that a driver may write.
const FIELDS: usize = 16;
/// Queues of a device: more is not looked at (section 4.2.2: VIRTIO_MMIO_QUEUE_SEL; 4.1.4.3).
const INDEX_MAX: u64 = 0xffff;

/// A field of the device's own configuration, as the driver wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Field {
    pub offset: u16,
    pub len: u8,
    pub value: u64,
}

/// One virtio device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VirtioDevice {
    id: DeviceId,
    /// Device type (section 5), 0 if not known.
    pub kind: u32,
    /// MMIO: the type was read; it is 0 where there is room for a device and none.
    pub(super) typed: bool,
    /// MMIO: version of the interface. 0 for PCI.
    pub(super) version: u32,
    /// The interface that the driver uses; none yet if not `chosen`.
    pub(super) legacy: bool,
    pub(super) chosen: bool,
    /// The driver has written the status.
    pub(super) touched: bool,
    /// Device status, as the driver wrote it.
    pub status: u8,
    pub(super) offered: [Known; 2],
    pub(super) accepted: [Known; 2],
    pub(super) offered_select: Known,
    pub(super) accepted_select: Known,
    pub(super) queue_select: Known,
    pub(super) config_vector: Known,
    pub(super) page_size: Known,
    seen: [u8; SEEN],
    seen_bits: u64,
    fields: [Field; FIELDS],
    field_count: u8,
    /// Interrupt status that the driver must be shown beside the device's own.
    owed: u8,
}

impl Slot for VirtioDevice {
    const FREE: Self = Self::new(DeviceId::NONE, 0);

    fn is_used(&self) -> bool {
        self.id != DeviceId::NONE
    }
}

impl VirtioDevice {
    pub(super) const fn new(id: DeviceId, kind: u32) -> Self {
        const UNKNOWN: Known = Known::UNKNOWN;
        Self {
            id,
            kind,
            typed: false,
            version: 0,
            legacy: false,
            chosen: false,
            touched: false,
            status: 0,
            offered: [UNKNOWN; 2],
            accepted: [UNKNOWN; 2],
            offered_select: UNKNOWN,
            accepted_select: UNKNOWN,
            queue_select: UNKNOWN,
            config_vector: UNKNOWN,
            page_size: UNKNOWN,
            seen: [0; SEEN],
            seen_bits: 0,
            fields: [Field {
                offset: 0,
                len: 0,
                value: 0,
            }; FIELDS],
            field_count: 0,
            owed: 0,
        }
    }

    /// Where it is, for good.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Whether the driver uses the interface from before virtio 1.0.
    pub fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// Whether there is anything to configure.
    pub fn is_in_use(&self) -> bool {
        self.chosen
    }

    /// Whether the driver has put it to use.
    pub fn runs(&self) -> bool {
        self.status & status::DRIVER_OK != 0
    }

    /// What becomes of it under another VMM.
    pub fn keeping(&self) -> Keeping {
        class::virtio(self.kind, self.accepted())
    }

    /// The features that the driver has accepted.
    pub fn accepted(&self) -> u64 {
        let [low, high] = self.accepted.map(|word| u64::from(word.or_zero()));
        (high << 32) | low
    }

    /// The features that the device offers, as far as the driver has looked.
    pub fn offered(&self) -> u64 {
        let [low, high] = self.offered.map(|word| u64::from(word.or_zero()));
        (high << 32) | low
    }

    /// Bytes in a page of a legacy page number.
    pub(super) fn page_size(&self) -> u32 {
        self.page_size.or_zero()
    }

    /// Why it cannot be carried over, if so.
    pub(super) fn lack(&self) -> Option<Lack> {
        if self.accepted() & features::ACCESS_PLATFORM != 0 {
            return Some(Lack::AccessPlatform(self.id));
        }
        (self.accepted() & features::NOT_CARRIED != 0).then_some(Lack::Features(self.id))
    }

    /// The interrupt is raised by us: until it is acknowledged, these bits are shown.
    pub(super) fn owe(&mut self, bits: u8) {
        self.owed |= bits;
    }

    /// The driver reset it: all but what is constant of a device, or a latch that drivers write
    /// before each use, is gone. GuestPageSize is written once, before the first reset.
    pub(super) fn reset(&mut self) {
        *self = Self {
            typed: self.typed,
            version: self.version,
            legacy: self.legacy,
            chosen: self.chosen,
            touched: true,
            offered: self.offered,
            offered_select: self.offered_select,
            accepted_select: self.accepted_select,
            queue_select: self.queue_select,
            page_size: self.page_size,
            seen: self.seen,
            seen_bits: self.seen_bits,
            ..Self::new(self.id, self.kind)
        };
    }

    /// The driver uses this interface.
    fn choose(&mut self, layout: Layout) {
        if self.chosen && self.legacy != layout.is_legacy() {
            // Both interfaces of a transitional device offer features of their own.
            self.offered = [Known::UNKNOWN; 2];
        }
        self.chosen = true;
        self.legacy = layout.is_legacy();
    }

    /// Which word of features a selector names; a legacy PCI device has no selector and one word.
    fn word(layout: Layout, select: Known) -> Option<usize> {
        match layout {
            Layout::PciLegacy | Layout::PciLegacyMsix => Some(0),
            _ => usize::try_from(select.or_zero())
                .ok()
                .filter(|&word| word < 2),
        }
    }

    /// The driver writes a register; the device has not seen it yet. `number` is the device's, in
    /// `queues`.
    pub(super) fn writing(
        &mut self,
        layout: Layout,
        register: Register,
        value: u64,
        number: u16,
        queues: &mut Queues,
    ) -> Result<Effect, Lack> {
        let device = self.id;
        if matches!(register, Register::Other) {
            return Ok(Effect::None);
        }
        self.choose(layout);
        let selected = u64::from(self.queue_select.or_zero());
        // CAST: narrower than INDEX_MAX allows nothing.
        let index = selected.min(INDEX_MAX) as u16;
        match register {
            Register::DeviceFeaturesSelect => self.offered_select.set(value),
            Register::DriverFeaturesSelect => self.accepted_select.set(value),
            Register::DriverFeatures => {
                let word = Self::word(layout, self.accepted_select);
                if let Some(word) = word.and_then(|word| self.accepted.get_mut(word)) {
                    word.set(value);
                }
            }
            Register::PageSize => self.page_size.set(value),
            Register::QueueSelect => self.queue_select.set(value),
            Register::ConfigVector => self.config_vector.set(value),
            Register::Status => {
                self.touched = true;
                if value & 0xff != 0 {
                    // CAST: one byte.
                    self.status = value as u8;
                }
            }
            Register::Notify => {
                // CAST: the queue's index is the low half; the rest is NOTIFICATION_DATA's.
                let queue = value as u16;
                return Ok(Effect::Notify { device, queue });
            }
            Register::Acknowledge => {
                // CAST: two bits are in use.
                self.owed &= !(value as u8);
            }
            // Legacy PCI has the size to be read only.
            Register::QueueSize if layout.is_legacy() && layout != Layout::MmioLegacy => {}
            _ if selected > INDEX_MAX => {}
            Register::QueueSize
            | Register::QueueVector
            | Register::QueueEnable
            | Register::Address(..)
            | Register::Align
            | Register::Pfn => {
                let queue = queues.get_mut(number, index).ok_or(Lack::Queues)?;
                match register {
                    Register::QueueSize => queue.size.set(value),
                    Register::QueueVector => queue.vector.set(value),
                    Register::Address(part, high) => queue.set_address_half(part, high, value),
                    Register::Align => queue.align.set(value),
                    Register::Pfn if value != 0 => queue.pfn.set(value),
                    _ => {}
                }
                let enables = matches!(register, Register::QueueEnable | Register::Pfn);
                if enables && value != 0 {
                    queue.enabled = true;
                    let queue = index;
                    return Ok(Effect::Enabled { device, queue });
                }
            }
            _ => {}
        }
        Ok(Effect::None)
    }

    /// The device has handled the driver's write.
    pub(super) fn written(
        &mut self,
        layout: Layout,
        register: Register,
        value: u64,
        number: u16,
        queues: &mut Queues,
    ) -> Effect {
        let device = self.id;
        match register {
            Register::Status if value & 0xff == 0 => {
                self.reset();
                queues.clear(number);
                Effect::Reset { device }
            }
            // A modern PCI queue is stopped by nothing but a reset (section 4.1.4.3.2).
            Register::QueueEnable | Register::Pfn if value == 0 && layout != Layout::PciCommon => {
                let Ok(index) = u16::try_from(self.queue_select.or_zero()) else {
                    return Effect::None;
                };
                let live = queues.get(number, index).is_some_and(|q| q.enabled);
                let Some(queue) = queues.get_mut(number, index).filter(|_| live) else {
                    return Effect::None;
                };
                queue.enabled = false;
                queue.pfn = Known::UNKNOWN;
                let queue = index;
                Effect::Disabled { device, queue }
            }
            Register::QueueVector => Effect::Interrupts { device },
            // What the device interrupted for since the driver read the status is acknowledged as well.
            Register::Acknowledge if value & u64::from(QUEUE_INTERRUPT) != 0 => {
                Effect::Looks { device }
            }
            _ => Effect::None,
        }
    }

    /// The device answered a read; what the driver is shown instead is put in `value`. `write_through`
    /// hides a block device's cache.
    pub(super) fn read(
        &mut self,
        layout: Layout,
        register: Register,
        value: &mut u64,
        write_through: bool,
        number: u16,
        queues: &mut Queues,
    ) -> Result<Effect, Lack> {
        let same = !self.chosen || self.legacy == layout.is_legacy();
        match register {
            Register::DeviceFeatures => {
                let Some(word) = Self::word(layout, self.offered_select) else {
                    return Ok(Effect::None);
                };
                if let Some(offered) = self.offered.get_mut(word).filter(|_| same) {
                    offered.set(*value);
                }
                let mut hidden = features::NOT_CARRIED;
                if write_through && self.kind == features::BLOCK {
                    hidden |= features::BLOCK_CACHE;
                }
                *value &= !(hidden >> (32 * word));
            }
            // CAST: one byte.
            Register::Status if self.status & !(*value as u8) & status::FEATURES_OK != 0 => {
                // The device did not take the driver's choice (section 3.1.1).
                self.status &= !status::FEATURES_OK;
            }
            Register::QueueSizeMax | Register::QueueSize | Register::NotifyOffset if same => {
                let Ok(index) = u16::try_from(self.queue_select.or_zero()) else {
                    return Ok(Effect::None);
                };
                let known = queues.get(number, index).is_some();
                // A driver looks for queues until there is none: that is not worth a slot.
                let offset = register == Register::NotifyOffset;
                if offset && !known || !offset && *value == 0 {
                    return Ok(Effect::None);
                }
                let queue = queues.get_mut(number, index).ok_or(Lack::Queues)?;
                match register {
                    Register::NotifyOffset => queue.notify_offset.set(*value),
                    // Once written, PCI's register says what was written.
                    Register::QueueSize if queue.size.get().is_some() => {}
                    _ => queue.max.set(*value),
                }
            }
            Register::Interrupt => {
                *value |= u64::from(self.owed);
                if layout != Layout::Mmio && layout != Layout::MmioLegacy {
                    // Reading acknowledges (section 4.1.4.5).
                    self.owed = 0;
                }
                if *value & u64::from(QUEUE_INTERRUPT) != 0 {
                    let device = self.id;
                    return Ok(Effect::Looks { device });
                }
            }
            _ => {}
        }
        Ok(Effect::None)
    }

    /// The driver writes a field of the device's own configuration.
    pub(super) fn configure(&mut self, offset: u64, len: u8, value: u64) -> Result<(), Lack> {
        if self.is_act(offset) {
            return Ok(());
        }
        let full = Lack::Fields;
        let offset = u16::try_from(offset).map_err(|_| full)?;
        let fields = usize::from(self.field_count);
        let same = |f: &&mut Field| (f.offset, f.len) == (offset, len);
        if let Some(field) = self.fields.iter_mut().take(fields).find(same) {
            field.value = value & mask(len);
            return Ok(());
        }
        *self.fields.get_mut(fields).ok_or(full)? = Field {
            offset,
            len,
            value: value & mask(len),
        };
        self.field_count = self.field_count.saturating_add(1);
        Ok(())
    }

    /// Whether writing a field does something rather than configure: the console's emergency
    /// character, and the display's acknowledgement of events (sections 5.3.4, 5.7.4).
    fn is_act(&self, offset: u64) -> bool {
        const CONSOLE: u32 = 3;
        const GPU: u32 = 16;
        matches!((self.kind, offset), (CONSOLE, 8..12) | (GPU, 4..8))
    }

    /// The device's own configuration answered.
    pub(super) fn configured(&mut self, offset: u64, len: u8, value: u64) {
        let Some(first) = usize::try_from(offset).ok().filter(|&at| at < SEEN) else {
            return;
        };
        let bytes = value.to_le_bytes().into_iter().take(usize::from(len));
        for ((at, seen), byte) in self.seen.iter_mut().enumerate().skip(first).zip(bytes) {
            *seen = byte;
            self.seen_bits |= 1 << at;
        }
    }

    /// The queue through which the driver gives commands, and whose they are.
    ///
    /// A network device has it behind all pairs of queues that it may use (section 5.1.2), a console
    /// behind the queues of its first port (section 5.3.2).
    pub(super) fn control_queue(&self) -> Option<(Control, u16)> {
        use features::{console, net};
        let accepted = self.accepted();
        if self.kind == u32::from(Control::Net.device_type()) && accepted & net::CTRL_VQ != 0 {
            let several = accepted & (net::MQ | net::RSS) != 0;
            let pairs = if several {
                self.seen_u16(net::MAX_PAIRS)?
            } else {
                1
            };
            return Some((Control::Net, pairs.checked_mul(2)?));
        }
        let console = self.kind == u32::from(Control::Console.device_type());
        (console && accepted & console::MULTIPORT != 0)
            .then_some((Control::Console, console::CONTROL_TRANSMITQ))
    }

    /// Two bytes of the device's own configuration, if the driver has read them.
    fn seen_u16(&self, offset: usize) -> Option<u16> {
        let bytes = self.seen.get(offset..)?.first_chunk()?;
        (self.seen_bits.checked_shr(u32::try_from(offset).ok()?)? & 3 == 3)
            .then_some(u16::from_le_bytes(*bytes))
    }

    /// The fields that the driver wrote, in the order of the first write.
    pub(super) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().take(usize::from(self.field_count))
    }

    /// A byte of the device's own configuration by which the device is known, if it was read:
    /// the address of a network device and how many pairs of queues it has, the capacity of a disk, the place of
    /// persistent memory.
    pub(super) fn identity(&self, offset: u16) -> Option<u8> {
        const NETWORK: u32 = 1;
        const PMEM: u32 = 27;
        let constant = matches!(
            (self.kind, offset),
            (NETWORK, 0..6 | 8..10) | (features::BLOCK, 0..8) | (PMEM, 0..16)
        );
        let at = usize::from(offset);
        let known = constant && self.seen_bits.checked_shr(u32::from(offset)).unwrap_or(0) & 1 != 0;
        let wrote = |f: &Field| (f.offset..f.offset.saturating_add(f.len.into())).contains(&offset);
        (known && !self.fields().any(wrote))
            .then(|| self.seen.get(at).copied())
            .flatten()
    }
}
