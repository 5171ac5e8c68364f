// SPDX-License-Identifier: GPL-2.0

//! The interval timer: Intel 8254, at ports 0x40 to 0x43, and port 0x61, which has the gate of
//! counter 2 and the speaker.
//!
//! Counters restart from the count that the guest loaded: a periodic one loses the phase, one that
//! runs once starts its time again, and one that had run out does so once more. A latched count is
//! latched again, so that the guest's reads pair up; its value is the restarted counter's.

use super::chip::{out, out_kept, port, Chip, Kept};
use crate::shadow::{Access, Full, Sink, Space};

const COUNTER: u16 = 0x40;
const CONTROL: u16 = 0x43;
const PORT_B: u16 = 0x61;

/// Port 0x61: gate of counter 2, speaker, and the two NMI enables; the rest are read only.
const PORT_B_WRITABLE: u8 = 0x0f;

/// RW1 and RW0 of a control word.
const LATCH: u8 = 0;
const LSB: u8 = 1;
const MSB: u8 = 2;
const WORD: u8 = 3;

/// Read-back command: what is *not* latched.
const NO_COUNT: u8 = 1 << 5;
const NO_STATUS: u8 = 1 << 4;
const READ_BACK: u8 = 0xc0;

/// One counter.
#[derive(Clone, Copy, Default)]
struct Counter {
    /// The control word without the counter's number. 0: never written, as RW would be a latch command.
    control: u8,
    loaded: bool,
    lsb: u8,
    msb: u8,
    /// The low byte of a word whose high byte is to follow.
    half: Kept,
    /// The next read without a latch gives the high byte.
    read_half: bool,
    status_latched: bool,
    /// How many bytes of a latched count are to be read.
    latched: u8,
}

impl Counter {
    fn access(&self) -> u8 {
        (self.control >> 4) & 3
    }

    fn latch_count(&mut self) {
        // A second latch before the count was read is ignored.
        if self.latched == 0 {
            self.latched = match self.access() {
                LATCH => 0,
                WORD => 2,
                _ => 1,
            };
        }
    }

    fn latch_status(&mut self) {
        self.status_latched = self.control != 0;
    }

    fn load(&mut self, value: u8) {
        match self.access() {
            LSB => (self.lsb, self.msb) = (value, 0),
            MSB => (self.lsb, self.msb) = (0, value),
            WORD => match self.half.get() {
                None => return self.half.set(value),
                Some(low) => {
                    (self.lsb, self.msb) = (low, value);
                    self.half.clear();
                }
            },
            _ => return,
        }
        self.loaded = true;
    }

    fn read(&mut self) {
        if self.status_latched {
            self.status_latched = false;
        } else if self.latched > 0 {
            self.latched -= 1;
        } else if self.access() == WORD {
            self.read_half = !self.read_half;
        }
    }

    fn script(&self, number: u8, sink: &mut dyn Sink) -> Result<(), Full> {
        if self.control == 0 {
            return Ok(());
        }
        let port = COUNTER + u16::from(number);
        let read = |sink: &mut dyn Sink| sink.read(Space::Port, u64::from(port), 1);
        out(sink, CONTROL, (number << 6) | self.control)?;
        if self.loaded && self.access() != MSB {
            out(sink, port, self.lsb)?;
        }
        if self.loaded && self.access() != LSB {
            out(sink, port, self.msb)?;
        }
        out_kept(sink, port, self.half)?;
        if self.read_half {
            read(sink)?;
        }
        if self.latched > 0 {
            out(sink, CONTROL, number << 6)?;
            if self.access() == WORD && self.latched == 1 {
                read(sink)?;
            }
        }
        if self.status_latched {
            out(sink, CONTROL, READ_BACK | NO_COUNT | (2 << number))?;
        }
        Ok(())
    }
}

/// See the module's description.
#[derive(Default)]
pub struct Pit {
    counters: [Counter; 3],
    port_b: Kept,
}

impl Pit {
    fn control(&mut self, value: u8) {
        if value & READ_BACK == READ_BACK {
            for (number, counter) in self.counters.iter_mut().enumerate() {
                if value & (2 << number) == 0 {
                    continue;
                }
                if value & NO_COUNT == 0 {
                    counter.latch_count();
                }
                if value & NO_STATUS == 0 {
                    counter.latch_status();
                }
            }
            return;
        }
        let Some(counter) = self.counters.get_mut(usize::from(value >> 6)) else {
            return;
        };
        match (value >> 4) & 3 {
            LATCH => counter.latch_count(),
            _ => {
                *counter = Counter {
                    control: value & 0x3f,
                    ..Counter::default()
                }
            }
        }
    }

    fn counter(&mut self, port: u16) -> Option<&mut Counter> {
        let number = port.checked_sub(COUNTER)?;
        self.counters.get_mut(usize::from(number))
    }
}

impl Chip for Pit {
    fn name(&self) -> &'static str {
        "8254 interval timer"
    }

    fn claims(&self, access: &Access) -> bool {
        matches!(port(access), Some(COUNTER..=CONTROL | PORT_B))
    }

    fn write(&mut self, access: &Access, _: u64) {
        let value = access.byte(0);
        match port(access) {
            Some(CONTROL) => self.control(value),
            Some(PORT_B) => self.port_b.set(value & PORT_B_WRITABLE),
            Some(port) => {
                if let Some(counter) = self.counter(port) {
                    counter.load(value);
                }
            }
            None => {}
        }
    }

    fn read(&mut self, access: &Access, _: u64) {
        if let Some(counter) = port(access).and_then(|port| self.counter(port)) {
            counter.read();
        }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn script(&self, _: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        for (number, counter) in (0u8..).zip(&self.counters) {
            counter.script(number, sink)?;
        }
        // The gate last: with it counter 2 starts.
        out_kept(sink, PORT_B, self.port_b)
    }
}
