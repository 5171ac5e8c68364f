// SPDX-License-Identifier: GPL-2.0

//! Which device an access is to, in words for an operator.

use super::{
    access::Access,
    class::{function_name, virtio_name},
    machine::Machine,
    pci::{Function, Place},
    virtio::DeviceId,
};
use core::fmt;

/// A device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// A virtio device; with its register, if that is in the configuration space of its PCI function.
    Virtio {
        /// Where it is.
        device: DeviceId,
        /// Its type.
        kind: u32,
        /// A register of its configuration space.
        register: Option<u8>,
    },
    /// Another PCI function.
    Function {
        /// Where it is.
        bdf: u16,
        /// Its class code.
        class: u32,
        /// Vendor in the low half, device in the high one.
        identity: u32,
        /// A register of its configuration space.
        register: Option<u8>,
    },
    /// A chip of a PC.
    Chip(&'static str),
    /// One that is not understood.
    Unknown,
}

impl Machine {
    /// Which device an access is to.
    pub fn whose(&self, access: &Access) -> Whose {
        let (bdf, register) = match self.place(access) {
            Some(Place::Virtio(device, _)) => return self.whose_virtio(device, None),
            Some(Place::Config { bdf, at }) => (bdf, Some(at)),
            Some(Place::Vector { bdf, .. } | Place::Bar { bdf }) => (bdf, None),
            Some(Place::Latch) => return Whose::Unknown,
            None => {
                let chip = self.legacy.chip_at(access);
                return chip.map_or(Whose::Unknown, Whose::Chip);
            }
        };
        match self.pci.function(bdf) {
            Some(f) if f.is_virtio() => self.whose_virtio(DeviceId::pci(bdf), register),
            Some(f) => whose_function(f, register),
            None => Whose::Unknown,
        }
    }

    fn whose_virtio(&self, device: DeviceId, register: Option<u8>) -> Whose {
        let known = self.virtio().find(|&(id, _)| id == device);
        match (known, device.bdf().and_then(|bdf| self.pci.function(bdf))) {
            (Some((_, known)), _) => Whose::Virtio {
                device,
                kind: known.kind,
                register,
            },
            (None, Some(function)) => whose_function(function, register),
            (None, None) => Whose::Unknown,
        }
    }
}

fn whose_function(function: &Function, register: Option<u8>) -> Whose {
    Whose::Function {
        bdf: function.bdf,
        class: function.class(),
        identity: function.identity(),
        register,
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let register = match *self {
            Whose::Virtio {
                device,
                kind,
                register,
            } => {
                write!(f, "{} (type {kind}) at {device}", virtio_name(kind))?;
                register
            }
            Whose::Function {
                bdf,
                class,
                identity,
                register,
            } => {
                let (name, at) = (function_name(class), DeviceId::pci(bdf));
                let (vendor, device) = (identity & 0xffff, identity >> 16);
                write!(f, "{name} ({vendor:04x}:{device:04x}) at {at}")?;
                register
            }
            Whose::Chip(name) => return f.write_str(name),
            Whose::Unknown => return f.write_str("a device that is not understood"),
        };
        match register {
            Some(at) => write!(f, ", register {at:#x} of its configuration space"),
            None => Ok(()),
        }
    }
}
