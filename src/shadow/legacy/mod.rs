// SPDX-License-Identifier: GPL-2.0

//! The chips that a PC has had since before PCI, at fixed addresses: one small file each.
//!
//! KVM may model some of them itself. Then no access to them comes to user space, their shadows stay
//! empty, and so do their scripts.

pub mod chip;
pub mod dma;
pub mod fw_cfg;
pub mod glue;
pub mod gpe;
pub mod hpet;
pub mod i8042;
pub mod ioapic;
pub mod pic;
pub mod pit;
pub mod pm;
pub mod ps2;
pub mod rtc;
pub mod uart;

use super::{Access, Full, Sink, Space};
use chip::Chip;

/// How many kinds there are.
const KINDS: usize = 12;

/// All of them. All-zero bytes are a PC that was never touched; it is large, so let it be made
/// where it stays.
#[derive(Default)]
pub struct Legacy {
    pics: pic::Pics,
    pit: pit::Pit,
    rtc: rtc::Rtc,
    i8042: i8042::I8042,
    glue: glue::Glue,
    dma: dma::Dma,
    uarts: uart::Uarts,
    fw_cfg: fw_cfg::FwCfg,
    gpe: gpe::Gpe,
    pm: pm::Pm,
    hpet: hpet::Hpet,
    ioapics: ioapic::IoApics,
}

/// What is known of one kind, for the operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// Its number, for [`Legacy::name`].
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// What the guest did that a fresh one does not get.
    pub lost: Option<&'static str>,
}

impl Legacy {
    /// In the order of replay: interrupt controllers before what raises interrupts, as a masked or
    /// unprogrammed input loses an edge.
    fn chips(&self) -> [&dyn Chip; KINDS] {
        [
            &self.pics,
            &self.ioapics,
            &self.glue,
            &self.dma,
            &self.rtc,
            &self.pit,
            &self.hpet,
            &self.i8042,
            &self.uarts,
            &self.fw_cfg,
            &self.gpe,
            &self.pm,
        ]
    }

    fn chips_mut(&mut self) -> [&mut dyn Chip; KINDS] {
        [
            &mut self.pics,
            &mut self.ioapics,
            &mut self.glue,
            &mut self.dma,
            &mut self.rtc,
            &mut self.pit,
            &mut self.hpet,
            &mut self.i8042,
            &mut self.uarts,
            &mut self.fw_cfg,
            &mut self.gpe,
            &mut self.pm,
        ]
    }

    /// PMBASE of the chipset, as PCI configuration space has it now; 0 if its block is not decoded.
    /// It has to be known before the registers there are touched, by a script as well.
    pub fn set_pm_base(&mut self, base: u16) {
        self.pm.set_base(base);
    }

    /// Whether an access is to one of these chips.
    pub fn claims(&self, access: &Access) -> bool {
        self.chips().iter().any(|chip| chip.claims(access))
    }

    /// Calls `to` for each access that a chip gets. Says whether the access is to one of these chips. A
    /// reset through 0xCF9 lies within PCI's address register, which is accessed as four bytes at 0xCF8.
    fn each(&mut self, access: &Access, to: impl Fn(&mut dyn Chip, &Access)) -> bool {
        let mut byte_wide = false;
        for chip in self.chips_mut() {
            if !chip.claims(access) {
                continue;
            }
            if chip.wide() || access.len <= 1 {
                to(chip, access);
                return true;
            }
            byte_wide = true;
        }
        if !byte_wide || access.space != Space::Port {
            return byte_wide;
        }
        for index in 0..access.len.min(8) {
            let Some(addr) = access.addr.checked_add(u64::from(index)) else {
                return true;
            };
            let single = Access {
                addr,
                len: 1,
                value: u64::from(access.byte(index)),
                ..*access
            };
            for chip in self.chips_mut() {
                if !chip.wide() && chip.claims(&single) {
                    to(chip, &single);
                    break;
                }
            }
        }
        true
    }

    /// The guest writes. Says whether one of these chips is there.
    pub fn write(&mut self, access: &Access, now_ns: u64) -> bool {
        self.each(access, |chip, access| chip.write(access, now_ns))
    }

    /// The guest has read, and this was the answer. Says whether one of these chips is there.
    pub fn read(&mut self, access: &Access, now_ns: u64) -> bool {
        self.each(access, |chip, access| chip.read(access, now_ns))
    }

    /// The VMM reset the whole VM.
    pub fn reset(&mut self) {
        self.chips_mut().into_iter().for_each(Chip::reset);
    }

    /// What brings fresh chips to the state in which the guest left these.
    pub fn script(&self, now_ns: u64, sink: &mut dyn Sink) -> Result<(), Full> {
        self.chips()
            .iter()
            .try_for_each(|chip| chip.script(now_ns, sink))
    }

    /// What lets them run, after that.
    pub fn start(&self, sink: &mut dyn Sink) -> Result<(), Full> {
        self.chips().iter().try_for_each(|chip| chip.start(sink))
    }

    /// The name of the chip that an access is to.
    pub fn chip_at(&self, access: &Access) -> Option<&'static str> {
        let chip = self.chips().into_iter().find(|chip| chip.claims(access));
        chip.map(|chip| chip.name())
    }

    /// The name of the kind with this number.
    pub fn name(&self, number: u32) -> Option<&'static str> {
        let number = usize::try_from(number).ok()?;
        self.chips().get(number).map(|chip| chip.name())
    }

    /// The kinds that the guest has configured.
    pub fn report(&self) -> impl Iterator<Item = Known> + '_ {
        (0..)
            .zip(self.chips())
            .filter(|(_, chip)| chip.touched() || chip.lost().is_some())
            .map(|(number, chip)| Known {
                number,
                name: chip.name(),
                lost: chip.lost(),
            })
    }
}
