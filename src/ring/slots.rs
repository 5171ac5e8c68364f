// SPDX-License-Identifier: GPL-2.0

//! The requests in flight, in the order in which the driver made them.
//!
//! A request is known by its head, the first descriptor of its chain: no other request in flight can
//! have the same. Per head there is one slot. Slots in flight are linked in the order of submission,
//! so there is no sequence number that could wrap, and nothing to sort when a ring is restored.

use super::{chain::Chain, fault::Fault};

/// What is known of one descriptor as the head of a request. Storage is given by the caller.
#[derive(Clone, Copy, Default)]
pub struct Slot {
    state: State,
    /// Work that the chain is, see [`Chain::work`].
    work: u32,
    /// Whether the device writes into shadowed pages, see [`Chain::returns`].
    returns: bool,
    /// The request before it. Of the first one, anything.
    previous: u16,
    /// The request after it. Of the last one, anything.
    next: u16,
    /// The slot that was marked as used before it. Of the first one, anything.
    used_before: u16,
}

/// Where a head stands.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// The driver has it.
    #[default]
    Free,
    /// The device has it.
    InFlight,
    /// The device has used it, and the driver may not be able to see that yet.
    Used,
}

/// The requests in flight.
///
/// # Invariants
/// Slots that are not free, and no others, are linked from `first` to `last`, and are `count`.
/// `work` is the sum over them. Slots in state [`State::Used`] are linked from `used`, and are
/// `used_count`.
pub(super) struct Requests<S> {
    slots: S,
    first: u16,
    last: u16,
    count: u16,
    work: u32,
    used: u16,
    used_count: u16,
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>> Requests<S> {
    /// No requests, on a ring of `size` descriptors.
    pub(super) fn new(mut slots: S, size: u16) -> Result<Self, Fault> {
        let have = slots.as_ref().len();
        match slots.as_mut().get_mut(..usize::from(size)) {
            Some(slots) => slots.fill(Slot::default()),
            None => return Err(Fault::Slots { have, need: size }),
        }
        Ok(Self {
            slots,
            first: 0,
            last: 0,
            count: 0,
            work: 0,
            used: 0,
            used_count: 0,
        })
    }

    /// How many there are. At most the size of the ring: each has a head of its own.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// The work that all of them are.
    pub(super) fn work(&self) -> u32 {
        self.work
    }

    /// Whether `head` is the head of a request that the device has not used.
    pub(super) fn is_in_flight(&self, head: u16) -> bool {
        self.get(head)
            .is_some_and(|slot| slot.state == State::InFlight)
    }

    /// Whether `head` may become the head of a new request.
    pub(super) fn is_free(&self, head: u16) -> bool {
        self.get(head).is_some_and(|slot| slot.state == State::Free)
    }

    /// Whether the device writes into shadowed pages for the request at `head`.
    pub(super) fn returns(&self, head: u16) -> bool {
        self.get(head).is_some_and(|slot| slot.returns)
    }

    /// Heads from the oldest request to the newest.
    pub(super) fn heads(&self) -> impl Iterator<Item = u16> + '_ {
        let mut next = self.first;
        (0..self.count).map_while(move |_| {
            let head = next;
            next = self.get(head)?.next;
            Some(head)
        })
    }

    /// What [`Requests::heads`] gives after `head`, for those that change requests as they go.
    pub(super) fn after(&self, head: u16) -> Option<u16> {
        if head == self.last {
            return None;
        }
        self.get(head).map(|slot| slot.next)
    }

    /// The oldest request.
    pub(super) fn oldest(&self) -> Option<u16> {
        (self.count > 0).then_some(self.first)
    }

    /// Adds the newest request. `head` is free.
    pub(super) fn add(&mut self, head: u16, chain: Chain) {
        let (last, empty) = (self.last, self.count == 0);
        let Some(slot) = self.get_mut(head).filter(|slot| slot.state == State::Free) else {
            return;
        };
        *slot = Slot {
            state: State::InFlight,
            work: chain.work,
            returns: chain.returns,
            previous: last,
            ..Slot::default()
        };
        if empty {
            self.first = head;
        } else if let Some(before) = self.get_mut(last) {
            before.next = head;
        }
        self.last = head;
        self.count += 1;
        self.work = self.work.saturating_add(chain.work);
    }

    /// Notes what the chain of a request in flight is like now. Its work does not get less.
    pub(super) fn update(&mut self, head: u16, chain: Chain) {
        if let Some(slot) = self.get_mut(head) {
            let more = chain.work.saturating_sub(slot.work);
            slot.work = slot.work.saturating_add(more);
            slot.returns = chain.returns;
            self.work = self.work.saturating_add(more);
        }
    }

    /// Marks a request as used. It is in flight until [`Requests::retire_used`].
    pub(super) fn mark_used(&mut self, head: u16) {
        let used = self.used;
        if let Some(slot) = self.get_mut(head) {
            slot.state = State::Used;
            slot.used_before = used;
            self.used = head;
            self.used_count += 1;
        }
    }

    /// Forgets the requests that were marked as used: the driver can see that they are.
    pub(super) fn retire_used(&mut self) {
        for _ in 0..core::mem::take(&mut self.used_count) {
            let head = self.used;
            let Some(slot) = self.get_mut(head) else {
                return;
            };
            let Slot {
                work,
                previous,
                next,
                used_before,
                ..
            } = core::mem::take(slot);
            self.used = used_before;
            if head == self.first {
                self.first = next;
            } else if let Some(slot) = self.get_mut(previous) {
                slot.next = next;
            }
            if head == self.last {
                self.last = previous;
            } else if let Some(slot) = self.get_mut(next) {
                slot.previous = previous;
            }
            self.count = self.count.saturating_sub(1);
            self.work = self.work.saturating_sub(work);
        }
    }

    fn get(&self, head: u16) -> Option<&Slot> {
        self.slots.as_ref().get(usize::from(head))
    }

    fn get_mut(&mut self, head: u16) -> Option<&mut Slot> {
        self.slots.as_mut().get_mut(usize::from(head))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_submission_outlives_use_in_any_order() {
        let mut requests = Requests::new([Slot::default(); 5], 5).ok().unwrap();
        let chain = || Chain {
            work: 7,
            returns: false,
        };
        for head in [3, 0, 4, 1] {
            requests.add(head, chain());
        }
        assert!(requests.heads().eq([3, 0, 4, 1]));
        for head in [4, 3] {
            requests.mark_used(head);
        }
        // Used ones are in flight until they are retired.
        assert!(requests.heads().eq([3, 0, 4, 1]));
        assert!(!requests.is_in_flight(4) && !requests.is_free(4));
        requests.retire_used();
        assert!(requests.heads().eq([0, 1]));
        assert_eq!((requests.count(), requests.work()), (2, 14));
        for head in [4, 2] {
            requests.add(head, chain());
        }
        assert!(requests.heads().eq([0, 1, 4, 2]));
        assert_eq!(requests.after(1), Some(4));
        assert_eq!(requests.after(2), None);
        for head in [2, 0, 4, 1] {
            requests.mark_used(head);
        }
        requests.retire_used();
        assert_eq!((requests.count(), requests.work()), (0, 0));
        assert_eq!(requests.oldest(), None);
        requests.add(0, chain());
        assert!(requests.heads().eq([0]));
    }

    #[test]
    fn there_must_be_a_slot_for_each_descriptor() {
        let few = Requests::new([Slot::default(); 5], 8).err();
        assert_eq!(few, Some(Fault::Slots { have: 5, need: 8 }));
    }
}
