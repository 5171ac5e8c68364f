// SPDX-License-Identifier: GPL-2.0

//! What a driver has told its device through a control virtqueue, as far as a fresh device must be told
//! again: network devices (virtio 1.3, section 5.1.6.5) and consoles with several ports (section 5.3.6.2).
//!
//! A command counts once its device has used it, and for network devices only if it said that it did
//! what it was asked. Of commands that replace each other the last one is kept.
//!
//! ```text
//! commands, the order in which they are told again:   u16 length, then the bytes that the device reads
//! ```
//! Learning happens where one must not sleep, so the room is given once and for all. A command for which
//! there is none, or that nothing here understands, makes a list that must not be used: see
//! [`Commands::lost`].

use core::fmt;
use core::ops::{Deref, DerefMut};

/// Bytes before a command in the list.
const PREFIX: usize = 2;

/// VIRTIO_NET_OK
const NET_OK: u8 = 0;

/// Whose commands go through a control virtqueue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// A network device's, which acknowledges each.
    Net,
    /// A console's, which does not.
    Console,
}

/// Why a list is not all that the device was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// A command is longer than can be told again, or all together are.
    TooLong,
    /// The network device has done a command that nothing here knows: its class and its number.
    Unknown(u8, u8),
    /// The driver took a command back while the device had it.
    Unreadable,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::TooLong => f.write_str("was given longer commands than can be kept"),
            Lost::Unknown(class, command) => {
                write!(
                    f,
                    "was given command {command} of class {class}, which is not known"
                )
            }
            Lost::Unreadable => f.write_str("was given a command that the driver then changed"),
        }
    }
}

/// What becomes of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// It leaves nothing in the device.
    Nothing,
    /// It replaces what has the same key.
    Keep(Key),
    /// It undoes what has that key.
    Undo(Key),
    /// It is not known.
    Unknown(u8, u8),
}

/// What commands that replace each other have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    kind: u16,
    about: u32,
}

impl Control {
    /// The type of the device (section 5).
    pub fn device_type(self) -> u16 {
        match self {
            Control::Net => 1,
            Control::Console => 3,
        }
    }

    /// Of a device of that type.
    pub fn of(device_type: u16) -> Option<Self> {
        [Control::Net, Control::Console]
            .into_iter()
            .find(|control| control.device_type() == device_type)
    }

    /// Whether a device that answered so has done what it was told.
    pub fn is_done(self, answer: Option<u8>) -> bool {
        match self {
            Control::Net => answer == Some(NET_OK),
            Control::Console => true,
        }
    }

    /// Whether the device answers with one byte.
    pub fn answers(self) -> bool {
        self == Control::Net
    }

    /// A command as drivers put it before a device: what has a buffer of its own. A device of before
    /// virtio 1.0 may rely on that (section 5.1.6.5).
    pub fn parts(self, command: &[u8]) -> [&[u8]; 2] {
        let head = match self {
            Control::Net => 2,
            Control::Console => command.len(),
        };
        let (head, data) = command.split_at_checked(head).unwrap_or((command, &[]));
        [head, data]
    }

    /// Bytes of a command that count.
    fn len(self, len: usize) -> usize {
        match self {
            Control::Net => len,
            Control::Console => len.min(8),
        }
    }

    fn rule(self, command: &[u8]) -> Rule {
        match self {
            Control::Net => net(command),
            Control::Console => console(command),
        }
    }
}

