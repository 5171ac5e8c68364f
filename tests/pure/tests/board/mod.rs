// SPDX-License-Identifier: GPL-2.0

//! A board of models: PCI with configuration space by ports or memory, bridges, and virtio devices on
//! either transport. Two boards are equal if a driver cannot tell them apart.

mod virtio;

use nvhv_pure::shadow::{Access, DeviceId, Space};
use nvhv_pure_tests::random::Random;
use virtio::Virtio;
pub use virtio::{Kind, PART};

const MMIO: u64 = 0xfeb0_0000;

/// Where the next base address goes; no state of the board.
#[derive(Clone, Debug, Default)]
struct Next(u64);

impl PartialEq for Next {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Clone, PartialEq, Debug)]
struct Function {
    /// The bridge it is behind.
    parent: Option<usize>,
    device: u16,
    config: Vec<u8>,
    writable: Vec<u8>,
    msix: Vec<u32>,
    /// Index into the board's virtio devices.
    virtio: Option<usize>,
}

/// See the module's description.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Board {
    pub ecam: Option<u64>,
    latch: u32,
    functions: Vec<Function>,
    virtio: Vec<Virtio>,
    next: Next,
}

fn put(bytes: &mut [u8], at: usize, value: u64, len: usize) {
    bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
}

fn get(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut out = [0; 8];
    out[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(out)
}

impl Function {
    fn new(parent: Option<usize>, device: u16, id: u64, class: u64) -> Self {
        let mut function = Function {
            parent,
            device,
            config: vec![0; 256],
            writable: vec![0; 256],
            msix: Vec::new(),
            virtio: None,
        };
        put(&mut function.config, 0, id, 4);
        put(&mut function.config, 8, (class << 8) | 1, 4);
        put(&mut function.writable, 4, 0x0507, 2);
        function.writable[0xc] = 0xff;
        function.writable[0x3c] = 0xff;
        function
    }

    fn mch() -> Self {
        let mut f = Self::new(None, 0, 0x29c0_8086, 0x06_0000);
        put(&mut f.writable, 0x60, 0xf_f000_0007, 8);
        f.writable[0x90..0x97].fill(0x33);
        f
    }

    fn bridge(device: u16) -> Self {
        let mut f = Self::new(None, device, 0x000c_1b36, 0x06_0400);
        f.config[0xe] = 1;
        f.writable[0x18..0x1c].fill(0xff);
        put(&mut f.writable, 0x20, 0xfff0_fff0, 4);
        f
    }

    fn virtio(parent: Option<usize>, device: u16, number: usize, kind: u64, legacy: bool) -> Self {
        let id = if legacy {
            0x1000 + kind - 1
        } else {
            0x1040 + kind
        };
        let mut f = Self::new(parent, device, (id << 16) | 0x1af4, 0x01_0000);
        put(&mut f.config, 0x2c, (kind << 16) | 0x1af4, 4);
        f.virtio = Some(number);
        if legacy {
            f.config[0x10] = 1;
            put(&mut f.writable, 0x10, 0xffff_ff80, 4);
        }
        put(&mut f.writable, 0x14, 0xffff_f000, 4);
        f.config[0x20] = 0xc;
        put(&mut f.writable, 0x20, 0xffff_ffff_ffff_c000, 8);
        f.msix = vec![0; 4 * 4];
        f.config[0x34] = 0x40;
        // MSI-X, four entries in BAR 1
        put(&mut f.config, 0x40, 0x0003_5011, 4);
        put(&mut f.config, 0x44, 1, 4);
        put(&mut f.config, 0x48, 0x801, 4);
        f.writable[0x43] = 0xc0;
        let caps = [
            (1, 0, 0x38),
            (3, 0x1000, 1),
            (4, 0x2000, 0x40),
            (2, 0x3000, 0x1000),
        ];
        for (number, (kind, offset, len)) in caps.into_iter().enumerate() {
            let at = 0x50 + 0x14 * number;
            let next = if number == 3 { 0 } else { at + 0x14 };
            let size = if kind == 2 { 20 } else { 16 };
            put(
                &mut f.config,
                at,
                (kind << 24) | (size << 16) | ((next as u64) << 8) | 9,
                4,
            );
            f.config[at + 4] = 4;
            put(&mut f.config, at + 8, offset, 4);
            put(&mut f.config, at + 12, len, 4);
            if kind == 2 {
                put(&mut f.config, at + 16, 4, 4);
            }
        }
        f
    }

    fn msix_on(&self) -> bool {
        self.config[0x43] & 0x80 != 0
    }
}

impl Board {
    /// Virtio over MMIO: modern and legacy.
    pub fn mmio() -> Self {
        Board {
            virtio: vec![
                Virtio::new(Kind::Mmio, 2),
                Virtio::new(Kind::MmioLegacy, 1),
                Virtio::new(Kind::MmioLegacy, 2),
            ],
            ..Board::default()
        }
    }

    fn pci() -> Self {
        let functions = vec![
            Function::mch(),
            Function::virtio(None, 2, 0, 2, false),
            Function::virtio(None, 3, 1, 1, true),
            Function::bridge(4),
            Function::virtio(Some(3), 0, 2, 3, false),
            Function::bridge(5),
            Function::virtio(Some(5), 1, 3, 1, false),
        ];
        let kinds = [
            (Kind::Pci, 2),
            (Kind::PciLegacy, 1),
            (Kind::Pci, 3),
            (Kind::Pci, 1),
        ];
        Board {
            functions,
            virtio: kinds.map(|(kind, of)| Virtio::new(kind, of)).into(),
            ..Board::default()
        }
    }

    /// PCI as Q35 has it.
    pub fn q35() -> Self {
        Self::pci()
    }

    /// PCI whose configuration space is in memory only, and the host bridge not one of Q35.
    pub fn ecam() -> Self {
        let mut board = Self::pci();
        board.ecam = Some(0xe000_0000);
        put(&mut board.functions[0].config, 0, 0x0008_1b36, 4);
        board
    }

    pub fn has_pci(&self) -> bool {
        !self.functions.is_empty()
    }

    pub fn devices(&self) -> usize {
        self.virtio.len()
    }

    pub fn kind(&self, index: usize) -> Kind {
        self.virtio[index].kind
    }

    /// Devices that may touch memory: their drivers have set DRIVER_OK.
    pub fn running(&self) -> usize {
        self.virtio.iter().filter(|v| v.runs()).count()
    }

    fn function_of(&self, index: usize) -> &Function {
        let of = |f: &&Function| f.virtio == Some(index);
        self.functions.iter().find(of).expect("a PCI device")
    }

    fn bus(&self, function: &Function) -> u16 {
        let bridge = function.parent.map(|p| &self.functions[p]);
        bridge.map_or(0, |bridge| bridge.config[0x19].into())
    }

    fn bdf(&self, function: &Function) -> u16 {
        (self.bus(function) << 8) | (function.device << 3)
    }

    pub fn id(&self, index: usize) -> DeviceId {
        match self.kind(index) {
            Kind::Mmio | Kind::MmioLegacy => DeviceId::mmio(MMIO + 0x200 * index as u64),
            _ => DeviceId::pci(self.bdf(self.function_of(index))),
        }
    }

    /// Where a driver finds the registers, if it can reach them.
    pub fn registers(&self, index: usize) -> Option<(Space, u64)> {
        match self.kind(index) {
            Kind::Mmio | Kind::MmioLegacy => Some((Space::Memory, MMIO + 0x200 * index as u64)),
            Kind::Pci => {
                let base = get(&self.function_of(index).config, 0x20, 8) & !0xf;
                (base != 0).then_some((Space::Memory, base))
            }
            Kind::PciLegacy => {
                let base = get(&self.function_of(index).config, 0x10, 4) & !3;
                (base != 0).then_some((Space::Port, base))
            }
        }
    }

    pub fn config(&self, index: usize) -> u64 {
        let at = self.registers(index).expect("reached").1;
        match self.kind(index) {
            Kind::Mmio | Kind::MmioLegacy => at + 0x100,
            Kind::Pci => at + 0x2000,
            Kind::PciLegacy if self.function_of(index).msix_on() => at + 0x18,
            Kind::PciLegacy => at + 0x14,
        }
    }

    pub fn isr(&self, index: usize) -> u64 {
        self.registers(index).expect("reached").1 + 0x1000
    }

    /// Function, capability, table and entries.
    pub fn msix(&self, index: usize) -> Option<(u16, u8, u64, u64)> {
        if !self.has_pci() {
            return None;
        }
        let function = self.function_of(index);
        let base = get(&function.config, 0x14, 4);
        (base != 0).then(|| (self.bdf(function), 0x40, base, 4))
    }

    /// A free place for a base address register that answered `mask`.
    pub fn place(&mut self, mask: u64, random: &mut Random) -> u64 {
        self.next.0 += 1 + random.below(3);
        match mask & 7 {
            1 => 0xc000 + 0x80 * (self.next.0 % 100),
            4 => 0x38_0000_0000 + 0x4000 * self.next.0,
            _ => 0xfd00_0000 + 0x1000 * self.next.0,
        }
    }

    fn config_of(&mut self, access: &Access) -> Option<(usize, usize)> {
        let (bdf, at) = match (self.ecam, access.space) {
            (Some(base), Space::Memory) => {
                let offset = access.addr.checked_sub(base).filter(|o| *o < 256 << 20)?;
                ((offset >> 12) as u16, offset as usize & 0xfff)
            }
            (None, Space::Port) if (0xcfc..0xd00).contains(&access.addr) => {
                assert!(self.latch & 0x8000_0000 != 0);
                let lane = access.addr as usize & 3;
                ((self.latch >> 8) as u16, self.latch as usize & 0xfc | lane)
            }
            _ => return None,
        };
        // A bridge that has no bus number yet leads nowhere.
        let is = |f: &Function| self.bdf(f) == bdf && (f.parent.is_none() || self.bus(f) != 0);
        let found = self.functions.iter().position(is);
        Some((found.unwrap_or(usize::MAX), at))
    }

    /// The function and offset of an access to BAR 1, and the virtio device and its offset of others.
    fn target(&self, access: &Access) -> Option<(Option<usize>, usize, u64)> {
        for (number, virtio) in self.virtio.iter().enumerate() {
            let base = MMIO + 0x200 * number as u64;
            let mmio = matches!(virtio.kind, Kind::Mmio | Kind::MmioLegacy);
            if mmio && access.space == Space::Memory && (base..base + 0x200).contains(&access.addr)
            {
                return Some((None, number, access.addr - base));
            }
        }
        for (number, f) in self.functions.iter().enumerate() {
            let Some(virtio) = f.virtio else { continue };
            let (bit, bars): (u8, &[(usize, u64, u64)]) = match access.space {
                Space::Port => (1, &[(0x10, get(&f.config, 0x10, 4) & !3, 0x80)]),
                Space::Memory => (
                    2,
                    &[
                        (0x14, get(&f.config, 0x14, 4) & !0xf, 0x1000),
                        (0x20, get(&f.config, 0x20, 8) & !0xf, 0x4000),
                    ],
                ),
            };
            for &(bar, base, size) in bars {
                let inside = (base..base + size).contains(&access.addr);
                if base != 0 && f.config[4] & bit != 0 && inside {
                    let table = (bar == 0x14).then_some(number);
                    return Some((table, virtio, access.addr - base));
                }
            }
        }
        None
    }

    pub fn write(&mut self, access: &Access) {
        if (access.space, access.addr, access.len) == (Space::Port, 0xcf8, 4) {
            self.latch = access.value as u32;
        } else if let Some((function, at)) = self.config_of(access) {
            let Some(f) = self.functions.get_mut(function) else {
                return;
            };
            for (i, byte) in access.value.to_le_bytes()[..access.len.into()]
                .iter()
                .enumerate()
            {
                let mask = f.writable[at + i];
                f.config[at + i] = f.config[at + i] & !mask | byte & mask;
            }
        } else {
            match self
                .target(access)
                .expect("a driver writes to what is there")
            {
                (Some(function), _, offset) => {
                    self.functions[function].msix[offset as usize / 4] = access.value as u32;
                }
                (None, number, offset) => {
                    let msix = self.has_pci() && self.function_of(number).msix_on();
                    self.virtio[number].write(offset, access.len, access.value, msix);
                }
            }
        }
    }

    pub fn read(&mut self, access: &Access) -> u64 {
        if let Some((function, at)) = self.config_of(access) {
            let ones = u64::MAX >> (64 - 8 * u32::from(access.len));
            let function = self.functions.get(function);
            return function.map_or(ones, |f| get(&f.config, at, access.len.into()));
        }
        match self.target(access).expect("a driver reads what is there") {
            (Some(function), _, offset) => {
                self.functions[function].msix[offset as usize / 4].into()
            }
            (None, number, offset) => {
                let msix = self.has_pci() && self.function_of(number).msix_on();
                self.virtio[number].read(offset, access.len, msix)
            }
        }
    }
}
