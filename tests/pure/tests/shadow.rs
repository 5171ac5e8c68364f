// SPDX-License-Identifier: GPL-2.0

//! Shadows of PCI and virtio: a random driver configures a board of models, written from the
//! specifications alone; it is cut off anywhere; the scripts make a fresh board the same. After the
//! first of them, none of its devices may touch memory.

mod board;

use board::{Board, Kind};
use nvhv_pure::shadow::replay::{each, STEP_LEN};
use nvhv_pure::shadow::{
    Access, Action, Control, DeviceId, Effect, Interrupt, Keep, Lack, Machine, Phase, Report, Sink,
    Space, Step, VirtioDevice, Whose,
};
use nvhv_pure_tests::random::Random;
use nvhv_pure_tests::shadow::{empty, phase, script, List};

/// A guest on a board, seen by a machine.
struct Guest {
    board: Board,
    machine: Box<Machine>,
    effects: Vec<Effect>,
    /// Accesses until the outage.
    left: u32,
    /// The caches of disks are hidden.
    write_through: bool,
}

impl Guest {
    fn new(board: Board, left: u32) -> Self {
        Guest {
            board,
            machine: empty(),
            effects: Vec::new(),
            left,
            write_through: false,
        }
    }

    fn set_write_through(&mut self, on: bool) {
        self.machine.set_write_through(on);
        self.write_through = on;
    }

    /// Whether a device is a disk.
    fn is_disk(&self, id: DeviceId) -> bool {
        let mut devices = self.machine.virtio();
        devices.any(|(other, device)| other == id && device.kind == 2)
    }

