// SPDX-License-Identifier: GPL-2.0

//! How VMs were started, so that they are started again in the same way: `nvhv run` records it, `nvhv resume`
//! does it.

mod leftovers;
mod limits;
mod place;
mod record;
mod store;

pub use leftovers::clear as clear_leftovers;
pub use place::{slice, take_place};
pub use record::Launch;
pub use store::Store;
