// SPDX-License-Identifier: GPL-2.0

//! The two DMA controllers of a PC, Intel 8237A, and the page registers.
//!
//! Carried are command, modes, masks and pages. Addresses and counts are not: they are loaded for each
//! transfer, and a transfer that was under way went with its device.

use super::chip::{out_kept, port, Chip, Kept};
use crate::shadow::{Access, Full, Sink};

/// Where a controller's registers are, and how far apart.
const CONTROLLERS: [(u16, u16); 2] = [(0x00, 1), (0xc0, 2)];
/// Page registers. The first one shows POST codes instead.
const PAGES: u16 = 0x80;

const COMMAND: u16 = 8;
const SINGLE_MASK: u16 = 10;
const MODE: u16 = 11;
const MASTER_CLEAR: u16 = 13;
const CLEAR_MASK: u16 = 14;
const ALL_MASK: u16 = 15;

/// In a single mask's write: the channel is masked.
const MASKED: u8 = 1 << 2;

/// One controller.
#[derive(Clone, Copy, Default)]
struct Controller {
    command: Kept,
    modes: [Kept; 4],
    /// Per channel, as the single mask register takes it.
    masks: [Kept; 4],
}

impl Controller {
    fn mask(&mut self, channels: u8) {
        for (channel, mask) in (0u8..).zip(&mut self.masks) {
            let masked = (channels >> channel) & 1 != 0;
            mask.set(channel | if masked { MASKED } else { 0 });
        }
    }

    fn write(&mut self, register: u16, value: u8) {
        let channel = usize::from(value & 3);
        match register {
            COMMAND => self.command.set(value),
            SINGLE_MASK => {
                if let Some(mask) = self.masks.get_mut(channel) {
                    mask.set(value & (MASKED | 3));
                }
            }
            MODE => {
                if let Some(mode) = self.modes.get_mut(channel) {
                    mode.set(value);
                }
            }
            MASTER_CLEAR => {
                // As after power-on, but for the modes.
                self.command.clear();
                self.masks = [Kept::default(); 4];
            }
            CLEAR_MASK => self.mask(0),
            ALL_MASK => self.mask(value),
            _ => {}
        }
    }

    fn script(&self, base: u16, step: u16, sink: &mut dyn Sink) -> Result<(), Full> {
        for mode in self.modes {
            out_kept(sink, base + MODE * step, mode)?;
        }
        out_kept(sink, base + COMMAND * step, self.command)?;
        // The masks last: without one, a request of a device starts a transfer.
        for mask in self.masks {
            out_kept(sink, base + SINGLE_MASK * step, mask)?;
        }
        Ok(())
    }
}

/// See the module's description.
#[derive(Default)]
pub struct Dma {
    controllers: [Controller; 2],
    pages: [Kept; 16],
}

/// What a port is.
enum Place {
    Register { controller: usize, register: u16 },
    Page(usize),
}

fn place(access: &Access) -> Option<Place> {
    let port = port(access)?;
    match port {
        0x00..=0x0f => Some(Place::Register {
            controller: 0,
            register: port,
        }),
        0x81..=0x8f => Some(Place::Page(usize::from(port - PAGES))),
        0xc0..=0xdf => Some(Place::Register {
            controller: 1,
            register: (port - 0xc0) / 2,
        }),
        _ => None,
    }
}

impl Chip for Dma {
    fn name(&self) -> &'static str {
        "8237A DMA controllers"
    }

    fn claims(&self, access: &Access) -> bool {
        place(access).is_some()
    }

    fn write(&mut self, access: &Access, _: u64) {
        let value = access.byte(0);
        match place(access) {
            Some(Place::Register {
                controller,
                register,
            }) => {
                if let Some(controller) = self.controllers.get_mut(controller) {
                    controller.write(register, value);
                }
            }
            Some(Place::Page(page)) => {
                if let Some(page) = self.pages.get_mut(page) {
                    page.set(value);
                }
            }
            None => {}
        }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn script(&self, _: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        for (port, page) in (PAGES..).zip(self.pages) {
            out_kept(sink, port, page)?;
        }
        // The second one first: through its channel 0 the other's requests pass.
        for ((base, step), controller) in CONTROLLERS.iter().zip(&self.controllers).rev() {
            controller.script(*base, *step, sink)?;
        }
        Ok(())
    }
}