    fn write(&mut self, space: Space, addr: u64, len: u8, value: u64) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        let access = Access {
            space,
            addr,
            len,
            value,
        };
        self.effects.push(self.machine.writing(&access, 0));
        self.board.write(&access);
        self.effects.push(self.machine.written(&access));
        Some(())
    }

    fn read(&mut self, space: Space, addr: u64, len: u8) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let mut access = Access {
            space,
            addr,
            len,
            value: 0,
        };
        access.value = self.board.read(&access);
        self.effects.push(self.machine.read(&mut access, 0));
        Some(access.value)
    }

    fn effects(&mut self) -> Vec<Effect> {
        let some = |e: &Effect| *e != Effect::None;
        self.effects.drain(..).filter(some).collect()
    }

    fn config_write(&mut self, bdf: u16, at: u8, len: u8, value: u64) -> Option<()> {
        if let Some(base) = self.board.ecam {
            let addr = base + (u64::from(bdf) << 12) + u64::from(at);
            return self.write(Space::Memory, addr, len, value);
        }
        let latch = 0x8000_0000 | (u64::from(bdf) << 8) | u64::from(at & 0xfc);
        self.write(Space::Port, 0xcf8, 4, latch)?;
        self.write(Space::Port, 0xcfc | u64::from(at & 3), len, value)
    }

    fn config_read(&mut self, bdf: u16, at: u8, len: u8) -> Option<u64> {
        if let Some(base) = self.board.ecam {
            let addr = base + (u64::from(bdf) << 12) + u64::from(at);
            return self.read(Space::Memory, addr, len);
        }
        let latch = 0x8000_0000 | (u64::from(bdf) << 8) | u64::from(at & 0xfc);
        self.write(Space::Port, 0xcf8, 4, latch)?;
        self.read(Space::Port, 0xcfc | u64::from(at & 3), len)
    }

    /// Enumerates a bus and configures what is there.
    fn enumerate(&mut self, bus: u16, next_bus: &mut u16, random: &mut Random) -> Option<()> {
        for device in 0..6 {
            let bdf = (bus << 8) | (device << 3);
            let id = self.config_read(bdf, 0, 4)?;
            if id & 0xffff == 0xffff {
                continue;
            }
            let class = self.config_read(bdf, 8, 4)? >> 8;
            let header = self.config_read(bdf, 0xe, 1)?;
            if header & 0x7f == 1 {
                *next_bus += 1;
                let below = *next_bus;
                let buses = u64::from(bus) | (u64::from(below) << 8) | 0xff_0000;
                self.config_write(bdf, 0x18, 4, buses)?;
                self.enumerate(below, next_bus, random)?;
                self.config_write(bdf, 0x1a, 1, (*next_bus).into())?;
                self.config_write(bdf, 0x20, 4, 0xfe10_fe00)?;
                self.config_write(bdf, 4, 2, 7)?;
                continue;
            }
            if class != 0x06_0000 {
                self.bars(bdf, random)?;
            }
            if id == 0x29c0_8086 {
                self.config_write(bdf, 0x64, 4, 0)?;
                self.config_write(bdf, 0x60, 4, 0xb000_0001)?;
                for at in 0x90..0x97 {
                    self.config_write(bdf, at, 1, random.below(4) * 0x11)?;
                }
            }
            self.config_read(bdf, 0x2c, 4)?;
            self.config_write(bdf, 0x3c, 1, 10 + u64::from(device))?;
            self.config_write(bdf, 4, 2, 7)?;
            self.capabilities(bdf)?;
        }
        Some(())
    }

    fn bars(&mut self, bdf: u16, random: &mut Random) -> Option<()> {
        let mut at = 0x10;
        while at < 0x28 {
            let old = self.config_read(bdf, at, 4)?;
            self.config_write(bdf, at, 4, 0xffff_ffff)?;
            let mask = self.config_read(bdf, at, 4)?;
            self.config_write(bdf, at, 4, old)?;
            if mask == 0 {
                at += 4;
                continue;
            }
            let base = self.board.place(mask, random);
            self.config_write(bdf, at, 4, base & 0xffff_ffff)?;
            if mask & 7 == 4 {
                self.config_write(bdf, at + 4, 4, 0xffff_ffff)?;
                self.config_read(bdf, at + 4, 4)?;
                self.config_write(bdf, at + 4, 4, base >> 32)?;
                at += 4;
            }
            at += 4;
        }
        Some(())
    }

    /// Reads the list, all fields of it.
    fn capabilities(&mut self, bdf: u16) -> Option<()> {
        let mut at = self.config_read(bdf, 0x34, 1)? as u8;
        while at != 0 {
            let head = self.config_read(bdf, at, 2)?;
            match head & 0xff {
                9 => {
                    let len = self.config_read(bdf, at + 2, 1)? as u8;
                    self.config_read(bdf, at + 3, 1)?;
                    self.config_read(bdf, at + 4, 1)?;
                    for field in (8..len).step_by(4) {
                        self.config_read(bdf, at + field, 4)?;
                    }
                }
                0x11 => {
                    self.config_read(bdf, at + 2, 2)?;
                    self.config_read(bdf, at + 4, 4)?;
                    self.config_read(bdf, at + 8, 4)?;
                }
                _ => {}
            }
            at = (head >> 8) as u8;
        }
        Some(())
    }

    fn msix(&mut self, index: usize, random: &mut Random) -> Option<()> {
        let Some((bdf, at, table, count)) = self.board.msix(index) else {
            return Some(());
        };
        self.config_write(bdf, at + 2, 2, 0xc000)?;
        for entry in 0..count {
            let base = table + 16 * entry;
            self.write(
                Space::Memory,
                base,
                4,
                0xfee0_0000 | (random.below(16) << 12),
            )?;
            self.write(Space::Memory, base + 4, 4, 0)?;
            self.write(Space::Memory, base + 8, 4, 0x20 + random.below(200))?;
            self.write(Space::Memory, base + 12, 4, random.below(2))?;
        }
        self.config_write(bdf, at + 2, 2, 0x8000)
    }

    /// A driver of the virtio device number `index`, as far as it comes.
    fn drive(&mut self, index: usize, random: &mut Random) -> Option<()> {
        let kind = self.board.kind(index);
        let Some((space, at)) = self.board.registers(index) else {
            return Some(());
        };
        let r = |name: &str| at + kind.register(name).0;
        let w = |name: &str| kind.register(name).1;
        if matches!(kind, Kind::Mmio | Kind::MmioLegacy) {
            for field in [0, 4, 8, 12] {
                self.read(space, at + field, 4)?;
            }
        }
        if kind == Kind::MmioLegacy {
            self.write(space, at + 0x28, 4, 4096)?;
        }
        self.write(space, r("status"), w("status"), 0)?;
        self.read(space, r("status"), w("status"))?;
        self.write(space, r("status"), w("status"), 1)?;
        self.write(space, r("status"), w("status"), 3)?;
        for word in 0..kind.words() {
            if kind.has("offered select") {
                self.write(space, r("offered select"), 4, word)?;
            }
            let offered = self.read(space, r("offered"), 4)?;
            if word == 1 {
                assert_eq!(
                    offered & 0x3cc,
                    0,
                    "features that cannot be carried are hidden"
                );
            } else {
                // VIRTIO_BLK_F_FLUSH and VIRTIO_BLK_F_CONFIG_WCE, or what they are of another device.
                let hidden = self.write_through && self.is_disk(self.board.id(index));
                assert_eq!(offered & 0xa00 == 0, hidden);
            }
            if kind.has("accepted select") {
                self.write(space, r("accepted select"), 4, word)?;
            }
            let some = random.word() | u64::from(word == 1);
            self.write(space, r("accepted"), 4, offered & some & !0x3e)?;
        }
        if !kind.is_legacy() {
            self.write(space, r("status"), w("status"), 11)?;
            assert!(self.read(space, r("status"), w("status"))? & 8 != 0);
        }
        let config = self.board.config(index);
        for offset in 0..6 {
            self.read(space, config + offset, 1)?;
        }
        if random.below(2) == 0 {
            self.write(space, config + 32, 1, random.below(2))?;
        }
        if kind.has("config vector") {
            self.write(space, r("config vector"), 2, 0)?;
        }
        for queue in 0..3 {
            self.write(space, r("queue"), w("queue"), queue)?;
            let max = self.read(space, r("max"), w("max"))?;
            if max == 0 {
                break;
            }
            let size = 1 << random.below(u64::from(max.trailing_zeros()) + 1);
            if kind.has("size") {
                self.write(space, r("size"), w("size"), size)?;
            }
            if kind.has("notify offset") {
                self.read(space, r("notify offset"), 2)?;
            }
            if kind.has("vector") {
                self.write(space, r("vector"), 2, queue + 1)?;
            }
            let memory = 0x10_0000 * (1 + random.below(1 << 20));
            if kind.is_legacy() {
                if kind.has("align") {
                    self.write(space, r("align"), 4, 4096)?;
                }
                self.effects();
                self.write(space, r("pfn"), 4, memory >> 12)?;
            } else {
                for part in 0..3 {
                    let address = memory + 0x1_0000 * part;
                    self.write(
                        space,
                        r("desc") + board::PART[kind as usize] * part,
                        4,
                        address & 0xffff_ffff,
                    )?;
                    self.write(
                        space,
                        r("desc") + board::PART[kind as usize] * part + 4,
                        4,
                        address >> 32,
                    )?;
                }
                self.effects();
                self.write(space, r("enable"), w("enable"), 1)?;
            }
            let device = self.board.id(index);
            let queue = queue as u16;
            assert_eq!(self.effects(), [Effect::Enabled { device, queue }]);
            let layout = self.machine.layout(device, queue).expect("live");
            assert_eq!(layout.desc, memory);
            layout.check().expect("as a driver makes it");
            let (avail, used) = if kind.is_legacy() {
                let avail = memory + 16 * max.max(u64::from(layout.size));
                let size = u64::from(layout.size);
                let avail = if kind == Kind::MmioLegacy {
                    memory + 16 * size
                } else {
                    avail
                };
                (avail, (avail + 6 + 2 * size).next_multiple_of(4096))
            } else {
                (memory + 0x1_0000, memory + 0x2_0000)
            };
            assert_eq!((layout.avail, layout.used), (avail, used));
            self.kick(device, queue)?;
        }
        self.write(
            space,
            r("status"),
            w("status"),
            if kind.is_legacy() { 7 } else { 15 },
        )
    }

    /// Kicks a queue, as the machine says where.
    fn kick(&mut self, device: DeviceId, queue: u16) -> Option<()> {
        let kick = self.machine.kick(device, queue).expect("a live queue");
        let len = if device.base().is_some() { 4 } else { 2 };
        let access = Access {
            space: kick.space,
            addr: kick.addr,
            len,
            value: kick.value.into(),
        };
        assert_eq!(self.machine.device_at(&access), Some((device, queue)));
        self.effects();
        self.write(kick.space, kick.addr, len, kick.value.into())?;
        assert_eq!(self.effects(), [Effect::Notify { device, queue }]);
        Some(())
    }

    fn live(&mut self, random: &mut Random) -> Option<()> {
        let mut buses = 0;
        if self.board.has_pci() {
            self.enumerate(0, &mut buses, random)?;
        }
        for _ in 0..random.below(8) {
            let index = random.below(self.board.devices() as u64) as usize;
            if random.below(2) == 0 {
                self.msix(index, random)?;
            }
            self.drive(index, random)?;
        }
        Some(())
    }
}

