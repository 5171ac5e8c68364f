// SPDX-License-Identifier: GPL-2.0

//! What the tests of the pure rooms share.

pub mod cache;
pub mod commands;
pub mod fuzz;
pub mod image;
pub mod legacy;
pub mod random;
pub mod ring;
pub mod shadow;
pub mod sums;
pub mod vm;
