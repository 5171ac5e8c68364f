// SPDX-License-Identifier: GPL-2.0

//! Eventfds that the VMM has connected to its VM, and the queues that they stand for.
//!
//! A guest's write to an address of KVM_IOEVENTFD signals the eventfd inside KVM, and what signals an
//! eventfd of KVM_IRQFD raises an interrupt inside KVM: no exit, and no ioctl, tells of either. So these
//! eventfds are watched. The watch of a kick shows the device what is available before the VMM or a
//! vhost worker can learn of the kick; the watch of an interrupt shows the guest what is used before
//! KVM can raise the interrupt.
//!
//! An eventfd is watched only while it stands for queues: nobody else's eventfd is touched, and one
//! whose watch has priority cannot be given to KVM_IRQFD any more.

use super::{live::Queue, Trigger};
use crate::{
    state::kvm_events::Doorbell,
    sys::eventfd::{Event, EventFd, Verdict, Watch, Watcher},
};
use core::{mem, pin::Pin};
use kernel::{prelude::*, sync::Arc};

/// Queues, as those see them who must not sleep.
pub(super) type Targets = KVec<Arc<Queue>>;

/// What an eventfd is to the VM.
pub(super) enum Role {
    /// It is signalled by these writes of the guest.
    Kick(KVec<Doorbell>),
    /// It raises this interrupt, or is about to be connected to it.
    Interrupt { gsi: u32, connected: bool },
}

/// An eventfd that the VMM has connected to its VM.
pub(super) struct Hook {
    pub(super) role: Role,
    watch: Pin<KBox<Watch<Bell>>>,
}

/// What the watch of an eventfd knows.
struct Bell {
    /// The interrupt that it raises; `None` for one that kicks.
    trigger: Option<Trigger>,
    /// What it stands for. It is replaced, and dropped, where it is allowed to sleep.
    targets: Option<Arc<Targets>>,
    frozen: bool,
    /// It was signalled while it was frozen.
    missed: bool,
    closed: bool,
}

impl Watcher for Bell {
    fn seen(&mut self, event: Event) -> Verdict {
        if event == Event::Closed {
            self.closed = true;
            return Verdict::Pass;
        }
        if self.frozen {
            self.missed = true;
            // The VM is being captured: its interrupt controllers must not change. The VMM, though, may
            // know of a kick: it can do nothing about it while its view of RAM is closed.
            return match self.trigger {
                None => Verdict::Pass,
                Some(_) => Verdict::Keep,
            };
        }
        let Some(targets) = &self.targets else {
            return Verdict::Pass;
        };
        match &self.trigger {
            None => targets.iter().for_each(|queue| queue.submit()),
            Some(trigger) => trigger.show(targets),
        }
        Verdict::Pass
    }
}

impl Hook {
    /// An eventfd that stands for no queue yet.
    pub(super) fn new(event: EventFd, role: Role, frozen: bool) -> Result<Self> {
        let bell = Bell {
            trigger: match role {
                Role::Kick(_) => None,
                Role::Interrupt { .. } => Some(Trigger::Line),
            },
            targets: None,
            frozen,
            missed: false,
            closed: false,
        };
        Ok(Self {
            role,
            watch: Watch::new(event, bell)?,
        })
    }

    /// The eventfd.
    pub(super) fn event(&self) -> &EventFd {
        self.watch.event()
    }

    /// Whether it is that of `event` for interrupt `gsi`.
    pub(super) fn is_interrupt(&self, event: &EventFd, gsi: u32, is_connected: bool) -> bool {
        matches!(self.role, Role::Interrupt { gsi: mine, connected }
            if mine == gsi && connected == is_connected)
            && self.event().is(event)
    }

    /// Whether nobody has a descriptor of it any more, and nobody can ask to disconnect it.
    pub(super) fn is_closed(&self) -> bool {
        self.watch.with(|bell| bell.closed)
    }

    /// Which of the queues in `all` it stands for. An interrupt may be any queue's: which, is asked when
    /// it is raised, as a driver may move it at any time.
    pub(super) fn targets(&self, all: &Arc<Targets>) -> Result<Option<Arc<Targets>>> {
        let doorbells = match &self.role {
            Role::Kick(doorbells) => doorbells,
            Role::Interrupt { connected, .. } => {
                return Ok((*connected && !all.is_empty()).then(|| all.clone()));
            }
        };
        let mut mine = KVec::new();
        for queue in all.iter().filter(|queue| is_rung(queue, doorbells)) {
            mine.push(queue.clone(), GFP_KERNEL)?;
        }
        if mine.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(mine, GFP_KERNEL)?))
    }

    /// The interrupt that it raises is this one from now on.
    pub(super) fn set_trigger(&self, trigger: Trigger) {
        self.watch.with(|bell| bell.trigger = Some(trigger));
    }

    /// Whether it notifies the device of `queue`.
    pub(super) fn rings(&self, queue: &Queue) -> bool {
        matches!(&self.role, Role::Kick(doorbells) if is_rung(queue, doorbells))
    }

    /// Lets it stand for other queues. When this returns, those that are gone are not touched.
    pub(super) fn retarget(&self, targets: Option<Arc<Targets>>) {
        let any = targets.is_some();
        let old = self
            .watch
            .with(|bell| mem::replace(&mut bell.targets, targets));
        drop(old);
        self.watch.as_ref().place(any);
    }

    /// From here on it passes nothing on; when this returns, nothing is on its way, into KVM
    /// included.
    pub(super) fn freeze(&self) {
        self.watch.with(|bell| bell.frozen = true);
    }

    /// It passes events on again. Says whether it was signalled meanwhile.
    pub(super) fn thaw(&self) -> bool {
        self.watch.with(|bell| {
            bell.frozen = false;
            mem::take(&mut bell.missed)
        })
    }

    /// Whether it stands for a queue.
    pub(super) fn is_used(&self) -> bool {
        self.watch.with(|bell| bell.targets.is_some())
    }
}

fn is_rung(queue: &Queue, doorbells: &[Doorbell]) -> bool {
    let Some(notify) = &queue.notify else {
        return true;
    };
    doorbells
        .iter()
        .any(|bell| bell.may_be(notify.space, notify.addr, 0, notify.value))
}
