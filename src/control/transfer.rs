// SPDX-License-Identifier: GPL-2.0

//! Copying an image out of the pool, and bringing one here from elsewhere.
//!
//! While it is copied, its name and its slot are taken, so nobody resumes or discards it. What is
//! brought here is in the table from the start, as being created: a cut before its record is committed
//! leaves what the next start zeroes, and so does a file that is closed too early.

use super::discard;
use crate::{
    abi::{self, vm_flag, vm_state, ImageBlock, Piece, PIECE_MAX, RECORD},
    format::{
        place_areas, place_block,
        record::{kind, VM_WIDE},
        BlockFlags, Entry, HeaderBuilder, HeaderView, Identity, Media, Record, RecordInfo, Refusal,
        BLOCKS_MAX, HEADER_LEN,
    },
    host::{Held, Hold, Host},
    kvm::restore::Failure,
    life::{Name, Policy},
    pool::{
        store::{buffer, refused, Store, Taken},
        Named,
    },
    sys::{compat::ENODATA, task},
};
use kernel::{
    prelude::*,
    sync::Arc,
    uaccess::{UserPtr, UserSlice},
};

/// Bytes that are copied at a time.
const STEP: usize = 64 << 10;

/// The most bytes of a record area that is brought here: more than VMs with as many vCPUs as KVM allows have.
const AREA_MOST: u64 = 256 << 20;

/// More bytes than what a platform says of its memory.
const PLATFORM_MOST: u64 = 16 << 10;

const _: () = assert!(abi::IMAGE_BLOCKS == BLOCKS_MAX as usize);

/// What an open file copies.
pub(super) enum Transfer {
    /// Nothing.
    None,
    /// An image of this pool.
    Out(Out),
    /// An image from elsewhere.
    In(In),
}

/// An image that is copied out.
pub(super) struct Out {
    store: Arc<Store>,
    image: Taken,
    buf: KVVec<u8>,
    _held: Held,
}

/// An image that is brought here.
pub(super) struct In {
    store: Arc<Store>,
    name: Name,
    /// None once it is sealed.
    entry: Option<Entry>,
    header: HeaderBuilder<KVVec<u8>>,
    buf: KVVec<u8>,
    _held: Held,
}

impl Transfer {
    /// Holds the image in slot `number` of all pools, which is `asked` for by name unless that is none, and describes it.
    pub(super) fn hold(
        &mut self,
        host: &Arc<Host>,
        number: u32,
        asked: Option<&Name>,
        about: &mut abi::Image,
    ) -> Result {
        self.expect_none()?;
        let place = host.pools.at(number)?;
        let store = place.store.clone();
        let look = || store.take(place.slot)?.ok_or(ENOENT);
        let whose = |image: &Taken| {
            let header = image.header.view();
            let name = (!image.entry.aside()).then(|| header.name());
            (name, header.vm(), header.uid())
        };
        let (name, vm, uid) = whose(&look()?);
        if !host.may_act_on(uid) {
            return Err(EPERM);
        }
        let held = host.hold(Hold {
            name,
            slot: Some(number),
            vm: None,
            uid,
        })?;
        // From now on it stays what it is, if it still is what was meant.
        let image = look()?;
        let meant = asked.is_none() || asked == name.as_ref();
        if whose(&image) != (name, vm, uid) || !meant {
            return Err(EAGAIN);
        }
        if store.is_referenced(&image.header.view()) {
            pr_err!(
                "{}: cannot be copied while I/O holds its memory: try again\n",
                image.header.view().name().as_str()
            );
            return Err(EBUSY);
        }
        describe(&image, about)?;
        *self = Transfer::Out(Out {
            store,
            image,
            buf: buffer(STEP)?,
            _held: held,
        });
        Ok(())
    }

    /// Copies a piece of the image that is held to the caller.
    pub(super) fn read(&mut self, piece: &Piece) -> Result {
        let Transfer::Out(out) = self else {
            return Err(ENXIO);
        };
        match piece.block {
            RECORD => out.record(piece),
            _ => out.ram(piece),
        }
    }

