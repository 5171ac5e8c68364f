// SPDX-License-Identifier: GPL-2.0

//! What drivers tell their devices through control virtqueues: learned as it passes, kept in the
//! record, and told again to the devices of the next VMM.

use super::{live::Queue, Notify, Queues, Refused};
use crate::{
    pool::store::{buffer, copied},
    ring::{told_room, Layout, Memory, Request},
    shadow::{Commands, Control, Lost, Used},
    state::{
        commands::{entry_len, header_len, AllCommands, SavedCommands, Writer},
        queues::QueueId,
    },
    sys::compat::EUCLEAN,
};
use kernel::{
    prelude::*,
    time::{Instant, Monotonic},
};

/// Bytes for what one device was told: each VLAN that there can be, and some more.
const ROOM: usize = 48 << 10;
/// The longest command that is kept.
const LONGEST: usize = 4 << 10;

/// How long a device may take for one command. It may have to start and stop workers of the kernel.
const PATIENCE_MS: i64 = 10_000;

/// What the device of one queue was told.
pub(super) struct Learned {
    commands: Commands<KVVec<u8>>,
    /// It has been said that the VM cannot be sealed.
    lost_said: bool,
    /// The device of this VMM has to be told, or is being told.
    turn: Option<Turn>,
}

/// Where telling the device again stands.
struct Turn {
    /// Where the next command is in the list.
    next: usize,
    /// The device has one, since then.
    waiting: bool,
    since: Instant<Monotonic>,
}

/// What is to be done next to tell a device.
pub(super) enum Step {
    /// Nothing: it has been told all, or cannot be told.
    Done,
    /// It has not answered yet.
    Wait,
    /// It has to be notified.
    Ring,
}

/// What is to be done next to tell all devices.
pub(crate) enum Tell {
    /// Nothing.
    Done,
    /// To wait for one.
    Wait,
    /// To show the VMM this write of the guest.
    Notify(QueueId, Notify),
}

impl Learned {
    /// A queue that lies so, whose commands are `control`'s.
    pub(super) fn new(control: Control, layout: &Layout) -> core::result::Result<Self, Refused> {
        Self::with(Commands::new(control, buffer(ROOM)?, longest(layout)))
    }

    /// The same when the VM was sealed.
    pub(super) fn restore(
        control: Control,
        layout: &Layout,
        saved: &SavedCommands<'_>,
    ) -> core::result::Result<Self, Refused> {
        if saved.device_type != control.device_type() {
            return Err(Refused::Sealed("its device was another one"));
        }
        let room = buffer(ROOM)?;
        let commands = Commands::restore(control, room, longest(layout), saved.commands);
        let mut learned = Self::with(commands)?;
        if !saved.commands.is_empty() {
            learned.turn = Some(Turn {
                next: 0,
                waiting: false,
                since: Instant::now(),
            });
        }
        Ok(learned)
    }

    fn with(commands: Option<Commands<KVVec<u8>>>) -> core::result::Result<Self, Refused> {
        Ok(Self {
            commands: commands.ok_or(Refused::Sealed("what its device was told makes no sense"))?,
            lost_said: false,
            turn: None,
        })
    }

    /// Whether the device has to be told something before it is shown requests.
    pub(super) fn is_due(&self) -> bool {
        self.turn.is_some()
    }

    /// The device has used a request.
    pub(super) fn used<M: Memory>(&mut self, request: &Request<'_, M>) {
        self.commands.learn(|room| {
            let (len, answer) = request.read(room)?;
            Some(Used { len, answer })
        });
    }

    /// Why what the device was told is not known, if it is so and has not been said.
    pub(super) fn newly_lost(&mut self) -> Option<Lost> {
        let lost = self.commands.lost()?;
        (!core::mem::replace(&mut self.lost_said, true)).then_some(lost)
    }
}

fn longest(layout: &Layout) -> usize {
    told_room(layout).min(LONGEST)
}

