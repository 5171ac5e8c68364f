// SPDX-License-Identifier: GPL-2.0

//! A virtual machine as far as the format knows it: RAM that holds a number, and a record that says
//! which number that is. A resume is right if both agree.

use nvhv_pure::format::record::{kind, VM_WIDE};
use nvhv_pure::format::{
    place_areas, place_block, Allocator, BlockFlags, Cause, Entry, EntryState, HeaderBuilder,
    HeaderView, Identity, Media, Pool, RecordInfo, RecordToken, Refusal, AREA_MIN, GRANULE,
    HEADER_LEN, SUPERBLOCK_LEN,
};
use nvhv_pure::life::{Name, Policy};

/// Bytes of RAM of one of these VMs: it starts and ends inside a granule.
pub const RAM: u64 = 3 << 20;

/// Where its RAM is in its address space.
pub const GPA: u64 = 1 << 20;

/// Slots of these pools.
pub const SLOTS: u32 = 3;

/// Granules that these VMs may own.
pub const GRANULES: u64 = 12;

/// Length of a device for these pools.
pub const DEVICE: u64 = (2 + GRANULES) * GRANULE;

/// The UUID of these pools.
pub const POOL_UUID: [u8; 16] = *b"the test's pool.";

/// A header being built.
pub type Header = HeaderBuilder<Vec<u8>>;

/// An allocator.
pub type Alloc = Allocator<Vec<u64>>;

/// A scratch buffer for a superblock.
pub fn page() -> Vec<u8> {
    vec![0; SUPERBLOCK_LEN]
}

/// A scratch buffer for a header.
pub fn buffer() -> Vec<u8> {
    vec![0; HEADER_LEN]
}

/// Makes a pool on `media`.
pub fn format<M: Media>(media: &M) {
    Pool::format(media, SLOTS, POOL_UUID, 1, &mut page(), &mut |_, _| {}).expect("formats");
}

/// Opens a pool.
pub fn open<M: Media>(media: M) -> Result<(Pool<M>, Alloc), Refusal> {
    let pool = Pool::open(media, &mut page())?;
    let bits = vec![0; Alloc::words(pool.geometry())];
    let alloc = pool.survey(bits, &mut buffer())?;
    Ok((pool, alloc))
}

/// A VM that is here.
pub struct Vm {
    /// Its entry.
    pub entry: Entry,
    /// Its header.
    pub header: Header,
}

/// Builds the header of a VM.
pub fn header(alloc: &mut Alloc, name: &str, ram: u64) -> Result<Header, Refusal> {
    let mut vm = [0; 16];
    vm[..name.len()].copy_from_slice(name.as_bytes());
    let id = Identity {
        name: Name::new(name.as_bytes()).expect("a name"),
        vm,
        uid: 1000,
        created_ns: 7,
        policy: Policy::default(),
    };
    let mut header = HeaderBuilder::new(buffer(), &id)?;
    place_areas(&mut header, alloc, AREA_MIN)?;
    place_block(&mut header, alloc, GPA, ram, BlockFlags::NONE)?;
    header.set_vcpus(2);
    Ok(header)
}

/// Creates a VM whose RAM holds `number`, and lets it run.
pub fn start<M: Media>(
    pool: &Pool<M>,
    alloc: &mut Alloc,
    slot: u32,
    name: &str,
    number: u64,
) -> Result<Vm, Refusal> {
    let mut header = header(alloc, name, RAM)?;
    let mut entry = pool.create(slot, &mut header)?;
    write_ram(pool, &header.view(), number);
    pool.commit_live(&mut entry, &mut header)?;
    Ok(Vm { entry, header })
}

/// The places in a VM's RAM that hold its number: in both its extents' granules, first and last.
fn places<'a>(header: &'a HeaderView<'a>) -> impl Iterator<Item = u64> + 'a {
    header.blocks().flat_map(|block| {
        [0, (block.len / 2) & !7, block.len - 8].map(|offset| {
            let (at, _) = header.locate(&block, offset).expect("inside the block");
            at
        })
    })
}

/// The guest stores `number`. Nothing is flushed.
pub fn write_ram<M: Media>(pool: &Pool<M>, header: &HeaderView<'_>, number: u64) {
    for at in places(header) {
        pool.media().write_word(at, number).expect("stores");
    }
}

/// The number in a VM's RAM; `None` if it is half one and half another.
pub fn read_ram<M: Media>(pool: &Pool<M>, header: &HeaderView<'_>) -> Option<u64> {
    let mut numbers = places(header).map(|at| {
        let mut word = [0; 8];
        pool.media().read(at, &mut word).expect("reads");
        u64::from_le_bytes(word)
    });
    let first = numbers.next()?;
    numbers.all(|n| n == first).then_some(first)
}

