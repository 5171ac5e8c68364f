// SPDX-License-Identifier: GPL-2.0

//! Making a record, in memory that the caller provides: nothing here allocates, so that a record
//! can be made when nothing else works any more.

use super::{
    bytes::put,
    crc::Crc,
    record::{at, padding, Order, HEAD_LEN, ITEM_LEN, MAGIC, SUMMED_FROM},
    RecordInfo, Refusal, VERSION,
};

/// A record that is being made.
///
/// # Invariants
///
/// `HEAD_LEN <= len <= buf.len() <= u32::MAX`, and `buf[HEAD_LEN..len]` holds `items` whole items.
pub struct RecordWriter<'a> {
    buf: &'a mut [u8],
    len: usize,
    items: u32,
    order: Order,
}

/// A record that is complete.
#[derive(Clone, Copy, Debug)]
pub struct FinishedRecord<'a> {
    bytes: &'a [u8],
    crc: u32,
}

impl<'a> RecordWriter<'a> {
    /// Begins a record in `buf`, which has to hold all of it.
    pub fn new(buf: &'a mut [u8]) -> Result<Self, Refusal> {
        let room = buf.len();
        if room < HEAD_LEN {
            return Err(Refusal::Buffer {
                len: room,
                need: HEAD_LEN,
            });
        }
        // CAST: lossless from 32 to 64 bits. More could not be told in the head.
        let end = room.min(u32::MAX as usize);
        // INVARIANT: no items yet, and there is room for the head.
        Ok(RecordWriter {
            buf: buf.get_mut(..end).unwrap_or(&mut []),
            len: HEAD_LEN,
            items: 0,
            order: Order::default(),
        })
    }

    /// Adds an item.
    pub fn push(&mut self, kind: u32, vcpu: u32, payload: &[u8]) -> Result<(), Refusal> {
        self.push_with(kind, vcpu, payload.len(), |room| {
            room.copy_from_slice(payload);
            Ok(())
        })
    }

    /// Adds an item of `len` bytes, which `fill` writes in place. If `fill` fails, nothing was added.
    pub fn push_with<E: From<Refusal>>(
        &mut self,
        kind: u32,
        vcpu: u32,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.push_up_to(kind, vcpu, len, |room| fill(room).map(|()| len))
    }

    /// Adds an item of at most `most` bytes, which `fill` writes in place and says how many they are. If
    /// `fill` fails, nothing was added.
    pub fn push_up_to<E: From<Refusal>>(
        &mut self,
        kind: u32,
        vcpu: u32,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let too_big = Refusal::RecordTooBig {
            room: self.buf.len() as u64,
        };
        let mut order = self.order;
        order.next(vcpu)?;
        let rest = self.buf.get_mut(self.len..).unwrap_or(&mut []);
        let (head, rest) = rest.split_at_mut_checked(ITEM_LEN).ok_or(too_big)?;
        let len = fill(rest.get_mut(..most).ok_or(too_big)?)?.min(most);
        let length = u32::try_from(len).map_err(|_| too_big)?;
        let (_, rest) = rest.split_at_mut_checked(len).ok_or(too_big)?;
        let (gap, _) = rest.split_at_mut_checked(padding(len)).ok_or(too_big)?;
        gap.fill(0);
        head.fill(0);
        let whole = put(head, 0, &kind.to_le_bytes())
            && put(head, 4, &vcpu.to_le_bytes())
            && put(head, 8, &length.to_le_bytes());
        debug_assert!(whole);
        // INVARIANT: one item more, which was found to fit.
        self.len += ITEM_LEN + len + padding(len);
        self.items += 1;
        self.order = order;
        Ok(())
    }

    /// Bytes used so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no items yet.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Completes the record.
    pub fn finish(self, about: &RecordInfo, crc: Crc) -> FinishedRecord<'a> {
        let RecordWriter {
            buf, len, items, ..
        } = self;
        let bytes = buf.get_mut(..len).unwrap_or(&mut []);
        bytes.get_mut(..HEAD_LEN).unwrap_or(&mut []).fill(0);
        // CAST: by the type invariants at most `u32::MAX`.
        let length = len as u32;
        let mut whole = put(bytes, 0, &MAGIC)
            && put(bytes, at::LENGTH, &length.to_le_bytes())
            && put(bytes, at::VERSION, &VERSION.to_le_bytes())
            && put(bytes, at::ITEMS, &items.to_le_bytes())
            && put(bytes, at::VM, &about.vm)
            && put(bytes, at::HEADER_SEQ, &about.header_seq.to_le_bytes())
            && put(bytes, at::SEQ, &about.record_seq.to_le_bytes())
            && put(bytes, at::SEALED, &about.sealed_ns.to_le_bytes())
            && put(bytes, at::CAUSE, &about.cause.0.to_le_bytes())
            && put(bytes, at::KERNEL, &about.kernel);
        let sum = crc(0, bytes.get(SUMMED_FROM..).unwrap_or(&[]));
        whole = whole && put(bytes, at::CRC, &sum.to_le_bytes());
        debug_assert!(whole);
        FinishedRecord { bytes, crc: sum }
    }
}

impl<'a> FinishedRecord<'a> {
    /// Its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn crc(&self) -> u32 {
        self.crc
    }
}
