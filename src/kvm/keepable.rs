// SPDX-License-Identifier: GPL-2.0

//! Whether a VM can be kept with the devices that its guest uses, and what is said if it cannot.
//!
//! Which devices a guest puts to use is not known before it does. From that moment on the VM is not keepable:
//! it is not sealed on request; an outage seals it, and says in the record why the image is not resumed.
//! Its owner may have allowed to go on without such a device's state (`Policy::PARTIAL`).

use super::{
    devices::{Devices, State},
    restore::Failure,
    vm::Vm,
};
use crate::{
    format::{
        record::{kind, VM_WIDE},
        Cause, Record, RecordWriter,
    },
    life::Policy,
    shadow::{class::UNKEPT_LEN, Machine, Unkept},
    state::queues::QueueId,
    sys::compat::{EOPNOTSUPP, ESTALE, EUCLEAN},
};
use core::sync::atomic::Ordering;
use kernel::prelude::*;

/// What stands against keeping a VM.
#[derive(Clone, Copy, Default)]
pub(crate) struct Obstacles {
    /// In use and not carried.
    all: usize,
    /// Those that the VM cannot go on without.
    fatal: usize,
    /// The first of these.
    first: Option<Unkept>,
}

impl Obstacles {
    fn add(&mut self, unkept: Unkept, policy: Policy) {
        if unkept == Unkept::Moved && policy.has(Policy::NOT_MOVED) {
            return;
        }
        self.all = self.all.saturating_add(1);
        if !(policy.has(Policy::PARTIAL) && unkept.is_dispensable()) {
            self.fatal = self.fatal.saturating_add(1);
            self.first.get_or_insert(unkept);
        }
    }

    /// The item of a record as obstacles for an owner with this policy; `None` if it is not sound.
    fn in_item(item: &[u8], policy: Policy) -> Option<Self> {
        let mut obstacles = Self::default();
        Unkept::each(item)?.for_each(|unkept| obstacles.add(unkept, policy));
        Some(obstacles)
    }

    /// Those that a record has.
    pub(crate) fn in_record(record: &Record<'_>, policy: Policy) -> Option<Self> {
        match record.find(kind::UNKEPT, VM_WIDE) {
            Some(item) => Self::in_item(item.payload, policy),
            None => Some(Self::default()),
        }
    }

    /// Whether the VM is not resumed because of them.
    pub(crate) fn is_fatal(&self) -> bool {
        self.fatal > 0
    }

    /// Whether there is any.
    pub(crate) fn is_any(&self) -> bool {
        self.all > 0
    }
}

/// Refuses an image that was sealed while its guest used what it cannot be kept with.
pub(super) fn check(
    record: &Record<'_>,
    policy: Policy,
) -> core::result::Result<Obstacles, Failure> {
    let obstacles = Obstacles::in_record(record, policy)
        .ok_or_else(|| Failure::new(EUCLEAN, fmt!("its record has no sound list of devices")))?;
    match obstacles.first {
        None => Ok(obstacles),
        Some(Unkept::Moved) => Err(Failure::new(
            ESTALE,
            fmt!(
                "its VMM was migrating it, had stopped it and read its processors, so it may live elsewhere: \
                 'nvhv discard' gives this image up; if it arrived nowhere, 'nvhv run --policy moved=resume' resumes it"
            ),
        )),
        Some(first) if first.is_dispensable() => Err(Failure::new(
            EOPNOTSUPP,
            fmt!(
                "its guest used {first}, whose state is not kept: 'nvhv run --allow-partial' goes on \
                 without, 'nvhv discard' gives it up"
            ),
        )),
        Some(first) => Err(Failure::new(
            EUCLEAN,
            fmt!("its guest used {first}, which cannot go on"),
        )),
    }
}

impl Devices {
    /// Calls `f` with all that stands against keeping the VM.
    fn each_unkept(&self, vm: &Vm, state: &State, mut f: impl FnMut(Unkept)) {
        // The first, as it is what nobody may overlook.
        if vm.may_have_moved() {
            f(Unkept::Moved);
        }
        if state.elsewhere {
            f(Unkept::Elsewhere);
        }
        if state.passed_through {
            f(Unkept::PassedThrough);
        }
        let Some(machine) = state.machine() else {
            return;
        };
        machine.unkept().for_each(&mut f);
        for (device, _) in machine.virtio() {
            for index in machine.queues(device).map(|queue| queue.index) {
                let id = QueueId {
                    device: device.to_raw(),
                    queue: index,
                };
                let is_live = machine.layout(device, index).is_some();
                let goes_on =
                    matches!(self.queues.look(id), Some(Ok(_))) && !self.queues.is_lost(id);
                if is_live && !goes_on {
                    f(Unkept::Queue {
                        device,
                        queue: index,
                    });
                }
            }
        }
    }