/// Replays a script on a board, and shows it to a machine as well.
fn replay(list: &List, board: &mut Board, machine: &mut Machine) {
    for (number, step) in list.0.iter().enumerate() {
        match step.action {
            Action::Write => {
                machine.writing(&step.access, 0);
                board.write(&step.access);
                machine.written(&step.access);
            }
            Action::Expect { mask } => {
                let is = board.read(&step.access);
                let want = step.access.value;
                assert_eq!(is & mask, want & mask, "step {number}: {step:x?}");
                let mut answer = step.access;
                machine.read(&mut answer, 0);
            }
            Action::Read => {
                board.read(&step.access);
            }
        }
    }
}

/// Whether the driver of a device has said that it is ready (DRIVER_OK).
fn runs(machine: &Machine) -> usize {
    let runs = |&(_, device): &(DeviceId, &VirtioDevice)| device.status & 4 != 0;
    machine.virtio().filter(runs).count()
}

/// Learns scripts as a record keeps them.
fn relearned(scripts: &[&List]) -> Box<Machine> {
    let mut machine = empty();
    for list in scripts {
        let mut room = vec![0; STEP_LEN * list.0.len()];
        let mut keep = Keep::new(&mut room);
        for step in &list.0 {
            keep.step(*step).expect("there is room for all");
        }
        assert_eq!(keep.left(), 0);
        each(&room, |step| machine.relearn(&step, 0)).expect("as it was written");
    }
    machine
}

