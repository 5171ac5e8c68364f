// SPDX-License-Identifier: GPL-2.0

//! The VMM's memory slots, and KVM's.
//!
//! Until adoption they are the same. From then on KVM's slots point to the alias of each block, so
//! every slot that the VMM creates or changes is translated; a slot of new RAM is placed in the pool
//! first. Slots of read-only memory (firmware) and of storage, which a file keeps, stay the VMM's.
//!
//! A VMM may unmap RAM and put other memory in its place, as some do to reset their VM: then that becomes
//! the content of the guest's RAM.

use super::{
    migrate,
    scratch::Scratch,
    vm::{Image, Inner, Phase, Vm},
};
use crate::{
    format::{place_block, Block, BlockFlags, HeaderView},
    pool::store::refused,
    ram::adopt::{self as ram, Backing, Ram},
    state::{
        blocks::Slot,
        kvm_abi::{self as abi, MEMORY_REGION},
    },
    sys::{compat::EOPNOTSUPP, user},
};
use kernel::prelude::*;

/// KVM_SET_USER_MEMORY_REGION and its successor, with the argument at `arg`.
pub(super) fn set(vm: &Vm, request: u32, arg: usize) -> Result<isize> {
    let mut raw = [0; MEMORY_REGION];
    user::read(arg, &mut raw)?;
    let slot = abi::memory_region_from(&raw);
    if request == abi::SET_USER_MEMORY_REGION2 && slot.flags & abi::MEM_GUEST_MEMFD != 0 {
        pr_err!(
            "{}: refused slot {:#x}: private memory (guest_memfd) cannot be kept\n",
            vm.binding.name(),
            slot.id
        );
        return Err(EOPNOTSUPP);
    }
    let file = vm.kvm.get()?;
    let inner = &mut *vm.inner.lock();
    if inner.image.is_none() || !matches!(vm.phase(), Phase::New | Phase::Live) {
        // Without private memory the two requests say the same; the argument was read once, and is
        // what was checked.
        let ret = vm.kvm.call(&file, request, arg)?;
        note(vm, inner, slot)?;
        return Ok(ret as isize);
    }
    migrate::check(vm, &inner.slots, &slot)?;
    let Inner {
        image,
        scratch,
        phantoms,
        ..
    } = inner;
    let (Some(image), Some(scratch)) = (image, scratch) else {
        return Err(EIO);
    };
    let translated = translate(vm, image, scratch, phantoms, &slot)?;
    put(vm, scratch, &translated)?;
    note(vm, inner, slot)?;
    Ok(0)
}

/// Hands a slot to KVM.
pub(super) fn put(vm: &Vm, scratch: &Scratch, slot: &Slot) -> Result {
    let file = vm.kvm.get()?;
    let raw = abi::memory_region_to(slot);
    scratch.set(&vm.kvm, &file, abi::SET_USER_MEMORY_REGION, &raw)?;
    Ok(())
}

/// Points all of KVM's slots to the aliases of their blocks. KVM does not let a slot's address
/// change, so each is deleted and made again; no vCPU has run yet.
pub(super) fn redirect(vm: &Vm, scratch: &Scratch, slots: &[Slot], image: &Image) -> Result {
    for slot in slots {
        let Some(Some(alias)) = image.ram.alias_of(slot.hva, slot.size) else {
            continue;
        };
        put(vm, scratch, &Slot { size: 0, ..*slot })?;
        put(
            vm,
            scratch,
            &Slot {
                hva: alias,
                ..*slot
            },
        )?;
    }
    Ok(())
}

/// Bytes of the guest address and the length of a slot, as a record has them of storage.
pub(super) const PLACE: usize = 16;

/// The slots that show storage: of those that are not read-only all others are in a block of RAM.
pub(super) fn storage<'a>(slots: &'a [Slot], ram: &'a Ram) -> impl Iterator<Item = &'a Slot> {
    slots.iter().filter(|slot| {
        slot.flags & abi::MEM_READONLY == 0 && ram.alias_of(slot.hva, slot.size).is_none()
    })
}

/// Makes all storage durable: a guest that goes on holds for stored what it has stored.
pub(super) fn sync_storage(vm: &Vm, slots: &[Slot], ram: &Ram) -> Result {
    storage(slots, ram).try_for_each(|slot| {
        ram::sync_storage(slot.hva, slot.size).inspect_err(|e| {
            pr_err!(
                "{}: the file of its memory at guest {:#x} cannot be written ({e:?})\n",
                vm.binding.name(),
                slot.gpa
            )
        })
    })
}

/// Keeps `inner.slots` as the VMM sees them.
fn note(vm: &Vm, inner: &mut Inner, slot: Slot) -> Result {
    inner.slots.retain(|old| old.id != slot.id);
    if slot.size > 0 {
        inner.slots.push(slot, GFP_KERNEL)?;
    }
    migrate::note_log(vm, &inner.slots);
    Ok(())
}

