// SPDX-License-Identifier: GPL-2.0

//! A timer that is part of what it wakes, and can be started where nothing may sleep.
//!
//! The `kernel` crate's own cancels the timer when the value that starting it gave is dropped, which has
//! no place to be kept in a spinlocked section.
//!
//! C header: `include/linux/hrtimer.h`.

use super::c;
use core::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};
use kernel::{prelude::*, types::Opaque};

/// What a timer wakes.
pub(crate) trait Tick: Sync {
    /// The time has come; in a soft interrupt. Says after how many ns it is to come again.
    fn tick(&self) -> Option<u64>;
}

/// A high-resolution timer on the monotonic clock.
///
/// # Invariants
///
/// `owner` is null until the timer is started first, and then what it is part of.
#[pin_data]
#[repr(C)]
pub(crate) struct Timer<T: Tick> {
    #[pin]
    timer: Opaque<c::hrtimer>,
    owner: AtomicPtr<T>,
}

// SAFETY: The kernel's timers may be started and cancelled on any CPU.
unsafe impl<T: Tick> Send for Timer<T> {}
// SAFETY: As above.
unsafe impl<T: Tick> Sync for Timer<T> {}

impl<T: Tick> Timer<T> {
    /// A timer that is not started.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is room for a timer, pinned from here on.
            timer <- Opaque::ffi_init(|slot| unsafe {
                c::nvhv_timer_setup(slot, Some(fired::<T>))
            }),
            owner: AtomicPtr::new(ptr::null_mut()),
        })
    }

    /// Lets it fire in `ns` from now, also if it was to fire at another time.
    ///
    /// # Safety
    ///
    /// `self` is a part of `owner`, always the same, which calls [`Self::cancel`] before it goes.
    pub(crate) unsafe fn start(&self, owner: &T, ns: u64) {
        // INVARIANT: by this function's contract.
        self.owner
            .store(ptr::from_ref(owner).cast_mut(), Ordering::Release);
        // SAFETY: Set up when it was made.
        unsafe { c::nvhv_timer_start(self.timer.get(), ns) };
    }

    /// Stops it. When this returns, it is not firing. Sleeps.
    pub(crate) fn cancel(&self) {
        // SAFETY: Set up when it was made.
        unsafe { c::hrtimer_cancel(self.timer.get()) };
    }
}

/// # Safety
///
/// `timer` is the first field of a `Timer<T>` that was started.
unsafe extern "C" fn fired<T: Tick>(timer: *mut c::hrtimer) -> c::hrtimer_restart {
    // SAFETY: By this function's contract, and `Opaque` has no layout of its own.
    let this = unsafe { &*timer.cast::<Timer<T>>() };
    // SAFETY: By the type invariant; whoever started it keeps it until it was cancelled.
    let owner = unsafe { &*this.owner.load(Ordering::Acquire) };
    if let Some(ns) = owner.tick() {
        // Somebody may have started it since: a timer that is queued already must not be moved on (HRTIMER_RESTART),
        // but it may be started again.
        // SAFETY: Set up when it was made.
        unsafe { c::nvhv_timer_start(timer, ns) };
    }
    c::hrtimer_restart_HRTIMER_NORESTART
}
