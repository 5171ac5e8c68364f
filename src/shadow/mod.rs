// SPDX-License-Identifier: GPL-2.0

//! Shadows of the VMM's device models: what the guest has configured, so that fresh models can be
//! configured the same way.
//!
//! Every access of the guest passes [`Machine`]; [`Machine::script`] turns what it has seen into
//! accesses for the VMM that is started next.
//!
//! Pure: no kernel type, no allocation.

pub mod access;
pub mod class;
pub mod legacy;
pub mod machine;
pub mod memory;
pub mod pci;
pub mod replay;
pub mod script;
mod table;
pub mod virtio;
mod whose;

pub use access::{Access, Space};
pub use class::{Keeping, Unkept};
pub use machine::{Effect, Interrupt, Kick, Lack, Machine, Report};
pub use replay::{Keep, Next, Replay};
pub use script::{Action, Full, Phase, Sink, Step};
pub use virtio::{Commands, Control, DeviceId, Lost, Used, VirtioDevice, VirtioQueue};
pub use whose::Whose;
