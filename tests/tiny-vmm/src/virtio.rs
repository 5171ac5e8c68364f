// SPDX-License-Identifier: GPL-2.0
//! A virtio-mmio device of version 2 (virtio 1.3, section 4.2) with one queue, served by a thread.
//!
//! `--kick ioeventfd|exit` and `--interrupt irqfd|msi` say how driver and device call each other;
//! `--layout apart|together|high` whether rings, descriptors and buffers share a page, or lie in memory
//! that is mapped by huge pages; and `--event-idx 1`
//! offers VIRTIO_F_EVENT_IDX. `--reset N` has the driver reset the device after N rounds, and `--look 1`
//! another thread look at the rings all the time. `--packed 1` has the driver accept VIRTIO_F_RING_PACKED, which it is
//! not shown, and `--layout nowhere` puts the used ring where there is no memory: then each round ends with its kicks,
//! which nobody answers. `--type N` is another type of device, which answers the same; and
//! with `--lie N` the answer to number N is for a request that there is not. Out of the order in which it gets them, the device answers up to four
//! requests at once; each number that it is asked is a line.

use crate::{
    guest,
    machine::{set_slot, unexpected, Machine, Memory},
    script::{self, saw},
};
use kvm_bindings::{kvm_irq_routing_entry, kvm_msi, KvmIrqRouting, KVM_IRQ_ROUTING_MSI};
use kvm_ioctls::{IoEventAddress, VcpuExit, VmFd};
use std::{
    sync::{
        atomic::{fence, AtomicBool, AtomicU32, Ordering::SeqCst},
        Arc,
    },
    thread::{self, JoinHandle},
};
use vmm_sys_util::eventfd::EventFd;

const GSI: u32 = 24;
/// Where the local APIC takes messages, and the vector that the guest expects.
const MSI_ADDRESS: u32 = 0xfee0_0000;
const MSI_DATA: u32 = 0x40;
const SIZE: u16 = 8;
const EVENT_IDX: u32 = 1 << 29;
/// VIRTIO_F_VERSION_1 and VIRTIO_F_RING_PACKED, of the second word.
const VERSION_1: u32 = 1;
const RING_PACKED: u32 = 1 << 2;
/// That, and VIRTIO_F_IN_ORDER, NOTIFICATION_DATA, NOTIF_CONFIG_DATA, RING_RESET and ADMIN_VQ: what no guest of a
/// bound VM is to see.
const HIDDEN: u32 = 0x3cc;

/// Register offsets.
mod reg {
    pub const MAGIC: u64 = 0x00;
    pub const VERSION: u64 = 0x04;
    pub const DEVICE_ID: u64 = 0x08;
    pub const VENDOR_ID: u64 = 0x0c;
    pub const DEVICE_FEATURES: u64 = 0x10;
    pub const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub const QUEUE_SIZE_MAX: u64 = 0x34;
    pub const QUEUE_SIZE: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const QUEUE_NOTIFY: u64 = 0x50;
    pub const INTERRUPT_STATUS: u64 = 0x60;
    pub const INTERRUPT_ACK: u64 = 0x64;
    pub const STATUS: u64 = 0x70;
    pub const QUEUE_DESC: u64 = 0x80;
    pub const QUEUE_DRIVER: u64 = 0x90;
    pub const QUEUE_DEVICE: u64 = 0xa0;
}

const DRIVER_OK: u32 = 4;

/// What the driver has written, and the interrupt status, which the device's thread sets.
#[derive(Clone, Default)]
struct Registers {
    interrupt: Arc<AtomicU32>,
    status: u32,
    features: [u32; 2],
    device_sel: u32,
    driver_sel: u32,
    ready: u32,
    desc: u64,
    avail: u64,
    used: u64,
}

