// SPDX-License-Identifier: GPL-2.0

//! What of a VM is captured, how two VMs are compared, and in which order state is restored.
//!
//! Pure: no kernel type, no allocation. `kvm` executes what stands here.

pub mod blocks;
pub mod clock;
pub mod commands;
pub mod cpuid;
pub mod exit;
pub mod kvm_abi;
pub mod kvm_events;
pub mod lapic;
mod list;
pub mod plan;
pub mod platform;
pub mod queues;
pub mod run_time;
