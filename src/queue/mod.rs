// SPDX-License-Identifier: GPL-2.0

//! Virtqueues as the VMM sees them: shadow rings at work.
//!
//! While a queue is enabled, the pages of its available and used ring are pages of ours in the VMM's view
//! of RAM. `ring` says what is copied between both views; this room says when: at each kick and
//! before each interrupt, wherever they come from.
//!
//! Lock order, from the outside in: `Vm::inner`; [`Queues::control`] (mutex); the mapping lock of
//! the VMM's view of RAM; then without sleeping: the wait queue of an eventfd; the lock of a queue.
//! `Queues::all` is a leaf. No eventfd is signalled under any but the mutex.
//!
//! Memory of the guest is touched only through the maps of queues, and those are dropped only with the
//! mutex held. So when [`Queues::end`] has returned, nothing here touches it any more.

mod commands;
mod ground;
mod hook;
mod ioctl;
mod live;
mod look;
mod memory;
mod migrate;
mod refused;
mod seal;

pub(crate) use commands::Tell;
pub(crate) use ioctl::{concerns, ioctl};
pub(crate) use refused::Refused;

use crate::{
    format::HeaderView,
    life::Name,
    ram::adopt::Ram,
    ring::{Layout, Occasion, Ring},
    shadow::{Control as Told, Interrupt, Space},
    state::{
        commands::AllCommands,
        kvm_events::Message,
        queues::{QueueId, SavedQueues},
    },
    sys::compat::{new_spinlock_irq, SpinLockIrq},
};
use commands::Learned;
use ground::Ground;
use hook::{Hook, Targets};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
};
use live::{Live, Queue, Slots};
use memory::{Map, Shadowed};

/// The write of the guest by which a driver notifies a device.
#[derive(Clone, Copy)]
pub(crate) struct Notify {
    /// Address space.
    pub(crate) space: Space,
    /// Port, or guest-physical address.
    pub(crate) addr: u64,
    /// The value written, as wide as it is written.
    pub(crate) value: u64,
}

/// What is known of a queue besides its layout.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// The write that notifies the device of this queue. If it is not known, every kick of the VM
    /// counts.
    pub(crate) notify: Option<Notify>,
    /// How the device interrupts for it.
    pub(crate) interrupt: Interrupt,
    /// Whose commands go through it, if it is a control queue.
    pub(crate) control: Option<Told>,
}

/// What is about to interrupt the guest.
#[derive(Clone, Copy)]
pub(crate) enum Trigger {
    /// A message: that of a queue, or of the configuration of a device.
    Message(Message),
    /// A line that nothing is known of.
    Line,
    /// An interrupt controller in the VMM.
    Unknown,
}

impl Trigger {
    /// Shows the guest what those of `queues` have used that the interrupt may be for.
    fn show(&self, queues: &[Arc<Queue>]) {
        let mut known = false;
        for queue in queues {
            known |= queue.interrupted(self);
        }
        if known || !matches!(self, Trigger::Message(_)) {
            return;
        }
        // The VMM or KVM may send another message than the device's (interrupt remapping).
        for queue in queues {
            queue.messaged();
        }
    }
}

/// What `Queues::control` protects.
struct Control {
    /// Where the RAM is; `None` before adoption and after the end.
    ground: Option<Arc<Ground>>,
    /// What the maps of all queues are: the same one.
    map: Option<Arc<Map>>,
    /// The queues, as in `Queues::all`.
    all: Arc<Targets>,
    hooks: KVec<Hook>,
    /// Interrupt numbers that stand for messages, as KVM knows them.
    routes: KVec<(u32, Message)>,
    /// Queues of the sealed VM, until they have all been enabled again.
    sealed: Option<KVVec<u8>>,
    /// What their devices were told.
    commands: Option<KVVec<u8>>,
    frozen: bool,
}

