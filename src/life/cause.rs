// SPDX-License-Identifier: GPL-2.0

//! What made a VM be sealed.

use core::fmt;

/// What made a VM be sealed. For information only: a value of a later version does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause(pub u32);

impl Cause {
    /// Its VMM was killed or crashed.
    pub const VMM_DIED: Cause = Cause(1);
    /// The host reboots, shuts down or starts another kernel.
    pub const REBOOT: Cause = Cause(2);
    /// Somebody asked for it.
    pub const REQUEST: Cause = Cause(3);
    /// The host kernel panicked.
    pub const PANIC: Cause = Cause(4);
    /// The host's power is failing.
    pub const POWER: Cause = Cause(5);
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cause::VMM_DIED => f.pad("vmm-died"),
            Cause::REBOOT => f.pad("reboot"),
            Cause::REQUEST => f.pad("request"),
            Cause::PANIC => f.pad("panic"),
            Cause::POWER => f.pad("power"),
            Cause(other) => write!(f, "unknown-{other}"),
        }
    }
}
