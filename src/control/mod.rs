// SPDX-License-Identifier: GPL-2.0

//! `/dev/nvhv`: the interface of `docs/abi.md`.

mod device;
mod discard;
mod plain;
mod report;
mod transfer;

pub(crate) use device::Control;
