// SPDX-License-Identifier: GPL-2.0

//! Giving up an image that nobody runs, because somebody asks for it.

use super::device::number_of;
use crate::{
    abi::Select,
    format::{EntryState, Refusal},
    host::{Hold, Host},
    life::Name,
    pool::store::{header_of, is_aside, refused, Store, Taken},
    sys::task,
};
use kernel::{prelude::*, sync::Arc};

/// Whose and what an entry is.
#[derive(PartialEq)]
struct Occupant {
    name: Option<Name>,
    vm: Option<[u8; 16]>,
    uid: Option<u32>,
    aside: bool,
    damaged: bool,
}

impl Occupant {
    fn of(store: &Store, slot: u32) -> Result<Self> {
        let occupant = store.entry(slot, |entry| {
            let header = header_of(&entry);
            Self {
                name: header.as_ref().map(|h| h.name()),
                vm: header.as_ref().map(|h| h.vm()),
                uid: header.as_ref().map(|h| h.uid()),
                aside: is_aside(&entry),
                damaged: matches!(entry, EntryState::Damaged { .. }),
            }
        })?;
        Ok(occupant)
    }
}

/// Discards the image that `select` names.
pub(super) fn discard(host: &Arc<Host>, select: &Select) -> Result {
    let number = number_of(host, &select.name)?;
    let place = host.pools.at(number)?;
    let (store, slot) = (place.store, place.slot);
    if let Some(vm) = host.holder_of(number) {
        pr_err!("{}: cannot be discarded while it runs\n", vm.binding.name());
        return Err(EBUSY);
    }
    let occupant = Occupant::of(store, slot)?;
    let may = |uid| host.may_act_on(uid);
    if !occupant.uid.map_or_else(task::capable_admin, may) {
        return Err(EPERM);
    }
    let held = host.hold(Hold {
        // The name of an image that was set aside may be another VM's by now.
        name: occupant.name.filter(|_| !occupant.aside),
        slot: Some(number),
        vm: None,
        uid: occupant.uid.unwrap_or_else(task::current_uid),
    })?;
    // From now on it stays what it is, if it still is what the caller may discard.
    if Occupant::of(store, slot)? != occupant {
        return Err(EAGAIN);
    }
    if occupant.damaged {
        let named = occupant.name.as_ref().map_or("?", Name::as_str);
        store
            .discard_damaged(slot)
            .map_err(|why| cannot(named, why))?;
        done(named);
        return Ok(());
    }
    let mut image = store.take(slot)?.ok_or(ENOENT)?;
    begin(store, &mut image)?;
    drop(held);
    finish(store, image)
}

/// Begins to discard an image, unless I/O holds its memory. From here on nobody finds it.
pub(super) fn begin(store: &Store, image: &mut Taken) -> Result {
    let Taken { entry, header, .. } = image;
    let name = header.view().name();
    if store.is_referenced(&header.view()) {
        pr_err!(
            "{}: cannot be discarded while I/O holds its memory: try again\n",
            name.as_str()
        );
        return Err(EBUSY);
    }
    let begun = store.pool.begin_discard(entry);
    begun.map_err(|why| cannot(name.as_str(), why))
}

/// Zeroes and frees what [`begin`] gave up.
pub(super) fn finish(store: &Store, image: Taken) -> Result {
    let header = image.header.view();
    let name = header.name();
    store
        .finish_discard(image.entry, &header)
        .map_err(|why| cannot(name.as_str(), why))?;
    done(name.as_str());
    Ok(())
}

fn cannot(name: &str, why: Refusal) -> Error {
    refused(fmt!("{name}: cannot be discarded"), why)
}

fn done(name: &str) {
    pr_info!("{name}: discarded on request\n");
}
