// SPDX-License-Identifier: GPL-2.0

//! `/dev/nvhv`: the ioctls between the module and its tool. See `docs/abi.md`.
//!
//! All structures are plain old data without padding, the same on both sides. Text is UTF-8 padded
//! with zero bytes. Times are nanoseconds, of real time where they are points in time. The structure's
//! size is part of each ioctl's number, so a structure that grows gets a new number by itself.

use core::mem::size_of;

/// Version of this interface: told by [`INFO`], which keeps its form in all versions.
pub const ABI_VERSION: u32 = 1;

/// The ioctl type byte.
pub const TYPE: u8 = 0xe7;

/// Bytes in a name field: 63 and a zero.
pub const NAME_LEN: usize = 64;

/// Bytes in a text that explains something.
pub const TEXT_LEN: usize = 160;

/// The number of an ioctl whose argument is a `T` that both sides write (`_IOWR`).
const fn iowr<T>(nr: u8) -> u32 {
    // CAST: sizes are asserted below, all under 2^14.
    (3 << 30) | ((size_of::<T>() as u32) << 16) | io(nr)
}

/// The number of an ioctl whose argument is a `T` that the caller writes (`_IOW`).
const fn iow<T>(nr: u8) -> u32 {
    // CAST: as in `iowr`.
    (1 << 30) | ((size_of::<T>() as u32) << 16) | io(nr)
}

/// The number of an ioctl without argument (`_IO`).
const fn io(nr: u8) -> u32 {
    ((TYPE as u32) << 8) | nr as u32
}

/// Fills an [`Info`]: the module and its pool.
pub const INFO: u32 = iowr::<Info>(0);
/// Binds the calling process to a name ([`Bind`]); kept across `exec`, and holds for descendants.
pub const BIND: u32 = iow::<Bind>(1);
/// Takes the binding of the calling process back.
pub const UNBIND: u32 = io(2);
/// Fills a [`Vm`] for the slot that the caller put into its `slot`.
pub const VM: u32 = iowr::<Vm>(3);
/// Gives up the image of [`Select`]'s name and frees its memory.
pub const DISCARD: u32 = iow::<Select>(4);
/// Freezes and seals the live VM of [`Select`]'s name, or all.
pub const SEAL: u32 = iow::<Select>(5);
/// Lets the VM of [`Select`]'s name, or all, go on after [`SEAL`].
pub const THAW: u32 = iow::<Select>(6);

/// Fills a [`Devices`] for the VM that is here and whose image is in the slot that the caller put there.
pub const DEVICES: u32 = iowr::<Devices>(7);

/// Seals all VMs as when power fails ([`PowerFailing`]), or only tries what that costs; for an administrator.
pub const POWER_FAILING: u32 = iowr::<PowerFailing>(8);

/// Holds the image of [`Image::select`], which nobody runs, for the open file, and fills the rest: until the
/// file is closed nobody resumes or discards it.
pub const HOLD: u32 = iowr::<Image>(9);
/// Copies a [`Piece`] of the image that the file holds to the caller.
pub const READ: u32 = iow::<Piece>(10);
/// Begins to bring an [`Image`] here from elsewhere, for an administrator. If the file is closed before
/// [`COMMIT`], nothing is left of it.
pub const IMPORT: u32 = iow::<Image>(11);
/// Copies a [`Piece`] of RAM from the caller to the image that is brought here.
pub const WRITE: u32 = iow::<Piece>(12);
/// Ends that: the [`Piece`] is the record. When it returns, the image is sealed, and durable.
pub const COMMIT: u32 = iow::<Piece>(13);
/// Discards the image that the file holds: nobody can have resumed it since [`HOLD`].
pub const GIVE_UP: u32 = io(14);

/// In place of a block in a [`Piece`]: the record.
pub const RECORD: u32 = u32::MAX;

/// The most bytes in a [`Piece`] of RAM.
pub const PIECE_MAX: u64 = 2 << 20;

/// Entries in [`Image::block`].
pub const IMAGE_BLOCKS: usize = 64;

/// Values of [`Info::pool_state`].
pub mod pool_state {
    /// There is no pool: no device, or none that is formatted.
    pub const NONE: u32 = 0;
    /// The pool is good.
    pub const GOOD: u32 = 1;
    /// The pool is usable, but no new VM gets memory: an entry is damaged.
    pub const SUSPECT: u32 = 2;
    /// There is a pool that cannot be used.
    pub const DAMAGED: u32 = 3;
}

