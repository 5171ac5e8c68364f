// SPDX-License-Identifier: GPL-2.0

//! Who may be inside KVM: the gate that freezes a VM and thaws it.
//!
//! Freezing is a handshake. [`Gate::close`] turns the gate to `Closing`; every vCPU that is inside
//! KVM_RUN is kicked out and waits in our wrapper, every other ioctl of the VMM is let finish and no
//! new one is let in. When nobody is inside, the gate is `Closed` and stays so until
//! [`Gate::open`]: the VM's state cannot change but by our own hands.

use core::sync::atomic::{AtomicBool, Ordering};
use kernel::{
    new_condvar, new_spinlock,
    prelude::*,
    sync::{CondVar, CondVarTimeoutResult, SpinLock},
    time::msecs_to_jiffies,
};

/// Position of the gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Position {
    /// The VMM does as it likes.
    Open,
    /// Nobody new may enter; those inside are being waited for. A vCPU may finish the exit that its
    /// VMM has answered.
    Closing,
    /// Nobody is inside.
    Closed,
}

struct State {
    position: Position,
    /// Ioctls other than KVM_RUN that are inside KVM.
    ioctls: u32,
}

/// See the module's description.
#[pin_data]
pub(crate) struct Gate {
    /// Whether the position is `Open`; written with `state` locked. Lets vCPUs look without a lock
    /// that they all share.
    open: AtomicBool,
    #[pin]
    state: SpinLock<State>,
    #[pin]
    changed: CondVar,
}

/// A wait was cut short by a signal.
pub(crate) struct Interrupted;

impl Gate {
    /// An open gate.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            open: AtomicBool::new(true),
            state <- new_spinlock!(State { position: Position::Open, ioctls: 0 }, "nvhv_gate"),
            changed <- new_condvar!("nvhv_gate_changed"),
        })
    }

    /// Lets an ioctl in; waits while the gate is not open.
    pub(crate) fn enter(&self) -> core::result::Result<Inside<'_>, Interrupted> {
        let mut state = self.state.lock();
        while state.position != Position::Open {
            if self.changed.wait_interruptible(&mut state) {
                return Err(Interrupted);
            }
        }
        state.ioctls += 1;
        Ok(Inside(self))
    }

    /// Waits until the gate is open.
    pub(crate) fn wait_open(&self) -> core::result::Result<(), Interrupted> {
        let mut state = self.state.lock();
        while state.position != Position::Open {
            if self.changed.wait_interruptible(&mut state) {
                return Err(Interrupted);
            }
        }
        Ok(())
    }

    /// Calls `mark` if the gate is in `position`, atomically with changes of it.
    pub(crate) fn if_in(&self, position: Position, mark: impl FnOnce()) -> bool {
        let state = self.state.lock();
        let there = state.position == position;
        if there {
            mark();
        }
        there
    }

    /// Whether the gate is open; may change at once.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Changes the position.
    fn turn(&self, state: &mut State, position: Position) {
        state.position = position;
        self.open
            .store(position == Position::Open, Ordering::Release);
    }

    /// Tells a waiting [`Self::close`] that somebody left.
    pub(crate) fn left(&self) {
        self.changed.notify_all();
    }

    /// Closes the gate. `kick` drives vCPUs out; `quiet` says whether none is inside. Gives up,
    /// opening the gate again, after `deadline_ms`.
    pub(crate) fn close(
        &self,
        deadline_ms: u32,
        mut kick: impl FnMut(),
        mut quiet: impl FnMut() -> bool,
    ) -> Result {
        const STEP_MS: u32 = 10;
        self.turn(&mut self.state.lock(), Position::Closing);
        let mut waited = 0;
        loop {
            kick();
            if quiet() && self.try_closed() {
                // From here on nobody enters; who was finishing an exit just now is let leave.
                if quiet() {
                    return Ok(());
                }
            }
            let mut state = self.state.lock();
            self.turn(&mut state, Position::Closing);
            if waited >= deadline_ms {
                self.turn(&mut state, Position::Open);
                drop(state);
                self.changed.notify_all();
                return Err(ETIMEDOUT);
            }
            // A vCPU that enters the guest just after its kick is kicked again. A spurious wake-up
            // does not count as time.
            if let CondVarTimeoutResult::Timeout = self
                .changed
                .wait_interruptible_timeout(&mut state, msecs_to_jiffies(STEP_MS))
            {
                waited += STEP_MS;
            }
        }
    }

    fn try_closed(&self) -> bool {
        let mut state = self.state.lock();
        let empty = state.ioctls == 0;
        if empty {
            self.turn(&mut state, Position::Closed);
        }
        empty
    }

    /// Opens the gate.
    pub(crate) fn open(&self) {
        self.turn(&mut self.state.lock(), Position::Open);
        self.changed.notify_all();
    }
}

/// An ioctl is inside KVM while this lives.
pub(crate) struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.ioctls -= 1;
        if state.position != Position::Open {
            drop(state);
            self.0.left();
        }
    }
}