    /// Gives the image that `about` describes a place here.
    pub(super) fn import(&mut self, host: &Arc<Host>, about: &abi::Image) -> Result {
        self.expect_none()?;
        if !task::capable_admin() {
            return Err(EPERM);
        }
        if about.area_bytes > AREA_MOST || about.record_bytes > AREA_MOST {
            return Err(E2BIG);
        }
        host.pools.check()?;
        let name = Name::from_field(&about.name).map_err(|_| EINVAL)?;
        let held = host.hold(Hold {
            name: Some(name),
            slot: None,
            vm: Some(about.uuid),
            uid: about.uid,
        })?;
        if !matches!(host.pools.find(&name)?, Named::Nobody) {
            pr_err!(
                "{}: cannot be imported: there is one of that name\n",
                name.as_str()
            );
            return Err(EEXIST);
        }
        if let Some(place) = host.pools.find_vm(&about.uuid)? {
            let slot = place.number();
            pr_err!(
                "{}: cannot be imported: slot {slot} has that very VM, and two would believe they are one\n",
                name.as_str()
            );
            return Err(EEXIST);
        }
        let id = Identity {
            name,
            vm: about.uuid,
            uid: about.uid,
            created_ns: about.created_ns,
            policy: Policy::from_bits(about.policy).ok_or(EINVAL)?,
        };
        let blocks = usize::try_from(about.blocks)?;
        let blocks = about.block.get(..blocks).ok_or(EINVAL)?;
        let buf = buffer(STEP)?;
        // As it was, for later records; and at least for this one, with what another platform says.
        let area = about
            .area_bytes
            .max(about.record_bytes.saturating_add(PLATFORM_MOST));
        let mut header = HeaderBuilder::new(buffer(HEADER_LEN)?, &id)?;
        header.set_vcpus(about.vcpus);
        header.set_resumes(about.resumes);
        let created = host.pools.create(
            &mut header,
            |_| Ok(()),
            |header, memory| {
                place_areas(header, memory, area)?;
                for block in blocks {
                    place_block(header, memory, block.gpa, block.len, flags(block)?)?;
                }
                Ok(())
            },
        );
        let (store, (), entry) = created.map_err(|why: Failure| {
            pr_err!("{}: cannot be imported: {why}\n", name.as_str());
            why.error
        })?;
        *self = Transfer::In(In {
            store,
            name,
            entry: Some(entry),
            header,
            buf,
            _held: held,
        });
        Ok(())
    }

    /// Copies a piece of RAM from the caller to the image that is brought here.
    pub(super) fn write(&mut self, piece: &Piece) -> Result {
        let Transfer::In(In {
            store, header, buf, ..
        }) = self
        else {
            return Err(ENXIO);
        };
        let media = store.pool.media();
        let mut from = UserSlice::new(user(piece)?, usize::try_from(piece.len)?).reader();
        each_run(&header.view(), piece, |at, len| {
            let bytes = buf.get_mut(..len).ok_or(EINVAL)?;
            from.read_slice(bytes)?;
            media.write(at, bytes).map_err(Refusal::from)?;
            media.flush(at, len as u64).map_err(Refusal::from)?;
            Ok(())
        })
    }

    /// Seals the image that is brought here: `piece` is its record.
    pub(super) fn commit(&mut self, piece: &Piece) -> Result {
        let Transfer::In(In {
            store,
            name,
            entry: entry @ Some(_),
            header,
            ..
        }) = self
        else {
            return Err(ENXIO);
        };
        let failed = |why| refused(fmt!("{}: cannot be imported", name.as_str()), why);
        let area = header.view().areas().map(|area| area.len);
        if piece.block != RECORD
            || piece.offset != 0
            || piece.reserved != 0
            || !area.iter().all(|&len| piece.len <= len)
        {
            return Err(EINVAL);
        }
        let len = usize::try_from(piece.len)?;
        let mut bytes = buffer(len)?;
        UserSlice::new(user(piece)?, len)
            .reader()
            .read_slice(&mut bytes)?;
        let record = Record::parse(&bytes, store.pool.media().crc()).map_err(failed)?;
        let told = record.info();
        if told.vm != header.view().vm() {
            return Err(failed(Refusal::RecordStale));
        }
        let Some(handle) = entry.as_mut() else {
            return Err(ENXIO);
        };
        let about = RecordInfo {
            header_seq: handle.header_seq(),
            ..told
        };
        let token = store
            .pool
            .make_record(handle, &about, |writer| {
                // What another platform said of its memory is nothing to this one.
                for item in record.items().filter(|item| item.kind != kind::PLATFORM) {
                    writer.push(item.kind, item.vcpu, item.payload)?;
                }
                writer.push(kind::PLATFORM, VM_WIDE, store.device.platform.item())
            })
            .map_err(failed)?;
        store.device.flush_region();
        store.pool.commit_sealed(handle, token).map_err(failed)?;
        store.device.flush_region();
        pr_info!("{}: imported\n", name.as_str());
        // Whoever looks for it finds it sealed, and nobody's.
        *entry = None;
        *self = Transfer::None;
        Ok(())
    }

