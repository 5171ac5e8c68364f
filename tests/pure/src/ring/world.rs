// SPDX-License-Identifier: GPL-2.0

//! A driver, a device and a shadow ring between them.

use super::{place, Crash, Device, Driver, Ram, PAGE};
use crate::random::Random;
use nvhv_pure::ring::{told_room, Completed, Fault, Layout, Occasion, Ring, Slot, Told};
use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::rc::Rc;

/// What the parties share while a call is made.
struct Parties {
    driver: RefCell<Driver>,
    device: RefCell<Device>,
    /// The driver has kicked, the device has interrupted, and that has not been passed on.
    kick: Cell<bool>,
    interrupt: Cell<bool>,
}

/// A driver, a device and a shadow ring between them.
pub struct World {
    random: Random,
    layout: Layout,
    ram: Rc<Ram>,
    parties: Rc<Parties>,
    ring: Ring<Vec<Slot>>,
    /// Its descriptor table is shadowed as well, so that devices can be told things.
    controls: bool,
    told: u64,
    restores: u64,
    published_many: u64,
}

impl World {
    /// A queue of `size` that was just enabled.
    pub fn new(size: u16, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (layout, pages) = place(size, &mut random);
        Self::with(layout, pages + 6, random)
    }

    fn with(layout: Layout, pages: u64, mut random: Random) -> Self {
        let ram = Rc::new(Ram::new(pages, || random.word() as u8));
        let driver = Driver::new(layout, ram.clone(), random.word());
        layout.pages().for_each(|page| ram.shadow(page));
        let controls = random.below(2) == 0;
        if controls {
            layout.table_pages().for_each(|page| ram.shadow(page));
        }
        let mut ring = Ring::new(layout, slots(layout.size)).expect("sound");
        ring.start(&*ram).expect("RAM");
        let device = Device::new(layout, ram.clone(), random.word());
        Self {
            layout,
            ram,
            parties: Rc::new(Parties {
                driver: RefCell::new(driver),
                device: RefCell::new(device),
                kick: Cell::new(false),
                interrupt: Cell::new(false),
            }),
            ring,
            random,
            controls,
            told: 0,
            restores: 0,
            published_many: 0,
        }
    }

    /// How many requests the driver has seen done.
    pub fn done(&self) -> u64 {
        self.parties.driver.borrow().done()
    }

    /// Lets somebody do something. `losses`: the host may be lost.
    pub fn step(&mut self, losses: bool) {
        let n = 1 + self.random.below(6);
        match self.random.below(if losses { 23 } else { 21 }) {
            0..6 => self.make(n),
            6..12 => self.finish(n),
            12 => {
                // A kick or an interrupt too many.
                self.parties.kick.set(true);
                self.parties.interrupt.set(true);
            }
            13 => self.parties.driver.borrow_mut().take_used(),
            14 => {
                let n = (self.random.below(2) == 0).then_some(n as u16);
                self.parties.driver.borrow_mut().hush(n);
            }
            15 => self.parties.driver.borrow_mut().interrupt(),
            16 | 17 => self.meanwhile(),
            18 => self.parties.device.borrow_mut().take_available(),
            19 => {
                if self.random.below(40) == 0 {
                    let pages = self.ram.len() / PAGE;
                    self.ram
                        .shadow(super::BASE + self.random.below(pages) * PAGE);
                    self.ring.look_again(&*self.ram).expect("sound");
                }
            }
            20 => self.look_aside(n),
            21 => self.restore(),
            _ => {
                // The host is lost in the middle of what comes next.
                self.ram.at_access(1 + self.random.below(120), None);
                let lost = catch_unwind(AssertUnwindSafe(|| {
                    self.make(n);
                    self.pass_on();
                    self.finish(n);
                    self.pass_on();
                }));
                self.ram.settle();
                if let Err(why) = lost {
                    if why.downcast_ref::<Crash>().is_none() {
                        resume_unwind(why);
                    }
                    // Another processor of the guest may have run on for a moment.
                    if self.random.below(2) == 0 {
                        self.parties.driver.borrow_mut().take_used();
                    }
                    self.restore();
                }
            }
        }
        self.pass_on();
    }

