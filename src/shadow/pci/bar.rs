// SPDX-License-Identifier: GPL-2.0

//! Base address registers (PCI 3.0, section 6.2.5).

use crate::shadow::Space;

/// One base address register of four bytes, or the expansion ROM's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bar {
    /// The guest has written an address.
    pub written: bool,
    /// All ones are in it: the guest is asking for the size.
    pub probing: bool,
    /// The size was asked for, and `size` was the answer.
    pub probed: bool,
    /// The address in it was read, and `seen` was the answer.
    pub read: bool,
    /// The address written last.
    pub raw: u32,
    /// What was read while all ones were in it.
    pub size: u32,
    /// What was read otherwise, since the last write.
    pub seen: u32,
}

/// Whether a value is no address but the question for the size. The lowest bits are read-only, and
/// guests leave some of them out.
const fn is_probe(value: u32, rom: bool) -> bool {
    let ones = if rom { 0xffff_f800 } else { 0xffff_fff0 };
    value & ones == ones
}

impl Bar {
    /// The guest writes: after this access the register would hold `value`.
    pub fn write(&mut self, value: u32, rom: bool) {
        self.probing = is_probe(value, rom);
        if !self.probing {
            self.written = true;
            self.read = false;
            self.raw = value;
        }
    }

    /// The guest has read all four bytes.
    pub fn answer(&mut self, value: u32) {
        if self.probing {
            self.probed = true;
            self.size = value;
        } else {
            self.read = true;
            self.seen = value;
        }
    }

    /// The address as it was written, or else as the VMM has chosen it.
    pub fn value(&self) -> Option<u32> {
        if self.written {
            Some(self.raw)
        } else {
            self.read.then_some(self.seen)
        }
    }

    /// Bits 3..0, which say what kind of address it is.
    fn flags(&self) -> u32 {
        let from = match (self.probed, self.read) {
            (true, _) => self.size,
            (_, true) => self.seen,
            _ => self.raw,
        };
        from & 0xf
    }

    fn is_wide(&self) -> bool {
        self.flags() & 7 == 4
    }
}

/// Where a BAR shows its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Window {
    /// Address space.
    pub space: Space,
    /// First address.
    pub base: u64,
    /// Bytes; 0 for no window.
    pub size: u64,
}

/// Bytes of a window whose size the guest has never asked for.
const GUESS: u64 = 4096;

/// The window of register number `index` of `bars`, whether or not it is decoded.
pub fn window(bars: &[Bar], index: usize) -> Option<Window> {
    let bar = bars.get(index)?;
    let raw = bar.value().filter(|_| !is_high(bars, index))?;
    if bar.flags() & 1 != 0 {
        let size = u64::from(!(bar.size & 0xfffc) & 0xffff) + 1;
        let size = if bar.probed { size } else { 256 };
        let base = u64::from(raw & 0xfffc);
        return (base != 0).then_some(Window {
            space: Space::Port,
            base,
            size,
        });
    }
    let mut base = u64::from(raw & 0xffff_fff0);
    let mut mask = 0xffff_ffff_0000_0000 | u64::from(bar.size & 0xffff_fff0);
    if bar.is_wide() {
        let high = bars.get(index.checked_add(1)?)?;
        base |= u64::from(high.value()?) << 32;
        if high.probed {
            mask = (u64::from(high.size) << 32) | mask & 0xffff_ffff;
        }
    }
    let size = match mask.wrapping_neg() {
        _ if !bar.probed => GUESS,
        size => size,
    };
    let empty = bar.probed && bar.size == 0 || base == 0;
    (!empty).then_some(Window {
        space: Space::Memory,
        base,
        size,
    })
}

/// Whether a register is the upper half of an address of 64 bits.
fn is_high(bars: &[Bar], index: usize) -> bool {
    let mut high = false;
    for bar in bars.iter().take(index) {
        high = !high && bar.is_wide();
    }
    high
}
