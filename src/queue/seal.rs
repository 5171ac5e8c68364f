// SPDX-License-Identifier: GPL-2.0

//! Queues across an outage: frozen, saved, restored, thawed.

use super::{live::Slots, Queues};
use crate::{
    pool::store::copied,
    ring::{Occasion, Ring},
    state::queues::{entry_len, header_len, QueueId, SavedQueues, Writer},
    sys::compat::EUCLEAN,
};
use kernel::prelude::*;

impl Queues {
    /// From here on nothing is copied between the views, and no eventfd raises an interrupt. When this
    /// returns, nothing is on its way. The gate is closed already.
    pub(crate) fn freeze(&self) {
        let mut control = self.control.lock();
        control.frozen = true;
        for hook in control.hooks.iter() {
            hook.freeze();
        }
        for queue in control.all.iter() {
            queue.set_frozen(true);
        }
    }

    /// The VM runs on: what has been made available or used meanwhile is shown, and what was
    /// signalled is signalled again. The VMM's view of RAM is open again, or is just about to be.
    pub(crate) fn thaw(&self) {
        let mut control = self.control.lock();
        if !core::mem::take(&mut control.frozen) {
            return;
        }
        for queue in control.all.iter() {
            queue.set_frozen(false);
            queue.submit();
            // A thread of the VMM may be about to interrupt.
            queue.complete(Occasion::Other);
        }
        for hook in control.hooks.iter() {
            if hook.thaw() {
                hook.event().signal();
            }
        }
    }

    /// Bytes that [`Self::save`] needs.
    pub(crate) fn saved_len(&self) -> usize {
        let all = self.all.lock().clone();
        let queues = all
            .iter()
            .map(|queue| entry_len(Ring::<Slots>::saved_len(queue.layout.size)));
        header_len() + queues.sum::<usize>()
    }

    /// Saves all queues, which are frozen, into `out`. Returns the bytes used; `None` if that is too
    /// small.
    pub(crate) fn save(&self, out: &mut [u8]) -> Option<usize> {
        let all = self.all.lock().clone();
        let mut writer = Writer::new(out)?;
        for queue in all.iter() {
            let len = Ring::<Slots>::saved_len(queue.layout.size);
            let save = queue
                .look()
                .is_ok()
                .then_some(|room: &mut [u8]| queue.save(room));
            writer.push(queue.id, &queue.layout, len, save)?;
        }
        writer.finish()
    }

    /// The VM is being resumed with the queues in `saved`: each goes on when it is enabled.
    pub(crate) fn load(&self, saved: &[u8]) -> Result {
        SavedQueues::parse(saved).ok_or(EUCLEAN)?;
        let copy = copied(saved)?;
        self.control.lock().sealed = Some(copy);
        Ok(())
    }

    /// The configuration of the sealed VM has been replayed. Gives a queue that was in use and has not
    /// been enabled again, if there is one: then the VM cannot go on.
    pub(crate) fn loaded(&self) -> Option<QueueId> {
        let mut control = self.control.lock();
        let sealed = control.sealed.take()?;
        let missing = SavedQueues::parse(&sealed)?
            .iter()
            .map(|saved| saved.id)
            .find(|id| !control.all.iter().any(|queue| queue.id == *id));
        missing
    }

    /// After a resume: raises every interrupt that an eventfd stands for, as a completion may have
    /// reached the guest's memory and its interrupt not the guest, and signals every kick. Queues
    /// that are notified or raise interrupts otherwise are the caller's.
    pub(crate) fn wake(&self) {
        let control = self.control.lock();
        for queue in control.all.iter() {
            queue.submit();
            queue.complete(Occasion::Other);
        }
        for hook in control.hooks.iter().filter(|hook| hook.is_used()) {
            hook.event().signal();
        }
    }
}
