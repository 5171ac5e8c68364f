// SPDX-License-Identifier: GPL-2.0

//! Ends of life: whether a VM's image is kept when its VMM ends.
//!
//! When in doubt it is kept: keeping too much costs memory, discarding too much costs a machine.

use core::fmt;

/// Whether the guest itself had asked to end, last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuestEnd {
    /// It had not.
    #[default]
    None,
    /// `KVM_EXIT_SHUTDOWN`: a triple fault. Many guests reboot so.
    TripleFault,
    /// `KVM_EXIT_SYSTEM_EVENT` of type `KVM_SYSTEM_EVENT_SHUTDOWN`.
    PowerOff,
    /// `KVM_EXIT_SYSTEM_EVENT` of type `KVM_SYSTEM_EVENT_RESET`.
    Reset,
    /// `KVM_EXIT_SYSTEM_EVENT` of type `KVM_SYSTEM_EVENT_CRASH`.
    Crash,
    /// A write that enters ACPI S5; see [`asks_s5`](super::asks_s5).
    AcpiS5,
}

/// How the VMM's hold on the VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The process was killed by this signal.
    Signal(u32),
    /// The process ended by itself with this status.
    Code(u32),
    /// The process replaced itself with another program.
    Exec,
    /// The process lives and closed all its files of the VM.
    Closed,
}

/// All that decides about an image when its VMM ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// What the guest had asked for.
    pub guest: GuestEnd,
    /// How the VMM ended.
    pub exit: Exit,
    /// The VMM had been sent a signal whose default is to end a process (SIGTERM, SIGINT, SIGHUP,
    /// SIGQUIT and the like), whether or not it handled it.
    pub was_signalled: bool,
    /// The host is shutting down, rebooting or starting another kernel.
    pub host_going_down: bool,
}

/// What becomes of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sealed.
    Keep(Why),
    /// It is zeroed and its memory is free again.
    Discard(Why),
}

/// The reason for a [`Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The VMM was killed or crashed.
    Killed,
    /// The VMM was told to end.
    Told,
    /// The host goes down.
    HostGoesDown,
    /// The guest powered itself off.
    GuestPoweredOff,
    /// The guest crashed or reset itself, and its VMM did not go on with it.
    GuestFailed,
    /// The VMM ended on its own.
    VmmEnded,
    /// The VMM closed the VM.
    VmmClosed,
    /// The VMM failed.
    VmmFailed,
}

/// Decides about an image when its VMM ends. The table in `docs/specification.md` is this function.
pub fn end_of_life(end: &End) -> Verdict {
    // The guest's own power-off is the one end that no outage can look like. It counts even if
    // the host goes down at the same time: the guest has synced its disks and is gone.
    if matches!(end.guest, GuestEnd::PowerOff | GuestEnd::AcpiS5) {
        return Verdict::Discard(Why::GuestPoweredOff);
    }
    if end.host_going_down {
        return Verdict::Keep(Why::HostGoesDown);
    }
    match end.exit {
        Exit::Signal(_) => Verdict::Keep(Why::Killed),
        _ if end.was_signalled => Verdict::Keep(Why::Told),
        // QEMU -no-reboot, Firecracker: the guest's reset ends the VMM as its power-off does. A
        // guest at its reset vector has nothing left to resume; its triple fault is such a reset.
        Exit::Code(_) | Exit::Closed | Exit::Exec
            if matches!(
                end.guest,
                GuestEnd::TripleFault | GuestEnd::Reset | GuestEnd::Crash
            ) =>
        {
            Verdict::Discard(Why::GuestFailed)
        }
        Exit::Code(0) => Verdict::Discard(Why::VmmEnded),
        // Nobody asked for this: an assertion, a lost disk, out of memory. The VM is not at fault.
        Exit::Code(_) => Verdict::Keep(Why::VmmFailed),
        Exit::Closed | Exit::Exec => Verdict::Discard(Why::VmmClosed),
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Killed => "its VMM was killed or crashed",
            Why::Told => "its VMM was told to end by a signal",
            Why::HostGoesDown => "the host goes down",
            Why::GuestPoweredOff => "the guest powered itself off",
            Why::GuestFailed => "the guest reset itself and its VMM did not go on",
            Why::VmmEnded => "its VMM ended on its own",
            Why::VmmClosed => "its VMM closed the VM",
            Why::VmmFailed => "its VMM failed",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Keep(why) => write!(f, "kept: {why}"),
            Verdict::Discard(why) => write!(f, "discarded: {why}"),
        }
    }
}