fn assert_same(was: &List, is: &List, context: &str) {
    for (number, (a, b)) in was.0.iter().zip(&is.0).enumerate() {
        assert_eq!(a, b, "{context}, step {number}");
    }
    assert_eq!(was.0.len(), is.0.len(), "{context}");
}

fn cut_and_continue(make: fn() -> Board, seed: u64, left: u32) {
    let mut random = Random::new(seed);
    let mut guest = Guest::new(make(), left);
    guest.set_write_through(seed % 2 == 0);
    let _ = guest.live(&mut random);
    let context = format!("seed {seed}, {left} accesses");
    let configure = phase(&guest.machine, 0, Phase::Configure);
    let run = phase(&guest.machine, 0, Phase::Run);
    let (mut board, mut machine) = (make(), empty());
    machine.set_write_through(guest.write_through);

    replay(&configure, &mut board, &mut machine);
    assert_eq!((board.running(), runs(&machine)), (0, 0), "{context}");

    replay(&run, &mut board, &mut machine);
    assert_eq!(board, guest.board, "{context}");
    assert_eq!(board.running(), runs(&guest.machine), "{context}");
    assert_eq!(board.running(), run.0.len(), "{context}");

    let list = script(&guest.machine, 0);
    assert_same(&list, &script(&machine, 0), &context);
    let learned = relearned(&[&configure, &run]);
    assert_same(&list, &script(&learned, 0), &context);
    assert!(guest.machine.complete());
}