/// Zeroes all that a VM owned, and empties its entry.
pub fn finish_discard<M: Media>(
    pool: &Pool<M>,
    entry: Entry,
    header: &HeaderView<'_>,
) -> Result<(), Refusal> {
    let wiped = pool.wipe(entry, header)?;
    pool.finish_discard(wiped)
}

/// What the next record of a VM says about itself.
pub fn about(entry: &Entry) -> RecordInfo {
    RecordInfo {
        vm: *entry.vm(),
        header_seq: entry.header_seq(),
        record_seq: entry.next_record_seq(),
        sealed_ns: 99,
        cause: Cause::REBOOT,
        kernel: [0; 64],
    }
}

/// Makes the record of a VM whose RAM holds `number`.
pub fn record<M: Media>(
    pool: &Pool<M>,
    entry: &mut Entry,
    number: u64,
) -> Result<RecordToken, Refusal> {
    let about = about(entry);
    pool.make_record(entry, &about, |writer| {
        writer.push(kind::SHAPE, VM_WIDE, b"shape")?;
        for vcpu in 0..2 {
            writer.push(0x4090_ae82, vcpu, &number.to_le_bytes())?;
        }
        Ok(())
    })
}

/// Seals a VM whose RAM holds `number`.
pub fn seal<M: Media>(pool: &Pool<M>, vm: &mut Vm, number: u64) -> Result<(), Refusal> {
    for extent in vm.header.view().extents() {
        pool.media().flush(extent.start(), extent.len())?;
    }
    let token = record(pool, &mut vm.entry, number)?;
    pool.commit_sealed(&mut vm.entry, token)
}

/// Resumes the sealed VM in `slot`.
pub fn resume<M: Media>(pool: &Pool<M>, alloc: &Alloc, slot: u32) -> Result<Vm, Refusal> {
    let mut buf = buffer();
    match pool.load(slot, alloc, &mut buf)? {
        EntryState::Sealed {
            mut entry, header, ..
        } => {
            let mut next = HeaderBuilder::edit(buffer(), &header)?;
            next.set_resumes(header.resumes() + 1);
            pool.commit_live(&mut entry, &mut next)?;
            Ok(Vm {
                entry,
                header: next,
            })
        }
        other => panic!("not sealed: {other:?}"),
    }
}

/// Discards a VM.
pub fn discard<M: Media>(pool: &Pool<M>, alloc: &mut Alloc, mut vm: Vm) -> Result<(), Refusal> {
    pool.begin_discard(&mut vm.entry)?;
    finish_discard(pool, vm.entry, &vm.header.view())?;
    alloc.free_all(&vm.header.view());
    Ok(())
}

/// What a slot holds, in words for a test's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing.
    Nothing,
    /// A torn VM.
    Torn,
    /// A VM that is whole: its record and its RAM say this number, after so many resumes.
    Whole(u64, u32),
    /// One that the platform has not saved.
    Unsaved,
    /// What `tidy` will make into nothing.
    Leftover,
    /// A damaged entry.
    Damaged(Refusal),
}

/// What `slot` holds. Panics if it is a wrong resume: a record that its RAM does not match.
pub fn holds<M: Media>(pool: &Pool<M>, alloc: &Alloc, slot: u32) -> Holds {
    let mut buf = buffer();
    match pool.load(slot, alloc, &mut buf).expect("a slot") {
        EntryState::Empty => Holds::Nothing,
        EntryState::Live { .. } => Holds::Torn,
        EntryState::Discarding { .. } | EntryState::Wiped { .. } => Holds::Leftover,
        EntryState::Damaged { why, .. } => Holds::Damaged(why),
        EntryState::Sealed { entry, .. } if entry.unsaved() => Holds::Unsaved,
        EntryState::Sealed {
            entry,
            header,
            record,
        } => {
            let record = match pool.take_record(&entry, &record, vec![0; record.len()]) {
                Ok(record) => record,
                Err(why) => return Holds::Damaged(why),
            };
            let vcpu = record.view().vcpu(1);
            let payload = vcpu.find(0x4090_ae82).expect("vCPU 1").payload;
            let number = u64::from_le_bytes(payload.try_into().expect("eight bytes"));
            let ram = read_ram(pool, &header);
            assert_eq!(ram, Some(number), "wrong resume: RAM is not of this record");
            Holds::Whole(number, header.resumes())
        }
    }
}
