// SPDX-License-Identifier: GPL-2.0

//! The devices of a VM as the module tells them, in the words of this tool. A part of the JSON of
//! `show`; `docs/abi.md` documents it.

use crate::text;
use nvhv_pure::abi::{device_kind as kind, keeping, DeviceEntry};
use nvhv_pure::shadow::legacy::Legacy;
use nvhv_pure::shadow::{class, memory, DeviceId, Space};
use serde::Serialize;

/// VIRTIO_BLK_F_FLUSH (virtio 1.3, section 5.2.3): the driver knows of a cache, and flushes it.
const BLOCK_FLUSH: u64 = 1 << 9;
const BLOCK: u64 = 2;

/// What is told of one device.
#[derive(Serialize)]
pub struct DeviceReport {
    /// `virtio`, `queue`, `pci`, `chip`, `registers`, `cached`, `vfio` or `elsewhere`.
    pub kind: &'static str,
    pub name: String,
    /// Where it is.
    pub place: Option<String>,
    /// `idle`, `kept`, `fresh` or `lost`.
    pub keeping: &'static str,
    /// What there is to say besides.
    pub text: Option<String>,
    /// Of a queue: requests in flight.
    pub in_flight: Option<u64>,
}

impl From<&DeviceEntry> for DeviceReport {
    fn from(entry: &DeviceEntry) -> Self {
        let DeviceEntry {
            place,
            number,
            detail,
            ..
        } = *entry;
        let said = text::field(&entry.text);
        let said = (!said.is_empty()).then_some(said);
        // CAST: these are numbers of 32 bits.
        let (number32, class) = (number as u32, detail as u32);
        let device = || Some(DeviceId::from_raw(place).to_string());
        let (kind, name, place, text) = match entry.kind {
            kind::VIRTIO => {
                let name = class::virtio_name(number32).into();
                let cache = match number {
                    BLOCK if entry.keeping == keeping::IDLE => None,
                    BLOCK if detail & BLOCK_FLUSH != 0 => Some("its driver flushes its cache"),
                    BLOCK => Some("its driver knows of no cache"),
                    _ => None,
                };
                ("virtio", name, device(), cache.map(String::from))
            }
            kind::QUEUE => ("queue", format!("queue {number}"), device(), said),
            kind::FUNCTION => {
                let (vendor, id) = (number32 & 0xffff, number32 >> 16);
                let name = format!("{} {vendor:04x}:{id:04x}", class::function_name(class));
                let place = DeviceId::pci(place as u16).to_string();
                ("pci", name, Some(place), Some(format!("class {class:06x}")))
            }
            kind::CHIP => {
                let name = u32::try_from(place).ok();
                let name = name.and_then(|number| Box::<Legacy>::default().name(number));
                ("chip", name.unwrap_or("unknown chip").into(), None, said)
            }
            kind::PORTS | kind::MEMORY => {
                let (space, what) = match entry.kind {
                    kind::PORTS => (Space::Port, "port"),
                    _ => (Space::Memory, "memory"),
                };
                let name = memory::act(space, place).unwrap_or("not understood");
                let range = if place == number {
                    format!("{what} {place:#x}")
                } else {
                    format!("{what} {place:#x} to {number:#x}")
                };
                let writes = format!("written {detail} times");
                ("registers", name.into(), Some(range), Some(writes))
            }
            kind::CACHED => {
                let inode = match place {
                    0 => String::new(),
                    inode => format!(", inode {inode}"),
                };
                let place = format!("device {}:{}{inode}", number >> 20, number & 0xf_ffff);
                let name = said.unwrap_or_default();
                ("cached", name, Some(place), None)
            }
            kind::ELSEWHERE => (
                "elsewhere",
                "devices configured elsewhere".into(),
                None,
                said,
            ),
            kind::PASSED_THROUGH => ("vfio", "device of the host".into(), None, said),
            _ => ("unknown", "unknown".into(), None, said),
        };
        DeviceReport {
            kind,
            name,
            place,
            keeping: match entry.keeping {
                keeping::IDLE => "idle",
                keeping::KEPT => "kept",
                keeping::FRESH => "fresh",
                keeping::LOST => "lost",
                _ => "unknown",
            },
            text,
            in_flight: (entry.kind == kind::QUEUE && entry.keeping == keeping::KEPT)
                .then_some(detail),
        }
    }
}

impl DeviceReport {
    /// As a line for people.
    pub fn line(&self) -> String {
        let mut line = match self.kind {
            "queue" => format!("  {}", self.name),
            _ => self.name.clone(),
        };
        if let Some(place) = self.place.as_ref().filter(|_| self.kind != "queue") {
            line += &format!(" at {place}");
        }
        let state = match (self.kind, self.keeping) {
            ("cached", _) => "in the host's page cache",
            (_, "idle") => "not put to use",
            (_, "fresh") if self.kind == "registers" => "not carried",
            (_, "fresh") if self.kind == "chip" => "kept in part",
            (_, "fresh") => "starts as fresh",
            (_, "lost") => "CANNOT BE KEPT",
            (_, other) => other,
        };
        line += &format!(": {state}");
        if let Some(count) = self.in_flight {
            line += &format!(", {count} in flight");
        }
        match &self.text {
            Some(text) => line + ", " + text,
            None => line,
        }
    }
}