impl Registers {
    fn read(&self, offset: u64) -> u32 {
        match offset {
            reg::MAGIC => 0x7472_6976,
            reg::VERSION => 2,
            // An entropy source, if nothing else is said: no configuration.
            reg::DEVICE_ID => script::number("type", 4) as u32,
            reg::VENDOR_ID => 0x796e_6974,
            reg::DEVICE_FEATURES if self.device_sel == 1 => VERSION_1 | HIDDEN,
            reg::DEVICE_FEATURES if self.device_sel == 0 && script::number("event-idx", 0) == 1 => {
                EVENT_IDX
            }
            reg::QUEUE_SIZE_MAX => SIZE.into(),
            reg::QUEUE_READY => self.ready,
            reg::INTERRUPT_STATUS => self.interrupt.load(SeqCst),
            reg::STATUS => self.status,
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        match offset {
            reg::STATUS if value == 0 => *self = Self::default(),
            reg::INTERRUPT_ACK => {
                self.interrupt.fetch_and(!value, SeqCst);
            }
            reg::STATUS => self.status = value,
            reg::DEVICE_FEATURES_SEL => self.device_sel = value,
            reg::DRIVER_FEATURES_SEL => self.driver_sel = value,
            reg::DRIVER_FEATURES => self.features[self.driver_sel as usize & 1] = value,
            reg::QUEUE_SIZE => assert_eq!(value, SIZE.into(), "queue size"),
            reg::QUEUE_READY => self.ready = value,
            reg::QUEUE_DESC => self.desc = value.into(),
            reg::QUEUE_DRIVER => self.avail = value.into(),
            reg::QUEUE_DEVICE => self.used = value.into(),
            _ => {}
        }
    }
}

/// The device's side of its queue: as a device that was just reset, it counts from 0.
struct Queue {
    ram: Ram,
    registers: Registers,
    seen: u16,
    used: u16,
    vm: Arc<VmFd>,
    interrupt: Option<Arc<EventFd>>,
    stop: Arc<AtomicBool>,
}

/// Guest RAM that holds the rings and all they point to.
#[derive(Clone, Copy)]
struct Ram {
    memory: Memory,
    gpa: u64,
}

impl Ram {
    fn word(&self, at: u64) -> u32 {
        self.memory.word(at - self.gpa)
    }

    fn half(&self, at: u64) -> u16 {
        (self.word(at & !3) >> (at % 4 * 8)) as u16
    }

    fn set_word(&self, at: u64, word: u32) {
        self.memory.set_word(at - self.gpa, word);
    }

    fn set_half(&self, at: u64, half: u16) {
        self.memory.write(at - self.gpa, &half.to_le_bytes());
    }
}

impl Queue {
    /// Answers all that is available.
    fn serve(&mut self) {
        loop {
            fence(SeqCst);
            let available = self.ram.half(self.registers.avail + 2);
            let count = available.wrapping_sub(self.seen);
            if count > SIZE {
                saw(&format!("wrong available {available} after {}", self.seen));
            }
            if count == 0 {
                return;
            }
            let slots = (0..count).map(|n| self.seen.wrapping_add(n) % SIZE);
            let mut heads: Vec<u16> = slots
                .map(|slot| {
                    self.ram
                        .half(self.registers.avail + 4 + 2 * u64::from(slot))
                })
                .collect();
            self.seen = available;
            heads.reverse();
            for head in heads {
                self.answer(head);
            }
        }
    }

    fn answer(&mut self, head: u16) {
        let at = self.registers.desc + 16 * u64::from(head);
        let (question, flags) = (self.ram.word(at), self.ram.word(at + 12));
        let next = self.registers.desc + 16 * u64::from(flags >> 16);
        let answer = self.ram.word(next);
        if flags & 3 != 1 || self.ram.half(next + 12) != 2 {
            saw(&format!("wrong chain at {head}"));
        }
        let number = self.ram.word(question.into());
        self.ram
            .set_word(answer.into(), number.wrapping_mul(2).wrapping_add(1));
        saw(&format!("served {number}"));
        let entry = self.registers.used + 4 + 8 * u64::from(self.used % SIZE);
        let lies = u64::from(number) == script::number("lie", u64::MAX);
        let used = if lies { SIZE } else { head };
        self.ram.set_word(entry, used.into());
        self.ram.set_word(entry + 4, 4);
        fence(SeqCst);
        let old = self.used;
        self.used = self.used.wrapping_add(1);
        self.ram.set_half(self.registers.used + 2, self.used);
        fence(SeqCst);
        if self.wants_interrupt(old) {
            self.interrupt();
        }
        if lies {
            saw(&format!("lied {number}"));
        }
    }

