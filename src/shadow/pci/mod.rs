// SPDX-License-Identifier: GPL-2.0

//! PCI: configuration space by both mechanisms, base addresses, and message signalled interrupts.

mod bar;
mod capability;
mod chipset;
mod ecam;
mod function;
mod parts;
mod script;
mod vectors;

pub use function::Function;

use super::access::{Access, Space};
use super::class;
use super::machine::Lack;
use super::table::Table;
use super::virtio::{DeviceId, Layout, Site, Target};
use ecam::Ecam;
use vectors::Vectors;

/// Functions of one VM that are kept.
const FUNCTIONS: usize = 64;

/// CONFIG_ADDRESS and CONFIG_DATA (PCI 3.0, section 3.2.2.3.2).
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u64 = 0xcfc;
const CONFIG_ENABLE: u32 = 1 << 31;

/// All of PCI of a VM. All bytes zero are a VM whose PCI was never touched.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Pci {
    /// CONFIG_ADDRESS, and whether it was ever written.
    latch: u32,
    latched: bool,
    /// A function has answered through CONFIG_DATA.
    by_ports: bool,
    ecam: Ecam,
    functions: Table<Function, FUNCTIONS>,
    vectors: Vectors,
}

/// What an access is to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// CONFIG_ADDRESS.
    Latch,
    /// A register of a function, in the part of configuration space that is kept.
    Config {
        /// The function.
        bdf: u16,
        /// The register.
        at: u8,
    },
    /// A virtio device.
    Virtio(DeviceId, Target),
    /// A word of an MSI-X table.
    Vector {
        /// The function.
        bdf: u16,
        /// Entry.
        index: u16,
        /// Word of the entry.
        word: u8,
    },
    /// Another register of a function.
    Bar {
        /// The function.
        bdf: u16,
    },
}

/// What the guest reset by way of PCI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reset {
    /// One function.
    Function(u16),
    /// All on these buses.
    Buses(u8, u8),
}

impl Reset {
    /// Whether a function is among them.
    pub fn covers(self, bdf: u16) -> bool {
        match self {
            Reset::Function(one) => one == bdf,
            Reset::Buses(first, last) => (u16::from(first)..=u16::from(last)).contains(&(bdf >> 8)),
        }
    }
}

/// What the guest finds when it reads the identity of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// Nothing new.
    Same,
    /// It was there and is no more, or another one is in its place.
    Gone(u16),
}