/// Values of [`Info::persistence`], from the region's `persistence_domain`.
pub mod persistence {
    /// Nothing is known: memory is flushed as with `MEMORY_CONTROLLER`.
    pub const UNKNOWN: u32 = 0;
    /// Caches are flushed by the platform.
    pub const CPU_CACHE: u32 = 1;
    /// What left the caches is safe: the module writes caches back.
    pub const MEMORY_CONTROLLER: u32 = 2;
}

/// Values of [`Vm::state`].
pub mod vm_state {
    /// The slot is free; nothing else in the structure means anything.
    pub const EMPTY: u32 = 0;
    /// The VM runs here.
    pub const LIVE: u32 = 1;
    /// The VM is sealed and may be resumed.
    pub const SEALED: u32 = 2;
    /// The image was live when the host went down, and is not resumed.
    pub const TORN: u32 = 3;
    /// The VM is being created or discarded.
    pub const DISCARDING: u32 = 4;
    /// The entry in the pool is damaged.
    pub const DAMAGED: u32 = 5;
}

/// Bits of [`Vm::flags`].
pub mod vm_flag {
    /// The VM is here and frozen, until [`THAW`](super::THAW) or the host goes down.
    pub const FROZEN: u32 = 1 << 0;
    /// The image was set aside: its name is free.
    pub const ASIDE: u32 = 1 << 1;
    /// Something is in use that it cannot be kept with: it is not sealed on request, and its image is
    /// not resumed.
    pub const UNKEPT: u32 = 1 << 2;
    /// The state of a device in use is not carried, which its owner allowed.
    pub const PARTIAL: u32 = 1 << 3;
    /// The platform did not save the image: it is not resumed.
    pub const UNSAVED: u32 = 1 << 4;
}

/// Bits of [`PowerFailing::flags`].
pub mod power_flag {
    /// It is a drill: the VMs that it seals go on at its end.
    pub const DRILL: u32 = 1 << 0;
}

/// Values of [`DeviceEntry::kind`], and what the entry's numbers are.
pub mod device_kind {
    /// A virtio device: a `DeviceId`; its type; the features that its driver accepted.
    pub const VIRTIO: u32 = 1;
    /// A virtqueue that its driver enabled: the `DeviceId` of its device; its number; requests in flight.
    pub const QUEUE: u32 = 2;
    /// A PCI function that is no virtio device: bus in bits 15..8, device in 7..3, function in 2..0;
    /// vendor in the low half of 32 bits, device in the high one; class code.
    pub const FUNCTION: u32 = 3;
    /// A chip of a PC: its number in `shadow::legacy`.
    pub const CHIP: u32 = 4;
    /// Ports that are not understood: first; last; how often they were written.
    pub const PORTS: u32 = 5;
    /// Guest physical memory that is not understood: likewise.
    pub const MEMORY: u32 = 6;
    /// A disk in the host's page cache: inode number; device, the major number in bits 31..20. `text` is
    /// its path.
    pub const CACHED: u32 = 7;
    /// A device of the host (VFIO).
    pub const PASSED_THROUGH: u32 = 8;
    /// Devices that the guest had configured before it came here.
    pub const ELSEWHERE: u32 = 9;
}

/// Values of [`DeviceEntry::keeping`].
pub mod keeping {
    /// It was not put to use: there is nothing to keep.
    pub const IDLE: u32 = 0;
    /// It goes on.
    pub const KEPT: u32 = 1;
    /// It starts as fresh; or `text` says what is lost.
    pub const FRESH: u32 = 2;
    /// The VM cannot be kept with it; `text` may say why.
    pub const LOST: u32 = 3;
}

/// The module and its pool.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// [`ABI_VERSION`].
    pub abi_version: u32,
    /// One of [`pool_state`].
    pub pool_state: u32,
    /// The module's version.
    pub module_version: [u8; 32],
    /// The device that holds the pool, such as `dax0.0`.
    pub device: [u8; 32],
    /// Bytes that VMs may own.
    pub pool_bytes: u64,
    /// Bytes of these that nobody owns.
    pub free_bytes: u64,
    /// The pool's UUID.
    pub pool_uuid: [u8; 16],
    /// Granules of 2 MiB that VMs may own.
    pub granules: u32,
    /// Slots in the VM table: valid arguments of [`VM`] are below.
    pub slots: u32,
    /// One of [`persistence`].
    pub persistence: u32,
    /// Zero.
    pub reserved: u32,
    /// Why the pool is in its state.
    pub text: [u8; TEXT_LEN],
}

/// What a process is bound to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bind {
    /// The VM's name.
    pub name: [u8; NAME_LEN],
    /// The bits of `life::Policy`.
    pub policy: u64,
}

