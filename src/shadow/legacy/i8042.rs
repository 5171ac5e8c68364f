// SPDX-License-Identifier: GPL-2.0

//! The keyboard controller: Intel 8042, at ports 0x60 (data) and 0x64 (commands).
//!
//! Carried are the command byte, which ports are disabled, the A20 line, what the devices behind it were
//! told (see [`super::ps2`]), and a command that waits for its data byte. Never replayed: the processor's reset
//! (pulses of the output port, and its bit 0), self tests, and what is written into the output
//! buffers. Bytes that wait to be read are lost; a driver that waits for an answer asks again.

use super::chip::{out, out_kept, port, Chip, Kept};
use super::ps2::{Keyboard, Mouse, Wire};
use crate::shadow::{Access, Full, Sink, Space};

const DATA: u16 = 0x60;
const COMMAND: u16 = 0x64;

const WRITE_COMMAND_BYTE: u8 = 0x60;
const DISABLE_MOUSE: u8 = 0xa7;
const ENABLE_MOUSE: u8 = 0xa8;
const DISABLE_KEYBOARD: u8 = 0xad;
const ENABLE_KEYBOARD: u8 = 0xae;
const WRITE_OUTPUT_PORT: u8 = 0xd1;
const WRITE_MOUSE: u8 = 0xd4;
const A20_OFF: u8 = 0xdd;
const A20_ON: u8 = 0xdf;

/// Command byte: the two interrupts.
const INTERRUPTS: u8 = 0x03;
/// Command byte: the keyboard's and the mouse's port are disabled.
const KEYBOARD_OFF: u8 = 1 << 4;
const MOUSE_OFF: u8 = 1 << 5;

/// Output port: 0 resets the processor.
const NO_RESET: u8 = 1;

/// See the module's description.
#[derive(Default)]
pub struct I8042 {
    command_byte: Kept,
    /// The last command that switched a port, since the command byte was written.
    keyboard_port: Kept,
    mouse_port: Kept,
    /// What was last done about A20: its command, and if that is [`WRITE_OUTPUT_PORT`], the value.
    a20: Kept,
    output_port: u8,
    /// The command whose data byte is next; 0 for none.
    waiting: u8,
    keyboard: Keyboard,
    mouse: Mouse,
}

impl I8042 {
    fn command(&mut self, value: u8) {
        self.waiting = 0;
        match value {
            0x60..=0x7f | 0xd1..=0xd4 => self.waiting = value,
            DISABLE_KEYBOARD | ENABLE_KEYBOARD => self.keyboard_port.set(value),
            DISABLE_MOUSE | ENABLE_MOUSE => self.mouse_port.set(value),
            A20_OFF | A20_ON => self.a20.set(value),
            _ => {}
        }
    }

    fn data(&mut self, value: u8) {
        match core::mem::take(&mut self.waiting) {
            WRITE_COMMAND_BYTE => {
                self.command_byte.set(value);
                self.keyboard_port.clear();
                self.mouse_port.clear();
            }
            WRITE_OUTPUT_PORT => {
                self.a20.set(WRITE_OUTPUT_PORT);
                self.output_port = value | NO_RESET;
            }
            WRITE_MOUSE => {
                self.mouse.write(value);
                enable(&mut self.command_byte, MOUSE_OFF);
                if self.mouse_port.get() == Some(DISABLE_MOUSE) {
                    self.mouse_port.set(ENABLE_MOUSE);
                }
            }
            0 => {
                self.keyboard.write(value);
                enable(&mut self.command_byte, KEYBOARD_OFF);
                if self.keyboard_port.get() == Some(DISABLE_KEYBOARD) {
                    self.keyboard_port.set(ENABLE_KEYBOARD);
                }
            }
            // RAM of the controller that nobody uses, and its output buffers.
            _ => {}
        }
    }
}

/// A byte that is sent to a device enables its port.
fn enable(command_byte: &mut Kept, off: u8) {
    if let Some(value) = command_byte.get() {
        command_byte.set(value & !off);
    }
}

/// Sends bytes to a device, and takes its answers out of the output buffer.
struct Line<'a> {
    sink: &'a mut dyn Sink,
    mouse: bool,
}

impl Wire for Line<'_> {
    fn send(&mut self, byte: u8, answers: u8) -> Result<(), Full> {
        if self.mouse {
            out(self.sink, COMMAND, WRITE_MOUSE)?;
        }
        out(self.sink, DATA, byte)?;
        (0..answers).try_for_each(|_| self.sink.read(Space::Port, u64::from(DATA), 1))
    }
}

impl Chip for I8042 {
    fn name(&self) -> &'static str {
        "8042 keyboard controller"
    }

    fn claims(&self, access: &Access) -> bool {
        matches!(port(access), Some(DATA | COMMAND))
    }

    fn write(&mut self, access: &Access, _: u64) {
        match port(access) {
            Some(DATA) => self.data(access.byte(0)),
            Some(COMMAND) => self.command(access.byte(0)),
            _ => {}
        }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn script(&self, _: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        // Acknowledgements are read by the script: the guest gets no interrupt for them.
        if let Some(value) = self.command_byte.get() {
            out(sink, COMMAND, WRITE_COMMAND_BYTE)?;
            out(sink, DATA, value & !(INTERRUPTS | KEYBOARD_OFF | MOUSE_OFF))?;
        }
        let mouse = true;
        self.mouse.script(&mut Line { sink, mouse })?;
        let mouse = false;
        self.keyboard.script(&mut Line { sink, mouse })?;
        if let Some(value) = self.command_byte.get() {
            out(sink, COMMAND, WRITE_COMMAND_BYTE)?;
            out(sink, DATA, value)?;
        }
        out_kept(sink, COMMAND, self.keyboard_port)?;
        out_kept(sink, COMMAND, self.mouse_port)?;
        out_kept(sink, COMMAND, self.a20)?;
        if self.a20.get() == Some(WRITE_OUTPUT_PORT) {
            out(sink, DATA, self.output_port)?;
        }
        match self.waiting {
            0 => Ok(()),
            waiting => out(sink, COMMAND, waiting),
        }
    }
}
