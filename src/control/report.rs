// SPDX-License-Identifier: GPL-2.0

//! What `/dev/nvhv` tells: the pool, and each VM in it.

use crate::{
    abi::{self, persistence, pool_state, vm_flag, vm_state, Info, TextWriter, ABI_VERSION},
    format::{EntryState, HeaderView, Refusal, State, GRANULE},
    host::Host,
    kvm::{keepable::Obstacles, vm::Vm},
    life::Policy,
    pool::{
        device::Domain,
        store::{header_of, is_aside, is_unsaved, Store},
        NoPool,
    },
};
use kernel::{fmt::Write, prelude::*};

/// The module and its pool.
pub(super) fn info(host: &Host, info: &mut Info) {
    info.abi_version = ABI_VERSION;
    // Writing to a text field cannot fail: what does not fit is dropped.
    let _ = TextWriter::new(&mut info.module_version).write_str(crate::VERSION);
    let Ok(store) = host.store() else {
        let mut text = TextWriter::new(&mut info.text);
        info.pool_state = match host.why_no_store() {
            None | Some(NoPool::None) => pool_state::NONE,
            Some(NoPool::Unusable(why)) => {
                let _ = write!(text, "{why}");
                pool_state::DAMAGED
            }
            Some(NoPool::Failed(e)) => {
                let _ = write!(text, "looking for a pool failed: {e:?}");
                pool_state::NONE
            }
        };
        return;
    };
    let geometry = store.pool.geometry();
    let device = store.device.name.to_str().unwrap_or("?");
    let _ = TextWriter::new(&mut info.device).write_str(device);
    info.pool_bytes = u64::from(geometry.data_granules()) * GRANULE;
    info.granules = geometry.data_granules();
    info.pool_uuid = *geometry.uuid();
    info.slots = geometry.slots();
    info.persistence = match store.device.domain {
        Domain::CpuCache => persistence::CPU_CACHE,
        Domain::MemoryController => persistence::MEMORY_CONTROLLER,
        Domain::Unknown => persistence::UNKNOWN,
    };
    info.pool_state = pool_state::GOOD;
    let memory = store.with_memory(|memory| Ok((memory.free_granules(), memory.suspect())));
    if let Ok((free, suspect)) = memory {
        info.free_bytes = u64::from(free) * GRANULE;
        if let Some(slot) = suspect {
            info.pool_state = pool_state::SUSPECT;
            let why = Refusal::PoolSuspect { slot };
            let _ = write!(TextWriter::new(&mut info.text), "{why}");
        }
    }
}

/// The VM in `slot`.
pub(super) fn vm(host: &Host, slot: u32, out: &mut abi::Vm) -> Result {
    let store = host.store()?;
    out.slot = slot;
    // The entry of a VM that is here changes under its own lock, so it is asked itself.
    match host.holder_of(slot) {
        Some(vm) => here(&vm, out),
        None => at_rest(store, slot, out)?,
    }
    let Ok(name) = crate::life::Name::from_field(&out.name) else {
        return Ok(());
    };
    if let Some((errno, text)) = host.last_refusal(&name) {
        if out.refusal == 0 {
            out.refusal = errno;
            out.text = text;
        }
    }
    Ok(())
}

/// A VM that is here.
fn here(vm: &Vm, out: &mut abi::Vm) {
    let inner = vm.inner.lock();
    let Some(image) = &inner.image else {
        // Its keeper waits until nothing holds its memory any more.
        out.name = *vm.binding.id().field();
        out.uid = vm.binding.uid;
        out.state = vm_state::DISCARDING;
        return;
    };
    describe(&image.header.view(), out);
    out.state = match image.entry.as_ref().map(|entry| entry.state()) {
        Some(State::Live) => vm_state::LIVE,
        Some(State::Sealed) => vm_state::SEALED,
        _ => vm_state::DISCARDING,
    };
    if !vm.gate.is_open() {
        out.flags |= vm_flag::FROZEN;
    }
    flag(&vm.devices.obstacles(vm), out);
    out.pid = vm.owner.number() as i32;
    out.timings = inner.timings;
}

/// An image that nobody runs.
fn at_rest(store: &Store, slot: u32, out: &mut abi::Vm) -> Result {
    store.entry(slot, |entry| {
        if let Some(header) = header_of(&entry) {
            describe(&header, out);
        }
        if is_aside(&entry) {
            out.flags |= vm_flag::ASIDE;
        }
        if is_unsaved(&entry) {
            out.flags |= vm_flag::UNSAVED;
        }
        out.state = match &entry {
            EntryState::Empty => vm_state::EMPTY,
            EntryState::Live { .. } => vm_state::TORN,
            EntryState::Sealed { .. } => vm_state::SEALED,
            EntryState::Discarding { .. } | EntryState::Wiped { .. } => vm_state::DISCARDING,
            EntryState::Damaged { why, .. } => {
                out.refusal = why.errno();
                let _ = write!(TextWriter::new(&mut out.text), "{why}");
                vm_state::DAMAGED
            }
        };
    })?;
    if out.state == vm_state::SEALED {
        sealed(store, slot, out);
    }
    Ok(())
}

/// What stands against keeping the VM.
fn flag(obstacles: &Obstacles, out: &mut abi::Vm) {
    if obstacles.is_fatal() {
        out.flags |= vm_flag::UNKEPT;
    } else if obstacles.is_any() {
        out.flags |= vm_flag::PARTIAL;
    }
}

fn describe(header: &HeaderView<'_>, out: &mut abi::Vm) {
    out.name = *header.name().field();
    out.uuid = header.vm();
    out.uid = header.uid();
    out.vcpus = header.vcpus();
    out.blocks = header.block_count();
    out.resumes = header.resumes();
    out.ram_bytes = header.ram_bytes();
    out.pool_bytes = header.pool_bytes();
    out.created_ns = header.created_ns();
    out.policy = header.policy().bits();
}

/// What the record of a sealed VM tells.
fn sealed(store: &Store, slot: u32, out: &mut abi::Vm) {
    let info = (|| -> Result<_> {
        let image = store.take(slot)?.ok_or(ENOENT)?;
        let record = image.record.ok_or(ENOENT)?;
        let mut buf = crate::pool::store::buffer(record.len())?;
        let record = store.pool.read_record(&image.entry, &record, &mut buf)?;
        let policy = Policy::from_bits(out.policy).unwrap_or_default();
        Ok((record.info(), Obstacles::in_record(&record, policy)))
    })();
    if let Ok((info, obstacles)) = info {
        out.sealed_ns = info.sealed_ns;
        out.cause = info.cause.0;
        if let Some(obstacles) = obstacles {
            flag(&obstacles, out);
        }
    }
}