fn any_cut(make: fn() -> Board) {
    for seed in 0..300 {
        let left = match seed % 3 {
            0 => u32::MAX,
            _ => Random::new(seed).below(1500) as u32,
        };
        cut_and_continue(make, seed, left);
    }
}

#[test]
fn mmio() {
    any_cut(Board::mmio);
}

#[test]
fn pci_by_ports() {
    any_cut(Board::q35);
}

#[test]
fn pci_by_memory() {
    any_cut(Board::ecam);
}

/// A guest writes the command register whole, and there are devices that take it no other way.
#[test]
fn the_command_register_is_written_whole() {
    let mut guest = Guest::new(Board::ecam(), u32::MAX);
    let _ = guest.live(&mut Random::new(3));
    let base = guest.board.ecam.expect("configuration space is in memory");
    let written = script(&guest.machine, 0).0.into_iter().filter(|step| {
        let Access { space, addr, .. } = step.access;
        let config = space == Space::Memory && (base..base + (256 << 20)).contains(&addr);
        step.action == Action::Write && config && matches!(addr & 0xfff, 4 | 5)
    });
    let lengths: Vec<_> = written.map(|step| step.access.len).collect();
    assert!(!lengths.is_empty());
    assert!(lengths.iter().all(|&len| len == 2), "{lengths:?}");
}

/// All of it at once, each access a place for a cut.
#[test]
fn every_cut() {
    for left in 0..700 {
        cut_and_continue(Board::q35, 12, left);
    }
}

#[test]
fn interrupts() {
    let mut guest = Guest::new(Board::q35(), u32::MAX);
    let mut random = Random::new(1);
    guest.enumerate(0, &mut 0, &mut random).expect("no cut");
    guest.drive(0, &mut random).expect("no cut");
    let device = guest.board.id(0);
    assert_eq!(
        guest.machine.interrupt(device, Some(0)),
        Interrupt::Status(1)
    );
    guest.msix(0, &mut random).expect("no cut");
    let Interrupt::Message { address, .. } = guest.machine.interrupt(device, Some(0)) else {
        panic!("it uses MSI-X");
    };
    assert_eq!(address & 0xfff0_0000, 0xfee0_0000);
    guest.machine.owe(device, 1);
    let isr = guest.board.isr(0);
    assert_eq!(guest.read(Space::Memory, isr, 1), Some(1));
    assert!(guest.effects().contains(&Effect::Looks { device }));
    assert_eq!(guest.read(Space::Memory, isr, 1), Some(0));
    // It was somebody else's interrupt: the driver does not look.
    assert_eq!(guest.effects(), []);
}

/// The vector of a live queue, and the effect of writing it, its message, and whether there are any.
#[test]
fn another_vector_is_told() {
    let mut guest = Guest::new(Board::q35(), u32::MAX);
    let mut random = Random::new(1);
    guest.enumerate(0, &mut 0, &mut random).expect("no cut");
    guest.msix(0, &mut random).expect("no cut");
    guest.drive(0, &mut random).expect("no cut");
    let device = guest.board.id(0);
    let (space, at) = guest.board.registers(0).expect("reached");
    let (select, vector) = (at + 22, at + 26);
    guest.write(space, select, 2, 1);
    guest.effects();
    guest.write(space, vector, 2, 0xffff);
    assert_eq!(guest.effects(), [Effect::Interrupts { device }]);
    let interrupt = guest.machine.interrupt(device, Some(1));
    assert_eq!(interrupt, Interrupt::None);
    guest.write(space, vector, 2, 2);
    assert_eq!(guest.effects(), [Effect::Interrupts { device }]);
    let interrupt = guest.machine.interrupt(device, Some(1));
    assert!(matches!(interrupt, Interrupt::Message { .. }));
    // Another processor is to handle it.
    let (bdf, msix, table, _) = guest.board.msix(0).expect("there");
    guest.write(Space::Memory, table + 16 * 2, 4, 0xfee0_7000);
    assert_eq!(guest.effects(), [Effect::Interrupts { device }]);
    let interrupt = guest.machine.interrupt(device, Some(1));
    assert!(
        matches!(interrupt, Interrupt::Message { address, .. } if address == 0xfee0_7000),
        "{interrupt:?}"
    );
    guest.config_write(bdf, msix + 2, 2, 0);
    assert_eq!(guest.effects(), [Effect::Interrupts { device }]);
    let interrupt = guest.machine.interrupt(device, Some(1));
    assert_eq!(interrupt, Interrupt::Status(1));
}