    /// Virtio 1.3, section 2.7.7.2.
    fn wants_interrupt(&self, old: u16) -> bool {
        if self.registers.features[0] & EVENT_IDX == 0 {
            return self.ram.half(self.registers.avail) & 1 == 0;
        }
        let event = self
            .ram
            .half(self.registers.avail + 4 + 2 * u64::from(SIZE));
        self.used.wrapping_sub(event).wrapping_sub(1) < self.used.wrapping_sub(old)
    }

    fn interrupt(&self) {
        self.registers.interrupt.fetch_or(1, SeqCst);
        match &self.interrupt {
            Some(event) => event.write(1).expect("irqfd"),
            None => send_message(&self.vm),
        }
    }
}

/// Sends vCPU 0 the message that guests expect.
pub fn send_message(vm: &VmFd) {
    let msi = kvm_msi {
        address_lo: MSI_ADDRESS,
        data: MSI_DATA,
        ..Default::default()
    };
    vm.signal_msi(msi).expect("KVM_SIGNAL_MSI");
}

fn event() -> EventFd {
    EventFd::new(0).expect("eventfd")
}

/// A queue in use: a thread that serves it, and how both sides call each other.
struct Running {
    vm: Arc<VmFd>,
    kick: EventFd,
    ioeventfd: bool,
    interrupt: Option<Arc<EventFd>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

const NOTIFY: IoEventAddress = IoEventAddress::Mmio(guest::UNBACKED + reg::QUEUE_NOTIFY);

impl Running {
    /// What goes with DRIVER_OK.
    fn start(vm: &Arc<VmFd>, ram: Ram, registers: Registers) -> Self {
        let kick = event();
        let ioeventfd = script::option("kick").as_deref() != Some("exit");
        if ioeventfd {
            vm.register_ioevent(&kick, &NOTIFY, 0u32)
                .expect("KVM_IOEVENTFD");
        }
        let interrupt = (script::option("interrupt").as_deref() != Some("msi")).then(|| {
            let event = Arc::new(event());
            vm.register_irqfd(&event, GSI).expect("KVM_IRQFD");
            event
        });
        let stop = Arc::new(AtomicBool::new(false));
        let mut queue = Queue {
            ram,
            registers,
            seen: 0,
            used: 0,
            vm: vm.clone(),
            interrupt: interrupt.clone(),
            stop: stop.clone(),
        };
        let mine = kick.try_clone().expect("dup");
        let thread = thread::spawn(move || loop {
            mine.read().expect("kick");
            if queue.stop.load(SeqCst) {
                return;
            }
            queue.serve();
        });
        Self {
            vm: vm.clone(),
            kick,
            ioeventfd,
            interrupt,
            stop,
            thread,
        }
    }

