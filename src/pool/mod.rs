// SPDX-License-Identifier: GPL-2.0

//! The pool's device: claiming it, raw access to it, and what is on it.

pub(crate) mod device;
pub(crate) mod memory;
pub(crate) mod platform;
pub(crate) mod store;
mod sysfs;

use crate::format::Refusal;
use kernel::{prelude::*, sync::Arc};
use store::Store;

/// Why there is no pool.
#[derive(Clone, Copy)]
pub(crate) enum NoPool {
    /// No devdax device holds one.
    None,
    /// One was found that cannot be used.
    Unusable(Refusal),
    /// Looking for one failed.
    Failed(Error),
}

/// Finds the device that holds a pool and opens that.
pub(crate) fn claim() -> core::result::Result<Arc<Store>, NoPool> {
    let mut problem = NoPool::None;
    let found = device::find(|device| match Store::open(device) {
        Ok(store) => match store.mark_unsaved() {
            Ok(()) => Some(store),
            Err(e) => {
                problem = NoPool::Failed(e);
                None
            }
        },
        Err((_, Some(Refusal::NotAPool))) => None,
        Err((_, Some(why))) => {
            pr_err!("the pool on a devdax device cannot be used: {why}\n");
            problem = NoPool::Unusable(why);
            None
        }
        Err((e, None)) => {
            problem = NoPool::Failed(e);
            None
        }
    });
    match found {
        Ok(Some(store)) => {
            let geometry = store.pool.geometry();
            pr_info!(
                "pool on {}: {} MiB for {} VMs, persistence domain {}\n",
                store.device.label(),
                geometry.data_granules() * 2,
                geometry.slots(),
                store.device.domain.name()
            );
            Ok(store)
        }
        Ok(None) => {
            if let NoPool::None = problem {
                pr_warn!("no pool found: make one with 'nvhv format' and load the module again\n");
            }
            Err(problem)
        }
        Err(e) => Err(NoPool::Failed(e)),
    }
}

impl NoPool {
    /// The errno for those who need a pool.
    pub(crate) fn error(self) -> Error {
        match self {
            NoPool::None => ENODEV,
            NoPool::Unusable(why) => why.into(),
            NoPool::Failed(e) => e,
        }
    }
}
