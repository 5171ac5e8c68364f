// SPDX-License-Identifier: GPL-2.0

//! The script of PCI: bridges first, so that all else can be reached; base addresses while nothing is
//! decoded; commands; interrupts; the rest. What the guest was in the middle of comes last.

use super::bar::Bar;
use super::function::{Function, COMMAND};
use super::parts::{Map, Part};
use super::{Pci, CONFIG_ADDRESS, CONFIG_DATA, CONFIG_ENABLE};
use crate::shadow::access::mask;
use crate::shadow::{Access, Full, Sink, Space};

/// Its upper byte.
const COMMAND_HIGH: u8 = COMMAND + 1;
/// I/O and memory decoding.
const DECODE: u8 = 3;

/// Reaches configuration space by the mechanism that the guest has used.
struct Config<'a> {
    sink: &'a mut dyn Sink,
    /// The base of ECAM, where there is nothing else.
    ecam: Option<u64>,
    /// What CONFIG_ADDRESS holds now.
    latch: Option<u32>,
}

impl Config<'_> {
    fn access(&mut self, bdf: u16, at: u8, len: u8, value: u64) -> Result<Access, Full> {
        if let Some(base) = self.ecam {
            let offset = (u64::from(bdf) << 12) | u64::from(at);
            return Ok(Access::memory(base.wrapping_add(offset), len, value));
        }
        let latch = CONFIG_ENABLE | (u32::from(bdf) << 8) | u32::from(at & 0xfc);
        if self.latch != Some(latch) {
            self.sink.out(CONFIG_ADDRESS, 4, latch.into())?;
            self.latch = Some(latch);
        }
        Ok(Access {
            space: Space::Port,
            addr: CONFIG_DATA | u64::from(at & 3),
            len,
            value: value & mask(len),
        })
    }

    fn write(&mut self, bdf: u16, at: u8, len: u8, value: u64) -> Result<(), Full> {
        let access = self.access(bdf, at, len, value)?;
        self.sink.write(access)
    }

    fn expect(&mut self, bdf: u16, at: u8, len: u8, value: u64, mask: u64) -> Result<(), Full> {
        let access = self.access(bdf, at, len, value & mask)?;
        self.sink.expect(access, mask)
    }
}

/// Calls `to` with the widest aligned groups, of four bytes at most, of those bytes of the word at
/// `word` that `wanted` accepts: offset, bytes.
fn groups(
    word: u8,
    wanted: impl Fn(u8) -> bool,
    mut to: impl FnMut(u8, u8) -> Result<(), Full>,
) -> Result<(), Full> {
    let all = |start: u8, len: u8| (0..len).all(|i| wanted(start | i));
    if all(word, 4) {
        return to(word, 4);
    }
    for half in [word, word | 2] {
        if all(half, 2) {
            to(half, 2)?;
            continue;
        }
        for at in [half, half | 1] {
            if wanted(at) {
                to(at, 1)?;
            }
        }
    }
    Ok(())
}

fn gather(at: u8, len: u8, byte: impl Fn(u8) -> u8) -> u64 {
    (0..len).rev().fold(0, |value, i| {
        (value << 8) | u64::from(byte(at.saturating_add(i)))
    })
}

/// What the guest has read of the constant registers.
fn identity(function: &Function, map: &Map, to: &mut Config<'_>) -> Result<(), Full> {
    for word in (0..=252).step_by(4) {
        let wanted = |at| map.constant(at) != 0 && function.seen(at).is_some();
        groups(word, wanted, |at, len| {
            let value = gather(at, len, |at| function.seen(at).unwrap_or(0));
            let mask = gather(at, len, |at| map.constant(at));
            to.expect(function.bdf, at, len, value, mask)
        })?;
    }
    Ok(())
}

/// What the guest has written to the registers of `part`, in the order of the last write. Bytes written
/// by one access are so again.
fn registers(function: &Function, map: &Map, part: Part, to: &mut Config<'_>) -> Result<(), Full> {
    let stamp = |at: u8| {
        let written = function.written(at).filter(|_| map.part(at) == part);
        written.map(|(_, stamp)| stamp)
    };
    let mut last = 0;
    while let Some(next) = (0..=255).filter_map(stamp).filter(|&s| s > last).min() {
        for word in (0..=252).step_by(4) {
            groups(
                word,
                |at| stamp(at) == Some(next),
                |at, len| {
                    let value = gather(at, len, |at| map.harmless(at, function.current(at)));
                    to.write(function.bdf, at, len, value)
                },
            )?;
        }
        last = next;
    }
    Ok(())
}

/// Writes the command register, as wide as the guest did: there are devices that take it whole only.
fn put_command(function: &Function, low: u8, to: &mut Config<'_>) -> Result<(), Full> {
    let wide = function.written(COMMAND_HIGH).is_some();
    let value = u64::from(low) | (u64::from(function.current(COMMAND_HIGH)) << 8);
    to.write(function.bdf, COMMAND, if wide { 2 } else { 1 }, value)
}

/// Whether a script has to write to what a BAR is for.
fn needs_decoding(function: &Function, pci: &Pci, in_use: bool) -> bool {
    in_use || pci.vectors.of(function.bdf).next().is_some()
}