    /// What goes with a reset.
    fn stop(self) {
        if self.ioeventfd {
            let done = self.vm.unregister_ioevent(&self.kick, &NOTIFY, 0u32);
            done.expect("KVM_IOEVENTFD, deassign");
        }
        self.stop.store(true, SeqCst);
        self.kick.write(1).expect("kick");
        self.thread.join().expect("the device's thread");
        if let Some(event) = &self.interrupt {
            let done = self.vm.unregister_irqfd(event, GSI);
            done.expect("KVM_IRQFD, deassign");
        }
    }
}

fn route(vm: &VmFd) {
    let mut entry = kvm_irq_routing_entry {
        gsi: GSI,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi.address_lo = MSI_ADDRESS;
    // A union: its other member is as good a place.
    entry.u.msi.data = MSI_DATA;
    let routing = KvmIrqRouting::from_entries(&[entry]).expect("routing");
    vm.set_gsi_routing(&routing).expect("KVM_SET_GSI_ROUTING");
}

/// Looks at both rings, and at memory near them, as fast as it can.
fn look(ram: Ram, available: u64, used: u64) -> ! {
    let end = ram.memory.len as u64;
    for offset in (0..end).step_by(2048).cycle() {
        ram.memory.word(offset);
        ram.word(available);
        ram.word(used);
    }
    unreachable!("the range is not empty")
}

/// The used ring of `--layout nowhere`: beside the device, so that accesses to it are exits.
const NOWHERE: u32 = guest::UNBACKED as u32 + 0x1000;

/// Where the memory for `--layout high` is.
const HIGH: u32 = 32 << 20;

/// Memory that can be mapped by huge pages.
fn huge_ram() -> Ram {
    const HUGE: usize = 2 << 20;
    let mut memory = Memory::new(3 * HUGE);
    // SAFETY: Less than one huge page further on, and two remain.
    memory.at = unsafe { memory.at.add(memory.at.align_offset(HUGE)) };
    memory.len = 2 * HUGE;
    Ram {
        memory,
        gpa: HIGH.into(),
    }
}

/// A guest asks, a device answers, for ever.
pub fn requests() -> ! {
    let machine = Machine::new(guest::requests());
    let mut ram = Ram {
        memory: machine.low,
        gpa: 0,
    };
    let addresses: [u32; 4] = match script::option("layout").as_deref() {
        Some("together") => [0x4000, 0x4100, 0x4200, 0x4400],
        Some("high") => {
            ram = huge_ram();
            let slot = ram.memory.slot(1, ram.gpa);
            set_slot(&machine.vm, slot).expect("slot");
            [
                HIGH + 0x1000,
                HIGH + 0x2800,
                HIGH + 0x20_3000,
                HIGH + 0x5000,
            ]
        }
        Some("nowhere") => [0x4000, 0x5000, NOWHERE, 0x7000],
        _ => [0x4000, 0x5000, 0x6000, 0x7000],
    };
    for (n, address) in addresses.into_iter().enumerate() {
        machine.low.set_word(guest::TABLE + 4 * n as u64, address);
    }
    let features = if script::number("event-idx", 0) == 1 {
        EVENT_IDX
    } else {
        0
    };
    machine.low.set_word(guest::TABLE + 16, features);
    let packed = script::number("packed", 0) as u32 * RING_PACKED;
    machine.low.set_word(guest::TABLE + 28, VERSION_1 | packed);
    let reset = script::number("reset", 0) as u32;
    machine.low.set_word(guest::TABLE + 20, reset);
    machine.low.set_word(guest::TABLE + 24, reset);
    route(&machine.vm);
    let Machine { vm, mut vcpus, .. } = machine;
    let vm = Arc::new(vm);
    let mut registers = Registers::default();
    let mut running: Option<Running> = None;
    if script::number("look", 0) == 1 {
        thread::spawn(move || look(ram, addresses[1].into(), addresses[2].into()));
    }
    loop {
        match vcpus[0].run() {
            Ok(VcpuExit::MmioRead(at, data)) => {
                let word = registers.read(at - guest::UNBACKED).to_le_bytes();
                let len = data.len();
                data.copy_from_slice(&word[..len]);
            }
            Ok(VcpuExit::MmioWrite(at, data)) => {
                let value = u32::from_le_bytes(data.try_into().expect("a word"));
                let offset = at - guest::UNBACKED;
                registers.write(offset, value);
                if registers.used == NOWHERE.into() && registers.status & DRIVER_OK != 0 {
                    // A device that finds no memory there gives up.
                    saw("nowhere");
                    continue;
                }
                match (offset, value & DRIVER_OK, running.take()) {
                    (reg::STATUS, 0, Some(used)) => used.stop(),
                    (reg::STATUS, DRIVER_OK, None) => {
                        running = Some(Running::start(&vm, ram, registers.clone()));
                    }
                    (reg::QUEUE_NOTIFY, _, Some(used)) if !used.ioeventfd => {
                        used.kick.write(1).expect("kick");
                        running = Some(used);
                    }
                    (reg::QUEUE_NOTIFY, ..) => saw("wrong exit for a kick"),
                    (_, _, unchanged) => running = unchanged,
                }
            }
            Ok(VcpuExit::IoOut(guest::PORT_COUNT, data)) => {
                let count = u32::from_le_bytes(data.try_into().expect("a word"));
                saw(&format!("count 0 {count}"));
            }
            Ok(VcpuExit::IoOut(guest::PORT_WRONG, data)) => saw(&format!("wrong answer {data:?}")),
            Ok(other) => {
                let name = format!("{other:?}");
                saw(&format!("other {}", unexpected(&mut vcpus[0], &name)));
            }
            Err(error) => saw(&format!("failed 0 {}", script::errno_name(error.errno()))),
        }
    }
}