/// A driver that learns of used buffers looks at its rings, and so does one that acknowledges: what came
/// since it read the status has no interrupt of its own any more.
#[test]
fn who_acknowledges_looks() {
    let mut guest = Guest::new(Board::mmio(), u32::MAX);
    guest.drive(0, &mut Random::new(1)).expect("no cut");
    let device = guest.board.id(0);
    let (space, at) = guest.board.registers(0).expect("reached");
    guest.machine.owe(device, 3);
    guest.effects();
    assert_eq!(guest.read(space, at + 0x60, 4), Some(3));
    assert_eq!(guest.effects(), [Effect::Looks { device }]);
    guest.write(space, at + 0x64, 4, 1);
    assert_eq!(guest.effects(), [Effect::Looks { device }]);
    // A change of the configuration.
    assert_eq!(guest.read(space, at + 0x60, 4), Some(2));
    guest.write(space, at + 0x64, 4, 2);
    assert_eq!(guest.effects(), []);
}

/// Whoever interrupts by its line is owed an interrupt, and whoever does so by messages is not.
#[test]
fn all_interrupts_at_once() {
    let mut guest = Guest::new(Board::q35(), u32::MAX);
    let mut random = Random::new(1);
    guest.enumerate(0, &mut 0, &mut random).expect("no cut");
    for index in [0, 2] {
        guest.drive(index, &mut random).expect("no cut");
    }
    guest.msix(2, &mut random).expect("no cut");
    guest.machine.owe_all();
    for (index, bits) in [(0, 1), (2, 0), (3, 0)] {
        let isr = guest.board.isr(index);
        assert_eq!(guest.read(Space::Memory, isr, 1), Some(bits), "{index}");
        assert_eq!(guest.read(Space::Memory, isr, 1), Some(0), "{index}");
    }

    // Each entry that is not masked, by the queues that have it.
    let (_, _, table, _) = guest.board.msix(2).expect("reached");
    for masked in 0..4u64 {
        let mut want = Vec::new();
        for queue in 0..2 {
            let entry = table + 16 * (queue + 1);
            let mask = (masked >> queue) & 1;
            guest.write(Space::Memory, entry, 4, 0xfee0_1000);
            guest.write(Space::Memory, entry + 8, 4, 0x40 + queue);
            guest.write(Space::Memory, entry + 12, 4, mask);
            if mask == 0 {
                want.push((0xfee0_1000, 0x40 + queue as u32));
            }
        }
        let mut messages: Vec<_> = guest.machine.messages().collect();
        messages.sort();
        assert_eq!(messages, want, "{masked:b}");
    }
}

#[test]
fn a_reset_is_one() {
    let mut guest = Guest::new(Board::mmio(), u32::MAX);
    let mut random = Random::new(3);
    guest.drive(0, &mut random).expect("no cut");
    let device = guest.board.id(0);
    assert!(guest.machine.layout(device, 0).is_some());
    let (_, at) = guest.board.registers(0).expect("there");
    guest.effects();
    guest.machine.writing(&Access::memory(at + 0x70, 4, 0), 0);
    assert!(
        guest.machine.layout(device, 0).is_some(),
        "the device does not know yet"
    );
    let effect = guest.machine.written(&Access::memory(at + 0x70, 4, 0));
    assert_eq!(effect, Effect::Reset { device });
    assert!(guest.machine.layout(device, 0).is_none());
}

