// SPDX-License-Identifier: GPL-2.0

//! Keyboard and mouse behind the 8042 (IBM Personal System/2 Hardware Interface Technical Reference):
//! what they were told, and how to tell it to others.
//!
//! A mouse in wrap mode, which echoes commands instead of executing them, is not followed: nothing
//! but a test puts it there.

use super::chip::Kept;
use crate::shadow::Full;

/// The way to a device.
pub trait Wire {
    /// Sends a byte, and takes away as many bytes of answer.
    fn send(&mut self, byte: u8, answers: u8) -> Result<(), Full>;
}

/// Commands that both know, and that the keyboard (K) or the mouse (M) alone knows.
const SET_RATE: u8 = 0xf3;
const ENABLE: u8 = 0xf4;
const DISABLE: u8 = 0xf5;
const SET_DEFAULTS: u8 = 0xf6;
const RESET: u8 = 0xff;
const GET_ID: u8 = 0xf2;
const K_SET_LEDS: u8 = 0xed;
const K_SCAN_CODES: u8 = 0xf0;
const M_SCALING_1: u8 = 0xe6;
const M_SCALING_2: u8 = 0xe7;
const M_RESOLUTION: u8 = 0xe8;
const M_STREAM: u8 = 0xea;
const M_REMOTE: u8 = 0xf0;

fn send_kept(wire: &mut dyn Wire, command: u8, value: Kept) -> Result<(), Full> {
    match value.get() {
        Some(value) => {
            wire.send(command, 1)?;
            wire.send(value, 1)
        }
        None => Ok(()),
    }
}

/// The keyboard.
#[derive(Clone, Copy, Default)]
pub struct Keyboard {
    /// Enable, disable, or set defaults: which of them was last.
    scanning: Kept,
    leds: Kept,
    /// Typematic rate and delay.
    rate: Kept,
    scan_codes: Kept,
    /// The command whose option byte is next; 0 for none.
    waiting: u8,
}

impl Keyboard {
    /// A byte for the keyboard.
    pub fn write(&mut self, value: u8) {
        // A command instead of an option is taken as a command.
        if value < 0x80 {
            match core::mem::take(&mut self.waiting) {
                K_SET_LEDS => self.leds.set(value),
                SET_RATE => self.rate.set(value),
                // 0 asks which set is in use.
                K_SCAN_CODES if value != 0 => self.scan_codes.set(value),
                _ => {}
            }
            return;
        }
        self.waiting = 0;
        match value {
            K_SET_LEDS | SET_RATE | K_SCAN_CODES => self.waiting = value,
            ENABLE => self.scanning.set(value),
            DISABLE | SET_DEFAULTS => {
                self.rate.clear();
                self.scan_codes.clear();
                self.scanning.set(value);
            }
            RESET => *self = Self::default(),
            _ => {}
        }
    }

    /// Tells it to a fresh keyboard.
    pub fn script(&self, wire: &mut dyn Wire) -> Result<(), Full> {
        // First, as it may set what follows to defaults.
        if let Some(command) = self.scanning.get() {
            wire.send(command, 1)?;
        }
        send_kept(wire, K_SCAN_CODES, self.scan_codes)?;
        send_kept(wire, SET_RATE, self.rate)?;
        send_kept(wire, K_SET_LEDS, self.leds)?;
        match self.waiting {
            0 => Ok(()),
            waiting => wire.send(waiting, 1),
        }
    }
}

/// What a mouse is asked to become by three sample rates in a row.
const WHEEL: [u8; 3] = [200, 100, 80];
const FIVE_BUTTONS: [u8; 3] = [200, 200, 80];

/// The mouse.
#[derive(Clone, Copy, Default)]
pub struct Mouse {
    reporting: Kept,
    mode: Kept,
    scaling: Kept,
    resolution: Kept,
    rate: Kept,
    /// The sample rates before `rate`, the last one first; 0 is none.
    rates_before: [u8; 2],
    wheel: bool,
    five_buttons: bool,
    /// The command whose data byte is next; 0 for none.
    waiting: u8,
}

impl Mouse {
    fn sample_rate(&mut self, rate: u8) {
        let [last, _] = self.rates_before;
        self.rates_before = [self.rate.get().unwrap_or(0), last];
        self.rate.set(rate);
        let [last, before] = self.rates_before;
        match [before, last, rate] {
            WHEEL => self.wheel = true,
            FIVE_BUTTONS => self.five_buttons = true,
            _ => {}
        }
    }

    /// A byte for the mouse.
    pub fn write(&mut self, value: u8) {
        if value < M_SCALING_1 {
            match core::mem::take(&mut self.waiting) {
                M_RESOLUTION => self.resolution.set(value),
                SET_RATE => self.sample_rate(value),
                _ => {}
            }
            return;
        }
        self.waiting = 0;
        match value {
            M_RESOLUTION | SET_RATE => self.waiting = value,
            M_SCALING_1 | M_SCALING_2 => self.scaling.set(value),
            M_STREAM | M_REMOTE => self.mode.set(value),
            ENABLE | DISABLE => self.reporting.set(value),
            SET_DEFAULTS => {
                // All but what it has become.
                *self = Self {
                    wheel: self.wheel,
                    five_buttons: self.five_buttons,
                    ..Self::default()
                };
            }
            RESET => *self = Self::default(),
            _ => {}
        }
    }

    /// Tells it to a fresh mouse.
    pub fn script(&self, wire: &mut dyn Wire) -> Result<(), Full> {
        let rate = |wire: &mut dyn Wire, rate: u8| {
            wire.send(SET_RATE, 1)?;
            wire.send(rate, 1)
        };
        for (asked, rates) in [(self.wheel, WHEEL), (self.five_buttons, FIVE_BUTTONS)] {
            if asked {
                rates.into_iter().try_for_each(|r| rate(wire, r))?;
                wire.send(GET_ID, 2)?;
            }
        }
        if self.wheel || self.five_buttons {
            wire.send(SET_DEFAULTS, 1)?;
        }
        for kept in [self.mode, self.scaling] {
            if let Some(command) = kept.get() {
                wire.send(command, 1)?;
            }
        }
        send_kept(wire, M_RESOLUTION, self.resolution)?;
        // Those before as well: the guest may be in the middle of asking it to become another one.
        let before = self.rates_before.into_iter().rev().filter(|&r| r != 0);
        before
            .chain(self.rate.get())
            .try_for_each(|r| rate(wire, r))?;
        if let Some(command) = self.reporting.get() {
            wire.send(command, 1)?;
        }
        match self.waiting {
            0 => Ok(()),
            waiting => wire.send(waiting, 1),
        }
    }
}