/// The slot that KVM gets when the VMM sets `slot` while it runs.
fn translate(
    vm: &Vm,
    image: &mut Image,
    scratch: &Scratch,
    phantoms: &mut KVec<Slot>,
    slot: &Slot,
) -> Result<Slot> {
    if slot.size == 0 {
        return Ok(*slot);
    }
    let refuse = |why: &str| {
        pr_err!(
            "{}: refused slot {:#x} ({:#x} bytes at guest {:#x}): {why}\n",
            vm.binding.name(),
            slot.id,
            slot.size,
            slot.gpa
        );
        EINVAL
    };
    image.ram.forget_unmapped();
    if let Some(inside) = image.ram.alias_of(slot.hva, slot.size) {
        let alias = inside.ok_or_else(|| refuse("it lies half inside a block of RAM"))?;
        return Ok(Slot {
            hva: alias,
            ..*slot
        });
    }
    if slot.flags & abi::MEM_READONLY != 0 {
        return Ok(*slot);
    }
    if let Some(at) = phantoms
        .iter()
        .position(|p| p.gpa == slot.gpa && p.size == slot.size)
    {
        match ram::check_backing(slot.gpa, slot.hva, slot.size).map_err(&refuse)? {
            Backing::Memory => {}
            Backing::Storage => return Err(refuse("it was RAM, and is a file's memory now")),
        }
        replace_phantom(vm, image, scratch, phantoms.get(at).ok_or(EIO)?, slot)?;
        phantoms.remove(at).map_err(|_| EIO)?;
    } else {
        match ram::check_backing(slot.gpa, slot.hva, slot.size).map_err(&refuse)? {
            Backing::Memory => {}
            Backing::Storage if image.ram.is_vacant(slot.gpa, slot.size) => {
                return Err(refuse("it was RAM, and is a file's memory now"))
            }
            Backing::Storage => return Ok(*slot),
        }
        if image.ram.is_presented(slot.gpa, slot.size) {
            // A resumed guest could not be told which of the two it had.
            return Err(refuse(
                "it takes the place of RAM that its VMM still has mapped: unmap that first",
            ));
        }
        // KVM is asked first: memory is placed only for a slot that it takes.
        put(vm, scratch, slot)?;
        put(vm, scratch, &Slot { size: 0, ..*slot })?;
        if image.ram.is_vacant(slot.gpa, slot.size) {
            refill(vm, image, slot)?;
        } else {
            place_late(vm, image, slot)?;
            vm.devices.settle(vm, image)?;
        }
    }
    match image.ram.alias_of(slot.hva, slot.size) {
        Some(Some(alias)) => Ok(Slot {
            hva: alias,
            ..*slot
        }),
        _ => Err(EIO),
    }
}

/// RAM of the sealed VM that its new VMM adds at last: its own slot takes the place of ours. If that
/// fails, the guest keeps its RAM.
fn replace_phantom(
    vm: &Vm,
    image: &mut Image,
    scratch: &Scratch,
    phantom: &Slot,
    slot: &Slot,
) -> Result {
    let header = image.header.view();
    let block = block_of(&header, slot).ok_or(EIO)?;
    let own = Slot {
        hva: phantom.hva,
        ..*slot
    };
    put(
        vm,
        scratch,
        &Slot {
            size: 0,
            ..*phantom
        },
    )?;
    let replaced = put(vm, scratch, &own).and_then(|()| {
        image
            .ram
            .present(&header, &block, slot.hva)
            .or_else(|e| put(vm, scratch, &Slot { size: 0, ..own }).and(Err(e)))
    });
    replaced.or_else(|e| put(vm, scratch, phantom).and(Err(e)))
}

/// The VMM has put other memory in the place of RAM. At the bottom of the guest's memory that is a reset of
/// the VM: nothing of what the guest had set up is there any more.
fn refill(vm: &Vm, image: &mut Image, slot: &Slot) -> Result {
    let header = image.header.view();
    let block = block_of(&header, slot).ok_or(EIO)?;
    if slot.gpa == 0 {
        vm.devices.reset();
    }
    image
        .ram
        .refill(&image.store.device, &header, &block, slot.hva)?;
    pr_info!(
        "{}: its VMM has replaced the RAM at guest {:#x}\n",
        vm.binding.name(),
        slot.gpa
    );
    Ok(())
}

/// Gives RAM that appears after adoption its place in the pool. If it fails half way, the VMM may try again: the place is
/// there then, and what it has got so far does not count.
fn place_late(vm: &Vm, image: &mut Image, slot: &Slot) -> Result {
    let placed = block_of(&image.header.view(), slot);
    let block = placed.map_or_else(|| place(vm, image, slot), Ok)?;
    let header = image.header.view();
    image.ram.map(&header, &block, 0)?;
    image
        .ram
        .fill(&image.store.device, &header, &block, slot.hva)
}

/// A place in the pool, which is zero.
fn place(vm: &Vm, image: &mut Image, slot: &Slot) -> Result<Block> {
    let store = &image.store;
    let entry = image.entry.as_mut().ok_or(EIO)?;
    let header = &mut image.header;
    store
        .with_memory(|memory| {
            let mark = header.mark();
            let block = place_block(header, memory, slot.gpa, slot.size, BlockFlags::LATE)?;
            store
                .pool
                .update_header(entry, header)
                .inspect_err(|_| header.truncate(mark, &mut |extent| memory.free(extent)))?;
            Ok(block)
        })
        .map_err(|why| refused(fmt!("{}: refused more RAM", vm.binding.name()), why))
}

/// The block that `slot` shows all of.
fn block_of(header: &HeaderView<'_>, slot: &Slot) -> Option<Block> {
    let mut blocks = header.blocks();
    blocks.find(|block| (block.gpa, block.len) == (slot.gpa, slot.size))
}