/// A kept write is one that a VMM has handled.
#[test]
fn a_reset_is_learned() {
    let mut guest = Guest::new(Board::mmio(), u32::MAX);
    guest.drive(0, &mut Random::new(3)).expect("no cut");
    let device = guest.board.id(0);
    let mut machine = relearned(&[&script(&guest.machine, 0)]);
    let layout = guest.machine.layout(device, 0);
    assert!(layout.is_some());
    assert_eq!(machine.layout(device, 0), layout);
    let (_, at) = guest.board.registers(0).expect("there");
    let reset = Step {
        access: Access::memory(at + 0x70, 4, 0),
        action: Action::Write,
    };
    machine.relearn(&reset, 0);
    assert_eq!(machine.layout(device, 0), None);
}

#[test]
fn write_through_hides_the_cache() {
    let mut machine = empty();
    machine.set_write_through(true);
    let mut answer = |addr: u64, value| {
        let mut access = Access::memory(0xfeb0_0000 + addr, 4, value);
        machine.read(&mut access, 0);
        access.value
    };
    answer(0, 0x7472_6976);
    answer(4, 2);
    answer(8, 2);
    assert_eq!(
        answer(0x10, 0xffff_ffff),
        0xffff_ffff & !((1 << 9) | (1 << 11))
    );
}

/// A driver that has read the whole configuration of a modern virtio-mmio device and accepted `features`.
fn accepted(kind: u64, config: [u64; 3], features: u64) -> Box<Machine> {
    let mut machine = empty();
    let at = |offset: u64, value| Access::memory(0xfeb0_0000 + offset, 4, value);
    let config = (0x100..).step_by(4).zip(config);
    for (offset, value) in [(0, 0x7472_6976), (4, 2), (8, kind)]
        .into_iter()
        .chain(config)
    {
        machine.read(&mut at(offset, value), 0);
    }
    for word in 0..2 {
        machine.writing(&at(0x24, word), 0);
        machine.writing(&at(0x20, (features >> (32 * word)) & 0xffff_ffff), 0);
    }
    machine
}

#[test]
fn control_queues_are_known() {
    let control = |machine: &Machine| -> Vec<(u16, Control)> {
        let of = |queue| Some((queue, machine.control(DeviceId::mmio(0xfeb0_0000), queue)?));
        (0..20).filter_map(of).collect()
    };
    // Four pairs of queues.
    let net = |features| accepted(1, [0x1234, 0, 4], features);
    let (ctrl_vq, mq, rss) = (1 << 17, 1 << 22, 1 << 60);
    assert_eq!(control(&net(mq)), []);
    assert_eq!(control(&net(ctrl_vq)), [(2, Control::Net)]);
    assert_eq!(control(&net(ctrl_vq | mq)), [(8, Control::Net)]);
    assert_eq!(control(&net(ctrl_vq | rss)), [(8, Control::Net)]);
    let console = |features| accepted(3, [0; 3], features);
    assert_eq!(control(&console(0)), []);
    assert_eq!(control(&console(2)), [(3, Control::Console)]);
    assert_eq!(control(&accepted(2, [0; 3], !0)), []);
    // The next VMM's device must have as many pairs, and then the same queue is known.
    let machine = net(ctrl_vq | mq);
    let mut next = empty();
    let steps = script(&machine, 0).0;
    steps.iter().for_each(|step| next.relearn(step, 0));
    assert_eq!(control(&next), [(8, Control::Net)]);
    let pairs = Access::memory(0xfeb0_0108, 1, 4);
    let compared =
        |step: &&Step| step.access == pairs && step.action == Action::Expect { mask: 0xff };
    assert_eq!(steps.iter().filter(compared).count(), 1);
}

