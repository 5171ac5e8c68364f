// SPDX-License-Identifier: GPL-2.0

//! Going through a script with a VMM, one access at a time, and the form in which scripts are kept.

use super::{
    access::{Access, Space},
    script::{Action, Full, Sink, Step},
};
use core::fmt;

/// Bytes of a step as it is kept: address, value, mask, then space, length, action and padding.
pub const STEP_LEN: usize = 32;

const WRITE: u8 = 0;
const EXPECT: u8 = 1;
const READ: u8 = 2;

/// A step as it is kept.
pub fn encode(step: &Step) -> [u8; STEP_LEN] {
    let (action, mask) = match step.action {
        Action::Write => (WRITE, 0),
        Action::Expect { mask } => (EXPECT, mask),
        Action::Read => (READ, 0),
    };
    let space = match step.access.space {
        Space::Port => 0,
        Space::Memory => 1,
    };
    let tail = u64::from_le_bytes([space, step.access.len, action, 0, 0, 0, 0, 0]);
    let mut out = [0; STEP_LEN];
    let words = [step.access.addr, step.access.value, mask, tail];
    for (to, word) in out.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    out
}

/// The step in `raw`; `None` if there is none.
pub fn decode(raw: &[u8]) -> Option<Step> {
    let word = |at: usize| {
        let bytes = raw.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let [space, len, action, 0, 0, 0, 0, 0] = word(24)?.to_le_bytes() else {
        return None;
    };
    let action = match (action, word(16)?) {
        (WRITE, 0) => Action::Write,
        (EXPECT, mask) => Action::Expect { mask },
        (READ, 0) => Action::Read,
        _ => return None,
    };
    let space = match space {
        0 => Space::Port,
        1 => Space::Memory,
        _ => return None,
    };
    let access = Access {
        space,
        addr: word(0)?,
        len,
        value: word(8)?,
    };
    let is_access = match space {
        Space::Port => matches!(len, 1 | 2 | 4) && access.addr <= 0xffff,
        Space::Memory => matches!(len, 1 | 2 | 4 | 8),
    };
    is_access.then_some(Step { access, action })
}

/// Calls `f` for each step of a kept script, until it says that something is wrong.
pub fn each(script: &[u8], mut f: impl FnMut(Step)) -> Option<()> {
    let steps = script.chunks_exact(STEP_LEN);
    if !steps.remainder().is_empty() {
        return None;
    }
    for raw in steps {
        f(decode(raw)?);
    }
    Some(())
}

/// Writes a script into a buffer.
pub struct Keep<'a> {
    room: &'a mut [u8],
}

impl<'a> Keep<'a> {
    /// Into `room`, from its start.
    pub fn new(room: &'a mut [u8]) -> Self {
        Self { room }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.room.len()
    }
}

impl Sink for Keep<'_> {
    fn step(&mut self, step: Step) -> Result<(), Full> {
        let room = core::mem::take(&mut self.room);
        let (to, rest) = room.split_at_mut_checked(STEP_LEN).ok_or(Full)?;
        to.copy_from_slice(&encode(&step));
        self.room = rest;
        Ok(())
    }
}

/// The VMM presents another device than the image has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Difference {
    step: Step,
    answer: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Access {
            space,
            addr,
            len,
            value,
        } = self.step.access;
        let mask = match self.step.action {
            Action::Expect { mask } => mask,
            _ => u64::MAX,
        };
        let space = match space {
            Space::Port => "port",
            Space::Memory => "address",
        };
        write!(
            f,
            "{space} {addr:#x} answers {:#x} where the image has {:#x} \
             ({len} bytes, mask {mask:#x})",
            self.answer & mask,
            value & mask
        )
    }
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// This step is put to the VMM.
    Step(Step),
    /// It is through.
    Done,
}

/// A script being put to a VMM.
pub struct Replay<B> {
    script: B,
    at: usize,
    asked: Option<Step>,
}

impl<B: core::ops::Deref<Target = [u8]>> Replay<B> {
    /// From the start. `script` was checked with [`each`].
    pub fn new(script: B) -> Self {
        Self {
            script,
            at: 0,
            asked: None,
        }
    }

    /// The step that the VMM has been asked and whose answer was not taken yet.
    pub fn asked(&self) -> Option<Step> {
        self.asked
    }

    /// Steps so far.
    pub fn steps(&self) -> usize {
        self.at / STEP_LEN
    }

    /// Takes the VMM's answer to the step asked last.
    pub fn answer(&mut self, answer: u64) -> Result<(), Difference> {
        match self.asked.take() {
            Some(step) => match step.action {
                Action::Expect { mask } if (answer ^ step.access.value) & mask != 0 => {
                    Err(Difference { step, answer })
                }
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// The next step, which is asked from now on. Only after the answer to the last one was taken.
    pub fn ask(&mut self) -> Next {
        let rest = self.script.get(self.at..).unwrap_or(&[]);
        let Some(step) = rest.get(..STEP_LEN).and_then(decode) else {
            return Next::Done;
        };
        self.at += STEP_LEN;
        self.asked = Some(step);
        Next::Step(step)
    }
}
