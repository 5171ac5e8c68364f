// SPDX-License-Identifier: GPL-2.0

//! The configuration space of one function (PCI 3.0, chapter 6): what the guest wrote to it, and what
//! it was told of it.

use super::bar::{self, Bar, Window};
use super::capability::{MsixTable, Places};
use crate::shadow::access::mask;
use crate::shadow::table::Slot;
use crate::shadow::Space;

/// Bytes of the part of configuration space that both mechanisms reach.
pub const SPACE: usize = 256;
/// Base address registers of an ordinary function; the expansion ROM's comes after them.
const BARS: usize = 7;
const ROM: usize = 6;

/// COMMAND
pub const COMMAND: u8 = 0x04;
const HEADER_TYPE: u8 = 0x0e;
const IO_DECODE: u8 = 1;
const MEMORY_DECODE: u8 = 2;

/// One function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// The slot of the table is taken.
    pub present: bool,
    /// Bus in bits 15..8, device in 7..3, function in 2..0.
    pub bdf: u16,
    /// It answered while no bridge led to its bus: it is on a root bus.
    pub root: bool,
    /// The guest has put it to use by its registers.
    pub used: bool,
    /// What was written last to each byte, and when: 0 for never.
    value: [u8; SPACE],
    stamp: [u16; SPACE],
    clock: u16,
    /// What was read, and where that was ever done.
    seen: [u8; SPACE],
    seen_bits: [u8; SPACE / 8],
    pub(super) bars: [Bar; BARS],
    // What follows is worked out from the above.
    windows: [Window; 6],
    pub(super) msix: MsixTable,
    pub(super) virtio: Places,
}

impl Slot for Function {
    const FREE: Self = {
        const BAR: Bar = Bar {
            written: false,
            probing: false,
            probed: false,
            read: false,
            raw: 0,
            size: 0,
            seen: 0,
        };
        const WINDOW: Window = Window {
            space: Space::Port,
            base: 0,
            size: 0,
        };
        const PLACE: super::capability::Place = super::capability::Place {
            known: false,
            bar: 0,
            offset: 0,
            len: 0,
        };
        Self {
            present: false,
            bdf: 0,
            root: false,
            used: false,
            value: [0; SPACE],
            stamp: [0; SPACE],
            clock: 0,
            seen: [0; SPACE],
            seen_bits: [0; SPACE / 8],
            bars: [BAR; BARS],
            windows: [WINDOW; 6],
            msix: MsixTable {
                at: 0,
                bar: 0,
                offset: 0,
                count: 0,
            },
            virtio: Places {
                common: PLACE,
                notify: PLACE,
                multiplier: 0,
                isr: PLACE,
                device: PLACE,
                window: 0,
            },
        }
    };

    fn is_used(&self) -> bool {
        self.present
    }
}

impl Function {
    /// A byte as it was read.
    pub fn seen(&self, at: u8) -> Option<u8> {
        let bits = self.seen_bits.get(usize::from(at / 8))?;
        ((bits >> (at % 8)) & 1 != 0)
            .then(|| self.seen.get(usize::from(at)).copied())
            .flatten()
    }

    /// Two bytes as they were read.
    pub fn seen_u16(&self, at: u8) -> Option<u16> {
        let high = self.seen(at.checked_add(1)?)?;
        Some(u16::from_le_bytes([self.seen(at)?, high]))
    }

    /// Four bytes as they were read.
    pub fn seen_u32(&self, at: u8) -> Option<u32> {
        let low = self.seen_u16(at)?;
        let high = self.seen_u16(at.checked_add(2)?)?;
        Some((u32::from(high) << 16) | u32::from(low))
    }

    /// A byte as it was written, with the number of the access that did so.
    pub fn written(&self, at: u8) -> Option<(u8, u16)> {
        let stamp = *self.stamp.get(usize::from(at))?;
        let value = *self.value.get(usize::from(at))?;
        (stamp != 0).then_some((value, stamp))
    }

