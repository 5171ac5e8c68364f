// SPDX-License-Identifier: GPL-2.0

//! Records and checksums.

use nvhv_pure::format::crc::crc32c;
use nvhv_pure::format::record::{HEAD_LEN, VM_WIDE};
use nvhv_pure::format::{Cause, Record, RecordInfo, RecordWriter, Refusal};
use proptest::prelude::*;

const INFO: RecordInfo = RecordInfo {
    vm: [3; 16],
    header_seq: 4,
    record_seq: 5,
    sealed_ns: 6,
    cause: Cause::POWER,
    kernel: [b'k'; 64],
};

proptest! {
    #[test]
    fn the_checksum_is_crc32c(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..5)) {
        let whole: Vec<u8> = parts.concat();
        let step_by_step = parts.iter().fold(0, |crc, part| crc32c(crc, part));
        prop_assert_eq!(step_by_step, ::crc32c::crc32c(&whole));
    }

    #[test]
    fn what_was_written_is_read(
        mut items in prop::collection::vec((any::<u32>(), prop::option::of(0u32..300), prop::collection::vec(any::<u8>(), 0..50)), 0..20),
    ) {
        items.sort_by_key(|(_, vcpu, _)| *vcpu);
        // Old bytes in the buffer must not show.
        let mut buf = vec![0xaa; 4096];
        let mut writer = RecordWriter::new(&mut buf).unwrap();
        for (kind, vcpu, payload) in &items {
            writer.push(*kind, vcpu.unwrap_or(VM_WIDE), payload).unwrap();
        }
        let len = writer.len();
        let bytes = writer.finish(&INFO, ::crc32c::crc32c_append).bytes();
        prop_assert_eq!(len, bytes.len());
        let record = Record::parse(bytes, crc32c).unwrap();
        prop_assert_eq!(record.info(), INFO);
        for (kind, vcpu, _) in &items {
            let found = record.find(*kind, vcpu.unwrap_or(VM_WIDE));
            prop_assert!(vcpu.is_none() || record.vcpu(vcpu.unwrap()).find(*kind) == found);
        }
        prop_assert!(record.vcpu(300).find(items.first().map_or(0, |i| i.0)).is_none());
        let read: Vec<_> = record.items().map(|i| (i.kind, i.vcpu, i.payload.to_vec())).collect();
        let wrote: Vec<_> = items.into_iter().map(|(k, v, p)| (k, v.unwrap_or(VM_WIDE), p)).collect();
        prop_assert_eq!(read, wrote);
        // Any other length is refused.
        prop_assert!(Record::parse(&bytes[..len - 1], crc32c).is_err());
        let mut longer = bytes.to_vec();
        longer.extend([0; 16]);
        prop_assert!(Record::parse(&longer, crc32c).is_err());
    }
}

#[test]
fn a_full_buffer_refuses_and_keeps_what_was_there() {
    for room in HEAD_LEN..HEAD_LEN + 80 {
        let mut buf = vec![0; room];
        let mut writer = RecordWriter::new(&mut buf).expect("room for a head");
        let mut count = 0;
        while writer.push(7, VM_WIDE, b"12345").is_ok() {
            count += 1;
        }
        assert_eq!(count, (room - HEAD_LEN) / 24);
        let bytes = writer.finish(&INFO, crc32c).bytes();
        let record = Record::parse(bytes, crc32c).expect("whole");
        assert_eq!(record.items().count(), count);
    }
    assert!(RecordWriter::new(&mut [0; HEAD_LEN - 1]).is_err());
}

#[test]
fn a_failed_filling_adds_nothing() {
    let mut buf = vec![0; 4096];
    let mut writer = RecordWriter::new(&mut buf).expect("room");
    let failed = writer.push_with(1, 0, 8, |_| Err(Refusal::RecordStale));
    assert_eq!(failed, Err(Refusal::RecordStale));
    assert!(writer.is_empty());
    assert_eq!(writer.len(), HEAD_LEN);
}

proptest! {
    /// Only what was written counts, whatever room was asked for; nothing else of the room shows.
    #[test]
    fn an_item_is_as_long_as_its_filling(items in prop::collection::vec((0usize..60, 0usize..60), 1..12)) {
        let mut buf = vec![0xaa; 4096];
        let mut writer = RecordWriter::new(&mut buf).unwrap();
        let mut len = HEAD_LEN;
        for (number, &(used, more)) in items.iter().enumerate() {
            let most = used + more;
            writer.push_up_to::<Refusal>(7, VM_WIDE, most, |room| {
                assert_eq!(room.len(), most);
                room.fill(0xbb);
                room[..used].fill(number as u8);
                Ok(used)
            }).unwrap();
            len += 16 + used.next_multiple_of(8);
            prop_assert_eq!(writer.len(), len);
        }
        // Padding that is not zero would be refused.
        let bytes = writer.finish(&INFO, crc32c).bytes();
        let record = Record::parse(bytes, crc32c).unwrap();
        let read: Vec<_> = record.items().map(|i| i.payload.to_vec()).collect();
        let wrote: Vec<_> = items.iter().enumerate().map(|(n, &(used, _))| vec![n as u8; used]).collect();
        prop_assert_eq!(read, wrote);
    }
}

#[test]
fn a_filling_that_says_too_much_is_cut() {
    let mut buf = vec![0; 4096];
    let mut writer = RecordWriter::new(&mut buf).expect("room");
    let done = writer.push_up_to::<Refusal>(7, VM_WIDE, 5, |_| Ok(usize::MAX));
    assert_eq!(done, Ok(()));
    assert_eq!(writer.len(), HEAD_LEN + 16 + 8);
}

/// The room asked for has to be there, and the padding of what was written.
#[test]
fn a_filling_needs_its_room() {
    let room = HEAD_LEN + 16 + 13;
    let push = |most, used| {
        let mut buf = vec![0; room];
        let mut writer = RecordWriter::new(&mut buf).expect("room for a head");
        let mut filled = false;
        let done = writer.push_up_to::<Refusal>(7, VM_WIDE, most, |_| {
            filled = true;
            Ok(used)
        });
        assert_eq!(writer.is_empty(), done.is_err());
        assert_eq!(writer.len() == HEAD_LEN, done.is_err());
        (done.is_ok(), filled)
    };
    assert_eq!(push(13, 8), (true, true));
    assert_eq!(push(13, 0), (true, true));
    assert_eq!(push(14, 0), (false, false));
    assert_eq!(push(usize::MAX, 0), (false, false));
    // Nine bytes take sixteen.
    assert_eq!(push(13, 9), (false, true));
}

#[test]
fn vcpus_come_in_order() {
    let mut buf = vec![0; 4096];
    let mut writer = RecordWriter::new(&mut buf).expect("room");
    assert_eq!(writer.push(1, 2, &[]), Ok(()));
    assert_eq!(writer.push(1, VM_WIDE, &[]), Ok(()));
    let late = writer.push(1, 1, &[]);
    assert_eq!(late, Err(Refusal::RecordOrder { vcpu: 1 }));
    assert_eq!(writer.push(1, 2, &[]), Ok(()));
}
