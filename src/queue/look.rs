// SPDX-License-Identifier: GPL-2.0

//! How a queue is doing.

use super::Queues;
use crate::{ring::Fault, state::queues::QueueId};

impl Queues {
    /// Requests of a queue that are in flight, or why nothing passes any more; `None` if it is not
    /// shadowed.
    pub(crate) fn look(&self, id: QueueId) -> Option<core::result::Result<u16, Fault>> {
        let all = self.all.lock().clone();
        let queue = all.iter().find(|queue| queue.id == id)?;
        Some(queue.look())
    }
}
