// SPDX-License-Identifier: GPL-2.0

//! Giving up an image that nobody runs, because somebody asks for it.

use super::device::number_of;
use crate::{
    abi::Select,
    format::{EntryState, Refusal},
    host::Host,
    life::Name,
    pool::store::{header_of, is_aside, refused, Store, Taken},
    sys::task,
};
use kernel::prelude::*;

/// Discards the image that `select` names.
pub(super) fn discard(host: &Host, select: &Select) -> Result {
    let number = number_of(host, &select.name)?;
    let place = host.pools.at(number)?;
    let (store, slot) = (place.store, place.slot);
    if let Some(vm) = host.holder_of(number) {
        pr_err!("{}: cannot be discarded while it runs\n", vm.binding.name());
        return Err(EBUSY);
    }
    let (uid, name, aside, damaged) = store.entry(slot, |entry| {
        let header = header_of(&entry);
        (
            header.as_ref().map(|h| h.uid()),
            header.as_ref().map(|h| h.name()),
            is_aside(&entry),
            matches!(entry, EntryState::Damaged { .. }),
        )
    })?;
    if !uid.map_or(task::capable_admin(), |uid| host.may_act_on(uid)) {
        return Err(EPERM);
    }
    let named = name.as_ref().map_or("?", Name::as_str);
    // The name of an image that was set aside may be another VM's by now.
    let wanted = name.as_ref().filter(|_| !aside);
    let image = host.unless_taken(wanted, number, || {
        if damaged {
            store
                .discard_damaged(slot)
                .map_err(|why| cannot(named, why))?;
            return Ok(None);
        }
        let mut image = store.take(slot)?.ok_or(ENOENT)?;
        begin(store, &mut image)?;
        Ok(Some(image))
    })?;
    match image {
        Some(image) => finish(store, image),
        None => {
            done(named);
            Ok(())
        }
    }
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
