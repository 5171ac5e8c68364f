// SPDX-License-Identifier: GPL-2.0

//! One split virtqueue and its shadow.

use super::{
    chain::{self, Chain, Pass, WORK_MAX},
    fault::Fault,
    layout::{Layout, USED_ELEM_LEN},
    memory::{Memory, View},
    request::Request,
    saved::Saved,
    slots::{Requests, Slot},
    tell::Telling,
};

/// VIRTQ_AVAIL_F_NO_INTERRUPT
const NO_INTERRUPT: u16 = 1;

/// Why used requests are shown to the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occasion {
    /// The driver is about to look at this ring: the ring's own interrupt is on its way to it.
    Interrupt,
    /// Any other. The driver may not look, so the device still has to interrupt for these requests.
    Other,
}

/// What [`Ring::complete`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completed {
    /// Requests that the driver can now see as used and has not been told of by an interrupt before.
    pub count: u16,
    /// Whether the driver wants to be told of them by an interrupt.
    pub interrupt: bool,
}

/// One split virtqueue and its shadow.
///
/// The pages of the available and used ring differ between the views. In the guest's view the engine
/// is the device: it reads the available ring and writes the used ring. In the device's view it is the
/// driver. Each side counts on its own, so a fresh device may start at 0 while the guest goes on.
///
/// All calls are made with one lock of the caller held, except for those on the way to or from a
/// record, when nothing else has the ring. Work in a call is bounded, see [`Fault::TooMuchWork`].
///
/// A ring with a fault is broken until the device is reset: all calls return that fault, and nothing
/// more is copied.
///
/// # Invariants
/// `layout` passes [`Layout::check`]. `avail_seen - used_shown` is the number of requests in flight:
/// each entry of the available ring makes one, each used element ends one. So the features that break
/// this (VIRTIO_F_IN_ORDER: one used element for many requests) must not be negotiated.
pub struct Ring<S> {
    pub(super) layout: Layout,
    requests: Requests<S>,
    /// Up to which entry the guest's available ring has been seen.
    avail_seen: u16,
    /// `used->idx` in the guest's view.
    used_shown: u16,
    /// `avail->idx` in the device's view.
    pub(super) avail_shown: u16,
    /// Up to which element the device's used ring has been seen.
    pub(super) used_seen: u16,
    /// `used->idx` in the guest's view when the driver was last told to look. `used_event` in the device's
    /// view is as many elements behind `used_seen` as this is behind `used_shown`.
    used_told: u16,
    /// An interrupt may have been lost with the host, so the next one is not held back.
    interrupt_owed: bool,
    /// The device is being told again what it was told, and shown nothing else.
    pub(super) telling: Option<Telling>,
    fault: Option<Fault>,
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>> Ring<S> {
    /// A ring that the driver has just enabled.
    pub fn new(layout: Layout, slots: S) -> Result<Self, Fault> {
        layout.check()?;
        Ok(Self {
            layout,
            requests: Requests::new(slots, layout.size)?,
            avail_seen: 0,
            used_shown: 0,
            avail_shown: 0,
            used_seen: 0,
            used_told: 0,
            interrupt_owed: false,
            telling: None,
            fault: None,
        })
    }

    /// Sets up both views. The caller has copied the pages before, and the device has not begun.
    pub fn start<M: Memory>(&mut self, m: &M) -> Result<(), Fault> {
        self.unless_broken(|ring| ring.show_empty(m))
    }

    /// At a kick: shows new requests to the device. How many.
    ///
    /// To be called before the device can learn of the kick, and once after [`Ring::restore`].
    pub fn submit<M: Memory>(&mut self, m: &M) -> Result<u16, Fault> {
        self.unless_broken(|ring| match ring.telling {
            None => ring.take_available(m),
            Some(_) => Ok(0),
        })
    }

    /// Shows used requests to the driver: before it can learn of an interrupt, and where it must not
    /// miss any. A driver that polls, with interrupts off in the device rather than in the ring, causes
    /// none.
    ///
    /// With VIRTIO_F_EVENT_IDX the device interrupts only if it uses the element that `used_event`
    /// names. It writes `used->idx`, then reads `used_event`. Were `used_event` moved on between the two
    /// because somebody else's interrupt was the occasion, the device would leave its interrupt away, and
    /// the driver wait for ever. So it is moved on only if the driver looks anyway.
    pub fn complete<M: Memory>(&mut self, m: &M, why: Occasion) -> Result<Completed, Fault> {
        self.complete_seen(m, why, |_| {})
    }

    /// As [`Ring::complete`], and calls `seen` with each request that the device has used, before the
    /// driver can see that.
    pub fn complete_seen<M: Memory>(
        &mut self,
        m: &M,
        why: Occasion,
        mut seen: impl FnMut(Request<'_, M>),
    ) -> Result<Completed, Fault> {
        self.unless_broken(|ring| match ring.telling {
            None => ring.take_used(m, why, &mut seen),
            Some(_) => ring.told_late(m),
        })
    }

    /// Whether the driver asks for an interrupt for any of the requests in flight (sections 2.7.7 and
    /// 2.7.10). One that does not may wait by looking at the used ring.
    pub fn expects_interrupt<M: Memory>(&mut self, m: &M) -> Result<bool, Fault> {
        self.unless_broken(|ring| {
            if ring.layout.event_idx {
                let event = ring.load(m, View::Guest, ring.layout.used_event())?;
                let last = ring.used_shown.wrapping_add(ring.in_flight());
                return Ok(need_event(event, last, ring.used_shown));
            }
            let flags = ring.load(m, View::Guest, ring.layout.avail_flags())?;
            Ok(flags & NO_INTERRUPT == 0)
        })
    }

    /// After more pages became shadowed than this ring's own: looks again at what is in flight, as it
    /// may have buffers there.
    pub fn look_again<M: Memory>(&mut self, m: &M) -> Result<(), Fault> {
        self.unless_broken(|ring| ring.follow_all(m, Pass::Look, |_, _| Ok(())))
    }

    /// Whether device and driver count alike, so that a device can go on with the guest's ring where this one is: it has not
    /// been before another device since the driver enabled it.
    pub fn counts_alike(&self) -> bool {
        self.fault.is_none() && self.telling.is_none() && self.avail_seen == self.avail_shown
    }

    /// Requests that the device has.
    pub fn in_flight(&self) -> u16 {
        self.requests.count()
    }

    /// Bytes that are enough to save any ring of `size` descriptors.
    pub fn saved_len(size: u16) -> usize {
        Saved::len(size)
    }

    /// Saves the ring. How many bytes that took; `None`: `out` is too small.
    ///
    /// What it says is true at any moment, together with the guest's memory of that moment.
    pub fn save(&self, out: &mut [u8]) -> Option<usize> {
        let saved = Saved {
            layout: self.layout,
            broken: self.fault.is_some(),
            avail_seen: self.avail_seen,
            used_shown: self.used_shown,
            count: self.requests.count(),
        };
        saved.write(self.requests.heads(), out)
    }

    /// A sealed ring before a fresh device: its requests in flight are made available again in the
    /// order in which the driver made them; indexes of the device's view start at 0.
    ///
    /// The caller has copied the pages before, and the device has not begun. A ring that was broken
    /// when it was saved still is: the fault is returned.
    pub fn restore<M: Memory>(
        layout: Layout,
        slots: S,
        saved: &[u8],
        m: &M,
    ) -> Result<Self, Fault> {
        let mut ring = Self::restore_quiet(layout, slots, saved, m)?;
        ring.show_in_flight(m)?;
        Ok(ring)
    }

    /// As [`Ring::restore`], but the device is shown no request yet.
    pub(super) fn restore_quiet<M: Memory>(
        layout: Layout,
        slots: S,
        saved: &[u8],
        m: &M,
    ) -> Result<Self, Fault> {
        let mut ring = Self::new(layout, slots)?;
        let (saved, heads) = Saved::parse(saved, &layout)?;
        for head in heads {
            if !ring.requests.is_free(head) {
                return Err(Fault::Saved(
                    "a request is outside the table or there twice",
                ));
            }
            ring.requests.add(head, Chain::default());
        }
        ring.avail_seen = saved.avail_seen;
        ring.used_shown = saved.used_shown;
        ring.interrupt_owed = true;
        ring.retire_shown(m)?;

        ring.show_empty(m)?;
        Ok(ring)
    }

    /// Makes the requests in flight available to a device that has none of them.
    pub(super) fn show_in_flight<M: Memory>(&mut self, m: &M) -> Result<(), Fault> {
        self.follow_all(m, Pass::ToDevice, |ring, head| ring.show_available(m, head))?;
        self.store(m, View::Device, self.layout.avail_idx(), self.avail_shown)
    }

    /// Runs one call, and remembers its fault.
    pub(super) fn unless_broken<T>(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match self.fault {
            Some(fault) => Err(fault),
            None => call(self).inspect_err(|&fault| self.fault = Some(fault)),
        }
    }

    /// Shows the device an empty ring, and the driver where the device is.
    ///
    /// From here on the device is told that interrupts are always wanted, and the driver that kicks
    /// are: flags stay 0, and event indexes follow what was seen. `used->idx` of the device's view is
    /// where devices that read it (vhost) start to count.
    fn show_empty<M: Memory>(&mut self, m: &M) -> Result<(), Fault> {
        let at = self.layout;
        self.store(m, View::Device, at.avail_flags(), 0)?;
        self.store(m, View::Device, at.avail_idx(), 0)?;
        self.store(m, View::Device, at.used_flags(), 0)?;
        self.store(m, View::Device, at.used_idx(), 0)?;
        self.store(m, View::Guest, at.used_flags(), 0)?;
        self.store(m, View::Guest, at.used_idx(), self.used_shown)?;
        if at.event_idx {
            self.store(m, View::Device, at.used_event(), 0)?;
            self.store(m, View::Guest, at.avail_event(), self.avail_seen)?;
        }
        m.fence();
        Ok(())
    }

    /// Copies new entries of the guest's available ring to the device's.
    ///
    /// With VIRTIO_F_EVENT_IDX the driver kicks only if it makes the entry available that `avail_event`
    /// names. It writes `avail->idx`, then reads `avail_event`; here it is the other way round, each
    /// with a fence between: so either the driver kicks, or the look after the fence finds its entry.
    /// The loop ends when there is nothing new, so no kick is missed; and it ends, as every entry taken
    /// is a head that was not in flight, of which there are as many as the ring is long.
    fn take_available<M: Memory>(&mut self, m: &M) -> Result<u16, Fault> {
        let mut count: u16 = 0;
        loop {
            let found = self.load(m, View::Guest, self.layout.avail_idx())?;
            let new = found.wrapping_sub(self.avail_seen);
            if new == 0 {
                return Ok(count);
            }
            if new > self.layout.size {
                return Err(Fault::TooManyAvailable {
                    seen: self.avail_seen,
                    found,
                });
            }
            for _ in 0..new {
                let head = self.load(m, View::Guest, self.layout.avail_entry(self.avail_seen))?;
                if head >= self.layout.size {
                    return Err(Fault::NoSuchHead(head));
                }
                if !self.requests.is_free(head) {
                    return Err(Fault::HeadInFlight(head));
                }
                let limit = WORK_MAX.saturating_sub(self.requests.work());
                let chain = chain::follow(m, &self.layout, head, Pass::ToDevice, limit)?;
                self.show_available(m, head)?;
                // From here on, with no access to memory between, the request counts as seen.
                self.requests.add(head, chain);
                self.avail_seen = self.avail_seen.wrapping_add(1);
            }
            count = count.wrapping_add(new);
            self.store(m, View::Device, self.layout.avail_idx(), self.avail_shown)?;
            if self.layout.event_idx {
                self.store(m, View::Guest, self.layout.avail_event(), self.avail_seen)?;
            }
            m.fence();
        }
    }

    /// Puts `head` into the next entry of the device's available ring. The entry is free: there are
    /// never more requests in flight than entries.
    pub(super) fn show_available<M: Memory>(&mut self, m: &M, head: u16) -> Result<(), Fault> {
        self.store(
            m,
            View::Device,
            self.layout.avail_entry(self.avail_shown),
            head,
        )?;
        self.avail_shown = self.avail_shown.wrapping_add(1);
        Ok(())
    }

    /// Copies new elements of the device's used ring to the guest's.
    ///
    /// What the device has published with one `used->idx` is published with one: the buffers of a
    /// packet that network devices spread over several requests must be seen together (section 5.1.6.4).
    ///
    /// When `used_event` is moved on, the look after the fence is needed for the same reason, and ends
    /// for a like reason, as in [`Ring::take_available`]: only requests in flight can be used, and none is
    /// added here.
    fn take_used<M: Memory>(
        &mut self,
        m: &M,
        why: Occasion,
        seen: &mut impl FnMut(Request<'_, M>),
    ) -> Result<Completed, Fault> {
        let before = self.used_told;
        let mut work = 0;
        loop {
            let found = self.load(m, View::Device, self.layout.used_idx())?;
            let new = found.wrapping_sub(self.used_seen);
            if new > self.requests.count() {
                return Err(Fault::TooManyUsed {
                    seen: self.used_seen,
                    found,
                });
            }
            if new > 0 {
                for i in 0..new {
                    work = self.show_used(m, i, work, seen)?;
                }
                let shown = self.used_shown.wrapping_add(new);
                self.store(m, View::Guest, self.layout.used_idx(), shown)?;
                // The guest can see them from here on. Until then they were in flight.
                self.used_shown = shown;
                self.used_seen = found;
                self.requests.retire_used();
            }
            if why == Occasion::Other || self.used_told == self.used_shown {
                break;
            }
            if self.layout.event_idx {
                self.store(m, View::Device, self.layout.used_event(), self.used_seen)?;
            }
            self.used_told = self.used_shown;
            m.fence();
        }
        let count = self.used_shown.wrapping_sub(before);
        let interrupt = match why {
            Occasion::Other => false,
            Occasion::Interrupt => self.is_wanted(m, before)?,
        };
        Ok(Completed { count, interrupt })
    }

    /// Whether the driver wants an interrupt for the requests that it was told of since `before`.
    fn is_wanted<M: Memory>(&mut self, m: &M, before: u16) -> Result<bool, Fault> {
        if self.used_shown == before {
            return Ok(self.interrupt_owed);
        }
        // After the fence: a driver that turns interrupts on looks at `used->idx` once more itself.
        let wanted = if self.layout.event_idx {
            let event = self.load(m, View::Guest, self.layout.used_event())?;
            need_event(event, self.used_shown, before)
        } else {
            self.load(m, View::Guest, self.layout.avail_flags())? & NO_INTERRUPT == 0
        };
        Ok(core::mem::take(&mut self.interrupt_owed) || wanted)
    }

    /// Copies the `i`th new used element, and what the device wrote into shadowed pages. `work` was
    /// done in this call before; gives what is done after.
    fn show_used<M: Memory>(
        &mut self,
        m: &M,
        i: u16,
        work: u32,
        seen: &mut impl FnMut(Request<'_, M>),
    ) -> Result<u32, Fault> {
        let elem = self.used_elem(m, View::Device, self.used_seen.wrapping_add(i))?;
        let head = self.head_of(&elem)?;
        let mut done = work;
        if self.requests.returns(head) {
            let limit = WORK_MAX.saturating_sub(work);
            let chain = chain::follow(m, &self.layout, head, Pass::ToGuest, limit)?;
            done = work.saturating_add(chain.work);
        }
        let gpa = self.layout.used_elem(self.used_shown.wrapping_add(i));
        m.write(View::Guest, gpa, &elem).ok_or(Fault::NotRam(gpa))?;
        seen(Request::new(m, &self.layout, head));
        // So that the same batch cannot use it twice.
        self.requests.mark_used(head);
        Ok(done)
    }

    /// At a restore: what the guest could see as used when the ring was saved is not in flight, even if
    /// the ring was saved before it had noted that.
    fn retire_shown<M: Memory>(&mut self, m: &M) -> Result<(), Fault> {
        let found = self.load(m, View::Guest, self.layout.used_idx())?;
        let new = found.wrapping_sub(self.used_shown);
        if new > self.requests.count() {
            return Err(Fault::Saved("the guest's used index is not the saved one"));
        }
        for i in 0..new {
            let elem = self.used_elem(m, View::Guest, self.used_shown.wrapping_add(i))?;
            let head = self.head_of(&elem)?;
            self.requests.mark_used(head);
        }
        self.requests.retire_used();
        self.used_shown = found;
        self.used_told = found;
        Ok(())
    }

    /// Follows all chains in flight, the oldest first, and calls `then` after each.
    fn follow_all<M: Memory>(
        &mut self,
        m: &M,
        pass: Pass,
        mut then: impl FnMut(&mut Self, u16) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut work: u32 = 0;
        let mut at = self.requests.oldest();
        while let Some(head) = at {
            let limit = WORK_MAX.saturating_sub(work);
            let chain = chain::follow(m, &self.layout, head, pass, limit)?;
            work = work.saturating_add(chain.work);
            self.requests.update(head, chain);
            then(self, head)?;
            at = self.requests.after(head);
        }
        Ok(())
    }

    /// The used element that index `idx` counts.
    pub(super) fn used_elem<M: Memory>(
        &self,
        m: &M,
        view: View,
        idx: u16,
    ) -> Result<[u8; USED_ELEM_LEN as usize], Fault> {
        let mut elem = [0; USED_ELEM_LEN as usize];
        let gpa = self.layout.used_elem(idx);
        m.read(view, gpa, &mut elem).ok_or(Fault::NotRam(gpa))?;
        Ok(elem)
    }

    /// The head of the request that a used element is for.
    fn head_of(&self, elem: &[u8; USED_ELEM_LEN as usize]) -> Result<u16, Fault> {
        let [i0, i1, i2, i3, ..] = *elem;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        u16::try_from(id)
            .ok()
            .filter(|&head| self.requests.is_in_flight(head))
            .ok_or(Fault::NotInFlight(id))
    }

    pub(super) fn load<M: Memory>(&self, m: &M, view: View, gpa: u64) -> Result<u16, Fault> {
        m.load_u16(view, gpa).ok_or(Fault::NotRam(gpa))
    }

    pub(super) fn store<M: Memory>(
        &self,
        m: &M,
        view: View,
        gpa: u64,
        value: u16,
    ) -> Result<(), Fault> {
        m.store_u16(view, gpa, value).ok_or(Fault::NotRam(gpa))
    }
}

/// Whether an index that went from `old` to `new` passed `event`: section 2.7.10, `vring_need_event`.
fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::need_event;

    #[test]
    fn an_event_is_needed_where_the_index_passed_it() {
        for old in [0u16, 1, 65530, 65535] {
            for step in 1..20u16 {
                let new = old.wrapping_add(step);
                for at in 0..60u16 {
                    let event = old.wrapping_add(at).wrapping_sub(20);
                    assert_eq!(need_event(event, new, old), (20..20 + step).contains(&at));
                }
            }
        }
    }
}