    /// Makes requests.
    pub fn make(&mut self, n: u64) {
        if self.parties.driver.borrow_mut().make(n) {
            self.parties.kick.set(true);
        }
    }

    /// Lets the device use requests.
    pub fn finish(&mut self, n: u64) {
        if self.parties.device.borrow_mut().finish(n) {
            self.parties.interrupt.set(true);
        }
    }

    /// Somebody else's interrupt is the occasion to look, in the middle of what the device does.
    fn look_aside(&mut self, n: u64) {
        let old = self.parties.device.borrow_mut().publish(n);
        let done = self.ring.complete(&*self.ram, Occasion::Other);
        assert!(!done.expect("sound").interrupt);
        if self.parties.device.borrow_mut().interrupts(old) {
            self.parties.interrupt.set(true);
        }
    }

    /// Lets one party have its turn while the ring is looked at for another.
    fn meanwhile(&mut self) {
        let parties = self.parties.clone();
        let (n, who) = (1 + self.random.below(4), self.random.below(4));
        let then = move || match who {
            0 => {
                if parties.driver.borrow_mut().make(n) {
                    parties.kick.set(true);
                }
            }
            1 => parties.driver.borrow_mut().interrupt(),
            2 => {
                if parties.device.borrow_mut().finish(n) {
                    parties.interrupt.set(true);
                }
            }
            _ => parties.device.borrow_mut().take_available(),
        };
        self.make(n);
        self.finish(n);
        let at = 1 + self.random.below(60);
        self.ram.at_access(at, Some(Box::new(then)));
        self.pass_on();
        self.ram.settle();
    }

    /// Passes on kicks and interrupts, until there are none.
    pub fn pass_on(&mut self) {
        while self.parties.kick.get() || self.parties.interrupt.get() {
            if self.parties.kick.replace(false) {
                self.ring.submit(&*self.ram).expect("sound");
                self.parties.device.borrow_mut().take_available();
            }
            if self.parties.interrupt.replace(false) {
                let done = self.ring.complete(&*self.ram, Occasion::Interrupt);
                let Completed { count, interrupt } = done.expect("sound");
                self.published_many += u64::from(count > 1);
                if interrupt {
                    self.parties.driver.borrow_mut().interrupt();
                }
            }
        }
        let driver = self.parties.driver.borrow();
        assert!(driver.is_quiet() || driver.has_looked(), "interrupt lost");
    }

    /// Loses the VMM, and starts a new one.
    pub fn restore(&mut self) {
        let mut saved = vec![0xee; Ring::<Vec<Slot>>::saved_len(self.layout.size)];
        let len = self.ring.save(&mut saved).expect("room");
        saved.truncate(len);
        self.ram.shadow_again();
        let mut device = Device::new(self.layout, self.ram.clone(), self.random.word());
        let slots = slots(self.layout.size);
        if self.controls && self.random.below(2) == 0 {
            self.ring =
                Ring::restore_telling(self.layout, slots, &saved, &*self.ram).expect("sound");
            for _ in 0..self.random.below(5) {
                self.tell(&mut device);
            }
            // The VMM may be lost before all is told.
            if self.random.below(4) == 0 {
                return self.restore();
            }
            self.ring.told_all(&*self.ram).expect("sound");
        } else {
            self.ring = Ring::restore(self.layout, slots, &saved, &*self.ram).expect("sound");
        }
        let due = self.parties.driver.borrow().outstanding();
        // Those in flight are there before any kick; the rest come with the one that is due.
        device.take_available();
        let again = device.take_log();
        assert_eq!(again, due[..again.len()]);
        assert_eq!(again.len(), usize::from(self.ring.in_flight()));
        *self.parties.device.borrow_mut() = device;
        // The first completion interrupts, whatever the driver asked for.
        if self.random.below(2) == 0 && self.parties.device.borrow().holds() > 0 {
            self.parties.device.borrow_mut().finish(1);
            let done = self.ring.complete(&*self.ram, Occasion::Interrupt);
            let done = done.expect("sound");
            assert_eq!((done.count, done.interrupt), (1, true));
            self.parties.driver.borrow_mut().interrupt();
        }
        self.parties.kick.set(true);
        self.parties.interrupt.set(true);
        self.pass_on();
        let rest = self.parties.device.borrow_mut().take_log();
        assert_eq!([again, rest].concat(), due);
        self.parties.driver.borrow_mut().interrupt();
        self.restores += 1;
    }

