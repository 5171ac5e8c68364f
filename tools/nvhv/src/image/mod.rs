// SPDX-License-Identifier: GPL-2.0

//! Images outside the pool: files that carry one to another host, and cores for debuggers.

mod core;
mod dump;
mod export;
mod import;
mod kernel;
mod pages;
mod parts;

pub use dump::dump;
pub use export::export;
pub use import::import;
