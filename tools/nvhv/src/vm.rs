// SPDX-License-Identifier: GPL-2.0

//! A VM as the module tells it, in the words of this tool. The JSON of `list` and `show` is this
//! structure; `docs/abi.md` documents it.

use crate::device::Device;
use crate::failure::Failure;
use crate::text;
use nvhv_pure::abi::{self, vm_flag, vm_state};
use nvhv_pure::life::{Cause, Policy};
use serde::Serialize;
use uuid::Uuid;

/// A VM.
#[derive(Serialize)]
pub struct Vm {
    pub name: String,
    pub slot: u32,
    pub state: &'static str,
    pub frozen: bool,
    pub aside: bool,
    /// Something is in use that it cannot be kept with.
    pub unkept: bool,
    /// It goes on without some device's state, as its owner allowed.
    pub partial: bool,
    /// The platform did not save it.
    pub unsaved: bool,
    pub uuid: String,
    pub uid: u32,
    pub pid: Option<i32>,
    pub vcpus: u32,
    pub blocks: u32,
    pub ram_bytes: u64,
    pub pool_bytes: u64,
    pub resumes: u32,
    pub created_ns: u64,
    pub sealed_ns: Option<u64>,
    pub cause: Option<String>,
    pub policy: Vec<&'static str>,
    pub refusal: Option<Refusal>,
    pub timings: Timings,
}

/// Why the VM was last refused, or what is damaged.
#[derive(Serialize)]
pub struct Refusal {
    pub errno: i32,
    pub text: String,
}

/// How long things took.
#[derive(Serialize)]
pub struct Timings {
    pub adopt_ns: u64,
    pub adopted_pages: u64,
    pub freeze_ns: u64,
    pub capture_ns: u64,
    pub writeback_ns: u64,
    pub commit_ns: u64,
    pub seal_ns: u64,
    /// Nothing unless power was said to fail.
    pub budget_ms: Option<u64>,
    pub restore_ns: u64,
}

impl From<&abi::Vm> for Vm {
    fn from(vm: &abi::Vm) -> Self {
        let text = text::field(&vm.text);
        let policy = Policy::from_bits(vm.policy).unwrap_or_default();
        Vm {
            name: text::field(&vm.name),
            slot: vm.slot,
            state: match vm.state {
                vm_state::EMPTY => "empty",
                vm_state::LIVE => "live",
                vm_state::SEALED => "sealed",
                vm_state::TORN => "torn",
                vm_state::DISCARDING => "discarding",
                vm_state::DAMAGED => "damaged",
                _ => "unknown",
            },
            frozen: vm.flags & vm_flag::FROZEN != 0,
            aside: vm.flags & vm_flag::ASIDE != 0,
            unkept: vm.flags & vm_flag::UNKEPT != 0,
            partial: vm.flags & vm_flag::PARTIAL != 0,
            unsaved: vm.flags & vm_flag::UNSAVED != 0,
            uuid: Uuid::from_bytes(vm.uuid).to_string(),
            uid: vm.uid,
            pid: (vm.pid != 0).then_some(vm.pid),
            vcpus: vm.vcpus,
            blocks: vm.blocks,
            ram_bytes: vm.ram_bytes,
            pool_bytes: vm.pool_bytes,
            resumes: vm.resumes,
            created_ns: vm.created_ns,
            sealed_ns: (vm.sealed_ns != 0).then_some(vm.sealed_ns),
            cause: (vm.cause != 0).then(|| Cause(vm.cause).to_string()),
            policy: words(policy),
            refusal: (vm.refusal != 0 || !text.is_empty()).then_some(Refusal {
                errno: vm.refusal,
                text,
            }),
            timings: Timings {
                adopt_ns: vm.timings.adopt_ns,
                adopted_pages: vm.timings.adopted_pages,
                freeze_ns: vm.timings.freeze_ns,
                capture_ns: vm.timings.capture_ns,
                writeback_ns: vm.timings.writeback_ns,
                commit_ns: vm.timings.commit_ns,
                seal_ns: vm.timings.seal_ns,
                budget_ms: (vm.timings.budget_ms != 0).then_some(vm.timings.budget_ms),
                restore_ns: vm.timings.restore_ns,
            },
        }
    }
}

impl Vm {
    /// Its name, or `#` and its slot if the name does not lead to it.
    pub fn handle(&self) -> String {
        if self.name.is_empty() || self.aside {
            format!("#{}", self.slot)
        } else {
            self.name.clone()
        }
    }

    /// Its state in a word or two.
    pub fn state_text(&self) -> String {
        let aside = if self.aside { ",aside" } else { "" };
        let state = if self.frozen { "frozen" } else { self.state };
        let saved = if self.unsaved { ",unsaved" } else { "" };
        let kept = match (self.unkept, self.partial) {
            (true, _) => ",unkept",
            (_, true) => ",partial",
            _ => "",
        };
        format!("{state}{aside}{saved}{kept}")
    }

    /// Finds a VM by name or slot.
    pub fn find(device: &Device, which: &str) -> Result<Vm, Failure> {
        let vms = device.vms()?;
        let slot = which.strip_prefix('#').map(str::parse);
        let found = vms.iter().find(|vm| match &slot {
            Some(slot) => slot.as_ref() == Ok(&vm.slot),
            None => text::field(&vm.name) == which && vm.flags & vm_flag::ASIDE == 0,
        });
        found
            .map(Vm::from)
            .ok_or_else(|| Failure::NoVm(format!("{which}: there is no such VM")))
    }
}

/// A policy in words.
fn words(policy: Policy) -> Vec<&'static str> {
    let word = |bit, yes, no| if policy.has(bit) { yes } else { no };
    vec![
        word(Policy::TORN_COLD, "torn=cold", "torn=refuse"),
        word(Policy::PARTIAL, "partial=allow", "partial=refuse"),
        word(Policy::WRITE_THROUGH, "disk=writethrough", "disk=as-is"),
    ]
}

/// The name of a user, or the number.
pub fn user(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// VMs for tests, as the module may tell them.
#[cfg(test)]
pub mod samples {
    use super::*;

    /// One of which everything is told, in the middle of things.
    pub fn full() -> abi::Vm {
        let mut vm = abi::Vm {
            slot: 1,
            state: vm_state::LIVE,
            flags: vm_flag::FROZEN | vm_flag::UNKEPT,
            pid: 71,
            vcpus: 2,
            blocks: 3,
            ram_bytes: 320 << 20,
            pool_bytes: 328 << 20,
            resumes: 4,
            created_ns: 5,
            sealed_ns: 6,
            cause: Cause::POWER.0,
            policy: Policy::TORN_COLD.bits(),
            refusal: 17,
            ..abi::Vm::ZERO
        };
        vm.name[..3].copy_from_slice(b"a-b");
        vm.text[..7].copy_from_slice(b"for it.");
        vm.timings.seal_ns = 9_732_000;
        vm.timings.budget_ms = 20;
        vm
    }

    /// One of which nothing is told, in each state; and one with a cause of a later version.
    pub fn all() -> [abi::Vm; 6] {
        let bare = |state| abi::Vm {
            state,
            ..abi::Vm::ZERO
        };
        let later = abi::Vm {
            cause: 99,
            ..bare(vm_state::SEALED)
        };
        [
            full(),
            bare(vm_state::LIVE),
            bare(vm_state::TORN),
            bare(vm_state::DISCARDING),
            bare(vm_state::DAMAGED),
            later,
        ]
    }
}
