// SPDX-License-Identifier: GPL-2.0

//! What a driver has written to the registers of one virtqueue, and the pool that holds all queues
//! of a VM.

use super::features;
use super::register::Part;
use crate::ring;
use crate::shadow::table::{Slot, Table};

/// Queues of one VM that are kept.
pub const QUEUES: usize = 512;

/// Bytes of a page number of the legacy PCI interface, and its alignment (section 4.1.5.1.3.1).
const LEGACY_PAGE: u64 = 4096;

/// A register that was written or read, or not yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    known: bool,
    value: u32,
}

impl Known {
    /// Not yet.
    pub const UNKNOWN: Self = Self {
        known: false,
        value: 0,
    };

    /// Its value, if known.
    pub fn get(self) -> Option<u32> {
        self.known.then_some(self.value)
    }

    /// Its value, zero if not known.
    pub fn or_zero(self) -> u32 {
        self.value
    }

    /// It is known now.
    pub fn set(&mut self, value: u64) {
        self.known = true;
        // CAST: registers of virtio are four bytes at most.
        self.value = value as u32;
    }
}

/// One virtqueue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VirtioQueue {
    /// The slot of the pool belongs to a queue.
    used: bool,
    /// Index of its device.
    device: u16,
    /// Its index in the device.
    pub index: u16,
    /// Its driver has made it live.
    pub enabled: bool,
    /// What the device said of its size before the driver wrote one.
    pub(super) max: Known,
    /// Queue size, as the driver wrote it.
    pub(super) size: Known,
    /// MSI-X vector.
    pub(super) vector: Known,
    /// `queue_notify_off`
    pub(super) notify_offset: Known,
    /// Low and high halves: descriptor table, driver area, device area.
    addresses: [[Known; 2]; 3],
    /// Legacy: page number and alignment.
    pub(super) pfn: Known,
    pub(super) align: Known,
}

fn half(part: Part, high: bool) -> (usize, usize) {
    (part as usize, usize::from(high))
}

impl VirtioQueue {
    /// Half an address that the driver wrote.
    pub(super) fn address_half(&self, part: Part, high: bool) -> Known {
        let (part, high) = half(part, high);
        self.addresses
            .get(part)
            .and_then(|pair| pair.get(high))
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn set_address_half(&mut self, part: Part, high: bool, value: u64) {
        let (part, high) = half(part, high);
        if let Some(known) = self.addresses.get_mut(part).and_then(|p| p.get_mut(high)) {
            known.set(value);
        }
    }

    fn address(&self, part: Part) -> u64 {
        let low = self.address_half(part, false).or_zero();
        let high = self.address_half(part, true).or_zero();
        (u64::from(high) << 32) | u64::from(low)
    }

    /// Where the queue lies, if it is live.
    pub(super) fn layout(
        &self,
        legacy: bool,
        page_size: u32,
        accepted: u64,
    ) -> Option<ring::Layout> {
        if !self.enabled {
            return None;
        }
        let size = self.size.get().or(self.max.get()).unwrap_or(0);
        let size = u16::try_from(size).ok()?;
        let event_idx = accepted & features::EVENT_IDX != 0;
        let indirect = accepted & features::INDIRECT_DESC != 0;
        let (desc, avail, used) = if legacy {
            self.legacy_addresses(size, page_size)?
        } else {
            (
                self.address(Part::Desc),
                self.address(Part::Driver),
                self.address(Part::Device),
            )
        };
        Some(ring::Layout {
            size,
            desc,
            avail,
            used,
            event_idx,
            indirect,
        })
    }

    /// Section 2.7.2. The room for `used_event` is there whether or not it is negotiated.
    fn legacy_addresses(&self, size: u16, page_size: u32) -> Option<(u64, u64, u64)> {
        let page = match page_size {
            0 => LEGACY_PAGE,
            size => u64::from(size),
        };
        let align = self.align.get().map_or(LEGACY_PAGE, u64::from);
        let desc = u64::from(self.pfn.get()?).checked_mul(page)?;
        let avail = desc.checked_add(16 * u64::from(size))?;
        let end = avail.checked_add(6 + 2 * u64::from(size))?;
        let used = end.checked_next_multiple_of(align)?;
        Some((desc, avail, used))
    }
}

impl Slot for VirtioQueue {
    const FREE: Self = Self {
        used: false,
        device: 0,
        index: 0,
        enabled: false,
        max: Known::UNKNOWN,
        size: Known::UNKNOWN,
        vector: Known::UNKNOWN,
        notify_offset: Known::UNKNOWN,
        addresses: [[Known::UNKNOWN; 2]; 3],
        pfn: Known::UNKNOWN,
        align: Known::UNKNOWN,
    };

    fn is_used(&self) -> bool {
        self.used
    }
}

/// All queues of a VM. All bytes zero are none.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Queues {
    slots: Table<VirtioQueue, QUEUES>,
}

impl Queues {
    /// The queues of device number `device`, in no order.
    pub fn of(&self, device: u16) -> impl Iterator<Item = &VirtioQueue> {
        self.slots.iter().filter(move |q| q.device == device)
    }

    /// One queue.
    pub fn get(&self, device: u16, index: u16) -> Option<&VirtioQueue> {
        self.of(device).find(|q| q.index == index)
    }

    /// One queue that may be new. `None` if there is no room.
    pub fn get_mut(&mut self, device: u16, index: u16) -> Option<&mut VirtioQueue> {
        let known = |q: &VirtioQueue| q.device == device && q.index == index;
        match self.slots.position(known) {
            Some(at) => self.slots.get_mut(at),
            None => self.slots.add(|queue| {
                queue.used = true;
                queue.device = device;
                queue.index = index;
            }),
        }
    }

    /// The device was reset.
    pub fn clear(&mut self, device: u16) {
        self.slots.remove(|queue| queue.device == device);
    }

    /// No device has any.
    pub fn clear_all(&mut self) {
        self.slots.remove(|_| true);
    }
}
