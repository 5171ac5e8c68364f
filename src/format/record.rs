// SPDX-License-Identifier: GPL-2.0

//! A record: the state of a VM beside its RAM, as a stream of items in the order of their restore.

use super::{
    bytes::{get, get_u32, get_u64, zero_from},
    crc::Crc,
    Part, Refusal, VERSION,
};
pub use crate::life::Cause;
use core::ops::Deref;

/// First bytes of a record.
pub(super) const MAGIC: [u8; 8] = *b"NVHVRECD";

/// Offsets of the fields of a record's head; see `docs/format.md`.
pub(super) mod at {
    pub(in super::super) const CRC: usize = 8;
    pub(in super::super) const LENGTH: usize = 12;
    pub(in super::super) const VERSION: usize = 16;
    pub(in super::super) const ITEMS: usize = 20;
    pub(in super::super) const VM: usize = 24;
    pub(in super::super) const HEADER_SEQ: usize = 40;
    pub(in super::super) const SEQ: usize = 48;
    pub(in super::super) const SEALED: usize = 56;
    pub(in super::super) const CAUSE: usize = 64;
    pub(in super::super) const KERNEL: usize = 72;
    pub(in super::super) const RESERVED: usize = 136;
}

/// Bytes in the head of a record.
pub const HEAD_LEN: usize = 192;

/// Bytes in the head of an item.
pub const ITEM_LEN: usize = 16;

/// Where the bytes start that a record's checksum covers.
pub(super) const SUMMED_FROM: usize = at::LENGTH;

/// In place of a vCPU: the item is the VM's.
pub const VM_WIDE: u32 = u32::MAX;

/// Kinds of items that are not KVM ioctls.
///
/// All others are the number of the KVM ioctl that restores the state, and its argument. Ours have
/// the type byte 0xE7 where an ioctl has KVM's 0xAE.
pub mod kind {
    /// The VM's shape: what has to be the same when it is resumed.
    pub const SHAPE: u32 = 0xe700;
    /// A vCPU's unfinished exit to user space: its `struct kvm_run`, as far as it counts.
    pub const EXIT: u32 = 0xe701;
    /// The VM's memory slots when it was sealed: `struct kvm_userspace_memory_region`s.
    pub const SLOTS: u32 = 0xe702;
    /// What configures the VMM's fresh devices before the guest's RAM is open to them: a script.
    pub const SCRIPT: u32 = 0xe703;
    /// What lets them run, once it is: a script.
    pub const LIVE_SCRIPT: u32 = 0xe704;
    /// The virtqueues, with their requests in flight.
    pub const QUEUES: u32 = 0xe705;
    /// The interrupt lines (GSIs) that the VMM has used: one bit each.
    pub const LINES: u32 = 0xe706;
    /// What drivers have told their devices through control virtqueues.
    pub const COMMANDS: u32 = 0xe707;
    /// What was in use that the VM cannot be kept with: `shadow::Unkept`s.
    pub const UNKEPT: u32 = 0xe708;
    /// Memory of the guest that is no RAM, but a file's, which keeps it: guest addresses and lengths.
    pub const STORAGE: u32 = 0xe709;
    /// What the platform said of the pool's memory: `state::platform`.
    pub const PLATFORM: u32 = 0xe70a;
}

/// What a record says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordInfo {
    /// The UUID of its VM.
    pub vm: [u8; 16],
    /// The sequence of the header that was committed when it was made.
    pub header_seq: u64,
    /// How many records were made of this VM, with this one.
    pub record_seq: u64,
    /// When it was made, in nanoseconds of real time.
    pub sealed_ns: u64,
    /// Why it was made.
    pub cause: Cause,
    /// The release of the kernel that made it (`uname -r`), padded with zero bytes.
    pub kernel: [u8; 64],
}

/// One item of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// What it is; see [`kind`].
    pub kind: u32,
    /// The vCPU that it belongs to, or [`VM_WIDE`].
    pub vcpu: u32,
    /// Its content.
    pub payload: &'a [u8],
}

/// The head of a record, which still has to be checked together with its body.
///
/// # Invariants
///
/// The magic is right and the length is at least that of a head.
pub(super) struct Head {
    bytes: [u8; HEAD_LEN],
}

impl Head {
    pub(super) fn decode(bytes: &[u8; HEAD_LEN]) -> Option<Self> {
        let head = Head { bytes: *bytes };
        // INVARIANT: checked here.
        (get(bytes, 0) == MAGIC && head.len() as usize >= HEAD_LEN).then_some(head)
    }

    pub(super) fn crc(&self) -> u32 {
        get_u32(&self.bytes, at::CRC)
    }

    pub(super) fn len(&self) -> u32 {
        get_u32(&self.bytes, at::LENGTH)
    }

    pub(super) fn vm(&self) -> [u8; 16] {
        get(&self.bytes, at::VM)
    }

    pub(super) fn header_seq(&self) -> u64 {
        get_u64(&self.bytes, at::HEADER_SEQ)
    }

    pub(super) fn seq(&self) -> u64 {
        get_u64(&self.bytes, at::SEQ)
    }
}

