// SPDX-License-Identifier: GPL-2.0

//! Disks of a VMM that lie in its host's page cache.
//!
//! A guest that outlives its host's power holds for written what it was told is. What was only in the page
//! cache is lost, and the guest does not write it again.

use crate::{
    abi::{TextWriter, TEXT_LEN},
    pool::store::buffer,
    sys::open_files::AllCached,
};
use kernel::{fmt::Write, prelude::*};

/// Bytes of the longest path (PATH_MAX).
const PATH: usize = 4096;

/// One of them.
pub(super) struct Disk {
    /// The device that it is on, or is.
    pub(super) device: u64,
    /// Its inode number there, or 0.
    pub(super) inode: u64,
    /// Its path; the end of it if it is long.
    pub(super) path: [u8; TEXT_LEN],
}

/// Those that were open when the VM was adopted. A disk that is plugged in later is not seen, nor one that
/// another process serves.
pub(super) struct Disks {
    pub(super) count: u32,
    /// The first few.
    pub(super) first: KVec<Disk>,
}

impl Disks {
    /// None.
    pub(super) const fn none() -> Self {
        Self {
            count: 0,
            first: KVec::new(),
        }
    }

    /// Looks at the files of the current process, a VMM.
    pub(super) fn of_current() -> Result<Self> {
        let all = AllCached::of_current()?;
        let mut room = buffer(PATH)?;
        let mut first = KVec::with_capacity(all.first.len(), GFP_KERNEL)?;
        for file in all.first.iter() {
            let (device, inode) = file.identity();
            let mut path = [0; TEXT_LEN];
            let text = file.path(&mut room).unwrap_or("?");
            // The end of a path tells more than its start.
            let mut from = text.len().saturating_sub(TEXT_LEN - 4);
            while !text.is_char_boundary(from) {
                from += 1;
            }
            let (cut, tail) = text.split_at_checked(from).unwrap_or(("", text));
            let dots = if cut.is_empty() { "" } else { "..." };
            // Writing to a text field cannot fail.
            let _ = write!(TextWriter::new(&mut path), "{dots}{tail}");
            first.push(
                Disk {
                    device,
                    inode,
                    path,
                },
                GFP_KERNEL,
            )?;
        }
        Ok(Self {
            count: all.count,
            first,
        })
    }

    /// Says that there are some, and what helps.
    pub(super) fn tell(&self, name: &str, write_through: bool) {
        let Some(first) = self.first.first().filter(|_| self.count > 0) else {
            return;
        };
        let end = first.path.iter().position(|&b| b == 0).unwrap_or(0);
        let path = first.path.get(..end).unwrap_or(&[]);
        let path = core::str::from_utf8(path).unwrap_or("?");
        let count = self.count;
        if write_through {
            pr_info!(
                "{name}: {count} of its files are in the host's page cache (the first is {path}); \
                 virtio disks among them are written through\n"
            );
        } else {
            pr_warn!(
                "{name}: {count} of its files are in the host's page cache (the first is {path}): a power \
                 cut loses what the guest wrote and did not flush; use 'nvhv run --disk=writethrough', or \
                 cache=directsync (for a block device without a cache of its own, cache=none)\n"
            );
        }
    }
}