/// The virtqueues of a VM. See the module's description.
#[pin_data]
pub(crate) struct Queues {
    #[pin]
    control: Mutex<Control>,
    /// The queues in use, for those who must not wait for the mutex.
    #[pin]
    all: SpinLockIrq<Arc<Targets>>,
}

impl Queues {
    /// No queue. Does not sleep.
    pub(crate) fn new() -> Result<impl PinInit<Self>> {
        let all = Arc::new(Targets::new(), GFP_ATOMIC)?;
        let control = Control {
            ground: None,
            map: None,
            all: all.clone(),
            hooks: KVec::new(),
            routes: KVec::new(),
            sealed: None,
            commands: None,
            frozen: false,
        };
        Ok(pin_init!(Self {
            control <- new_mutex!(control, "nvhv_queues"),
            all <- new_spinlock_irq!(all, "nvhv_queues_all"),
        }))
    }

    /// Learns where the VM's RAM is: at adoption, and whenever there is more of it.
    pub(crate) fn settle(&self, name: &Name, ram: &Ram, header: &HeaderView<'_>) -> Result {
        let ground = Arc::new(Ground::new(name, ram, header)?, GFP_KERNEL)?;
        let mut control = self.control.lock();
        let shadowed = match &control.map {
            Some(map) => copied(map.shadowed())?,
            None => KVec::new(),
        };
        let map = Arc::new(Map::new(ground.clone(), shadowed), GFP_KERNEL)?;
        control.ground = Some(ground);
        control.remap(map);
        Ok(())
    }

    /// The driver has enabled a queue, and the VMM does not know yet: from here on it is shadowed. If
    /// the VM is being resumed, the queue goes on as it was sealed.
    pub(crate) fn enable(
        &self,
        id: QueueId,
        layout: &Layout,
        options: Options,
    ) -> core::result::Result<(), Refused> {
        layout.check()?;
        let mut control = self.control.lock();
        // A driver that enables a queue again has reset it in between, seen or not.
        control.remove(&self.all, |queue| queue.id == id)?;
        let ground = control.ground.clone().ok_or(Refused::NotReady)?;
        let slots = Slots::new(layout.size)?;
        let pages = live::pages(layout, options.control.is_some());
        let map = control.map_with(&ground, pages)?;
        // The queues that are there see the new pages first: their buffers may lie beside this ring.
        let old = control.map.clone();
        control.remap(map.clone());
        let done = control
            .live(id, layout, options.control, slots, map)
            .and_then(|live| {
                let resumed = control.sealed.is_some();
                Ok(Queue::new(
                    id,
                    *layout,
                    options,
                    live,
                    control.frozen,
                    resumed,
                )?)
            })
            .and_then(|queue| Ok(control.add(&self.all, queue)?));
        if done.is_err() {
            match old {
                Some(old) => control.remap(old),
                // There was no queue, and there is none.
                None => control.map = None,
            }
        }
        done
    }

    /// The VMM has reset the device: it touches none of its queues any more.
    pub(crate) fn reset(&self, device: u64) -> Result {
        let mut control = self.control.lock();
        control.remove(&self.all, |queue| queue.id.device == device)
    }

    /// The VMM has disabled one queue.
    pub(crate) fn disable(&self, id: QueueId) -> Result {
        let mut control = self.control.lock();
        control.remove(&self.all, |queue| queue.id == id)
    }

    /// The VMM has reset some devices: the queues go that `stays` does not name.
    pub(crate) fn retain(&self, stays: impl Fn(QueueId) -> bool) {
        let mut control = self.control.lock();
        // Without memory the queue stays, unused: its device touches it no more.
        let _ = control.remove(&self.all, |queue| !stays(queue.id));
    }

    /// The guest has notified a queue by an exit to the VMM, who does not know yet.
    pub(crate) fn kick(&self, id: QueueId) {
        let all = self.all.lock().clone();
        for queue in all.iter().filter(|queue| queue.id == id) {
            queue.submit();
        }
    }