impl Queue {
    /// Goes on telling the device what it was told.
    fn tell_next(&self) -> Step {
        let step = self.with_live(|live, frozen| {
            let Some(learned) = &mut live.commands else {
                return Ok(Step::Done);
            };
            let Some(turn) = &mut learned.turn else {
                return Ok(Step::Done);
            };
            if frozen {
                // The device does nothing while the VMM's view of RAM is closed.
                turn.since = Instant::now();
                return Ok(Step::Wait);
            }
            let control = learned.commands.control();
            if turn.waiting {
                match live.ring.told(&*live.map)? {
                    crate::ring::Told::Waiting
                        if turn.since.elapsed().as_millis() < PATIENCE_MS =>
                    {
                        return Ok(Step::Wait);
                    }
                    crate::ring::Told::Waiting => {
                        live.ring.give_up_telling();
                        learned.turn = None;
                        self.warn(
                            &live.map,
                            "does not take again what it was told, and stands still",
                        );
                        return Ok(Step::Done);
                    }
                    crate::ring::Told::Used(answer) => {
                        turn.waiting = false;
                        if !control.is_done(answer) {
                            self.warn(&live.map, "refused something that it had been told before");
                        }
                    }
                }
            }
            while let Some((command, next)) = learned.commands.at(turn.next) {
                turn.next = next;
                let parts = control.parts(command);
                if live.ring.tell(&*live.map, parts, control.answers())? {
                    turn.waiting = true;
                    turn.since = Instant::now();
                    return Ok(Step::Ring);
                }
                self.warn(
                    &live.map,
                    "cannot be told something that it had been told before",
                );
            }
            learned.turn = None;
            live.ring.told_all(&*live.map)?;
            Ok(Step::Done)
        });
        step.unwrap_or(Step::Done)
    }

    /// Nobody knows how to notify the device.
    fn tell_nobody(&self) {
        self.with_live(|live, _| {
            if let Some(learned) = &mut live.commands {
                learned.turn = None;
                live.ring.give_up_telling();
                self.warn(&live.map, "cannot be notified, and stands still");
            }
            Ok(())
        });
    }
}

impl Queues {
    /// Goes on telling the devices of this VMM, which run already, what those of the last one were told,
    /// and then that there are requests. Does not wait for them.
    pub(crate) fn tell(&self) -> Tell {
        let control = self.control.lock();
        for queue in control.all.iter() {
            match queue.tell_next() {
                Step::Done => {}
                Step::Wait => return Tell::Wait,
                Step::Ring if control.ring(queue) => return Tell::Wait,
                Step::Ring => match queue.notify {
                    Some(notify) => return Tell::Notify(queue.id, notify),
                    None => queue.tell_nobody(),
                },
            }
        }
        // Eventfds are signalled when the VM wakes; who has none learns by an exit only.
        for queue in control.all.iter() {
            let by_event = control.hooks.iter().any(|hook| hook.rings(queue));
            if let Some(notify) = queue.notify.filter(|_| !by_event) {
                if queue.take_kick_owed() {
                    queue.submit();
                    return Tell::Notify(queue.id, notify);
                }
            }
        }
        Tell::Done
    }

    /// Whether it is not known what the device of a queue was told.
    pub(crate) fn is_lost(&self, id: QueueId) -> bool {
        let all = self.all.lock().clone();
        let mut lost = all
            .iter()
            .filter(|queue| queue.id == id)
            .filter_map(|queue| queue.with_commands(|learned| learned.commands.lost())?);
        lost.next().is_some()
    }

    /// Bytes that [`Self::save_commands`] needs.
    pub(crate) fn commands_len(&self) -> usize {
        let all = self.all.lock().clone();
        let lens = all.iter().filter_map(|queue| {
            queue.with_commands(|learned| entry_len(learned.commands.saved().len()))
        });
        header_len() + lens.sum::<usize>()
    }

    /// Saves what the devices of all queues, which are frozen, were told. Returns the bytes used; `None`
    /// if `out` is too small.
    pub(crate) fn save_commands(&self, out: &mut [u8]) -> Option<usize> {
        let all = self.all.lock().clone();
        let mut writer = Writer::new(out)?;
        for queue in all.iter() {
            let pushed = queue.with_commands(|learned| {
                writer.push(&SavedCommands {
                    id: queue.id,
                    device_type: learned.commands.control().device_type(),
                    commands: learned.commands.saved(),
                })
            });
            if pushed == Some(None) {
                return None;
            }
        }
        writer.finish()
    }

    /// The VM is being resumed, and its devices were told what `saved` says.
    pub(crate) fn load_commands(&self, saved: &[u8]) -> Result {
        AllCommands::parse(saved).ok_or(EUCLEAN)?;
        let copy = copied(saved)?;
        self.control.lock().commands = Some(copy);
        Ok(())
    }

    /// The queues of the sealed VM are enabled again. Gives one whose device was told something and that
    /// is no control queue, if there is one: then the VM cannot go on.
    pub(crate) fn commands_loaded(&self) -> Option<QueueId> {
        let mut control = self.control.lock();
        let saved = control.commands.take()?;
        let stray = AllCommands::parse(&saved)?
            .iter()
            .map(|saved| saved.id)
            .find(|id| {
                let mut all = control.all.iter();
                !all.any(|queue| queue.id == *id && queue.with_commands(|_| ()).is_some())
            });
        stray
    }
}
