// SPDX-License-Identifier: GPL-2.0

//! The serial ports of a PC: 16550 UARTs (National Semiconductor PC16550D).
//!
//! What is in the FIFOs and the shift registers is lost with the VMM. A character that the guest had
//! handed over may be missing at the other end; one that had arrived and was not read is missing in the
//! guest. When IER is written, a transmitter that is empty raises its interrupt: so a driver that waited for
//! the one that was lost goes on, and any other finds nothing to send, as it does at each open.

use super::chip::{out, out_kept, port, Chip, Kept};
use crate::shadow::{Access, Full, Sink};

/// COM1 to COM4.
const BASE: [u16; 4] = [0x3f8, 0x2f8, 0x3e8, 0x2e8];

/// LCR: the divisor latch is at offsets 0 and 1.
const DLAB: u8 = 1 << 7;

/// FCR: the FIFOs are on; without it the other bits are not programmed.
const FIFO_ENABLE: u8 = 1;
/// FCR: resets of the FIFOs, which clear themselves.
const FIFO_RESETS: u8 = 6;

/// One UART.
#[derive(Clone, Copy, Default)]
struct Uart {
    ier: Kept,
    fcr: Kept,
    lcr: Kept,
    mcr: Kept,
    scr: Kept,
    dll: Kept,
    dlm: Kept,
}

impl Uart {
    fn write(&mut self, offset: u16, value: u8) {
        let dlab = self.lcr.get().unwrap_or(0) & DLAB != 0;
        match offset {
            0 if dlab => self.dll.set(value),
            1 if dlab => self.dlm.set(value),
            1 => self.ier.set(value),
            2 if value & FIFO_ENABLE == 0 => self.fcr.set(0),
            2 => self.fcr.set(value & !FIFO_RESETS),
            3 => self.lcr.set(value),
            4 => self.mcr.set(value),
            7 => self.scr.set(value),
            // THR; and LSR and MSR, which are written in factory tests only.
            _ => {}
        }
    }

    fn script(&self, base: u16, sink: &mut dyn Sink) -> Result<(), Full> {
        if let Some(lcr) = self.lcr.get() {
            if self.dll.get().or(self.dlm.get()).is_some() {
                out(sink, base + 3, lcr | DLAB)?;
                out_kept(sink, base, self.dll)?;
                out_kept(sink, base + 1, self.dlm)?;
            }
            out(sink, base + 3, lcr & !DLAB)?;
        }
        out_kept(sink, base + 2, self.fcr)?;
        out_kept(sink, base + 7, self.scr)?;
        // OUT2 connects the interrupt, so it comes before what raises one.
        out_kept(sink, base + 4, self.mcr)?;
        out_kept(sink, base + 1, self.ier)?;
        match self.lcr.get() {
            Some(lcr) if lcr & DLAB != 0 => out(sink, base + 3, lcr),
            _ => Ok(()),
        }
    }
}

/// The four of them.
#[derive(Default)]
pub struct Uarts([Uart; 4]);

/// Which UART and which of its registers.
fn place(access: &Access) -> Option<(usize, u16)> {
    let port = port(access)?;
    let which = BASE.iter().position(|base| port & !7 == *base)?;
    Some((which, port & 7))
}

impl Chip for Uarts {
    fn name(&self) -> &'static str {
        "16550 serial ports"
    }

    fn claims(&self, access: &Access) -> bool {
        place(access).is_some()
    }

    fn write(&mut self, access: &Access, _: u64) {
        let Some((which, offset)) = place(access) else {
            return;
        };
        if let Some(uart) = self.0.get_mut(which) {
            uart.write(offset, access.byte(0));
        }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn script(&self, _: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        BASE.iter()
            .zip(&self.0)
            .try_for_each(|(base, uart)| uart.script(*base, sink))
    }
}
