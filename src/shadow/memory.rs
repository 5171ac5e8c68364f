// SPDX-License-Identifier: GPL-2.0

//! Registers that nothing else here understands: what was written last to each.
//!
//! They are written again only if they may be plain registers, which hold what is written to them and do
//! nothing else. That is not so where the guest has read something else than it wrote, where it writes
//! as one writes data, and at addresses that are known not to hold plain registers. Whatever was
//! written where nothing is understood, or where something is lost, is reported.

use super::access::{mask, Access, Space};
use super::machine::Lack;
use super::script::{Action, Full, Sink, Step};

/// Registers of one VM that are kept, and ranges that are reported.
const REGISTERS: usize = 512;
const RANGES: usize = 64;

/// A range: space, first, last, what is there, whether it holds what nothing here carries.
type Row = (Space, u64, u64, &'static str, bool);

/// Ranges that hold no plain registers.
const ACTS: &[Row] = &[
    (Space::Port, 0x2e, 0x2f, "Super I/O", false),
    (Space::Port, 0x4e, 0x4f, "Super I/O", false),
    (Space::Port, 0x60, 0x64, "keyboard controller", false),
    (Space::Port, 0x80, 0x80, "POST codes", false),
    (Space::Port, 0x92, 0x92, "system control port A", false),
    (Space::Port, 0xb2, 0xb3, "SMI commands", false),
    (Space::Port, 0xe9, 0xe9, "debug console", false),
    (Space::Port, 0xf0, 0xf1, "coprocessor errors", false),
    (Space::Port, 0x170, 0x177, "IDE", false),
    (Space::Port, 0x1f0, 0x1f7, "IDE", false),
    (Space::Port, 0x278, 0x27f, "parallel port", true),
    (Space::Port, 0x376, 0x377, "IDE", false),
    (Space::Port, 0x378, 0x37f, "parallel port", true),
    (Space::Port, 0x3b0, 0x3df, "VGA", true),
    (Space::Port, 0x3f0, 0x3f7, "floppy, IDE", true),
    (Space::Port, 0x402, 0x402, "debug console", false),
    (Space::Port, 0x505, 0x505, "pvpanic", false),
    (Space::Port, 0x510, 0x51b, "fw_cfg", false),
    (Space::Port, 0x700, 0x73f, "SMBus", false),
    (Space::Port, 0xa00, 0xa17, "memory hotplug", false),
    (Space::Port, 0xae00, 0xae17, "PCI hotplug", false),
    (Space::Port, 0xaf00, 0xaf1f, "CPU hotplug", false),
    (Space::Port, 0xb100, 0xb13f, "SMBus", false),
    (Space::Port, 0xcc0, 0xcf7, "PCI and CPU hotplug", false),
    (Space::Port, 0xcf8, 0xcff, "PCI configuration", false),
    (Space::Port, 0x5658, 0x5659, "VMware backdoor", false),
    (Space::Memory, 0xa0000, 0xbffff, "VGA memory", false),
    (Space::Memory, 0xfed40000, 0xfed44fff, "TPM", true),
    (Space::Memory, 0xfee0_0000, 0xfeef_ffff, "local APIC", false),
];

/// Accesses this near to a range extend it.
const NEAR_PORT: u64 = 8;
const NEAR_MEMORY: u64 = 0x1000;

/// One register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Register {
    access: Access,
    /// The guest has read what it wrote.
    plain: bool,
    /// The guest has read something else than it wrote.
    differs: bool,
}

/// A range in which the guest wrote to what nothing here understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// Address space.
    pub space: Space,
    /// First address.
    pub first: u64,
    /// Last address.
    pub last: u64,
    /// How often it was written.
    pub writes: u64,
}

/// All of them. All bytes zero are none.
#[derive(PartialEq, Eq, Debug)]
pub struct Memory {
    registers: [Register; REGISTERS],
    count: u16,
    ranges: [Range; RANGES],
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            registers: [Register::default(); REGISTERS],
            count: 0,
            ranges: [Range::default(); RANGES],
        }
    }
}

/// What is known of an address that holds no plain register.
pub fn act(space: Space, addr: u64) -> Option<&'static str> {
    row(space, addr).map(|row| row.3)
}

fn row(space: Space, addr: u64) -> Option<&'static Row> {
    let within = |row: &&Row| row.0 == space && (row.1..=row.2).contains(&addr);
    ACTS.iter().find(within)
}

impl Memory {
    /// The guest writes. `plain` is false where it is known that no plain register is there.
    pub fn write(&mut self, access: &Access, plain: bool) -> Result<(), Lack> {
        let known = row(access.space, access.addr);
        if known.is_none_or(|row| row.4) {
            self.note(access);
        }
        if !plain || known.is_some() {
            return Ok(());
        }
        let count = usize::from(self.count);
        let known = self.registers.iter_mut().take(count);
        if let Some(register) = { known }.find(|r| same(&r.access, access)) {
            register.access.value = access.value & mask(access.len);
            return Ok(());
        }
        *self.registers.get_mut(count).ok_or(Lack::Registers)? = Register {
            access: Access {
                value: access.value & mask(access.len),
                ..*access
            },
            plain: false,
            differs: false,
        };
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// The guest has read.
    pub fn read(&mut self, access: &Access) {
        let known = self.registers.iter_mut().take(self.count.into());
        if let Some(register) = { known }.find(|r| same(&r.access, access)) {
            let same = register.access.value == access.value & mask(access.len);
            register.plain |= same;
            register.differs |= !same;
        }
    }

    /// Counts a write in the range it belongs to. When there are too many ranges, those that come late
    /// are not told apart.
    fn note(&mut self, access: &Access) {
        let near = match access.space {
            Space::Port => NEAR_PORT,
            Space::Memory => NEAR_MEMORY,
        };
        let last = access.end().saturating_sub(1);
        let belongs = |r: &Range| {
            r.writes == 0
                || r.space == access.space
                    && last.saturating_add(near) >= r.first
                    && access.addr <= r.last.saturating_add(near)
        };
        if let Some(range) = self.ranges.iter_mut().find(|r| belongs(r)) {
            if range.writes == 0 {
                *range = Range {
                    space: access.space,
                    first: access.addr,
                    last,
                    writes: 0,
                };
            }
            range.first = range.first.min(access.addr);
            range.last = range.last.max(last);
            range.writes = range.writes.saturating_add(1);
        }
    }

    /// Where the guest wrote to what nothing here understands.
    pub fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.ranges.iter().filter(|r| r.writes != 0)
    }

    /// Writes plain registers, in the order of the first write to each. Those that the guest has never
    /// read may be for data, which must not arrive again.
    pub fn script(&self, sink: &mut dyn Sink) -> Result<(), Full> {
        let known = self.registers.iter().take(self.count.into());
        known.filter(|r| r.plain && !r.differs).try_for_each(|r| {
            sink.write(r.access)?;
            // For the shadow's own sake: it was read so.
            let (access, action) = (r.access, Action::Read);
            sink.step(Step { access, action })
        })
    }

    /// The VMM reset the whole VM.
    pub fn reset(&mut self) {
        self.count = 0;
        for register in &mut self.registers {
            *register = Register::default();
        }
        for range in &mut self.ranges {
            *range = Range::default();
        }
    }
}

fn same(a: &Access, b: &Access) -> bool {
    (a.space, a.addr, a.len) == (b.space, b.addr, b.len)
}