    fn obstacles_in(&self, vm: &Vm, state: &State) -> Obstacles {
        let policy = state.policy;
        let mut obstacles = Obstacles::default();
        self.each_unkept(vm, state, |unkept| obstacles.add(unkept, policy));
        obstacles
    }

    /// What stands against keeping the VM now.
    pub(crate) fn obstacles(&self, vm: &Vm) -> Obstacles {
        self.obstacles_in(vm, &self.state.lock())
    }

    /// Says, once, that a device was put to use that the VM cannot be kept with.
    pub(super) fn notice(&self, machine: &mut Machine, policy: Policy) {
        if !machine.take_news() {
            return;
        }
        let Some(first) = machine.unkept().next() else {
            return;
        };
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let name = self.binding.name();
        if policy.has(Policy::PARTIAL) {
            pr_info!("{name}: its guest uses {first}: it goes on without that device's state\n");
        } else {
            pr_warn!(
                "{name}: cannot be kept any more: its guest uses {first}, whose state is not carried; \
                 'nvhv run --allow-partial' would go on without\n"
            );
        }
    }

    /// A device of the host was given to the VM.
    pub(super) fn passed_through(&self) {
        self.state.lock().passed_through = true;
        pr_warn!(
            "{}: cannot be kept any more: it has {}\n",
            self.binding.name(),
            Unkept::PassedThrough
        );
    }

    /// The guest has run before, in another VMM: what it has configured of its devices is not known here.
    pub(super) fn configured_elsewhere(&self) {
        self.state.lock().elsewhere = true;
        pr_warn!(
            "{}: cannot be kept until its guest reboots: it uses {} (a migration, or a snapshot)\n",
            self.binding.name(),
            Unkept::Elsewhere
        );
    }

    /// Says in the record what the VM is not kept with. On request, such a VM is not sealed.
    pub(super) fn capture_unkept(
        &self,
        vm: &Vm,
        state: &State,
        cause: Cause,
        writer: &mut RecordWriter<'_>,
    ) -> Result {
        let obstacles = self.obstacles_in(vm, state);
        if let Some(first) = obstacles.first {
            let more = obstacles.fatal - 1;
            let more = if more > 0 { " and others" } else { "" };
            if cause == Cause::REQUEST && first == Unkept::Moved {
                return Err(self.refuse(vm, fmt!("it has been migrated, or is being migrated")));
            }
            if cause == Cause::REQUEST {
                return Err(
                    self.refuse(vm, fmt!("its guest uses {first}{more}, which is not kept"))
                );
            }
            let name = self.binding.name();
            match first {
                Unkept::Moved => pr_warn!("{name}: its image will not be resumed: it may live elsewhere, as its VMM was migrating it\n"),
                _ => pr_warn!("{name}: its image will not be resumed: its guest used {first}{more}, which is not kept\n"),
            }
        }
        if !obstacles.is_any() {
            return Ok(());
        }
        writer.push_up_to(kind::UNKEPT, VM_WIDE, obstacles.all * UNKEPT_LEN, |room| {
            let mut rest = room.chunks_exact_mut(UNKEPT_LEN);
            let mut len = 0;
            self.each_unkept(vm, state, |unkept| {
                // A ring may break meanwhile: there is one line less for it in the record then.
                if let Some(to) = rest.next() {
                    to.copy_from_slice(&unkept.encode());
                    len += UNKEPT_LEN;
                }
            });
            Ok::<_, Error>(len)
        })
    }

    /// A seal is refused: says why, in the log and to those who ask.
    pub(super) fn refuse(&self, vm: &Vm, why: kernel::fmt::Arguments<'_>) -> Error {
        pr_err!("{}: cannot be sealed: {why}\n", self.binding.name());
        vm.host.note_refusal(self.binding.id(), EOPNOTSUPP, why);
        EOPNOTSUPP
    }
}
