// SPDX-License-Identifier: GPL-2.0

//! Guest RAM: putting it into the pool and mapping it.

pub(crate) mod adopt;
pub(crate) mod mapping;
pub(crate) mod overlay;
