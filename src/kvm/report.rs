// SPDX-License-Identifier: GPL-2.0

//! What is known of a VM's devices, for its owner.

use super::devices::{Devices, State};
use crate::{
    abi::{device_kind as kind, keeping, DeviceEntry, TextWriter},
    queue::Refused,
    shadow::{class, DeviceId, Keeping, Machine, Report, Space},
    state::queues::QueueId,
};
use kernel::{
    fmt::{Arguments, Write},
    prelude::*,
};

/// Collects entries.
struct Entries(KVVec<DeviceEntry>);

impl Entries {
    fn add(
        &mut self,
        (kind, keeping): (u32, u32),
        numbers: [u64; 3],
        text: Option<Arguments<'_>>,
    ) -> Result {
        let [place, number, detail] = numbers;
        let mut entry = DeviceEntry {
            kind,
            keeping,
            place,
            number,
            detail,
            ..DeviceEntry::ZERO
        };
        if let Some(text) = text {
            // Writing to a text field cannot fail.
            let _ = TextWriter::new(&mut entry.text).write_fmt(text);
        }
        Ok(self.0.push(entry, GFP_KERNEL)?)
    }
}

/// What becomes of a device that is in use, or not.
fn becomes(used: bool, what: Keeping) -> u32 {
    match what {
        _ if !used => keeping::IDLE,
        Keeping::Kept => keeping::KEPT,
        Keeping::Fresh => keeping::FRESH,
        Keeping::Lost => keeping::LOST,
    }
}

impl Devices {
    /// All that there is to tell, and how many disks are in the host's page cache.
    pub(crate) fn report(&self) -> Result<(KVVec<DeviceEntry>, u32)> {
        let state = self.state.lock();
        let mut entries = Entries(KVVec::new());
        if let Some(machine) = state.machine() {
            for report in machine.report() {
                self.add_report(&mut entries, machine, &report)?;
            }
        }
        if state.passed_through {
            entries.add((kind::PASSED_THROUGH, keeping::LOST), [0; 3], None)?;
        }
        if state.elsewhere {
            entries.add((kind::ELSEWHERE, keeping::LOST), [0; 3], None)?;
        }
        self.add_disks(&mut entries, &state)?;
        Ok((entries.0, state.disks.count))
    }

    fn add_report(&self, entries: &mut Entries, machine: &Machine, report: &Report<'_>) -> Result {
        match *report {
            // Room for a device, and none in it; a function that the guest has only looked for.
            Report::Virtio(device) if device.kind == 0 && !device.runs() => Ok(()),
            Report::Function(function) if function.identity() == 0 => Ok(()),
            Report::Virtio(device) => {
                let id = device.id();
                entries.add(
                    (kind::VIRTIO, becomes(device.runs(), device.keeping())),
                    [id.to_raw(), device.kind.into(), device.accepted()],
                    None,
                )?;
                for index in machine.queues(id).map(|queue| queue.index) {
                    self.add_queue(entries, machine, id, index)?;
                }
                Ok(())
            }
            Report::Function(function) => {
                let what = class::function(function.class());
                // Nothing is ever lost of what is configured only.
                let used = function.used || what == Keeping::Kept;
                entries.add(
                    (kind::FUNCTION, becomes(used, what)),
                    [
                        function.bdf.into(),
                        function.identity().into(),
                        function.class().into(),
                    ],
                    None,
                )
            }
            Report::Chip(chip) => {
                let numbers = [chip.number.into(), 0, 0];
                match chip.lost {
                    None => entries.add((kind::CHIP, keeping::KEPT), numbers, None),
                    Some(lost) => {
                        entries.add((kind::CHIP, keeping::FRESH), numbers, Some(fmt!("{lost}")))
                    }
                }
            }
            Report::Unknown(range) => {
                let what = match range.space {
                    Space::Port => kind::PORTS,
                    Space::Memory => kind::MEMORY,
                };
                entries.add(
                    (what, keeping::FRESH),
                    [range.first, range.last, range.writes],
                    None,
                )
            }
        }
    }

    fn add_queue(
        &self,
        entries: &mut Entries,
        machine: &Machine,
        device: DeviceId,
        index: u16,
    ) -> Result {
        if machine.layout(device, index).is_none() {
            return Ok(());
        }
        let id = QueueId {
            device: device.to_raw(),
            queue: index,
        };
        let (place, number) = (id.device, id.queue.into());
        let lost = (kind::QUEUE, keeping::LOST);
        match self.queues.look(id) {
            Some(Ok(in_flight)) => entries.add(
                (kind::QUEUE, keeping::KEPT),
                [place, number, in_flight.into()],
                None,
            ),
            Some(Err(fault)) => entries.add(lost, [place, number, 0], Some(fmt!("{fault}"))),
            None => {
                let why = self.why_refused(id).unwrap_or(Refused::NotReady);
                entries.add(lost, [place, number, 0], Some(fmt!("{why}")))
            }
        }
    }

    fn add_disks(&self, entries: &mut Entries, state: &State) -> Result {
        for disk in state.disks.first.iter() {
            let becomes = (kind::CACHED, keeping::FRESH);
            entries.add(becomes, [disk.inode, disk.device, 0], None)?;
            if let Some(entry) = entries.0.last_mut() {
                entry.text = disk.path;
            }
        }
        Ok(())
    }
}