    /// A byte as it was written, or else as it was read, or zero.
    pub fn current(&self, at: u8) -> u8 {
        match self.written(at) {
            Some((value, _)) => value,
            None => self.seen(at).unwrap_or(0),
        }
    }

    /// Four such bytes.
    pub fn current_u32(&self, at: u8) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|i| self.current(at.saturating_add(i))))
    }

    /// Vendor in the low half, device in the high one; 0 if not known.
    pub fn identity(&self) -> u32 {
        self.seen_u32(0).unwrap_or(0)
    }

    /// Class code, subclass and interface.
    pub fn class(&self) -> u32 {
        [8, 9, 10, 11].iter().rev().fold(0, |class, &at| {
            (class << 8) | u32::from(self.seen(at).unwrap_or(0))
        }) >> 8
    }

    /// Whether it is a PCI-to-PCI bridge.
    pub fn is_bridge(&self) -> bool {
        self.seen(HEADER_TYPE).unwrap_or(0) & 0x7f == 1
    }

    /// Secondary and subordinate bus of a bridge.
    pub fn buses(&self) -> Option<(u8, u8)> {
        self.is_bridge()
            .then(|| (self.current(0x19), self.current(0x1a)))
    }

    /// The base address register that a byte belongs to, and where it begins.
    pub fn bar_at(&self, at: u8) -> Option<(usize, u8)> {
        let bridge = self.is_bridge();
        let rom = if bridge { 0x38 } else { 0x30 };
        let end = if bridge { 0x18 } else { 0x28 };
        let start = at & !3;
        if (0x10..end).contains(&start) {
            return Some((usize::from((start - 0x10) / 4), start));
        }
        (start == rom).then_some((ROM, rom))
    }

    /// Where base address register number `index` is.
    pub fn bar_offset(&self, index: usize) -> Option<u8> {
        (0x10..0x40u8)
            .step_by(4)
            .find(|&at| self.bar_at(at).is_some_and(|(i, _)| i == index))
    }

    /// Whether addresses of that kind are decoded. A command register that the guest has never touched
    /// is as the VMM likes it.
    fn decodes(&self, bit: u8) -> bool {
        !self.knows_command() || self.current(COMMAND) & bit != 0
    }

    /// Whether the guest has read or written the command register.
    pub fn knows_command(&self) -> bool {
        self.written(COMMAND).is_some() || self.seen(COMMAND).is_some()
    }

    /// The guest writes.
    pub fn write(&mut self, at: u8, len: u8, value: u64) {
        if self.clock == u16::MAX {
            self.renumber();
        }
        self.clock = self.clock.saturating_add(1);
        for (index, byte) in value.to_le_bytes().into_iter().enumerate().take(len.into()) {
            let offset = usize::from(at) + index;
            if let (Some(value), Some(stamp)) =
                (self.value.get_mut(offset), self.stamp.get_mut(offset))
            {
                *value = byte;
                *stamp = self.clock;
            }
        }
        if let Some((index, start)) = self.bar_at(at) {
            // A narrow write changes part of what is there.
            let old = self.bars.get(index).and_then(Bar::value).unwrap_or(0);
            let shift = 8 * u32::from(at - start);
            let part = mask(len).checked_shl(shift).unwrap_or(0);
            let new = u64::from(old) & !part | value.checked_shl(shift).unwrap_or(0) & part;
            if let Some(bar) = self.bars.get_mut(index) {
                // CAST: the register has four bytes.
                bar.write(new as u32, index == ROM);
            }
        }
        self.work_out();
    }

    /// The guest has read.
    pub fn read(&mut self, at: u8, len: u8, value: u64) {
        for (index, byte) in value.to_le_bytes().into_iter().enumerate().take(len.into()) {
            let index = usize::from(at) + index;
            if let (Some(seen), Some(bits)) =
                (self.seen.get_mut(index), self.seen_bits.get_mut(index / 8))
            {
                *seen = byte;
                *bits |= 1 << (index % 8);
            }
        }
        if let Some((index, _)) = self.bar_at(at).filter(|_| len == 4) {
            if let Some(bar) = self.bars.get_mut(index) {
                // CAST: four bytes.
                bar.answer(value as u32);
            }
        }
        self.work_out();
    }

    /// The function was reset: what was written is gone.
    pub fn reset(&mut self) {
        self.value = [0; SPACE];
        self.stamp = [0; SPACE];
        self.clock = 0;
        self.used = false;
        self.bars = [Bar::default(); BARS];
        // What the guest has read of writable registers does not hold any more.
        self.forget(COMMAND);
        self.work_out();
    }

    fn forget(&mut self, at: u8) {
        if let Some(bits) = self.seen_bits.get_mut(usize::from(at / 8)) {
            *bits &= !(1 << (at % 8));
        }
    }

    fn work_out(&mut self) {
        for index in 0..self.windows.len() {
            let window = bar::window(self.bars.split_last().map_or(&[], |s| s.1), index);
            if let Some(slot) = self.windows.get_mut(index) {
                *slot = window.unwrap_or_default();
            }
        }
        self.msix = MsixTable::parse(self).unwrap_or_default();
        self.virtio = if self.is_virtio() {
            Places::parse(self)
        } else {
            Places::default()
        };
    }

    /// Whether it is a virtio device (virtio 1.3, section 4.1.2).
    pub fn is_virtio(&self) -> bool {
        let id = self.identity();
        id & 0xffff == 0x1af4 && (0x1000..0x1080).contains(&(id >> 16))
    }

    /// Whether it is a virtio device that has the legacy interface as well.
    pub fn is_transitional(&self) -> bool {
        self.is_virtio() && self.identity() >> 16 < 0x1040
    }

    /// Its virtio device type, 0 if not known yet.
    pub fn virtio_type(&self) -> u32 {
        let device = self.identity() >> 16;
        if !self.is_transitional() {
            return device.saturating_sub(0x1040);
        }
        match (self.seen_u16(0x2e), device) {
            (Some(subsystem), _) => subsystem.into(),
            (None, 0x1000) => 1,
            (None, 0x1001) => 2,
            (None, 0x1002) => 5,
            (None, 0x1003) => 3,
            (None, 0x1004) => 8,
            (None, 0x1005) => 4,
            (None, 0x1009) => 9,
            _ => 0,
        }
    }

    /// Whether MSI-X is on.
    pub fn msix_enabled(&self) -> bool {
        self.msix_control() & 0x80 != 0
    }

    /// Whether all vectors are masked at once.
    pub fn msix_masked(&self) -> bool {
        self.msix_control() & 0x40 != 0
    }

    /// The upper half of its message control, as the guest wrote it: zero after reset.
    fn msix_control(&self) -> u8 {
        let high = self.msix.at.checked_add(3).filter(|_| self.msix.at != 0);
        high.and_then(|at| self.written(at))
            .map_or(0, |(value, _)| value)
    }

    /// What BAR `index` shows, if it is decoded.
    pub fn window(&self, index: usize) -> Option<Window> {
        let window = *self.windows.get(index)?;
        let bit = match window.space {
            Space::Port => IO_DECODE,
            Space::Memory => MEMORY_DECODE,
        };
        (window.size != 0 && self.decodes(bit)).then_some(window)
    }

    /// The same, decoded or not.
    pub fn place(&self, index: usize) -> Option<Window> {
        self.windows.get(index).copied().filter(|w| w.size != 0)
    }

    /// Numbers the accesses anew, in their order, when the numbers run out.
    fn renumber(&mut self) {
        let old = self.stamp;
        let mut last = 0;
        let mut number: u16 = 0;
        while let Some(next) = old.iter().copied().filter(|&s| s > last).min() {
            number = number.saturating_add(1);
            for (stamp, _) in self
                .stamp
                .iter_mut()
                .zip(old)
                .filter(|&(_, was)| was == next)
            {
                *stamp = number;
            }
            last = next;
        }
        self.clock = number;
    }
}