#[test]
fn persistent_memory_is_known_by_its_place() {
    let (start, size) = (0x1_4000_0000u64, 0x100_0000);
    let machine = accepted(27, [start & 0xffff_ffff, start >> 32, size], 1 << 32);
    let steps = script(&machine, 0).0;
    let asked = |offset: u64, value| {
        let access = Access::memory(0xfeb0_0100 + offset, 4, value);
        let mask = 0xffff_ffff;
        steps
            .iter()
            .any(|step| step.access == access && step.action == Action::Expect { mask })
    };
    assert!(asked(0, start & 0xffff_ffff) && asked(4, start >> 32) && asked(8, size));
}

#[test]
fn device_addresses_are_a_lack() {
    let mut machine = empty();
    for (addr, value) in [(0, 0x7472_6976), (4, 2), (8, 2)] {
        machine.read(&mut Access::memory(0xfeb0_0000 + addr, 4, value), 0);
    }
    assert!(machine.complete());
    machine.writing(&Access::memory(0xfeb0_0024, 4, 1), 0);
    machine.writing(&Access::memory(0xfeb0_0020, 4, 3), 0);
    let device = DeviceId::mmio(0xfeb0_0000);
    assert_eq!(machine.lack(), Some(Lack::AccessPlatform(device)));
}

#[test]
fn plain_registers_are_told_from_others() {
    let mut machine = empty();
    let mut write = |access| machine.writing(&access, 0);
    write(Access::memory(0xfea0_0000, 4, 1));
    write(Access::memory(0xfea0_0004, 4, 2));
    write(Access::memory(0xfea0_0000, 4, 3));
    write(Access::port(0x4e0, 1, 4));
    // A console for debugging keeps nothing.
    write(Access::port(0xe9, 1, 4));
    machine.read(&mut Access::memory(0xfea0_0000, 4, 3), 0);
    machine.read(&mut Access::memory(0xfea0_0004, 4, 9), 0);
    let plain = [Access::memory(0xfea0_0000, 4, 3)];
    let steps = script(&machine, 0).0;
    let writes = steps.iter().filter(|s| s.action == Action::Write);
    let written: Vec<Access> = writes.map(|s| s.access).collect();
    assert_eq!(written, plain);
    let unknown = |r: &Report<'_>| matches!(r, Report::Unknown(_));
    assert_eq!(machine.report().filter(unknown).count(), 2);
}

#[test]
fn too_much_is_a_lack() {
    let mut machine = empty();
    for at in 0..1000 {
        machine.writing(&Access::memory(0xfea0_0000 + 4 * at, 4, at), 0);
    }
    assert_eq!(machine.lack(), Some(Lack::Registers));
    machine.reset();
    assert!(machine.complete());
    assert_eq!(script(&machine, 0), List::default());
}

/// Before each step of a script, a machine that has learned all of it knows which device is asked.
#[test]
fn whoever_is_asked_has_a_name() {
    let boards = [Board::mmio, Board::q35, Board::ecam];
    let places = ["at mmio@", "at 00:", "of its configuration space"];
    let mut named = String::new();
    for make in boards {
        let mut guest = Guest::new(make(), u32::MAX);
        let _ = guest.live(&mut Random::new(3));
        let steps = script(&guest.machine, 0);
        let mut machine = relearned(&[&steps]);
        for step in &steps.0 {
            if let Action::Expect { .. } = step.action {
                let whose = machine.whose(&step.access);
                assert_ne!(whose, Whose::Unknown, "{step:?}");
                named += &format!("{whose}\n");
            }
            machine.relearn(step, 0);
        }
    }
    for place in places {
        assert!(named.contains(place), "no {place} in {named}");
    }
    let mut machine = empty();
    for (addr, value) in [(0, 0x7472_6976), (4, 2), (8, 2)] {
        machine.read(&mut Access::memory(0xfeb0_0000 + addr, 4, value), 0);
    }
    let name = |access: Access| machine.whose(&access).to_string();
    let disk = "virtio-blk (type 2) at mmio@feb00000";
    assert_eq!(name(Access::memory(0xfeb0_0034, 4, 0)), disk);
    assert_eq!(
        name(Access::port(0x4e0, 1, 0)),
        "a device that is not understood"
    );
}
