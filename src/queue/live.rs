// SPDX-License-Identifier: GPL-2.0

//! One virtqueue that is shown to the VMM as a shadow ring.
//!
//! Kicks and interrupts come from processors in the guest, from threads of the VMM, from vhost workers
//! and from interrupts, so all of it happens under one spinlock with interrupts off.

use super::{commands::Learned, memory::Map, Trigger};
use crate::{
    ring::{Completed, Fault, Layout, Occasion, Ring, Slot},
    shadow::Interrupt,
    state::{kvm_events::Message, queues::QueueId},
    sys::{
        c,
        compat::{new_spinlock_irq, SpinLockIrq},
        timer::{Tick, Timer},
    },
};
use core::sync::atomic::{AtomicBool, Ordering};
use kernel::{prelude::*, sync::Arc};

/// How often a queue that the guest polls is looked at while the device has requests.
const POLL_NS: u64 = 100_000;

/// Storage of a ring.
pub(super) struct Slots(KVVec<Slot>);

impl Slots {
    /// For a ring of `size`.
    pub(super) fn new(size: u16) -> Result<Self> {
        Ok(Self(KVVec::from_elem(
            Slot::default(),
            size.into(),
            GFP_KERNEL,
        )?))
    }
}

impl AsRef<[Slot]> for Slots {
    fn as_ref(&self) -> &[Slot] {
        &self.0
    }
}

impl AsMut<[Slot]> for Slots {
    fn as_mut(&mut self) -> &mut [Slot] {
        &mut self.0
    }
}

/// A ring and the memory it works on.
pub(super) struct Live {
    pub(super) ring: Ring<Slots>,
    pub(super) map: Arc<Map>,
    /// What the device is told, if the queue is there for that.
    pub(super) commands: Option<Learned>,
}

impl Live {
    fn complete(&mut self, why: Occasion) -> core::result::Result<Completed, Fault> {
        let Self {
            ring,
            map,
            commands,
        } = self;
        match commands {
            None => ring.complete(&**map, why),
            Some(learned) => ring.complete_seen(&**map, why, |request| learned.used(&request)),
        }
    }
}

struct State {
    /// `None` once the queue is not shadowed any more.
    live: Option<Live>,
    /// Why nothing passes any more.
    fault: Option<Fault>,
    /// Nothing is copied.
    frozen: bool,
    /// How the device interrupts for it.
    interrupt: Interrupt,
}

/// See the module's description.
#[pin_data(PinnedDrop)]
pub(crate) struct Queue {
    pub(super) id: QueueId,
    pub(super) layout: Layout,
    /// Whether its device is told things by it, so that its descriptor table is shadowed as well.
    controls: bool,
    /// The write of the guest that notifies the device of this queue, if it is known.
    pub(super) notify: Option<super::Notify>,
    /// It goes on before a device that has not been notified of it.
    kick_owed: AtomicBool,
    #[pin]
    state: SpinLockIrq<State>,
    #[pin]
    timer: Timer<Queue>,
}

