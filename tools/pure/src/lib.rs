// SPDX-License-Identifier: GPL-2.0

//! The pure rooms of the module, as an ordinary crate: the same files, for the tool and for tests.
//!
//! What does not compile here without `std` and `alloc`, without `unsafe` and without a kernel, does
//! not belong in a pure room.

#![no_std]
#![forbid(unsafe_code)]
// Nothing here may panic on what it reads: in the module, that would be the host's end.
#![deny(
    clippy::expect_used,
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

#[path = "../../../src/abi.rs"]
pub mod abi;
#[path = "../../../src/format/mod.rs"]
pub mod format;
#[path = "../../../src/life/mod.rs"]
pub mod life;
#[path = "../../../src/ring/mod.rs"]
pub mod ring;
#[path = "../../../src/shadow/mod.rs"]
pub mod shadow;
#[path = "../../../src/state/mod.rs"]
pub mod state;