fn bars(function: &Function, to: &mut Config<'_>) -> Result<(), Full> {
    let bdf = function.bdf;
    for (index, bar) in function.bars.iter().enumerate() {
        let Some(at) = function.bar_offset(index) else {
            continue;
        };
        let rom = !(0x10..0x28).contains(&at);
        if bar.probed {
            to.write(bdf, at, 4, probe(rom))?;
            to.expect(bdf, at, 4, bar.size.into(), mask(4))?;
        }
        if let Some(value) = bar.value().filter(|_| bar.written || bar.probed) {
            to.write(bdf, at, 4, value.into())?;
        }
        if bar.read {
            to.expect(bdf, at, 4, bar.seen.into(), mask(4))?;
        }
    }
    Ok(())
}

/// What asks a BAR for its size.
fn probe(rom: bool) -> u64 {
    if rom {
        0xffff_f800
    } else {
        0xffff_ffff
    }
}

impl Pci {
    /// Functions that can be reached, in ascending order: a bridge has a lower number than what is
    /// behind it.
    fn in_order(&self) -> impl Iterator<Item = &Function> {
        let next = |after: Option<u16>| {
            let later = move |f: &&Function| after.is_none_or(|after| f.bdf > after);
            self.functions().filter(later).min_by_key(|f| f.bdf)
        };
        core::iter::successors(next(None), move |f| next(Some(f.bdf)))
            .filter(|f| f.root || self.is_behind_bridge(f.bdf))
    }

    fn config_space<'a>(&self, sink: &'a mut dyn Sink) -> Config<'a> {
        let ecam = self.ecam.window().filter(|_| !self.by_ports);
        Config {
            sink,
            ecam: ecam.map(|(base, _)| base),
            latch: None,
        }
    }

    /// Brings fresh functions to where the guest had these. `in_use` says whether the script will
    /// go on to the registers of a function.
    pub fn script(&self, in_use: impl Fn(u16) -> bool, sink: &mut dyn Sink) -> Result<(), Full> {
        if let (Some((base, _)), Some(host)) = (self.ecam.window(), self.function(0)) {
            for at in [0, 8] {
                let value = host.seen_u32(at).unwrap_or(0);
                let access = Access::memory(base.wrapping_add(at.into()), 4, value.into());
                sink.expect(access, mask(4))?;
            }
        }
        let mut to = self.config_space(sink);
        for function in self.in_order() {
            let map = Map::of(function);
            identity(function, &map, &mut to)?;
            registers(function, &map, Part::Bridge, &mut to)?;
        }
        for function in self.in_order() {
            let moved = |bar: &Bar| bar.written || bar.probed;
            if function.knows_command() && function.bars.iter().any(moved) {
                put_command(function, function.current(COMMAND) & !DECODE, &mut to)?;
            }
            bars(function, &mut to)?;
        }
        for function in self.in_order() {
            let needs = needs_decoding(function, self, in_use(function.bdf));
            self.command(function, if needs { DECODE } else { 0 }, &mut to)?;
        }
        for function in self.in_order() {
            let map = Map::of(function);
            self.table(function, to.sink)?;
            registers(function, &map, Part::Message, &mut to)?;
            registers(function, &map, Part::MessageControl, &mut to)?;
        }
        for function in self.in_order() {
            registers(function, &Map::of(function), Part::Rest, &mut to)?;
        }
        Ok(())
    }

    /// The command register as the guest left it, with `more` bits.
    fn command(&self, function: &Function, more: u8, to: &mut Config<'_>) -> Result<(), Full> {
        let written = [COMMAND, COMMAND_HIGH].map(|at| function.written(at).is_some());
        let moved = function.bars.iter().any(|bar| bar.written || bar.probed);
        // Otherwise it is as the VMM made it.
        if function.knows_command() && (written.contains(&true) || moved || more != 0) {
            put_command(function, function.current(COMMAND) | more, to)?;
        }
        Ok(())
    }

    /// The MSI-X table, in the order of its entries.
    fn table(&self, function: &Function, sink: &mut dyn Sink) -> Result<(), Full> {
        let table = &function.msix;
        let window = function.place(table.bar.into()).filter(|_| table.at != 0);
        let Some(base) = window.and_then(|w| w.base.checked_add(table.offset.into())) else {
            return Ok(());
        };
        let after = |last: Option<u16>| {
            let entries = self.vectors.of(function.bdf);
            entries
                .filter(|v| last.is_none_or(|last| v.index > last))
                .min_by_key(|v| v.index)
        };
        let mut next = after(None);
        while let Some(entry) = next {
            for word in 0..4u8 {
                let Some(value) = entry.word(word) else {
                    continue;
                };
                let offset = 16 * u64::from(entry.index) + 4 * u64::from(word);
                sink.store(base.wrapping_add(offset), 4, value.into())?;
            }
            next = after(Some(entry.index));
        }
        Ok(())
    }

    /// What must come after all that uses PCI: decoding as the guest had it, questions for sizes that it
    /// is in the middle of, and CONFIG_ADDRESS.
    pub fn script_end(
        &self,
        in_use: impl Fn(u16) -> bool,
        sink: &mut dyn Sink,
    ) -> Result<(), Full> {
        let mut to = self.config_space(sink);
        for function in self.in_order() {
            let needs = needs_decoding(function, self, in_use(function.bdf));
            if needs && function.current(COMMAND) & DECODE != DECODE {
                self.command(function, 0, &mut to)?;
            }
            for (index, bar) in function.bars.iter().enumerate() {
                if let Some(at) = function.bar_offset(index).filter(|_| bar.probing) {
                    let rom = !(0x10..0x28).contains(&at);
                    to.write(function.bdf, at, 4, probe(rom))?;
                }
            }
        }
        if self.latched {
            sink.out(CONFIG_ADDRESS, 4, self.latch.into())?;
        }
        Ok(())
    }
}
