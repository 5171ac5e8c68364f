// SPDX-License-Identifier: GPL-2.0

//! Persistent memory mapped into this process, for `format`, `grow` and `repair`. One of two files here with `unsafe`.

use crate::bad;
use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{Flock, FlockArg};
use nvhv_pure::format::{Crc, Fault, Media, RecordRoom, GRANULE};
use nvhv_pure::state::platform::Run;
use std::arch::x86_64::{_mm_clflush, _mm_mfence};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in a cache line.
const LINE: u64 = 64;

/// A devdax device, or an ordinary file in its place, mapped whole.
pub struct Mapped {
    map: MmapRaw,
    /// Keeps others of this command away.
    _lock: Flock<File>,
    /// What is not to be touched.
    bad: Vec<Run>,
}

impl Mapped {
    /// Maps the device at `path`, up to its last whole granule.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let about = file.metadata()?;
        let len = if about.file_type().is_char_device() {
            let (major, minor) = (
                nix::sys::stat::major(about.rdev()),
                nix::sys::stat::minor(about.rdev()),
            );
            let size = fs::read_to_string(format!("/sys/dev/char/{major}:{minor}/size"));
            let size = size.ok().and_then(|size| size.trim().parse().ok());
            size.ok_or_else(|| io::Error::other("not a devdax device"))?
        } else if about.is_file() {
            about.len()
        } else {
            return Err(io::Error::other("not a devdax device"));
        };
        let len = len / GRANULE * GRANULE;
        if len == 0 {
            return Err(io::Error::other("smaller than one granule of 2 MiB"));
        }
        // CAST: this tool is for 64-bit machines.
        let map = MmapOptions::new().len(len as usize).map_raw(&file)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|_| io::Error::other("another nvhv is at work on it"))?;
        Ok(Mapped {
            map,
            _lock: lock,
            bad: Vec::new(),
        })
    }

    /// As [`open`](Self::open); what the platform calls bad is neither read nor written.
    pub fn open_sparing_bad(path: &Path) -> io::Result<Self> {
        let mut mapped = Mapped::open(path)?;
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            mapped.bad = bad::runs(name)?;
        }
        Ok(mapped)
    }

    /// What is bad, in bytes from the start.
    pub fn bad(&self) -> &[Run] {
        &self.bad
    }

    /// The address of `at`, once `at..at + len` was found to be inside.
    fn address(&self, at: u64, len: u64) -> Result<*mut u8, Fault> {
        if let Some(run) = self.bad.iter().find_map(|run| run.within(at, len)) {
            return Err(Fault {
                at: at.saturating_add(run.at),
            });
        }
        match at.checked_add(len) {
            // CAST: inside a mapping.
            Some(end) if end <= self.len() => Ok(self.map.as_mut_ptr().wrapping_add(at as usize)),
            _ => Err(Fault { at }),
        }
    }
}

impl Media for Mapped {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let from = self.address(at, buf.len() as u64)?;
        // SAFETY: `from` is valid for `buf.len()` bytes, and no reference into the mapping exists.
        unsafe { from.copy_to_nonoverlapping(buf.as_mut_ptr(), buf.len()) };
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
        let to = self.address(at, bytes.len() as u64)?;
        // SAFETY: as in `read`.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn in_place<T>(
        &self,
        room: RecordRoom<'_>,
        f: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, Fault> {
        let area = room.area();
        let to = self.address(area.start, area.len)?;
        // SAFETY: as in `read`; the area is the room's alone while that lives. CAST: inside a mapping.
        Ok(f(unsafe {
            std::slice::from_raw_parts_mut(to, area.len as usize)
        }))
    }

    fn write_word(&self, at: u64, word: u64) -> Result<(), Fault> {
        let to = self.address(at, 8)?.cast::<AtomicU64>();
        if !to.is_aligned() {
            return Err(Fault { at });
        }
        // SAFETY: `to` is valid and aligned; the mapping outlives the reference.
        unsafe { &*to }.store(word.to_le(), Ordering::Release);
        Ok(())
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), Fault> {
        let to = self.address(at, len)?;
        // SAFETY: as in `read`. CAST: inside a mapping.
        unsafe { to.write_bytes(0, len as usize) };
        Ok(())
    }

    fn flush(&self, at: u64, len: u64) -> Result<(), Fault> {
        let first = self.address(at, len)?;
        // CAST: inside a mapping. It starts at a page, so a line that starts before `at` is in it.
        let slack = at % LINE;
        for offset in (0..len + slack).step_by(LINE as usize) {
            let line = first
                .wrapping_sub(slack as usize)
                .wrapping_add(offset as usize);
            // SAFETY: `line` is inside the mapping; CLFLUSH is part of x86-64.
            unsafe { _mm_clflush(line) };
        }
        Ok(())
    }

    fn fence(&self) {
        // SAFETY: MFENCE is part of x86-64. It orders CLFLUSH; SFENCE need not.
        unsafe { _mm_mfence() };
    }

    fn crc(&self) -> Crc {
        crc32c::crc32c_append
    }
}
