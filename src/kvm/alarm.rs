// SPDX-License-Identifier: GPL-2.0

//! An alarm: what a trigger leaves with the keeper of a VM, in any context and without a lock, and what the
//! keeper says that it made of it.

use super::capture::Occasion;
use crate::life::Cause;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What the alarm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The host is about to be lost.
    Emergency(Cause),
    /// Power is failing, or so it seems.
    Power,
    /// What the same would cost is to be measured.
    Drill,
}

/// What a keeper has made of the last alarm of failing power, or of the last drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was not told of any, or has no VM any more, or is another's business.
    Apart = 0,
    /// It has yet to finish.
    Asked = 1,
    /// The VM is sealed.
    Sealed = 2,
    /// The VM cannot be sealed.
    Failed = 3,
}

/// No alarm; a [`Cause`] is another number.
const NONE: u32 = 0;
/// A drill; likewise.
const DRILL: u32 = u32::MAX;

/// The alarm that a keeper has yet to hear of, and its answers.
pub(super) struct Alarms {
    /// The cause of it, [`NONE`] or [`DRILL`].
    pending: AtomicU32,
    /// Its [`Occasion`]. A drill may write it while another alarm is pending, whose time is then a little wrong.
    since_ns: AtomicU64,
    budget_ms: AtomicU32,
    /// An [`Answer`] each.
    power: AtomicU32,
    drill: AtomicU32,
    /// There was an emergency: there is one in the life of the module.
    emergency: AtomicBool,
}

impl Alarms {
    pub(super) const fn new() -> Self {
        Self {
            pending: AtomicU32::new(NONE),
            since_ns: AtomicU64::new(0),
            budget_ms: AtomicU32::new(0),
            power: AtomicU32::new(Answer::Apart as u32),
            drill: AtomicU32::new(Answer::Apart as u32),
            emergency: AtomicBool::new(false),
        }
    }

    /// Leaves an alarm. A drill gives way to any other that is pending: says whether it was left. Power that
    /// fails gives way to an emergency, which seals the VM as well.
    pub(super) fn post(&self, kind: Kind, since_ns: u64, budget_ms: u32) -> bool {
        self.since_ns.store(since_ns, Ordering::Relaxed);
        self.budget_ms.store(budget_ms, Ordering::Relaxed);
        let order = Ordering::SeqCst;
        match kind {
            Kind::Emergency(cause) => {
                self.emergency.store(true, order);
                match self.pending.swap(cause.0, order) {
                    // Nobody else answers them.
                    DRILL => self.answer(Kind::Drill, Answer::Apart),
                    number if Cause(number) == Cause::POWER => {
                        self.answer(Kind::Power, Answer::Apart)
                    }
                    _ => {}
                }
                true
            }
            Kind::Power => {
                let may_replace = |now| matches!(now, NONE | DRILL).then_some(Cause::POWER.0);
                let _ = self.pending.fetch_update(order, order, may_replace);
                true
            }
            Kind::Drill => self
                .pending
                .compare_exchange(NONE, DRILL, order, order)
                .is_ok(),
        }
    }

    /// Whether an emergency was left here, heard of by now or not.
    pub(super) fn has_emergency(&self) -> bool {
        self.emergency.load(Ordering::SeqCst)
    }

    /// The alarm that there is, once.
    pub(super) fn take(&self) -> Option<(Kind, Occasion)> {
        let (kind, cause) = match self.pending.swap(NONE, Ordering::SeqCst) {
            NONE => return None,
            DRILL => (Kind::Drill, Cause::POWER),
            number if Cause(number) == Cause::POWER => (Kind::Power, Cause::POWER),
            number => (Kind::Emergency(Cause(number)), Cause(number)),
        };
        let occasion = Occasion {
            cause,
            since_ns: self.since_ns.load(Ordering::Relaxed),
            budget_ms: self.budget_ms.load(Ordering::Relaxed),
        };
        Some((kind, occasion))
    }

    /// Says what came of an alarm. Nobody waits for an answer in an emergency.
    pub(super) fn answer(&self, kind: Kind, what: Answer) {
        if let Some(answer) = self.answer_to(kind) {
            answer.store(what as u32, Ordering::Release);
        }
    }

    /// What came of the last alarm of a kind.
    pub(super) fn answered(&self, kind: Kind) -> Answer {
        let answer = self.answer_to(kind);
        match answer.map_or(0, |answer| answer.load(Ordering::Acquire)) {
            0 => Answer::Apart,
            1 => Answer::Asked,
            2 => Answer::Sealed,
            _ => Answer::Failed,
        }
    }

    fn answer_to(&self, kind: Kind) -> Option<&AtomicU32> {
        match kind {
            Kind::Emergency(_) => None,
            Kind::Power => Some(&self.power),
            Kind::Drill => Some(&self.drill),
        }
    }
}
