// SPDX-License-Identifier: GPL-2.0

//! `/dev/nvhv`: the module's ioctls as functions. One of two files here with `unsafe`.

use crate::failure::Failure;
use crate::text;
use nix::errno::Errno;
use nvhv_pure::abi;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The module's device.
pub const PATH: &str = "/dev/nvhv";

mod ioctl {
    use nvhv_pure::abi;

    nix::ioctl_readwrite_bad!(info, abi::INFO, abi::Info);
    nix::ioctl_write_ptr_bad!(bind, abi::BIND, abi::Bind);
    nix::ioctl_readwrite_bad!(vm, abi::VM, abi::Vm);
    nix::ioctl_readwrite_bad!(devices, abi::DEVICES, abi::Devices);
    nix::ioctl_write_ptr_bad!(discard, abi::DISCARD, abi::Select);
    nix::ioctl_write_ptr_bad!(seal, abi::SEAL, abi::Select);
    nix::ioctl_readwrite_bad!(power_failing, abi::POWER_FAILING, abi::PowerFailing);
    nix::ioctl_write_ptr_bad!(thaw, abi::THAW, abi::Select);
    nix::ioctl_readwrite_bad!(hold, abi::HOLD, abi::Image);
    nix::ioctl_write_ptr_bad!(read, abi::READ, abi::Piece);
    nix::ioctl_write_ptr_bad!(import, abi::IMPORT, abi::Image);
    nix::ioctl_write_ptr_bad!(write, abi::WRITE, abi::Piece);
    nix::ioctl_write_ptr_bad!(commit, abi::COMMIT, abi::Piece);
    nix::ioctl_none_bad!(give_up, abi::GIVE_UP);
}

/// The open device.
pub struct Device {
    file: File,
}

impl Device {
    /// Opens the device.
    pub fn open() -> Result<Self, Failure> {
        let file = File::options().read(true).write(true).open(PATH);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::NoModule(format!(
                "there is no {PATH}: load the module ('insmod nvhv.ko')"
            )),
            _ => Failure::Refused(format!("{PATH}: {error}")),
        })?;
        Ok(Device { file })
    }

    /// The module, and its first pool if there is one.
    pub fn info(&self) -> Result<abi::Info, Failure> {
        self.info_of(0)
    }

    /// All pools, those that cannot be used among them.
    pub fn pools(&self) -> Result<Vec<abi::Info>, Failure> {
        let first = self.info()?;
        let mut pools = vec![first; first.pools.min(1).into()];
        for pool in 1..first.pools {
            pools.push(self.info_of(pool)?);
        }
        Ok(pools)
    }

    fn info_of(&self, pool: u16) -> Result<abi::Info, Failure> {
        let mut info = abi::Info {
            pool,
            ..abi::Info::ZERO
        };
        // SAFETY: the argument is what the ioctl's number says it is.
        let done = unsafe { ioctl::info(self.file.as_raw_fd(), &mut info) };
        match done {
            Ok(_) if info.abi_version == abi::ABI_VERSION => Ok(info),
            Ok(_) | Err(Errno::ENOTTY) => Err(Failure::Refused(format!(
                "the module speaks another version of this interface ({}, this is {}): use the tool that came with it",
                info.abi_version,
                abi::ABI_VERSION
            ))),
            Err(error) => Err(refused("the module", error)),
        }
    }

    /// What slot `slot` of all pools holds.
    pub fn vm(&self, slot: u32) -> Result<abi::Vm, Failure> {
        let mut vm = abi::Vm {
            slot,
            ..abi::Vm::ZERO
        };
        // SAFETY: the argument is what the ioctl's number says it is.
        let done = unsafe { ioctl::vm(self.file.as_raw_fd(), &mut vm) };
        done.map_err(|error| refused(&format!("slot {slot}"), error))?;
        Ok(vm)
    }

    /// All VMs there are.
    pub fn vms(&self) -> Result<Vec<abi::Vm>, Failure> {
        let mut all = Vec::new();
        for pool in self.pools()? {
            let first = u32::from(pool.pool) * abi::SLOTS_PER_POOL;
            for slot in first..first + pool.slots {
                all.push(self.vm(slot)?);
            }
        }
        all.retain(|vm| vm.state != abi::vm_state::EMPTY);
        Ok(all)
    }

    /// What is told of the devices of the VM in slot `slot`, and how many disks of it are in the host's
    /// page cache. Nothing if it is not here, or another user's.
    pub fn devices(&self, slot: u32) -> Result<Option<(Vec<abi::DeviceEntry>, u32)>, Failure> {
        let mut entries = vec![abi::DeviceEntry::ZERO; 64];
        loop {
            let mut asked = abi::Devices {
                slot,
                room: entries.len() as u32,
                entries: entries.as_mut_ptr() as u64,
                count: 0,
                cached: 0,
            };
            // SAFETY: the argument is what the ioctl's number says it is, and `room` entries may be
            // written where it points.
            match unsafe { ioctl::devices(self.file.as_raw_fd(), &mut asked) } {
                Err(Errno::ENOENT | Errno::EPERM) => return Ok(None),
                Err(error) => return Err(refused(&format!("slot {slot}"), error)),
                Ok(_) => {}
            }
            let count = asked.count as usize;
            if count <= entries.len() {
                entries.truncate(count);
                return Ok(Some((entries, asked.cached)));
            }
            entries.resize(count, abi::DeviceEntry::ZERO);
        }
    }

    /// Binds this process.
    pub fn bind(&self, bind: &abi::Bind) -> Result<(), Errno> {
        // SAFETY: the argument is what the ioctl's number says it is.
        unsafe { ioctl::bind(self.file.as_raw_fd(), bind) }.map(drop)
    }

    /// Discards an image.
    pub fn discard(&self, select: &abi::Select) -> Result<(), Errno> {
        // SAFETY: the argument is what the ioctl's number says it is.
        unsafe { ioctl::discard(self.file.as_raw_fd(), select) }.map(drop)
    }

    /// Freezes and seals.
    pub fn seal(&self, select: &abi::Select) -> Result<(), Errno> {
        // SAFETY: the argument is what the ioctl's number says it is.
        unsafe { ioctl::seal(self.file.as_raw_fd(), select) }.map(drop)
    }

    /// Seals all VMs as when power fails; a budget of 0 is the module's own. `flags` are of
    /// [`abi::power_flag`].
    pub fn power_failing(&self, budget_ms: u32, flags: u32) -> Result<abi::PowerFailing, Errno> {
        let mut argument = abi::PowerFailing {
            budget_ms,
            asked: 0,
            sealed: 0,
            flags,
            elapsed_ns: 0,
        };
        // SAFETY: the argument is what the ioctl's number says it is.
        unsafe { ioctl::power_failing(self.file.as_raw_fd(), &mut argument) }?;
        Ok(argument)
    }

    /// Lets go on.
    pub fn thaw(&self, select: &abi::Select) -> Result<(), Errno> {
        // SAFETY: the argument is what the ioctl's number says it is.
        unsafe { ioctl::thaw(self.file.as_raw_fd(), select) }.map(drop)
    }

    /// Holds an image, which nobody resumes or discards until this is dropped, and describes it.
    pub fn hold(&self, select: &abi::Select) -> Result<abi::Image, Errno> {
        let mut image = abi::Image {
            select: select.name,
            ..abi::Image::ZERO
        };
        // SAFETY: the argument is what the ioctl's number says it is.
        unsafe { ioctl::hold(self.file.as_raw_fd(), &mut image) }?;
        Ok(image)
    }

    /// Reads a piece of the image that is held: of a block of RAM, or all of [`abi::RECORD`].
    pub fn read(&self, block: u32, offset: u64, to: &mut [u8]) -> Result<(), Errno> {
        let piece = piece(block, offset, to.as_mut_ptr() as u64, to.len());
        // SAFETY: the argument is what the ioctl's number says it is, and `to` is where it may write.
        unsafe { ioctl::read(self.file.as_raw_fd(), &piece) }.map(drop)
    }

    /// Begins to bring an image here; it counts once it is committed.
    pub fn import(&self, image: &abi::Image) -> Result<(), Errno> {
        // SAFETY: the argument is what the ioctl's number says it is.
        unsafe { ioctl::import(self.file.as_raw_fd(), image) }.map(drop)
    }

    /// Writes a piece of RAM of the image that is brought here.
    pub fn write(&self, block: u32, offset: u64, from: &[u8]) -> Result<(), Errno> {
        let piece = piece(block, offset, from.as_ptr() as u64, from.len());
        // SAFETY: the argument is what the ioctl's number says it is, and `from` is only read.
        unsafe { ioctl::write(self.file.as_raw_fd(), &piece) }.map(drop)
    }

    /// Seals the image that is brought here.
    pub fn commit(&self, record: &[u8]) -> Result<(), Errno> {
        let piece = piece(abi::RECORD, 0, record.as_ptr() as u64, record.len());
        // SAFETY: as in `write`.
        unsafe { ioctl::commit(self.file.as_raw_fd(), &piece) }.map(drop)
    }

    /// Discards the image that is held.
    pub fn give_up(&self) -> Result<(), Errno> {
        // SAFETY: it has no argument.
        unsafe { ioctl::give_up(self.file.as_raw_fd()) }.map(drop)
    }
}