/// Which VM is meant.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Select {
    /// Its name, or `#` and its slot in decimal. For [`SEAL`] and [`THAW`]: all if empty.
    pub name: [u8; NAME_LEN],
}

/// Power is failing: how long there is, and what came of it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PowerFailing {
    /// In: the budget in ms, or 0 for that of the module. Out: what it was.
    pub budget_ms: u32,
    /// VMs that were to be sealed.
    pub asked: u32,
    /// Those that were, when all were done or, unless it is a drill, the budget was over.
    pub sealed: u32,
    /// In: bits of [`power_flag`].
    pub flags: u32,
    /// How long that took.
    pub elapsed_ns: u64,
}

/// How long the parts of a VM's last seal and of its resume took. Those of a seal are 0 if it failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Placing its RAM in the pool.
    pub adopt_ns: u64,
    /// Pages that this copied; not a time.
    pub adopted_pages: u64,
    /// From the trigger, or the request, until nothing of it moves: its vCPUs are out of KVM, its queues
    /// stand still, its VMM's view of RAM is closed.
    pub freeze_ns: u64,
    /// Getting its state from KVM.
    pub capture_ns: u64,
    /// Writing its RAM back, and the files that it stores in.
    pub writeback_ns: u64,
    /// Making its record durable, and the commit word.
    pub commit_ns: u64,
    /// From the trigger, or the request, until it was sealed: all of these.
    pub seal_ns: u64,
    /// If it was sealed because power fails, or in a drill: how long there was, in ms; not a time that it took.
    pub budget_ms: u64,
    /// Giving its state to KVM.
    pub restore_ns: u64,
}

/// A VM.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Vm {
    /// In: its slot.
    pub slot: u32,
    /// One of [`vm_state`].
    pub state: u32,
    /// Its name; empty if even that is damaged.
    pub name: [u8; NAME_LEN],
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Bits of [`vm_flag`].
    pub flags: u32,
    /// The user it belongs to.
    pub uid: u32,
    /// Its VMM, if it is here: the process id in the initial namespace, or 0.
    pub pid: i32,
    /// vCPUs.
    pub vcpus: u32,
    /// Blocks of RAM.
    pub blocks: u32,
    /// How many times it was resumed.
    pub resumes: u32,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// Bytes of the pool that it owns.
    pub pool_bytes: u64,
    /// When it was created.
    pub created_ns: u64,
    /// When it was sealed last, or 0.
    pub sealed_ns: u64,
    /// The bits of its policy.
    pub policy: u64,
    /// Why it was sealed last: a `life::Cause`, or 0.
    pub cause: u32,
    /// The errno with which it was last refused, or 0.
    pub refusal: i32,
    /// Why it was last refused, or what is damaged.
    pub text: [u8; TEXT_LEN],
    /// How long things took.
    pub timings: Timings,
}

/// Where the devices of a VM are to be told.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Devices {
    /// In: the VM's slot.
    pub slot: u32,
    /// In: how many [`DeviceEntry`]s there is room for.
    pub room: u32,
    /// In: where they are.
    pub entries: u64,
    /// How many there are; those that there is room for were written.
    pub count: u32,
    /// Disks that the VMM had open in the host's page cache when its VM was adopted.
    pub cached: u32,
}

/// A device of a VM, or what else is told of its devices.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceEntry {
    /// One of [`device_kind`].
    pub kind: u32,
    /// One of [`keeping`].
    pub keeping: u32,
    /// Numbers, whose meaning depends on the kind: where it is,
    pub place: u64,
    /// which or what it is,
    pub number: u64,
    /// and more.
    pub detail: u64,
    /// Why it cannot be kept, what is lost, or a path.
    pub text: [u8; TEXT_LEN],
}

/// An image that nobody runs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// In, for [`HOLD`]: which one; its name, or `#` and its slot in decimal.
    pub select: [u8; NAME_LEN],
    /// Its name.
    pub name: [u8; NAME_LEN],
    /// Its UUID.
    pub uuid: [u8; 16],
    /// [`vm_state::SEALED`] or [`vm_state::TORN`].
    pub state: u32,
    /// Bits of [`vm_flag`].
    pub flags: u32,
    /// The user it belongs to.
    pub uid: u32,
    /// vCPUs.
    pub vcpus: u32,
    /// How many times it was resumed.
    pub resumes: u32,
    /// Blocks of RAM: the entries of `block` that count.
    pub blocks: u32,
    /// When it was created.
    pub created_ns: u64,
    /// The bits of its policy.
    pub policy: u64,
    /// Bytes of its record, or 0 if it is torn.
    pub record_bytes: u64,
    /// Bytes of each of its record areas.
    pub area_bytes: u64,
    /// Its RAM.
    pub block: [ImageBlock; IMAGE_BLOCKS],
}

