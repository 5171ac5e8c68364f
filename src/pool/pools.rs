// SPDX-License-Identifier: GPL-2.0

//! All pools of the host. Each is one device, and a VM is in one of them, whole.
//!
//! Which devices there are is found out once, when the module is loaded. A pool that cannot be used keeps nobody
//! from the others; but it may have the image that somebody asks for, so it is not forgotten.

use super::{
    device,
    store::{Memory, Store},
};
use crate::{
    abi::SLOTS_PER_POOL,
    format::{Entry, EntryState, HeaderBuilder, Refusal},
    life::Name,
    sys::cpus,
};
use core::{cmp::Reverse, fmt};
use kernel::{prelude::*, str::CString, sync::Arc};

/// A pool that cannot be used.
pub(crate) struct Unusable {
    /// The device that it is on.
    pub(crate) device: CString,
    why: Why,
}

/// Why it cannot.
enum Why {
    /// It is refused for what is on it.
    Refused(Refusal),
    /// To claim or to read it has failed.
    Failed(Error),
}

impl From<&Unusable> for Error {
    fn from(pool: &Unusable) -> Error {
        match pool.why {
            Why::Refused(why) => why.into(),
            Why::Failed(e) => e,
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Refused(why) => write!(f, "{why}"),
            Why::Failed(e) => write!(
                f,
                "it cannot be claimed or read ({e:?}): see the kernel's log"
            ),
        }
    }
}

/// A slot of a pool.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The pool.
    pub(crate) store: &'a Arc<Store>,
    /// The slot as that pool numbers it.
    pub(crate) slot: u32,
}

impl Place<'_> {
    /// The slot as all pools number theirs.
    pub(crate) fn number(&self) -> u32 {
        self.store.number(self.slot)
    }

    /// Looks at the entry there.
    pub(crate) fn look<T>(
        &self,
        f: impl FnOnce(EntryState<'_>) -> T,
    ) -> core::result::Result<T, Refusal> {
        self.store.entry(self.slot, f)
    }
}