fn piece(block: u32, offset: u64, address: u64, len: usize) -> abi::Piece {
    abi::Piece {
        block,
        reserved: 0,
        offset,
        len: len as u64,
        address,
    }
}

/// Refuses a device that the module holds, by whatever name. One whose pool the module cannot use, it does not hold.
pub fn not_held(path: &Path) -> Result<(), Failure> {
    let pools = match Device::open() {
        Ok(device) => device.pools()?,
        Err(Failure::NoModule(_)) => return Ok(()),
        Err(why) => return Err(why),
    };
    let number = |path: &Path| {
        let about = fs::metadata(path).ok()?;
        about.file_type().is_char_device().then_some(about.rdev())
    };
    let held = number(path).is_some_and(|this| {
        pools.iter().any(|pool| {
            let usable = pool.pool_state != abi::pool_state::DAMAGED;
            usable && number(&Path::new("/dev").join(text::field(&pool.device))) == Some(this)
        })
    });
    if held {
        return Err(Failure::Refused(format!(
            "{}: the module holds it: unload the module first ('rmmod nvhv')",
            path.display()
        )));
    }
    Ok(())
}

/// A refusal of the module, with what an errno means here.
pub fn refused(what: &str, error: Errno) -> Failure {
    let why = match error {
        Errno::EPERM | Errno::EACCES => "it belongs to another user",
        Errno::EBUSY => "it is busy: its VM is here, or it is being copied or discarded",
        Errno::EUCLEAN => "it is torn or damaged: see 'nvhv show'",
        Errno::ENODEV => "there is no pool: make one with 'nvhv format' and load the module again",
        Errno::ENOENT => return Failure::NoVm(format!("{what}: there is no such VM")),
        Errno::ENOSPC => "the pool is full",
        Errno::ENOTUNIQ => "two pools have an image of this name: see 'nvhv list'",
        Errno::EEXIST => "there is a VM of that name, or this very VM under another",
        Errno::EAGAIN => "it changed meanwhile: try again",
        Errno::EIO => "the pool's device fails: see the kernel's log",
        other => other.desc(),
    };
    Failure::Refused(format!("{what}: {why} ({error:?})"))
}