/// `struct virtio_net_ctrl`: class, command, what it is about.
fn net(command: &[u8]) -> Rule {
    let &[class, number, ref data @ ..] = command else {
        return Rule::Nothing;
    };
    let key = |number: u8, about: u32| Key {
        kind: u16::from_be_bytes([class, number]),
        about,
    };
    let word = match *data {
        [low, high, ..] => u32::from(u16::from_le_bytes([low, high])),
        _ => 0,
    };
    match (class, number) {
        // Receive modes; MAC table and address; pairs of queues and hashing; offloads.
        (0, 0..=5) | (1, 0 | 1) | (4, 0..=2) | (5, 0) => Rule::Keep(key(number, 0)),
        // VLAN filtering: added and deleted one by one.
        (2, 0) => Rule::Keep(key(0, word)),
        (2, 1) => Rule::Undo(key(0, word)),
        // Coalescing: of all queues of a direction, and of one, whose index stands first.
        (6, 0 | 1) => Rule::Keep(key(number, 0)),
        (6, 2) => Rule::Keep(key(number, word)),
        // An announcement acknowledged; parameters and statistics asked for.
        (3, 0) | (6, 3) | (8, 0 | 1) => Rule::Nothing,
        _ => Rule::Unknown(class, number),
    }
}

/// `struct virtio_console_control`: port, event, value.
fn console(command: &[u8]) -> Rule {
    const DEVICE_READY: u16 = 0;
    const PORT_READY: u16 = 3;
    const PORT_OPEN: u16 = 6;
    let &[p0, p1, p2, p3, e0, e1, _, _] = command else {
        return Rule::Nothing;
    };
    let port = u32::from_le_bytes([p0, p1, p2, p3]);
    let about = match u16::from_le_bytes([e0, e1]) {
        DEVICE_READY => 0,
        PORT_READY | PORT_OPEN => port,
        // What only devices say.
        _ => return Rule::Nothing,
    };
    let kind = u16::from_le_bytes([e0, e1]);
    Rule::Keep(Key { kind, about })
}

/// A request that a device has used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Used {
    /// Bytes that the driver had for the device; perhaps more than were asked for.
    pub len: usize,
    /// The last byte that the device could answer with, if it could.
    pub answer: Option<u8>,
}

/// What a device was told through one control virtqueue.
///
/// # Invariants
///
/// The first `len` bytes of `room` are whole commands that are to be kept, with as many different keys;
/// after them there is room for one of `longest` bytes more.
pub struct Commands<B> {
    control: Control,
    room: B,
    len: usize,
    longest: usize,
    lost: Option<Lost>,
}

impl<B: Deref<Target = [u8]> + DerefMut> Commands<B> {
    /// Nothing was told yet. A command may have `longest` bytes. `None` if `room` has none for any.
    pub fn new(control: Control, room: B, longest: usize) -> Option<Self> {
        // INVARIANT: as is checked.
        (PREFIX.checked_add(longest)? <= room.len()).then_some(Self {
            control,
            room,
            len: 0,
            longest,
            lost: None,
        })
    }

    /// What [`Commands::saved`] gave. `None` if it did not, or if there is no room for it.
    pub fn restore(control: Control, room: B, longest: usize, saved: &[u8]) -> Option<Self> {
        let mut commands = Self::new(control, room, longest)?;
        let mut rest = saved;
        while !rest.is_empty() {
            let (command, more) = split(rest)?;
            rest = more;
            if !matches!(control.rule(command), Rule::Keep(_)) {
                return None;
            }
            commands.learn(|room| {
                room.get_mut(..command.len())?.copy_from_slice(command);
                let answer = control.answers().then_some(NET_OK);
                let len = command.len();
                Some(Used { len, answer })
            });
        }
        // Nothing came twice, and all of it fitted.
        (commands.saved() == saved && commands.lost.is_none()).then_some(commands)
    }

    /// Whose commands they are.
    pub fn control(&self) -> Control {
        self.control
    }

    /// Why the list must not be used, if so: then until the device is reset.
    pub fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// The list.
    pub fn saved(&self) -> &[u8] {
        self.room.get(..self.len).unwrap_or(&[])
    }

    /// The command at `at` of the list, and where the next one is.
    pub fn at(&self, at: usize) -> Option<(&[u8], usize)> {
        let rest = self.saved().get(at..)?;
        let (command, more) = split(rest)?;
        Some((command, self.len.checked_sub(more.len())?))
    }