    /// The VMM is about to interrupt the guest.
    fn interrupted(&self, trigger: Trigger) {
        let all = self.all.lock().clone();
        trigger.show(&all);
    }

    /// The guest's driver of a device is about to look at its rings.
    pub(crate) fn driver_looks(&self, device: u64) {
        let all = self.all.lock().clone();
        for queue in all.iter().filter(|queue| queue.id.device == device) {
            queue.complete(Occasion::Interrupt);
        }
    }

    /// A device interrupts otherwise than before for some of its queues.
    pub(crate) fn set_interrupts(&self, device: u64, interrupt: impl Fn(u16) -> Interrupt) {
        let all = self.all.lock().clone();
        for queue in all.iter().filter(|queue| queue.id.device == device) {
            queue.set_interrupt(interrupt(queue.id.queue));
        }
    }

    /// The VM is gone, or refused: no eventfd is watched and no memory touched any more.
    pub(crate) fn end(&self) {
        let mut control = self.control.lock();
        control.hooks = KVec::new();
        for queue in control.all.clone().iter() {
            drop(queue.retire());
        }
        control.map = None;
        control.ground = None;
        control.sealed = None;
    }
}

impl Control {
    /// The map with these pages in it.
    fn map_with(
        &self,
        ground: &Arc<Ground>,
        pages: impl Iterator<Item = u64>,
    ) -> core::result::Result<Arc<Map>, Refused> {
        let mut shadowed = match &self.map {
            Some(map) => copied(map.shadowed())?,
            None => KVec::new(),
        };
        for gpa in pages {
            let Err(at) = shadowed.binary_search_by_key(&gpa, |entry: &Shadowed| entry.gpa) else {
                // Another queue's page as well, or one that came before.
                continue;
            };
            let page = ground
                .overlay(gpa)
                .map_err(|why| Refused::Page { gpa, why })?;
            let page = Arc::new(page, GFP_KERNEL)?;
            shadowed.push(Shadowed { gpa, page }, GFP_KERNEL)?;
            if let Some(tail) = shadowed.get_mut(at..) {
                tail.rotate_right(1);
            }
        }
        Ok(Arc::new(Map::new(ground.clone(), shadowed), GFP_KERNEL)?)
    }

    /// Gives all queues another map. The last of the old ones is dropped here, and its pages with it.
    fn remap(&mut self, map: Arc<Map>) {
        for queue in self.all.iter() {
            drop(queue.remap(map.clone()));
        }
        self.map = Some(map);
    }

    /// A queue that is being enabled.
    fn live(
        &self,
        id: QueueId,
        layout: &Layout,
        control: Option<Told>,
        slots: Slots,
        map: Arc<Map>,
    ) -> core::result::Result<Live, Refused> {
        let learned = |control| Learned::new(control, layout);
        let Some(sealed) = &self.sealed else {
            let mut ring = Ring::new(*layout, slots)?;
            ring.start(&*map)?;
            let commands = control.map(learned).transpose()?;
            return Ok(Live {
                ring,
                map,
                commands,
            });
        };
        let saved = SavedQueues::parse(sealed)
            .and_then(|saved| saved.find(id))
            .ok_or(Refused::Sealed("it was not in use"))?;
        if saved.layout != *layout {
            return Err(Refused::Sealed("it was at another place"));
        }
        let ring = saved.ring.ok_or(Refused::Sealed("it stood still"))?;
        let told = self.commands.as_deref().and_then(AllCommands::parse);
        let commands = match (control, told.and_then(|told| told.find(id))) {
            (Some(control), Some(told)) => Some(Learned::restore(control, layout, &told)?),
            (control, _) => control.map(learned).transpose()?,
        };
        let ring = if commands.as_ref().is_some_and(Learned::is_due) {
            Ring::restore_telling(*layout, slots, ring, &*map)?
        } else {
            Ring::restore(*layout, slots, ring, &*map)?
        };
        Ok(Live {
            ring,
            map,
            commands,
        })
    }

