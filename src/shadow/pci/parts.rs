// SPDX-License-Identifier: GPL-2.0

//! What the registers of a function are for: which of them are constant, and when the others are
//! written by a script.

use super::capability::{self, Capabilities};
use super::function::{Function, SPACE};

/// When a byte is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Never: constant, status, or an act.
    Never,
    /// Bus numbers and windows of a bridge.
    Bridge,
    /// Base addresses; they have an order of their own.
    Bar,
    /// The command register.
    Command,
    /// Message signalled interrupts, without their control.
    Message,
    /// Their control.
    MessageControl,
    /// All else.
    Rest,
}

/// The purpose of each byte of a function.
pub struct Map {
    part: [Part; SPACE],
    /// Bits by which the function is known.
    constant: [u8; SPACE],
    /// Bits that must not be written as ones.
    act: [u8; SPACE],
}

impl Map {
    /// Works it out from the header type and the capabilities that the guest has read.
    pub fn of(function: &Function) -> Self {
        let mut map = Map {
            part: [Part::Rest; SPACE],
            constant: [0; SPACE],
            act: [0; SPACE],
        };
        map.header(function);
        for cap in Capabilities::of(function) {
            map.capability(function, cap.id, cap.at);
        }
        map
    }

    /// When a byte is written.
    pub fn part(&self, at: u8) -> Part {
        let part = self.part.get(usize::from(at));
        part.copied().unwrap_or(Part::Never)
    }

    /// Bits of a byte by which the function is known.
    pub fn constant(&self, at: u8) -> u8 {
        self.constant.get(usize::from(at)).copied().unwrap_or(0)
    }

    /// A byte as it may be written.
    pub fn harmless(&self, at: u8, value: u8) -> u8 {
        value & !self.act.get(usize::from(at)).copied().unwrap_or(0)
    }

    fn set(&mut self, base: u8, offset: u8, len: u8, part: Part) {
        let start = usize::from(base) + usize::from(offset);
        for slot in self.part.iter_mut().skip(start).take(len.into()) {
            *slot = part;
        }
    }

    fn known_by(&mut self, base: u8, offset: u8, bits: &[u8]) {
        let start = usize::from(base) + usize::from(offset);
        for (slot, &bits) in self.constant.iter_mut().skip(start).zip(bits) {
            *slot = bits;
        }
    }

    fn acts(&mut self, base: u8, offset: u8, bits: u8) {
        let at = usize::from(base) + usize::from(offset);
        if let Some(act) = self.act.get_mut(at) {
            *act = bits;
        }
    }

    /// PCI 3.0, section 6.1, and PCI-to-PCI Bridge 1.2, section 3.2.
    fn header(&mut self, function: &Function) {
        self.set(0, 0x00, 4, Part::Never);
        self.set(0, 0x04, 2, Part::Command);
        self.set(0, 0x06, 6, Part::Never);
        self.set(0, 0x0e, 2, Part::Never);
        self.known_by(0, 0x00, &[0xff; 4]);
        self.known_by(0, 0x08, &[0xff; 4]);
        self.known_by(0, 0x0e, &[0xff]);
        self.known_by(0, 0x34, &[0xff]);
        self.known_by(0, 0x3d, &[0xff]);
        if function.is_bridge() {
            self.set(0, 0x18, 6, Part::Bridge);
            self.set(0, 0x1e, 2, Part::Never);
            self.set(0, 0x20, 0x14, Part::Bridge);
            self.set(0, 0x3e, 2, Part::Bridge);
            // Secondary Bus Reset; Discard Timer Status.
            self.acts(0, 0x3e, 0x40);
            self.acts(0, 0x3f, 0x04);
        } else {
            self.known_by(0, 0x2c, &[0xff; 4]);
        }
        for at in (0x10..0x40).step_by(4) {
            if function.bar_at(at).is_some() {
                self.set(0, at, 4, Part::Bar);
            }
        }
    }

    fn capability(&mut self, function: &Function, id: u8, at: u8) {
        self.set(at, 0, 2, Part::Never);
        self.known_by(at, 0, &[0xff; 2]);
        match id {
            capability::PM => {
                self.known_by(at, 2, &[0xff; 2]);
                // PME_Status
                self.acts(at, 5, 0x80);
            }
            capability::MSI => {
                let wide = function.seen(at.saturating_add(2)).unwrap_or(0) & 0x80 != 0;
                let maskable = function.seen(at.saturating_add(3)).unwrap_or(0) & 1 != 0;
                let len = 6 + if wide { 4 } else { 0 } + if maskable { 6 } else { 0 };
                self.set(at, 2, 2, Part::MessageControl);
                self.set(at, 4, len, Part::Message);
                self.known_by(at, 2, &[0x8e, 0x01]);
            }
            capability::MSIX => {
                self.set(at, 2, 2, Part::MessageControl);
                self.set(at, 4, 8, Part::Never);
                self.known_by(at, 2, &[0xff, 0x07]);
                self.known_by(at, 4, &[0xff; 8]);
            }
            capability::EXPRESS => {
                self.known_by(at, 2, &[0xff; 6]);
                // Initiate Function Level Reset; the status registers of device, link, slot and root.
                self.acts(at, 9, 0x80);
                for (offset, len) in [
                    (0x0a, 2),
                    (0x12, 2),
                    (0x1a, 2),
                    (0x20, 4),
                    (0x2a, 2),
                    (0x32, 2),
                ] {
                    self.set(at, offset, len, Part::Never);
                }
            }
            capability::VENDOR if function.is_virtio() => self.virtio(function, at),
            _ => {}
        }
    }

    /// Virtio 1.3, section 4.1.4.
    fn virtio(&mut self, function: &Function, at: u8) {
        // A driver need not read how long the structure is: that of notifications has a multiplier.
        let notify = function.seen(at.saturating_add(3)) == Some(2);
        let least = if notify { 20 } else { 16 };
        let len = function.seen(at.saturating_add(2)).unwrap_or(least).min(32);
        if function.virtio.window == at {
            self.known_by(at, 2, &[0xff; 2]);
            // `pci_cfg_data` is no register but an access.
            self.set(at, 16, 4, Part::Never);
            return;
        }
        for offset in 2..len {
            self.known_by(at, offset, &[0xff]);
        }
        self.set(at, 2, len.saturating_sub(2), Part::Never);
    }
}

/// The byte of the device control register whose highest bit resets the function, if it has that.
pub fn flr_control(function: &Function) -> Option<u8> {
    let cap = Capabilities::of(function).find(|cap| cap.id == capability::EXPRESS)?;
    let capable = function.seen_u32(cap.at.checked_add(4)?)? & (1 << 28) != 0;
    cap.at.checked_add(9).filter(|_| capable)
}