    /// The device has used a request. `read` reads as much of what the driver said in it as there is
    /// room for, and `None` if that cannot be read any more.
    pub fn learn(&mut self, read: impl FnOnce(&mut [u8]) -> Option<Used>) {
        let start = self.len.saturating_add(PREFIX);
        let room = self.room.get_mut(start..).unwrap_or_default();
        let room = room.get_mut(..self.longest).unwrap_or_default();
        let Some(Used { len, answer }) = read(room) else {
            self.lost = self.lost.or(Some(Lost::Unreadable));
            return;
        };
        let len = self.control.len(len);
        let command = room.get(..len.min(self.longest)).unwrap_or_default();
        if !self.control.is_done(answer) {
            return;
        }
        let done = match self.control.rule(command) {
            Rule::Nothing => return,
            Rule::Keep(_) if len > self.longest => Err(Lost::TooLong),
            Rule::Keep(key) => self.keep(key, len),
            Rule::Undo(key) => {
                let gone = self.find(key);
                gone.map_or(Ok(()), |at| self.remove(at, self.len))
            }
            Rule::Unknown(class, number) => Err(Lost::Unknown(class, number)),
        };
        if let Err(lost) = done {
            self.lost = self.lost.or(Some(lost));
        }
    }

    /// Keeps the command of `len` bytes that was read behind the list.
    fn keep(&mut self, key: Key, len: usize) -> Result<(), Lost> {
        let end = self.len.saturating_add(PREFIX).saturating_add(len);
        // CAST: checked to fit.
        let prefix = u16::try_from(len).map_err(|_| Lost::TooLong)?.to_le_bytes();
        let place = self
            .room
            .get_mut(self.len..)
            .and_then(|r| r.get_mut(..PREFIX));
        place.ok_or(Lost::TooLong)?.copy_from_slice(&prefix);
        let old = self.find(key);
        match old {
            // What ports are told is told in the order of their first time: ready before open.
            Some(at) if self.control == Control::Console => {
                let new = self.room.get_mut(at..end).unwrap_or_default();
                // The command is at the end, and takes the place of one as long.
                let whole = PREFIX.saturating_add(len);
                if let Some((old, new)) = new.split_at_mut_checked(whole) {
                    let from = new.len().saturating_sub(whole);
                    if let Some(new) = new.get(from..).filter(|new| new.len() == whole) {
                        old.copy_from_slice(new);
                    }
                }
                Ok(())
            }
            old => {
                // What was told last counts for what several commands set, so it comes last.
                if let Some(at) = old {
                    self.remove(at, end)?;
                }
                let end = self.len.saturating_add(PREFIX).saturating_add(len);
                let reserve = PREFIX.saturating_add(self.longest);
                if end.saturating_add(reserve) > self.room.len() {
                    return Err(Lost::TooLong);
                }
                // INVARIANT: a whole command more, no other has its key, and the reserve is there.
                self.len = end;
                Ok(())
            }
        }
    }

    /// Removes the command at `at`; what is behind it up to `end` moves up.
    fn remove(&mut self, at: usize, end: usize) -> Result<(), Lost> {
        let (command, _) = self.at(at).ok_or(Lost::TooLong)?;
        let whole = PREFIX.saturating_add(command.len());
        if let Some(moved) = self.room.get_mut(at..end) {
            // Not more than there is: the command is a part of it.
            moved.rotate_left(whole.min(moved.len()));
        }
        // INVARIANT: one whole command less.
        self.len = self.len.saturating_sub(whole);
        Ok(())
    }

    /// Where the command with that key is.
    fn find(&self, key: Key) -> Option<usize> {
        let mut at = 0;
        while let Some((command, next)) = self.at(at) {
            if self.control.rule(command) == Rule::Keep(key) {
                return Some(at);
            }
            at = next;
        }
        None
    }
}

/// The first command of a list, and what follows it.
fn split(list: &[u8]) -> Option<(&[u8], &[u8])> {
    let (prefix, rest) = list.split_first_chunk::<PREFIX>()?;
    rest.split_at_checked(u16::from_le_bytes(*prefix).into())
}