impl Pci {
    /// All functions.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter()
    }

    /// One function.
    pub fn function(&self, bdf: u16) -> Option<&Function> {
        self.functions().find(|f| f.bdf == bdf)
    }

    fn function_mut(&mut self, bdf: u16) -> Option<&mut Function> {
        self.functions.iter_mut().find(|f| f.bdf == bdf)
    }

    fn add(&mut self, bdf: u16) -> Result<&mut Function, Lack> {
        let function = match self.functions.position(|f| f.bdf == bdf) {
            Some(at) => self.functions.get_mut(at),
            None => {
                let root = !self.is_behind_bridge(bdf);
                self.functions.add(|function| {
                    function.present = true;
                    function.bdf = bdf;
                    function.root = root;
                })
            }
        };
        function.ok_or(Lack::Functions)
    }

    /// Whether a known bridge leads to the bus of `bdf`.
    fn is_behind_bridge(&self, bdf: u16) -> bool {
        let bus = bdf >> 8;
        self.functions()
            .filter_map(Function::buses)
            .any(|(first, last)| bus != 0 && (first.into()..=last.into()).contains(&bus))
    }

    /// Where ECAM is now: the chipset's register says so, or the guest's accesses have shown it.
    fn ecam_window(&self) -> Option<(u64, u64)> {
        let host = self.function(0).filter(|f| chipset::is_mch(f));
        match host {
            Some(host) => chipset::pciexbar(host),
            None => self.ecam.window(),
        }
    }

    /// The function and register of an access to configuration space.
    fn config(&self, access: &Access) -> Option<(u16, u16)> {
        if access.space == Space::Port {
            let lane = access.offset_in(Space::Port, CONFIG_DATA, 4)?;
            let enabled = self.latch & CONFIG_ENABLE != 0;
            // CAST: the bus number and what is below it; a register below 256.
            let bdf = (self.latch >> 8) as u16;
            let at = (u64::from(self.latch & 0xfc) | lane) as u16;
            return enabled.then_some((bdf, at));
        }
        let (base, size) = self.ecam_window()?;
        let offset = access.offset_in(Space::Memory, base, size)?;
        // An access across the edge of a function is none.
        let within = (offset & 0xfff) + u64::from(access.len) <= 0x1000;
        // CAST: the window has 256 MiB at most.
        within.then_some(((offset >> 12) as u16, (offset & 0xfff) as u16))
    }

    /// What an access is to, if it is to PCI.
    pub fn place(&self, access: &Access) -> Option<Place> {
        if *access == Access::port(CONFIG_ADDRESS, 4, access.value) {
            return Some(Place::Latch);
        }
        if let Some((bdf, at)) = self.config(access) {
            let end = at.checked_add(access.len.into())?;
            let at = u8::try_from(at).ok().filter(|_| end <= 256)?;
            return Some(Place::Config { bdf, at });
        }
        self.functions().find_map(|f| Self::in_bars(f, access))
    }

    fn in_bars(function: &Function, access: &Access) -> Option<Place> {
        let (bar, offset) = Self::bar_of(function, access)?;
        Some(Self::in_bar(function, bar, offset))
    }

    /// The BAR of a function that an access is to, and where in it.
    fn bar_of(function: &Function, access: &Access) -> Option<(usize, u64)> {
        (0..6).find_map(|bar| {
            let window = function.window(bar)?;
            let offset = access.offset_in(window.space, window.base, window.size)?;
            Some((bar, offset))
        })
    }

    /// The guest writes a register of a function that is no virtio device. Says whether that puts it to
    /// use, which it was not.
    pub fn uses(&mut self, bdf: u16, access: &Access) -> bool {
        let Some(function) = self.function_mut(bdf).filter(|f| !f.used) else {
            return false;
        };
        let at = Self::bar_of(function, access);
        function.used = at
            .is_some_and(|(bar, offset)| class::uses(function.class(), bar, offset, access.value));
        function.used
    }

    /// The guest gives a command to a disk at the ports that PCs have for them. Says the same.
    pub fn uses_ide(&mut self) -> bool {
        let mut functions = self.functions.iter_mut();
        let ide = functions.find(|f| f.present && class::is_ide(f.class()));
        ide.is_some_and(|f| !core::mem::replace(&mut f.used, true))
    }

    /// What is at an offset of a BAR.
    fn in_bar(function: &Function, bar: usize, offset: u64) -> Place {
        let bdf = function.bdf;
        let table = &function.msix;
        let entry = offset.checked_sub(table.offset.into());
        if table.at != 0 && usize::from(table.bar) == bar {
            if let Some(entry) = entry.filter(|&e| e < 16 * u64::from(table.count)) {
                // CAST: fewer than 2048 entries of four words.
                return Place::Vector {
                    bdf,
                    index: (entry / 16) as u16,
                    word: (entry / 4 % 4) as u8,
                };
            }
        }
        match Self::in_virtio(function, bar, offset) {
            Some(target) => Place::Virtio(DeviceId::pci(bdf), target),
            None => Place::Bar { bdf },
        }
    }

    fn in_virtio(function: &Function, bar: usize, offset: u64) -> Option<Target> {
        let places = &function.virtio;
        if let Some(offset) = places.common.within(bar, offset) {
            return Some(Target::Register(Layout::PciCommon, offset));
        }
        if let Some(offset) = places.device.within(bar, offset) {
            return Some(Target::Config(offset));
        }
        if places.isr.within(bar, offset).is_some() {
            return Some(Target::Interrupt);
        }
        if let Some(offset) = places.notify.within(bar, offset) {
            return Some(Target::NotifyAt(offset));
        }
        let legacy = function.is_transitional() && bar == 0;
        let window = function.place(bar).filter(|w| w.space == Space::Port);
        window.filter(|_| legacy)?;
        Some(Target::of(Self::legacy_layout(function), offset))
    }

    fn legacy_layout(function: &Function) -> Layout {
        if function.msix_enabled() {
            Layout::PciLegacyMsix
        } else {
            Layout::PciLegacy
        }
    }

    /// The access that a guest makes through VIRTIO_PCI_CAP_PCI_CFG (virtio 1.3, section 4.1.4.9),
    /// a window in configuration space to the device's BARs.
    pub fn through_window(&self, bdf: u16, at: u8, access: &Access) -> Option<(Place, Access)> {
        let function = self.function(bdf)?;
        let window = function.virtio.window;
        if window == 0 || at != window.checked_add(16)? {
            return None;
        }
        let bar = usize::from(function.current(window.checked_add(4)?));
        let offset = function.current_u32(window.checked_add(8)?).into();
        let len = function.current_u32(window.checked_add(12)?);
        let inner = Access {
            len: u8::try_from(len)
                .ok()
                .filter(|len| matches!(len, 1 | 2 | 4))?,
            ..*access
        };
        Some((Self::in_bar(function, bar, offset), inner))
    }

    /// The guest writes CONFIG_ADDRESS.
    pub fn latch(&mut self, value: u64) {
        // CAST: four bytes.
        self.latch = value as u32;
        self.latched = true;
    }

    /// The guest writes a register of a function.
    pub fn write(&mut self, bdf: u16, at: u8, access: &Access) -> Result<(), Lack> {
        let function = self.add(bdf)?;
        if access.len == 8 {
            function.write(at, 4, access.value & 0xffff_ffff);
            function.write(at.saturating_add(4), 4, access.value >> 32);
        } else {
            function.write(at, access.len, access.value);
        }
        Ok(())
    }

    /// What is reset by a write to a register that the VMM has handled.
    pub fn resets(&self, bdf: u16, at: u8, access: &Access) -> Option<Reset> {
        let function = self.function(bdf)?;
        let touches = |register: u8| {
            let index = register.checked_sub(at)?;
            (index < access.len).then(|| access.byte(index))
        };
        if let Some((first, last)) = function.buses() {
            // Secondary Bus Reset of the bridge control register.
            let first = first.max(1);
            return (touches(0x3e)? & 0x40 != 0).then_some(Reset::Buses(first, last));
        }
        let control = parts::flr_control(function)?;
        (touches(control)? & 0x80 != 0).then_some(Reset::Function(bdf))
    }

    /// Functions were reset.
    pub fn reset_functions(&mut self, which: Reset) {
        for function in self.functions.iter_mut() {
            if which.covers(function.bdf) {
                function.reset();
                self.vectors.clear(function.bdf);
            }
        }
    }

    /// A function answered a read of a register.
    pub fn read(&mut self, bdf: u16, at: u8, access: &Access) -> Result<Presence, Lack> {
        let mut presence = Presence::Same;
        if at == 0 && access.len >= 2 {
            let known = self.function(bdf).map(Function::identity);
            let vendor = access.value & 0xffff;
            // 0001 is a function that is not ready yet (PCI Express, section 2.3.2).
            let there = !matches!(vendor, 0 | 1 | 0xffff);
            let other = access.len >= 4
                && known.is_some_and(|k| k != 0 && u64::from(k) != access.value & 0xffff_ffff);
            if known.is_some() && vendor != 1 && (!there || other) {
                self.remove(bdf);
                presence = Presence::Gone(bdf);
            }
            if there {
                self.by_ports |= access.space == Space::Port;
                self.add(bdf)?;
            }
        }
        let Some(function) = self.function_mut(bdf) else {
            return Ok(presence);
        };
        if access.len == 8 {
            function.read(at, 4, access.value & 0xffff_ffff);
            function.read(at.saturating_add(4), 4, access.value >> 32);
        } else {
            function.read(at, access.len, access.value);
        }
        Ok(presence)
    }

    fn remove(&mut self, bdf: u16) {
        self.functions.remove(|function| function.bdf == bdf);
        self.vectors.clear(bdf);
    }

    /// The guest writes words of an MSI-X table.
    pub fn write_vector(
        &mut self,
        bdf: u16,
        index: u16,
        word: u8,
        access: &Access,
    ) -> Result<(), Lack> {
        if access.addr % 4 != 0 || access.len < 4 {
            // Allowed are whole words (section 6.8.2); what others do is not defined.
            return Ok(());
        }
        for half in 0..access.len / 4 {
            // CAST: four bytes of the value.
            let value = (access.value >> (32 * u32::from(half))) as u32;
            let word = word.saturating_add(half);
            if word < 4 {
                let done = self.vectors.write(bdf, index, word, value);
                done.ok_or(Lack::Vectors)?;
            }
        }
        Ok(())
    }

    /// An answer to a read of memory may show where ECAM is.
    pub fn discover(&mut self, access: &Access) -> Result<(), Lack> {
        let host = self.function(0);
        if host.is_some_and(chipset::is_mch) || self.ecam.window().is_some() {
            return Ok(());
        }
        let known = host.map_or(0, Function::identity);
        if let Some((id, class)) = self.ecam.look(access, known) {
            let function = self.add(0)?;
            function.read(0, 4, id.into());
            function.read(8, 4, class.into());
        }
        Ok(())
    }

    /// PMBASE of a chipset that has one, 0 if its block is not decoded.
    pub fn pm_base(&self) -> Option<u16> {
        self.functions().find_map(chipset::pm_base)
    }

    /// Where the registers of a virtio device are, in the interface that its driver uses.
    pub fn site(&self, id: DeviceId, legacy: bool) -> Option<Site> {
        let function = self.function(id.bdf()?)?;
        if legacy {
            let window = function.place(0).filter(|w| w.space == Space::Port)?;
            let layout = Self::legacy_layout(function);
            return Some(Site {
                layout,
                space: Space::Port,
                base: window.base,
                config: window.base.checked_add(layout.config()?),
            });
        }
        let at = |place: &capability::Place| {
            let window = function.place(place.bar.into()).filter(|_| place.known)?;
            Some((window.space, window.base.checked_add(place.offset.into())?))
        };
        let places = &function.virtio;
        let (space, base) = at(&places.common)?;
        let config = at(&places.device).filter(|c| c.0 == space).map(|c| c.1);
        Some(Site {
            layout: Layout::PciCommon,
            space,
            base,
            config,
        })
    }

    /// Where a queue with this notify offset is notified.
    pub fn notify(&self, id: DeviceId, legacy: bool, offset: u32) -> Option<(Space, u64)> {
        let function = self.function(id.bdf()?)?;
        if legacy {
            let window = function.place(0).filter(|w| w.space == Space::Port)?;
            return Some((Space::Port, window.base.checked_add(0x10)?));
        }
        let place = &function.virtio.notify;
        let window = function.place(place.bar.into()).filter(|_| place.known)?;
        let queue = u64::from(offset).checked_mul(function.virtio.multiplier.into())?;
        let base = window.base.checked_add(place.offset.into())?;
        Some((window.space, base.checked_add(queue)?))
    }

    /// The notify offset of a queue that is notified at `offset` of the notify structure.
    pub fn notify_offset(&self, id: DeviceId, offset: u64) -> Option<u32> {
        let multiplier = self.function(id.bdf()?)?.virtio.multiplier;
        let queue = offset.checked_div(multiplier.into()).unwrap_or(0);
        u32::try_from(queue).ok()
    }

    /// The message of a vector, and whether it is masked. `None` if the function uses no MSI-X.
    pub fn message(&self, id: DeviceId, vector: u16) -> Option<(u64, u32, bool)> {
        let function = self.function(id.bdf()?).filter(|f| f.msix_enabled())?;
        let entry = self.vectors.get(function.bdf, vector)?;
        let (address, data, masked) = entry.message();
        Some((address, data, masked || function.msix_masked()))
    }

    /// Whether the function uses MSI-X, and so no interrupt status.
    pub fn msix_enabled(&self, id: DeviceId) -> bool {
        let function = id.bdf().and_then(|bdf| self.function(bdf));
        function.is_some_and(Function::msix_enabled)
    }

    /// The VMM reset the whole VM.
    pub fn reset(&mut self) {
        self.latch = 0;
        self.latched = false;
        self.by_ports = false;
        self.ecam = Ecam::default();
        self.functions.remove(|_| true);
        self.vectors.clear_all();
    }
}