impl Queue {
    /// A queue that works on `live`.
    pub(super) fn new(
        id: QueueId,
        layout: Layout,
        options: super::Options,
        live: Live,
        frozen: bool,
        resumed: bool,
    ) -> Result<Arc<Self>> {
        let state = State {
            live: Some(live),
            fault: None,
            frozen,
            interrupt: options.interrupt,
        };
        Arc::pin_init(
            pin_init!(Self {
                id,
                layout,
                controls: options.control.is_some(),
                notify: options.notify,
                kick_owed: AtomicBool::new(resumed),
                state <- new_spinlock_irq!(state, "nvhv_queue"),
                timer <- Timer::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Runs one step of the engine, unless the queue is frozen, broken or gone.
    fn step<T>(&self, step: impl FnOnce(&mut Live) -> core::result::Result<T, Fault>) -> Option<T> {
        self.step_of(&mut self.state.lock(), step)
    }

    fn step_of<T>(
        &self,
        state: &mut State,
        step: impl FnOnce(&mut Live) -> core::result::Result<T, Fault>,
    ) -> Option<T> {
        self.step_frozen(state, |live, frozen| {
            (!frozen).then(|| step(live)).transpose()
        })?
    }

    /// Runs one step, frozen or not, unless the queue is broken or gone. `step` is told whether it is
    /// frozen.
    pub(super) fn with_live<T>(
        &self,
        step: impl FnOnce(&mut Live, bool) -> core::result::Result<T, Fault>,
    ) -> Option<T> {
        self.step_frozen(&mut self.state.lock(), step)
    }

    fn step_frozen<T>(
        &self,
        state: &mut State,
        step: impl FnOnce(&mut Live, bool) -> core::result::Result<T, Fault>,
    ) -> Option<T> {
        let State {
            live,
            fault,
            frozen,
            ..
        } = state;
        let live = live.as_mut().filter(|_| fault.is_none())?;
        match step(live, *frozen) {
            Ok(done) => Some(done),
            Err(why) => {
                *fault = Some(why);
                self.tell(&live.map, why);
                None
            }
        }
    }

    /// Says that the queue is broken.
    fn tell(&self, map: &Map, why: Fault) {
        self.warn(map, fmt!("stands still until it is reset: {why}"));
    }

    /// Says something about the queue.
    pub(super) fn warn(&self, map: &Map, what: impl kernel::fmt::Display) {
        // SAFETY: May be called anywhere. A guest can break a queue as often as it likes.
        if unsafe { c::nvhv_may_log() } {
            let (name, id) = (map.name(), self.id);
            pr_warn!(
                "{name}: queue {} of device {:#x} {what}\n",
                id.queue,
                id.device
            );
        }
    }

    /// Calls `f` with what the device is told by this queue, if it is there for that.
    pub(super) fn with_commands<T>(&self, f: impl FnOnce(&Learned) -> T) -> Option<T> {
        let state = self.state.lock();
        state.live.as_ref()?.commands.as_ref().map(f)
    }

    /// Whether the page at `gpa` differs for this queue.
    pub(super) fn needs(&self, gpa: u64) -> bool {
        pages(&self.layout, self.controls).any(|page| page == gpa)
    }

    /// Whether the device has yet to be notified of what the sealed queue holds. Says so once.
    pub(super) fn take_kick_owed(&self) -> bool {
        self.kick_owed.swap(false, Ordering::Relaxed)
    }

    /// The guest has made requests available: shows them to the device.
    pub(super) fn submit(&self) {
        self.step(|live| live.ring.submit(&*live.map));
        self.poll();
    }

    /// The device may have used requests: shows them to the guest. Whether the guest wants an interrupt
    /// for them is not asked: it may be for something else as well, and drivers have to live with one
    /// too many (virtio 1.3, section 2.7.7).
    pub(super) fn complete(&self, why: Occasion) {
        self.step(|live| self.complete_of(live, why));
    }

    /// An interrupt is on its way to the guest. Says whether it is this queue's.
    pub(super) fn interrupted(&self, trigger: &Trigger) -> bool {
        let mut state = self.state.lock();
        let why = match (trigger, state.interrupt) {
            (Trigger::Message(sent), Interrupt::Message { address, data, .. })
                if *sent == Message { address, data } =>
            {
                Occasion::Interrupt
            }
            (Trigger::Unknown, _) => Occasion::Interrupt,
            // Whose line it is turns out when a driver reads an interrupt status; where the VMM has the I/O
            // APIC, a line comes as a message.
            (_, Interrupt::Status(_)) => Occasion::Other,
            _ => return false,
        };
        self.step_of(&mut state, |live| self.complete_of(live, why));
        why == Occasion::Interrupt
    }

    /// A message is on its way that is no queue's as far as is known: it may be this one's.
    pub(super) fn messaged(&self) {
        let mut state = self.state.lock();
        if matches!(state.interrupt, Interrupt::Message { .. }) {
            self.step_of(&mut state, |live| {
                self.complete_of(live, Occasion::Interrupt)
            });
        }
    }

    /// Looks at the used ring in the guest's place, if that is how the guest waits: it has chosen no
    /// interrupt for the queue (section 4.1.5.1.2), or it has a line and wants no interrupt. A VMM may keep
    /// the level of a line to itself: where it masks the line in an interrupt controller of its own, or
    /// where it is high already. Says whether to go on.
    fn look_for_guest(&self, state: &mut State) -> bool {
        let by_line = match state.interrupt {
            Interrupt::Message { .. } => return false,
            Interrupt::Status(_) => true,
            Interrupt::None => false,
        };
        let waits = self.step_of(state, |live| {
            if by_line && live.ring.expects_interrupt(&*live.map)? {
                return Ok(false);
            }
            self.complete_of(live, Occasion::Interrupt)?;
            Ok(live.ring.in_flight() > 0)
        });
        waits == Some(true)
    }

    fn complete_of(&self, live: &mut Live, why: Occasion) -> core::result::Result<(), Fault> {
        live.complete(why)?;
        let lost = live.commands.as_mut().and_then(Learned::newly_lost);
        if let Some(why) = lost {
            self.warn(
                &live.map,
                fmt!("{why}: until it is reset, the VM cannot be sealed"),
            );
        }
        Ok(())
    }

    fn poll(&self) {
        let waits = self.look_for_guest(&mut self.state.lock());
        if waits {
            // SAFETY: The timer is a part of `self`, which cancels it when it is dropped.
            unsafe { self.timer.start(self, POLL_NS) };
        }
    }

    /// The device interrupts otherwise from now on.
    pub(super) fn set_interrupt(&self, interrupt: Interrupt) {
        self.state.lock().interrupt = interrupt;
        self.poll();
    }

    /// From here on nothing is copied, or it is again.
    pub(super) fn set_frozen(&self, frozen: bool) {
        self.state.lock().frozen = frozen;
        self.poll();
    }

    /// Gives the queue another map of the same memory; returns the one it had. Both are dropped
    /// where it is allowed to sleep.
    ///
    /// Where more pages differ than before, requests in flight may have buffers: what their device
    /// writes there has to be carried back from now on. That is found out before anything is copied by
    /// the new map. Nothing is copied for it, so a frozen queue does it as well.
    pub(super) fn remap(&self, map: Arc<Map>) -> Option<Arc<Map>> {
        let mut state = self.state.lock();
        let State { live, fault, .. } = &mut *state;
        let live = live.as_mut()?;
        let more = map.has_more_than(&live.map);
        let old = core::mem::replace(&mut live.map, map);
        if more && fault.is_none() {
            if let Err(why) = live.ring.look_again(&*live.map) {
                *fault = Some(why);
                self.tell(&live.map, why);
            }
        }
        Some(old)
    }

    /// Takes the queue out of use: from here on nobody touches its memory.
    pub(super) fn retire(&self) -> Option<Live> {
        let live = self.state.lock().live.take();
        self.timer.cancel();
        live
    }

    /// Requests in flight, or why nothing passes any more.
    pub(super) fn look(&self) -> core::result::Result<u16, Fault> {
        let state = self.state.lock();
        match (&state.fault, &state.live) {
            (Some(why), _) => Err(*why),
            (None, live) => Ok(live.as_ref().map_or(0, |live| live.ring.in_flight())),
        }
    }

    /// Whether another device could go on with the guest's ring.
    pub(super) fn counts_alike(&self) -> bool {
        let state = self.state.lock();
        let live = state.live.as_ref().filter(|_| state.fault.is_none());
        live.is_some_and(|live| live.ring.counts_alike())
    }

    /// Saves the ring. `None` if it is broken, or `out` too small.
    pub(super) fn save(&self, out: &mut [u8]) -> Option<usize> {
        let state = self.state.lock();
        let live = state.live.as_ref().filter(|_| state.fault.is_none())?;
        live.ring.save(out)
    }
}

/// Guest-physical addresses of the pages that differ for a queue. Some may come twice.
pub(super) fn pages(layout: &Layout, controls: bool) -> impl Iterator<Item = u64> {
    let table = controls.then(|| layout.table_pages());
    Iterator::chain(layout.pages(), table.into_iter().flatten())
}

impl Tick for Queue {
    fn tick(&self) -> Option<u64> {
        self.look_for_guest(&mut self.state.lock())
            .then_some(POLL_NS)
    }
}

#[pinned_drop]
impl PinnedDrop for Queue {
    fn drop(self: Pin<&mut Self>) {
        self.timer.cancel();
    }
}
