// SPDX-License-Identifier: GPL-2.0

//! Events between processes and the kernel, and watching them.
//!
//! A [`Watch`] is called for each signal of an eventfd before anybody else learns of it, under the lock
//! of the eventfd's wait queue and with interrupts off: a reader, who takes that lock, gets the event
//! only after the watch has seen it.
//!
//! The watch goes to the head of the queue by hand. The kernel's own `add_wait_queue_priority` puts
//! an entry behind those that have priority already, which KVM's irqfd has; and KVM's, being
//! exclusive as well, ends the walk along the queue.
//!
//! C header: `include/linux/eventfd.h`, `include/linux/wait.h`, `include/linux/poll.h`.

use super::{c, file::FileRef};
use core::{cell::UnsafeCell, marker::PhantomPinned, pin::Pin, ptr::NonNull};
use kernel::{error::from_err_ptr, ffi, prelude::*};

/// A counted reference to an eventfd's context, which outlives the descriptor.
///
/// # Invariants
///
/// `ctx` is valid and owned; `head` is its wait queue, which lives as long as the context.
pub(crate) struct EventFd {
    ctx: NonNull<c::eventfd_ctx>,
    head: NonNull<c::wait_queue_head>,
}

// SAFETY: Contexts are made for use by many threads.
unsafe impl Send for EventFd {}
// SAFETY: As above.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// The eventfd behind a descriptor of the current task.
    pub(crate) fn from_fd(fd: u32) -> Result<Self> {
        let file = FileRef::from_fd(fd)?;
        // SAFETY: `file` is live. The function refuses what is not an eventfd, and counts what is.
        let ctx = from_err_ptr(unsafe { c::eventfd_ctx_fileget(file.as_ptr()) })?;
        let ctx = NonNull::new(ctx).ok_or(EINVAL)?;
        // SAFETY: `file` is live.
        let head = NonNull::new(unsafe { c::nvhv_poll_head(file.as_ptr()) });
        let Some(head) = head else {
            // SAFETY: Counted above.
            unsafe { c::eventfd_ctx_put(ctx.as_ptr()) };
            return Err(EINVAL);
        };
        // INVARIANT: counted above; an eventfd waits on a queue inside its context.
        Ok(Self { ctx, head })
    }

    /// Whether both are the same eventfd, whatever descriptors they came from.
    pub(crate) fn is(&self, other: &EventFd) -> bool {
        self.ctx == other.ctx
    }

    /// Adds one to its counter. Not to be called by a watch.
    pub(crate) fn signal(&self) {
        // SAFETY: By the type invariants.
        unsafe { c::nvhv_eventfd_signal(self.ctx.as_ptr()) };
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { c::eventfd_ctx_put(self.ctx.as_ptr()) };
    }
}

/// What has happened to a watched eventfd.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its counter has grown.
    Signalled,
    /// Its last descriptor is gone: nobody can read it or hand it to anybody any more.
    Closed,
}

/// What becomes of an event that a watch has seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The others learn of it.
    Pass,
    /// They do not, until it is signalled again; the counter keeps it.
    Keep,
}

/// Who watches an eventfd.
pub(crate) trait Watcher: Send {
    /// Called for each event, under the wait queue's lock and with interrupts off: perhaps in an
    /// interrupt. Must not sleep, signal an eventfd or drop what needs to sleep for it.
    fn seen(&mut self, event: Event) -> Verdict;
}

/// A place at the head of an eventfd's wait queue.
///
/// # Invariants
///
/// `entry` is in the queue exactly if `placed`. `entry`, `placed` and `watcher` are accessed only
/// with the wait queue's lock held.
pub(crate) struct Watch<T: Watcher> {
    event: EventFd,
    inner: UnsafeCell<Inner<T>>,
    _pin: PhantomPinned,
}

#[repr(C)]
struct Inner<T> {
    entry: c::wait_queue_entry,
    placed: bool,
    watcher: T,
}

// SAFETY: What is inside is accessed under the lock only, and is `Send`.
unsafe impl<T: Watcher> Send for Watch<T> {}
// SAFETY: As above.
unsafe impl<T: Watcher> Sync for Watch<T> {}

impl<T: Watcher> Watch<T> {
    /// A watch of `event` that is not in its place yet.
    pub(crate) fn new(event: EventFd, watcher: T) -> Result<Pin<KBox<Self>>> {
        let inner = Inner {
            entry: c::wait_queue_entry::default(),
            placed: false,
            watcher,
        };
        let watch = Self {
            event,
            inner: UnsafeCell::new(inner),
            _pin: PhantomPinned,
        };
        Ok(KBox::into_pin(KBox::new(watch, GFP_KERNEL)?))
    }

    /// The eventfd.
    pub(crate) fn event(&self) -> &EventFd {
        &self.event
    }

    /// Runs `f` under the queue's lock. What goes for [`Watcher::seen`] goes for `f`.
    fn locked<R>(&self, f: impl FnOnce(&mut Inner<T>, *mut c::wait_queue_head) -> R) -> R {
        let head = self.event.head.as_ptr();
        // SAFETY: The queue lives as long as the eventfd, which `self` holds.
        let flags = unsafe { c::nvhv_wait_lock(head) };
        // SAFETY: By the type invariants the lock guards it, and a walk along the queue holds it too.
        let ret = f(unsafe { &mut *self.inner.get() }, head);
        // SAFETY: Locked above.
        unsafe { c::nvhv_wait_unlock(head, flags) };
        ret
    }

    /// Runs `f` on the watcher: no event is being looked at meanwhile, and any that comes later sees what
    /// `f` did. What goes for [`Watcher::seen`] goes for `f`.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        self.locked(|inner, _| f(&mut inner.watcher))
    }

    /// Takes its place before all others, or leaves it. When this returns after leaving, the watcher is
    /// not running and will not be called.
    pub(crate) fn place(self: Pin<&Self>, placed: bool) {
        self.locked(|inner, head| {
            if inner.placed == placed {
                return;
            }
            inner.placed = placed;
            // SAFETY: The lock is held; `self` is pinned and takes the entry out before it goes.
            unsafe {
                if placed {
                    c::nvhv_wait_first(head, &mut inner.entry, Some(woken::<T>));
                } else {
                    c::nvhv_wait_leave(head, &mut inner.entry);
                }
            }
        });
    }
}

impl<T: Watcher> Drop for Watch<T> {
    fn drop(&mut self) {
        // SAFETY: It was pinned, and does not move while it is dropped.
        unsafe { Pin::new_unchecked(&*self) }.place(false);
    }
}

/// # Safety
///
/// `entry` is that of a `Watch<T>` in its place; the queue's lock is held.
unsafe extern "C" fn woken<T: Watcher>(
    entry: *mut c::wait_queue_entry,
    _mode: ffi::c_uint,
    _flags: ffi::c_int,
    key: *mut ffi::c_void,
) -> ffi::c_int {
    // SAFETY: By this function's contract; the entry is the first field.
    let inner = unsafe { &mut *entry.cast::<Inner<T>>() };
    // `key_to_poll`: the events stand in the pointer itself. CAST: they have 32 bits.
    let events = key.addr() as u32;
    let mut verdict = Verdict::Pass;
    if events & c::NVHV_POLLIN != 0 {
        verdict = inner.watcher.seen(Event::Signalled);
    }
    if events & c::NVHV_POLLHUP != 0 {
        // Nobody is kept from learning of that.
        inner.watcher.seen(Event::Closed);
    }
    match verdict {
        Verdict::Pass => 0,
        // An error ends the walk along the queue.
        Verdict::Keep => EAGAIN.to_errno(),
    }
}
