// SPDX-License-Identifier: GPL-2.0

//! Scripts: accesses that configure a fresh device, in order.

use super::access::{Access, Space};

/// What a step does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A write.
    Write,
    /// A read. The answer must equal the value under the mask; otherwise this is another device.
    Expect {
        /// The bits that are compared.
        mask: u64,
    },
    /// A read whose answer is not looked at: it has a side effect, or waits.
    Read,
}

/// One access of a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Where, how wide, and the value written or expected.
    pub access: Access,
    /// What is done.
    pub action: Action,
}

/// The two scripts of a machine, by what the devices may do meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The devices are configured, and touch no memory of the guest.
    Configure,
    /// They are let run.
    Run,
}

/// There is no room for another step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Takes the steps of a script, in order.
pub trait Sink {
    /// Takes one step.
    fn step(&mut self, step: Step) -> Result<(), Full>;

    /// A write.
    fn write(&mut self, access: Access) -> Result<(), Full> {
        let action = Action::Write;
        self.step(Step { access, action })
    }

    /// A write to an I/O port.
    fn out(&mut self, port: u16, len: u8, value: u64) -> Result<(), Full> {
        self.write(Access::port(port, len, value))
    }

    /// A write to memory.
    fn store(&mut self, addr: u64, len: u8, value: u64) -> Result<(), Full> {
        self.write(Access::memory(addr, len, value))
    }

    /// A read that must be answered so, as far as `mask` says.
    fn expect(&mut self, access: Access, mask: u64) -> Result<(), Full> {
        let action = Action::Expect { mask };
        self.step(Step { access, action })
    }

    /// A read for its side effect.
    fn read(&mut self, space: Space, addr: u64, len: u8) -> Result<(), Full> {
        let access = Access {
            space,
            addr,
            len,
            value: 0,
        };
        let action = Action::Read;
        self.step(Step { access, action })
    }
}