/// A record, checked.
///
/// # Invariants
///
/// `bytes` is as long as its head says, its checksum is right, and [`items`](Self::items) walks
/// exactly over all of it: every item lies inside, its padding is zero, and vCPUs come in ascending
/// order.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Parses and checks a record. `bytes` is exactly the record.
    pub fn parse(bytes: &'a [u8], crc: Crc) -> Result<Self, Refusal> {
        let part = Part::Record;
        let malformed = |why| Err(Refusal::Malformed { part, why });
        let damaged = Refusal::Checksum(part);
        let head = bytes.first_chunk().and_then(Head::decode).ok_or(damaged)?;
        if head.len() as usize != bytes.len()
            || crc(0, bytes.get(SUMMED_FROM..).unwrap_or(&[])) != head.crc()
        {
            return Err(damaged);
        }
        let found = get_u32(bytes, at::VERSION);
        if found != VERSION {
            return Err(Refusal::Version { part, found });
        }
        let head = bytes.get(..HEAD_LEN).unwrap_or(&[]);
        if !zero_from(head, at::RESERVED) || get_u32(head, at::CAUSE + 4) != 0 {
            return malformed("reserved bytes are in use");
        }
        let mut rest = bytes.get(HEAD_LEN..).unwrap_or(&[]);
        let mut order = Order::default();
        let mut count: u32 = 0;
        while !rest.is_empty() {
            let Some((item, padding, after)) = split_item(rest) else {
                return malformed("an item is longer than the record");
            };
            if get_u32(rest, 12) != 0 || !zero_from(padding, 0) {
                return malformed("an item's reserved bytes are in use");
            }
            if order.next(item.vcpu).is_err() {
                return malformed("its items are out of order");
            }
            rest = after;
            count = count.saturating_add(1);
        }
        if count != get_u32(bytes, at::ITEMS) {
            return malformed("it does not have as many items as it says");
        }
        // INVARIANT: all checked above.
        Ok(Record { bytes })
    }

    /// What it says about itself.
    pub fn info(&self) -> RecordInfo {
        info(self.bytes)
    }

    /// All its items, in order.
    pub fn items(&self) -> Items<'a> {
        Items {
            rest: self.bytes.get(HEAD_LEN..).unwrap_or(&[]),
        }
    }

    /// The first item of `kind` of `vcpu`.
    pub fn find(&self, kind: u32, vcpu: u32) -> Option<Item<'a>> {
        self.items().find(|i| i.kind == kind && i.vcpu == vcpu)
    }

    /// The items of one vCPU.
    pub fn vcpu(&self, vcpu: u32) -> VcpuItems<'a> {
        let mut items = self.items();
        let mut from = items.clone();
        while items.next().is_some_and(|item| item.vcpu != vcpu) {
            from = items.clone();
        }
        VcpuItems { from, vcpu }
    }

    pub(super) fn crc(&self) -> u32 {
        get_u32(self.bytes, at::CRC)
    }
}

/// The items of one vCPU of a record.
#[derive(Clone, Debug)]
pub struct VcpuItems<'a> {
    /// From its first one on.
    from: Items<'a>,
    vcpu: u32,
}

impl<'a> VcpuItems<'a> {
    /// The first item of `kind`.
    pub fn find(&self, kind: u32) -> Option<Item<'a>> {
        // Those of one vCPU come before those of all higher ones, the VM's anywhere.
        let mut own = self
            .from
            .clone()
            .take_while(|item| item.vcpu == self.vcpu || item.vcpu == VM_WIDE);
        own.find(|item| item.kind == kind && item.vcpu == self.vcpu)
    }
}

/// A record in a buffer of its own, checked once.
///
/// # Invariants
///
/// `bytes` meets what [`Record`] demands.
pub struct OwnedRecord<B> {
    bytes: B,
}

impl<B: Deref<Target = [u8]>> OwnedRecord<B> {
    /// Of `bytes`, which `Record::parse` has accepted.
    pub(super) fn of_checked(bytes: B) -> Self {
        // INVARIANT: as the caller says.
        OwnedRecord { bytes }
    }

    /// The record.
    pub fn view(&self) -> Record<'_> {
        // INVARIANT: by this type's.
        Record { bytes: &self.bytes }
    }
}

/// What the head of a record says.
fn info(bytes: &[u8]) -> RecordInfo {
    RecordInfo {
        vm: get(bytes, at::VM),
        header_seq: get_u64(bytes, at::HEADER_SEQ),
        record_seq: get_u64(bytes, at::SEQ),
        sealed_ns: get_u64(bytes, at::SEALED),
        cause: Cause(get_u32(bytes, at::CAUSE)),
        kernel: get(bytes, at::KERNEL),
    }
}

/// The items of a record.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let (item, _, after) = split_item(self.rest)?;
        self.rest = after;
        Some(item)
    }
}

/// Splits `bytes` into an item, the padding after it, and the rest.
fn split_item(bytes: &[u8]) -> Option<(Item<'_>, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(ITEM_LEN)?;
    let len = get_u32(head, 8) as usize;
    let (payload, rest) = rest.split_at_checked(len)?;
    let (padding, rest) = rest.split_at_checked(padding(len))?;
    let item = Item {
        kind: get_u32(head, 0),
        vcpu: get_u32(head, 4),
        payload,
    };
    Some((item, padding, rest))
}

/// Bytes between a payload of `len` bytes and the next item.
pub(super) fn padding(len: usize) -> usize {
    len.wrapping_neg() % 8
}

/// The order of items: those of one vCPU after those of all lower ones, the VM's anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    highest: u32,
}

impl Order {
    pub(super) fn next(&mut self, vcpu: u32) -> Result<(), Refusal> {
        if vcpu == VM_WIDE {
            return Ok(());
        }
        if vcpu < self.highest {
            return Err(Refusal::RecordOrder { vcpu });
        }
        self.highest = vcpu;
        Ok(())
    }
}
