// SPDX-License-Identifier: GPL-2.0

//! Queues whose memory the VMM copies to somewhere else, where a device and the guest's driver will share one ring.

use super::{live::Queue, memory::Map, Queues};
use crate::{
    ring::{Memory, Occasion, View},
    state::queues::QueueId,
};
use kernel::prelude::*;

const PAGE: u64 = 4096;

impl Queues {
    /// A queue with a part in `len` bytes at `gpa` that no other device could go on with.
    pub(crate) fn stays(&self, gpa: u64, len: u64) -> Option<QueueId> {
        let all = self.all.lock().clone();
        let inside = |&(start, end): &(u64, u64)| start < gpa.saturating_add(len) && gpa < end;
        let stays =
            |queue: &Queue| queue.layout.rings().iter().any(inside) && !queue.counts_alike();
        all.iter().find(|queue| stays(queue)).map(|queue| queue.id)
    }

    /// The VMM is about to copy what has changed of `len` bytes at `gpa`: shows it what the guest has written into pages
    /// that differ, and gives those pages. If the guest has `stopped`, and its devices with it, all of them is as the guest
    /// has it afterwards; both sides' wishes for notifications are still the shadow's, which are the stronger ones.
    pub(crate) fn show_copier(&self, gpa: u64, len: u64, stopped: bool) -> Result<KVec<u64>> {
        let control = self.control.lock();
        let mut pages = KVec::new();
        let Some(map) = &control.map else {
            return Ok(pages);
        };
        for page in map.shadowed() {
            if page.gpa >= gpa && page.gpa - gpa < len {
                pages.push(page.gpa, GFP_KERNEL)?;
            }
        }
        if pages.is_empty() || control.frozen {
            return Ok(pages);
        }
        for queue in control.all.iter() {
            queue.submit();
            queue.complete(Occasion::Other);
        }
        if stopped {
            let mut rings = KVec::new();
            for queue in control.all.iter() {
                rings.extend_from_slice(&queue.layout.rings(), GFP_KERNEL)?;
            }
            for &page in pages.iter() {
                show_beside(map, page, &rings).ok_or(EIO)?;
            }
        }
        Ok(pages)
    }
}

/// Copies what is in none of the rings of a page from the guest's view to the VMM's.
fn show_beside(map: &Map, page: u64, rings: &[(u64, u64)]) -> Option<()> {
    const PART: usize = 128;
    let end = page + PAGE;
    let mut at = page;
    while at < end {
        let ahead = rings.iter().filter(|ring| ring.1 > at).min();
        let (start, after) = ahead.map_or((end, end), |ring| (ring.0.min(end), ring.1));
        while at < start {
            let mut bytes = [0; PART];
            // CAST: less than a page.
            let part = bytes.get_mut(..PART.min((start - at) as usize))?;
            map.read(View::Guest, at, part)?;
            map.write(View::Device, at, part)?;
            at += part.len() as u64;
        }
        at = after;
    }
    Some(())
}