    /// Makes requests for which the driver waits without an interrupt: nobody hears of those that the device
    /// raises. Then makes some for which it waits with one.
    pub fn wait_by_looking(&mut self, n: u64) {
        self.parties.driver.borrow_mut().interrupt();
        self.parties.driver.borrow_mut().hush(None);
        self.make(n);
        self.pass_on();
        while self.ring.in_flight() > 0 {
            let expected = self.ring.expects_interrupt(&*self.ram);
            assert_eq!(expected, Ok(false), "the driver would wait for ever");
            self.parties.device.borrow_mut().finish(1);
            let done = self.ring.complete(&*self.ram, Occasion::Interrupt);
            done.expect("sound");
            self.parties.driver.borrow_mut().take_used();
        }
        assert_eq!(self.parties.driver.borrow().waiting(), 0, "lost");
        self.parties.driver.borrow_mut().interrupt();
        self.make(n);
        self.pass_on();
        let waits = self.ring.in_flight() > 0;
        assert_eq!(self.ring.expects_interrupt(&*self.ram), Ok(waits));
    }

    /// Tells a fresh device something. The driver's kicks, and interrupts, change nothing meanwhile.
    fn tell(&mut self, device: &mut Device) {
        let ram = &*self.ram;
        let room = told_room(&self.layout) as u64;
        let len = 1 + self.random.below(room.clamp(1, 600));
        let said: Vec<u8> = (0..len).map(|_| self.random.word() as u8).collect();
        let parts = said.split_at(self.random.below(len + 1) as usize);
        let answer = (self.random.below(2) == 0).then_some(self.random.word() as u8);
        let fits = len <= room;
        let parts = [parts.0, parts.1];
        let shown = self.ring.tell(ram, parts, answer.is_some());
        assert_eq!(shown, Ok(fits));
        if !fits {
            return;
        }
        assert_eq!(
            self.ring.tell(ram, parts, false),
            Ok(false),
            "one at a time"
        );
        let nothing = Completed {
            count: 0,
            interrupt: false,
        };
        assert_eq!(self.ring.submit(ram), Ok(0));
        assert_eq!(self.ring.complete(ram, Occasion::Interrupt), Ok(nothing));
        assert_eq!(self.ring.told(ram), Ok(Told::Waiting));
        device.take_told(&parts, answer);
        assert_eq!(self.ring.complete(ram, Occasion::Interrupt), Ok(nothing));
        assert_eq!(self.ring.told(ram), Ok(Told::Used(answer)));
        assert_eq!(self.ring.told(ram), Ok(Told::Waiting));
        self.told += 1;
    }

    /// How often a device was told something.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// Lets everything that is under way come to its end, by kicks and interrupts only.
    pub fn finish_all(&mut self) {
        self.pass_on();
        self.parties.driver.borrow_mut().interrupt();
        while self.parties.device.borrow().holds() > 0 {
            let n = 1 + self.random.below(4);
            self.finish(n);
            self.pass_on();
        }
        assert_eq!(self.parties.driver.borrow().waiting(), 0, "lost");
        assert_eq!(self.ring.in_flight(), 0);
        self.parties.driver.borrow().check();
    }

    /// The ring, for what a test does with it besides.
    pub fn ring(&mut self) -> (&mut Ring<Vec<Slot>>, &Ram) {
        (&mut self.ring, &self.ram)
    }

    /// The layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// How often the host was lost, and how often several requests were shown as used at once.
    pub fn seen(&self) -> (u64, u64) {
        (self.restores, self.published_many)
    }

    /// The fault that a call finds.
    pub fn fault(&mut self) -> Option<Fault> {
        self.ring.submit(&*self.ram).err()
    }
}

fn slots(size: u16) -> Vec<Slot> {
    vec![Slot::default(); usize::from(size)]
}