/// A block of an image's RAM.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageBlock {
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
    /// As in the header of a VM: `format::BlockFlags`.
    pub flags: u64,
}

/// A piece of an image, and where it is with the caller.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The block of RAM, by its place in [`Image::block`], or [`RECORD`].
    pub block: u32,
    /// Zero.
    pub reserved: u32,
    /// Its first byte in the block; zero for the record.
    pub offset: u64,
    /// Bytes: at most [`PIECE_MAX`] of RAM, or all of the record.
    pub len: u64,
    /// Where they are.
    pub address: u64,
}

const _: () = {
    assert!(size_of::<Image>() == 1736);
    assert!(size_of::<ImageBlock>() == 24);
    assert!(size_of::<Piece>() == 32);
    assert!(size_of::<Devices>() == 24);
    assert!(size_of::<DeviceEntry>() == 192);
    assert!(size_of::<Info>() == 280);
    assert!(size_of::<Bind>() == 72);
    assert!(size_of::<Select>() == 64);
    assert!(size_of::<PowerFailing>() == 24);
    assert!(size_of::<Timings>() == 72);
    assert!(size_of::<Vm>() == 392);
};

impl Info {
    /// All zero.
    pub const ZERO: Info = Info {
        abi_version: 0,
        pool_state: 0,
        module_version: [0; 32],
        device: [0; 32],
        pool_bytes: 0,
        free_bytes: 0,
        pool_uuid: [0; 16],
        granules: 0,
        slots: 0,
        persistence: 0,
        reserved: 0,
        text: [0; TEXT_LEN],
    };
}

impl Image {
    /// All zero.
    pub const ZERO: Image = Image {
        select: [0; NAME_LEN],
        name: [0; NAME_LEN],
        uuid: [0; 16],
        state: 0,
        flags: 0,
        uid: 0,
        vcpus: 0,
        resumes: 0,
        blocks: 0,
        created_ns: 0,
        policy: 0,
        record_bytes: 0,
        area_bytes: 0,
        block: [ImageBlock {
            gpa: 0,
            len: 0,
            flags: 0,
        }; IMAGE_BLOCKS],
    };
}

impl DeviceEntry {
    /// All zero.
    pub const ZERO: DeviceEntry = DeviceEntry {
        kind: 0,
        keeping: 0,
        place: 0,
        number: 0,
        detail: 0,
        text: [0; TEXT_LEN],
    };
}

impl Vm {
    /// All zero.
    pub const ZERO: Vm = Vm {
        slot: 0,
        state: 0,
        name: [0; NAME_LEN],
        uuid: [0; 16],
        flags: 0,
        uid: 0,
        pid: 0,
        vcpus: 0,
        blocks: 0,
        resumes: 0,
        ram_bytes: 0,
        pool_bytes: 0,
        created_ns: 0,
        sealed_ns: 0,
        policy: 0,
        cause: 0,
        refusal: 0,
        text: [0; TEXT_LEN],
        timings: Timings {
            adopt_ns: 0,
            adopted_pages: 0,
            freeze_ns: 0,
            capture_ns: 0,
            writeback_ns: 0,
            commit_ns: 0,
            seal_ns: 0,
            budget_ms: 0,
            restore_ns: 0,
        },
    };
}

/// A writer into a text field, so that anything with `Display` can be told there.
pub struct TextWriter<'a> {
    field: &'a mut [u8],
    len: usize,
}

impl<'a> TextWriter<'a> {
    /// Clears the field and writes from its start. What does not fit is dropped.
    pub fn new<const N: usize>(field: &'a mut [u8; N]) -> Self {
        field.fill(0);
        TextWriter { field, len: 0 }
    }
}

impl core::fmt::Write for TextWriter<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for c in text.chars() {
            let mut utf8 = [0; 4];
            let bytes = c.encode_utf8(&mut utf8).as_bytes();
            let end = self.len.saturating_add(bytes.len());
            // One zero stays at the end.
            let room = self.field.len().saturating_sub(1);
            match self.field.get_mut(self.len..end) {
                Some(to) if end <= room => to.copy_from_slice(bytes),
                _ => {
                    // Nothing after a character that was dropped.
                    self.len = usize::MAX;
                    return Ok(());
                }
            }
            self.len = end;
        }
        Ok(())
    }
}