    /// Discards the image that is held.
    pub(super) fn give_up(&mut self) -> Result {
        let Transfer::Out(out) = self else {
            return Err(ENXIO);
        };
        discard::begin(&out.store, &mut out.image)?;
        let Transfer::Out(out) = core::mem::replace(self, Transfer::None) else {
            return Err(ENXIO);
        };
        discard::finish(&out.store, out.image)
    }

    /// A file copies one image.
    fn expect_none(&self) -> Result {
        match self {
            Transfer::None => Ok(()),
            _ => Err(EBUSY),
        }
    }
}

impl Out {
    fn ram(&mut self, piece: &Piece) -> Result {
        let media = self.store.pool.media();
        let mut to = UserSlice::new(user(piece)?, usize::try_from(piece.len)?).writer();
        each_run(&self.image.header.view(), piece, |at, len| {
            let bytes = self.buf.get_mut(..len).ok_or(EINVAL)?;
            media
                .read(at, bytes)
                .map_err(|fault| refused(fmt!("an image cannot be copied"), fault.into()))?;
            to.write_slice(bytes)
        })
    }

    fn record(&self, piece: &Piece) -> Result {
        let sealed = self.image.record.ok_or(ENODATA)?;
        let len = usize::try_from(piece.len)?;
        if piece.offset != 0 || len != sealed.len() {
            return Err(EINVAL);
        }
        let mut bytes = buffer(len)?;
        let entry = &self.image.entry;
        self.store.pool.read_record(entry, &sealed, &mut bytes)?;
        UserSlice::new(user(piece)?, len)
            .writer()
            .write_slice(&bytes)
    }
}

impl Drop for In {
    /// What was not committed is given up.
    fn drop(&mut self) {
        let Some(mut entry) = self.entry.take() else {
            return;
        };
        let header = self.header.view();
        let gone = (|| {
            self.store.pool.begin_discard(&mut entry)?;
            self.store.finish_discard(entry, &header)
        })();
        let name = self.name.as_str();
        match gone {
            Ok(()) => pr_warn!("{name}: its import was not finished: nothing is left of it\n"),
            Err(why) => pr_err!(
                "{name}: what was imported of it stays until the module is loaded again: {why}\n"
            ),
        }
    }
}

/// Calls `f` with each run of at most [`STEP`] bytes of the pool that holds a piece of RAM.
fn each_run(
    header: &HeaderView<'_>,
    piece: &Piece,
    mut f: impl FnMut(u64, usize) -> Result,
) -> Result {
    let number = usize::try_from(piece.block)?;
    let block = header.blocks().nth(number).ok_or(EINVAL)?;
    let end = piece.offset.checked_add(piece.len).ok_or(EINVAL)?;
    if piece.len > PIECE_MAX || end > block.len || piece.reserved != 0 {
        return Err(EINVAL);
    }
    let mut offset = piece.offset;
    while offset < end {
        let (at, run) = header.locate(&block, offset).ok_or(EINVAL)?;
        let len = run.min(end - offset).min(STEP as u64);
        // CAST: at most `STEP`.
        f(at, len as usize)?;
        offset += len;
    }
    Ok(())
}

fn user(piece: &Piece) -> Result<UserPtr> {
    Ok(UserPtr::from_addr(usize::try_from(piece.address)?))
}

fn flags(block: &ImageBlock) -> core::result::Result<BlockFlags, Refusal> {
    let known = u32::try_from(block.flags)
        .ok()
        .and_then(BlockFlags::from_bits);
    known.ok_or(Refusal::BadBlock {
        gpa: block.gpa,
        len: block.len,
    })
}

/// Fills `about` but for `select`.
fn describe(image: &Taken, about: &mut abi::Image) -> Result {
    let header = image.header.view();
    about.name = *header.name().field();
    about.uuid = header.vm();
    about.state = match image.record {
        Some(_) => vm_state::SEALED,
        None => vm_state::TORN,
    };
    about.flags = 0;
    if image.entry.aside() {
        about.flags |= vm_flag::ASIDE;
    }
    if image.entry.unsaved() {
        about.flags |= vm_flag::UNSAVED;
    }
    about.uid = header.uid();
    about.vcpus = header.vcpus();
    about.resumes = header.resumes();
    about.blocks = header.block_count();
    about.created_ns = header.created_ns();
    about.policy = header.policy().bits();
    about.record_bytes = image.record.map_or(0, |record| record.len() as u64);
    about.area_bytes = header.areas().map(|area| area.len)[0];
    about.block = [ImageBlock::default(); abi::IMAGE_BLOCKS];
    for (to, block) in about.block.iter_mut().zip(header.blocks()) {
        *to = ImageBlock {
            gpa: block.gpa,
            len: block.len,
            flags: block.flags.bits().into(),
        };
    }
    Ok(())
}