/// Who has a name, not counting images that were set aside.
pub(crate) enum Named<'a> {
    /// Nobody that is in a pool that can be read.
    Nobody,
    /// This image.
    One(Place<'a>),
    /// Images in two pools at least, neither of which is used: these.
    Two([Place<'a>; 2]),
}

/// All pools, in the order of their devices.
pub(crate) struct Pools(KVec<core::result::Result<Arc<Store>, Unusable>>);

impl Pools {
    /// Finds the devices that hold pools and opens those.
    pub(crate) fn claim() -> Result<Self> {
        let mut pools = KVec::new();
        device::each(|name, claimed| {
            let first = u32::try_from(pools.len())?.saturating_mul(SLOTS_PER_POOL);
            let opened = match claimed {
                Err(e) => {
                    pr_warn!("cannot use {}: {e:?}\n", name.to_str().unwrap_or("?"));
                    if e == EINVAL {
                        // No pool was ever made on such a device.
                        return Ok(());
                    }
                    Err(Why::Failed(e))
                }
                Ok(device) => Store::open(device, first)
                    .map_err(|(e, why)| why.map_or(Why::Failed(e), Why::Refused))
                    .and_then(|store| match store.mark_unsaved() {
                        Ok(()) => Ok(store),
                        Err(e) => Err(Why::Failed(e)),
                    }),
            };
            let pool = match opened {
                Err(Why::Refused(Refusal::NotAPool)) => return Ok(()),
                Err(why) => Err(Unusable { device: name, why }),
                Ok(store) => Ok(store),
            };
            match &pool {
                Ok(store) => announce(store),
                Err(pool) => pr_err!(
                    "the pool on {} cannot be used: {pool}\n",
                    pool.device.to_str().unwrap_or("?")
                ),
            }
            Ok(pools.push(pool, GFP_KERNEL)?)
        })?;
        if pools.is_empty() {
            pr_warn!("no pool found: make one with 'nvhv format' and load the module again\n");
        }
        Ok(Self(pools))
    }

    /// How many there are, usable or not.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The pool of this number.
    pub(crate) fn get(
        &self,
        number: usize,
    ) -> Option<core::result::Result<&Arc<Store>, &Unusable>> {
        self.0.get(number).map(|pool| pool.as_ref())
    }

    /// The errno for those who need a pool, if there is none that can be used.
    pub(crate) fn check(&self) -> Result {
        if self.usable().next().is_some() {
            return Ok(());
        }
        let mut unusable = self.0.iter().filter_map(|pool| pool.as_ref().err());
        Err(unusable.next().map_or(ENODEV, Error::from))
    }

    /// Whether an image may be where nothing can be read: in a pool that cannot be used, or in a damaged entry.
    pub(crate) fn may_hide(&self) -> bool {
        self.0.iter().any(|pool| match pool {
            Err(_) => true,
            Ok(store) => {
                let suspect = store.with_memory(|memory| Ok(memory.suspect().is_some()));
                suspect.unwrap_or(true)
            }
        })
    }

    fn usable(&self) -> impl Iterator<Item = &Arc<Store>> {
        self.0.iter().filter_map(|pool| pool.as_ref().ok())
    }

    /// Who has `name`.
    pub(crate) fn find(&self, name: &Name) -> Result<Named<'_>> {
        let mut found = Named::Nobody;
        for store in self.usable() {
            let Some(slot) = store.find(name)? else {
                continue;
            };
            let place = Place { store, slot };
            found = match found {
                Named::Nobody => Named::One(place),
                Named::One(other) => return Ok(Named::Two([other, place])),
                two => two,
            };
        }
        Ok(found)
    }

    /// The image of the VM with this UUID, whatever its name and state.
    pub(crate) fn find_vm(&self, vm: &[u8; 16]) -> Result<Option<Place<'_>>> {
        for store in self.usable() {
            if let Some(slot) = store.find_vm(vm)? {
                return Ok(Some(Place { store, slot }));
            }
        }
        Ok(None)
    }

    /// The slot that all pools together know by this number.
    pub(crate) fn at(&self, number: u32) -> Result<Place<'_>> {
        let pool = self.get((number / SLOTS_PER_POOL) as usize).ok_or(EINVAL)?;
        Ok(Place {
            store: pool.map_err(Error::from)?,
            slot: number % SLOTS_PER_POOL,
        })
    }

    /// Creates the entry of a new VM: in the pool that is best for it, or, if there is no room, in the next. `prepare`
    /// makes before that what must not be missing there.
    pub(crate) fn create<T, E: From<Refusal> + From<Error>>(
        &self,
        header: &mut HeaderBuilder<KVVec<u8>>,
        prepare: impl Fn(&Arc<Store>) -> Result<T>,
        place: impl Fn(&mut HeaderBuilder<KVVec<u8>>, &mut Memory) -> core::result::Result<(), Refusal>,
    ) -> core::result::Result<(Arc<Store>, T, Entry), E> {
        let mut full = None;
        for store in &self.for_new()? {
            let prepared = prepare(store)?;
            match store.create(header, &place) {
                Ok(entry) => return Ok((store.clone(), prepared, entry)),
                Err(why) if why.lacks_room() => {
                    let device = store.device.label();
                    let name = header.view().name();
                    pr_info!("{}: no room on {device}: {why}\n", name.as_str());
                    full.get_or_insert(why);
                }
                Err(why) => return Err(why.into()),
            }
        }
        Err(full.map_or_else(|| ENODEV.into(), E::from))
    }

    /// Where a new VM may go, the best pool first: that of the current CPU's memory, or else the one with most free
    /// memory.
    fn for_new(&self) -> Result<KVec<Arc<Store>>> {
        let node = cpus::node();
        let mut left = KVec::new();
        for store in self.usable() {
            let free = store.with_memory(|memory| Ok(memory.free_granules()));
            let rank = (store.device.node != node, Reverse(free.unwrap_or(0)));
            left.push((rank, store), GFP_KERNEL)?;
        }
        let mut stores = KVec::with_capacity(left.len(), GFP_KERNEL)?;
        while let Some((at, _)) = left.iter().enumerate().min_by_key(|(_, (rank, _))| *rank) {
            let (_, store) = left.remove(at).map_err(|_| EIO)?;
            stores.push(store.clone(), GFP_KERNEL)?;
        }
        Ok(stores)
    }
}

fn announce(store: &Store) {
    let geometry = store.pool.geometry();
    pr_info!(
        "pool on {}: {} MiB for {} VMs, persistence domain {}\n",
        store.device.label(),
        geometry.data_granules() * 2,
        geometry.slots(),
        store.device.domain.name()
    );
}
