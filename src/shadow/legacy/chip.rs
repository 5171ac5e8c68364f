// SPDX-License-Identifier: GPL-2.0

//! What all chips of this room have in common.

use crate::shadow::{Access, Full, Sink, Space, Step};

/// The shadow of one kind of chip. All-zero bytes are the state of a chip that was never touched.
///
/// Chips whose registers are bytes get accesses of one byte: [`super::Legacy`] splits wider ones, as
/// the ISA bus does.
pub trait Chip {
    /// What the operator knows it by.
    fn name(&self) -> &'static str;

    /// Whether the access is to one of its registers.
    fn claims(&self, access: &Access) -> bool;

    /// Whether it takes accesses of more than a byte whole.
    fn wide(&self) -> bool {
        false
    }

    /// The guest writes.
    fn write(&mut self, access: &Access, now_ns: u64);

    /// The guest has read, and this was the answer.
    fn read(&mut self, _access: &Access, _now_ns: u64) {}

    /// The VMM reset the whole VM.
    fn reset(&mut self);

    /// What brings a fresh chip to the state in which the guest left this one. Empty if the guest
    /// never touched it.
    fn script(&self, now_ns: u64, sink: &mut dyn Sink) -> Result<(), Full>;

    /// After the script, once the guest is about to go on: what lets the chip run. What it counts before
    /// would be ahead of the guest's time.
    fn start(&self, _sink: &mut dyn Sink) -> Result<(), Full> {
        Ok(())
    }

    /// What the guest has done that the script cannot carry.
    fn lost(&self) -> Option<&'static str> {
        None
    }

    /// Whether the guest has configured anything.
    fn touched(&self) -> bool {
        /// Refuses the first step.
        struct Any;
        impl Sink for Any {
            fn step(&mut self, _: Step) -> Result<(), Full> {
                Err(Full)
            }
        }
        self.script(0, &mut Any).is_err()
    }
}

/// A byte that the guest has written, or has not yet (zero).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept(u16);

impl Kept {
    const WRITTEN: u16 = 0x100;

    /// The byte, if it was written.
    pub const fn get(self) -> Option<u8> {
        // CAST: the low byte is the value.
        match self.0 & Self::WRITTEN {
            0 => None,
            _ => Some(self.0 as u8),
        }
    }

    /// Keeps what was written.
    pub fn set(&mut self, value: u8) {
        self.0 = Self::WRITTEN | u16::from(value);
    }

    /// It is as if never written.
    pub fn clear(&mut self) {
        self.0 = 0;
    }
}

/// The port of an access, if it is to a port.
pub fn port(access: &Access) -> Option<u16> {
    match access.space {
        Space::Port => u16::try_from(access.addr).ok(),
        Space::Memory => None,
    }
}

/// Writes a byte to `port`.
pub fn out(sink: &mut dyn Sink, port: u16, value: u8) -> Result<(), Full> {
    sink.out(port, 1, u64::from(value))
}

/// Writes a byte to `port` if the guest has done so.
pub fn out_kept(sink: &mut dyn Sink, port: u16, value: Kept) -> Result<(), Full> {
    match value.get() {
        Some(value) => out(sink, port, value),
        None => Ok(()),
    }
}