    /// Notifies the device of a queue by eventfds, if there is one for that.
    fn ring(&self, queue: &Queue) -> bool {
        let mut rung = false;
        for hook in self.hooks.iter().filter(|hook| hook.rings(queue)) {
            hook.event().signal();
            rung = true;
        }
        rung
    }

    /// Takes a queue into use.
    fn add(&mut self, published: &SpinLockIrq<Arc<Targets>>, queue: Arc<Queue>) -> Result {
        let mut all = Targets::with_capacity(self.all.len() + 1, GFP_KERNEL)?;
        for other in self.all.iter() {
            all.push(other.clone(), GFP_KERNEL)?;
        }
        all.push(queue, GFP_KERNEL)?;
        self.publish(published, Arc::new(all, GFP_KERNEL)?)
    }

    /// Takes queues out of use.
    fn remove(
        &mut self,
        published: &SpinLockIrq<Arc<Targets>>,
        goes: impl Fn(&Queue) -> bool,
    ) -> Result {
        if !self.all.iter().any(|queue| goes(queue)) {
            return Ok(());
        }
        let mut all = Targets::new();
        for queue in self.all.iter().filter(|queue| !goes(queue)) {
            all.push(queue.clone(), GFP_KERNEL)?;
        }
        let old = self.all.clone();
        self.publish(published, Arc::new(all, GFP_KERNEL)?)?;
        for queue in old.iter().filter(|queue| goes(queue)) {
            drop(queue.retire());
        }
        let (Some(ground), Some(map)) = (&self.ground, &self.map) else {
            return Ok(());
        };
        // Pages go that no queue has any more.
        let mut shadowed = KVec::new();
        for entry in map.shadowed() {
            if self.all.iter().any(|queue| queue.needs(entry.gpa)) {
                shadowed.push(entry.clone(), GFP_KERNEL)?;
            }
        }
        let map = Arc::new(Map::new(ground.clone(), shadowed), GFP_KERNEL)?;
        self.remap(map);
        Ok(())
    }

    /// Makes `all` the queues in use. If it fails, nothing has changed.
    fn publish(&mut self, published: &SpinLockIrq<Arc<Targets>>, all: Arc<Targets>) -> Result {
        let targets = self.targets(&all)?;
        let old = core::mem::replace(&mut *published.lock(), all.clone());
        drop(old);
        self.all = all;
        self.retarget(targets);
        Ok(())
    }

    /// What each of the hooks stands for if `all` are the queues in use.
    fn targets(&self, all: &Arc<Targets>) -> Result<KVec<Option<Arc<Targets>>>> {
        let mut targets = KVec::with_capacity(self.hooks.len(), GFP_KERNEL)?;
        for hook in self.hooks.iter() {
            targets.push(hook.targets(all)?, GFP_KERNEL)?;
        }
        Ok(targets)
    }

    fn retarget(&self, targets: KVec<Option<Arc<Targets>>>) {
        for (hook, targets) in self.hooks.iter().zip(targets) {
            hook.retarget(targets);
        }
    }

    /// Looks anew for what each of the hooks stands for.
    fn retarget_all(&self) -> Result {
        let targets = self.targets(&self.all)?;
        self.retarget(targets);
        Ok(())
    }

    /// What interrupt `gsi` is.
    fn trigger(&self, gsi: u32) -> Trigger {
        let route = self.routes.iter().find(|(number, _)| *number == gsi);
        route.map_or(Trigger::Line, |(_, message)| Trigger::Message(*message))
    }

    /// Forgets hooks that nobody can use or disconnect any more.
    fn sweep(&mut self) {
        self.hooks.retain(|hook| !hook.is_closed());
    }
}

fn copied(shadowed: &[Shadowed]) -> Result<KVec<Shadowed>> {
    let mut copy = KVec::with_capacity(shadowed.len() + 1, GFP_KERNEL)?;
    for entry in shadowed {
        copy.push(entry.clone(), GFP_KERNEL)?;
    }
    Ok(copy)
}
