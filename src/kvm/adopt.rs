// SPDX-License-Identifier: GPL-2.0

//! Adoption: what happens at the first KVM_RUN of a bound VM.
//!
//! Until then a VMM writes kernels, firmware and tables into its RAM. At the first KVM_RUN it is
//! decided what the VM gets: a place in the pool (its pages are copied there once), its sealed image
//! (what the VMM has written is thrown away), or a refusal. With an image, each vCPU waits here until
//! all that the image has are here; the last one restores them all, and they run.

use super::{
    capture::{self, now_ns, since},
    devices::Telling,
    keepable,
    keeper::Keeper,
    migrate,
    msrs::Msrs,
    restore::{self, Failure},
    scratch::Scratch,
    slots,
    vcpu::Vcpu,
    vm::{Image, Inner, Phase, Resume, Stage, Vm},
};
use crate::{
    format::{
        place_areas, place_block,
        record::{kind, VM_WIDE},
        BlockFlags, EntryState, HeaderBuilder, Identity, Record, Refusal, BLOCKS_MAX, HEADER_LEN,
    },
    life::{self, Claim, Claimant, Denied, Found},
    pool::{
        store::{buffer, copied, header_of, is_unsaved, Taken},
        Named, Place, Pools,
    },
    ram::adopt::{self as ram, Backing, Ram},
    shadow::{Next, Replay},
    state::{
        blocks::{self, RamBlock, Slot},
        kvm_abi::{self as abi, MEMORY_REGION},
        plan::{self, Shape},
    },
    sys::{
        c,
        compat::{EOPNOTSUPP, ESHUTDOWN, EUCLEAN},
    },
    trace,
};
use core::sync::atomic::Ordering;
use kernel::{
    prelude::*,
    sync::{Arc, ArcBorrow, CondVarTimeoutResult},
    time::{msecs_to_jiffies, Instant, Monotonic},
};

/// How often a device is looked at that is told something, in ms.
const TELL_MS: u32 = 1;

/// The highest slot number that KVM accepts (KVM_USER_MEM_SLOTS - 1, `SHRT_MAX` - 3 - 1).
const TOP_SLOT: u32 = 32_763;

/// A wait for other vCPUs was cut short by a signal.
pub(super) struct Interrupted;

type Outcome<T> = core::result::Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::new(error, fmt!("internal error {error:?}"))
    }
}

impl From<Refusal> for Failure {
    fn from(why: Refusal) -> Self {
        Failure::new(Error::from_errno(-why.errno()), fmt!("{why}"))
    }
}

impl From<Denied> for Failure {
    fn from(why: Denied) -> Self {
        Failure::new(Error::from_errno(-why.errno()), fmt!("{why}"))
    }
}

/// What a vCPU that has arrived does next.
pub(super) enum Arrival {
    /// The VM is live or refused.
    Settled,
    /// An access for the VMM is in `kvm_run`: KVM_RUN returns.
    Exit,
}

/// A vCPU arrives at KVM_RUN before its VM is live.
pub(super) fn arrive(
    vm: ArcBorrow<'_, Vm>,
    vcpu: &Vcpu,
) -> core::result::Result<Arrival, Interrupted> {
    let mut guard = vm.inner.lock();
    while vm.phase() == Phase::New {
        let inner = &mut *guard;
        let step = match &inner.resume {
            None => decide(vm, inner),
            Some(_) => Ok(()),
        };
        if let Err(why) = step.or_else(|why| start_cold(vm, inner, why)) {
            refuse(&vm, inner, &why);
            break;
        }
        let Some(resume) = &inner.resume else { break };
        let gathered = inner.waiting + 1 >= resume.vcpus;
        match &resume.stage {
            Stage::Gathering if gathered => {
                if let Err(why) =
                    begin_resume(&vm, inner, vcpu.id).or_else(|why| start_cold(vm, inner, why))
                {
                    refuse(&vm, inner, &why);
                    break;
                }
                continue;
            }
            Stage::Replaying { vcpu: id, .. } if *id == vcpu.id => {
                let done = replay(&vm, inner, vcpu).and_then(|next| match next {
                    Next::Step(_) => Ok(Some(Arrival::Exit)),
                    // A signal has taken another vCPU out: until it is back, its VMM may set its registers.
                    Next::Done if !gathered => Ok(None),
                    Next::Done => {
                        finish_resume(vm, inner, vcpu.id).map(|()| Some(Arrival::Settled))
                    }
                });
                match done {
                    Ok(Some(Arrival::Exit)) => return Ok(Arrival::Exit),
                    Ok(Some(Arrival::Settled)) => break,
                    Ok(None) => {}
                    Err(why) => {
                        refuse(&vm, inner, &why);
                        break;
                    }
                }
            }
            // Whoever replays may be waiting for this vCPU.
            _ => vm.gathered.notify_all(),
        }
        inner.waiting += 1;
        let interrupted = vm.gathered.wait_interruptible(&mut guard);
        guard.waiting -= 1;
        if interrupted && vm.phase() == Phase::New {
            return Err(Interrupted);
        }
    }
    drop(guard);
    vm.gathered.notify_all();
    Ok(Arrival::Settled)
}

/// Puts the next step of the script to the VMM that presents devices for the resumed VM.
fn replay(vm: &Vm, inner: &mut Inner, vcpu: &Vcpu) -> Outcome<Next> {
    let Some(Resume {
        stage: Stage::Replaying { replay, .. },
        ..
    }) = &mut inner.resume
    else {
        return Ok(Next::Done);
    };
    step(vm, replay, vcpu)
}

/// Takes the VMM's answer to the last step and asks the next.
fn step(vm: &Vm, replay: &mut Replay<KVVec<u8>>, vcpu: &Vcpu) -> Outcome<Next> {
    // A VMM that does not look at `kvm_run` has no devices.
    let page = || vcpu.page().ok_or(ENXIO);
    if let Some(asked) = replay.asked() {
        let answer = page()?.answer(&asked).ok_or(EIO)?;
        // As the image knows it, before its answer is learned.
        let whose = vm.devices.whose(&asked);
        vm.devices.answered(&asked, answer);
        replay.answer(answer).map_err(|difference| {
            Failure::new(EXDEV, fmt!("another device: {whose}: {difference}"))
        })?;
    }
    let next = replay.ask();
    if let Next::Step(step) = &next {
        page()?.ask(step).ok_or(EIO)?;
    }
    Ok(next)
}

/// A vCPU is at KVM_RUN while the devices of its VM, which is live, are being let run.
pub(super) fn arrive_live(
    vm: ArcBorrow<'_, Vm>,
    vcpu: &Vcpu,
) -> core::result::Result<Arrival, Interrupted> {
    let mut guard = vm.inner.lock();
    while let Some(resume) = guard.resume.as_mut().filter(|_| vm.phase() == Phase::Live) {
        // The image is live, and its devices run in part: nothing can be taken back.
        let broken = |why| pr_err!("{}: its devices may not work: {why}\n", vm.binding.name());
        match &mut resume.stage {
            Stage::Replaying { vcpu: id, replay } if *id == vcpu.id => {
                match step(&vm, replay, vcpu) {
                    Ok(Next::Step(_)) => return Ok(Arrival::Exit),
                    Ok(Next::Done) => {}
                    Err(why) => broken(why),
                }
                resume.stage = Stage::Telling { vcpu: vcpu.id };
            }
            Stage::Telling { vcpu: id } if *id == vcpu.id => match vm.devices.tell() {
                Telling::Ask(step) => match vcpu.page().and_then(|page| page.ask(&step)) {
                    Some(()) => return Ok(Arrival::Exit),
                    // A VMM that does not look at `kvm_run` has no devices.
                    None => broken(ENXIO.into()),
                },
                Telling::Wait => {
                    let wait = msecs_to_jiffies(TELL_MS);
                    let woken = vm.gathered.wait_interruptible_timeout(&mut guard, wait);
                    if let CondVarTimeoutResult::Signal { .. } = woken {
                        return Err(Interrupted);
                    }
                }
                Telling::Done => {
                    guard.resume = None;
                    if let Some(scratch) = &guard.scratch {
                        vm.devices.wake(&vm, scratch);
                    }
                }
            },
            Stage::Replaying { .. } | Stage::Telling { .. } => {
                if vm.gathered.wait_interruptible(&mut guard) {
                    return Err(Interrupted);
                }
            }
            Stage::Gathering => break,
        }
    }
    vm.replaying.store(false, Ordering::Release);
    drop(guard);
    vm.gathered.notify_all();
    Ok(Arrival::Settled)
}

/// An image does not match the VM presented. If the owner's policy says so, it is set aside, whole,
/// and the VM starts anew; else `why` stands.
fn start_cold(vm: ArcBorrow<'_, Vm>, inner: &mut Inner, why: Failure) -> Outcome<()> {
    let mismatch = Found::Mismatch {
        uid: vm.binding.uid,
    };
    let cold = life::claim(&claimant(&vm), mismatch) == Claim::ColdStart;
    // With an image in place the comparison was over, and this is another failure.
    if why.error != EXDEV || inner.image.is_some() || !cold {
        return Err(why);
    }
    pr_warn!("{}: set aside: {why}\n", vm.binding.name());
    inner.resume = None;
    vm.set_slot(None);
    if let Named::One(place) = vm.host.pools.find(vm.binding.id())? {
        set_aside(&place)?;
    }
    start_new(&vm, vm.into(), inner)
}

/// The VM does not run. The image, if there is one, is as it was.
fn refuse(vm: &Vm, inner: &mut Inner, why: &Failure) {
    pr_err!("{}: refused: {why}\n", vm.binding.name());
    vm.host
        .note_refusal(vm.binding.id(), why.error, fmt!("{why}"));
    inner.resume = None;
    vm.devices.end();
    if let Some(mut image) = inner.image.take() {
        image.ram.evict();
    }
    vm.set_refused(why.error);
    vm.set_slot(None);
    vm.host.release_name(vm);
}

/// Decides what the VM gets. A new VM is live afterwards; a sealed one is in `inner.resume`.
fn decide(vm: ArcBorrow<'_, Vm>, inner: &mut Inner) -> Outcome<()> {
    if let Some(why) = inner.unsupported {
        return Err(Failure::new(EOPNOTSUPP, fmt!("it cannot be kept: {why}")));
    }
    let pools = &vm.host.pools;
    pools
        .check()
        .map_err(|e| Failure::new(e, fmt!("there is no usable pool: see 'nvhv check'")))?;
    if vm.host.going_down.load(Ordering::Relaxed) {
        return Err(Failure::new(ESHUTDOWN, fmt!("the host is going down")));
    }
    vm.host.await_ending(vm.binding.id());
    let this: Arc<Vm> = vm.into();
    let named = match vm.host.claim_name(&this)? {
        Err(found) => {
            let claim = life::claim(&claimant(&vm), found);
            return Err(match claim {
                Claim::Denied(denied) => denied.into(),
                _ => Denied::Busy.into(),
            });
        }
        Ok(()) => pools.find(vm.binding.id())?,
    };
    match (life::claim(&claimant(&vm), found(pools, &named)?), named) {
        (Claim::Denied(denied), _) => Err(denied.into()),
        (Claim::New, _) => start_new(&vm, this, inner),
        (Claim::ColdStart, Named::One(place)) => {
            set_aside(&place)?;
            start_new(&vm, this, inner)
        }
        (Claim::Resume, Named::One(place)) => prepare_resume(&vm, inner, &place),
        (Claim::ColdStart | Claim::Resume, _) => Err(ENOENT.into()),
    }
}

fn claimant(vm: &Vm) -> Claimant {
    Claimant {
        uid: vm.binding.uid,
        admin: vm.binding.admin,
        policy: vm.binding.policy,
    }
}

/// What there is under a name, as `life` sees it.
pub(crate) fn found(pools: &Pools, named: &Named<'_>) -> Result<Found> {
    Ok(match named {
        Named::Nobody if pools.may_hide() => Found::Unreadable,
        Named::Nobody => Found::Nothing,
        Named::One(place) => place.look(|entry| found_in(&entry))?,
        Named::Two([a, b]) => {
            let owner = |place: &Place<'_>| place.look(|entry| header_of(&entry).map(|h| h.uid()));
            Found::Clash {
                uids: [owner(a)?, owner(b)?],
                slots: [a.number(), b.number()],
            }
        }
    })
}

/// What an entry is, likewise.
fn found_in(entry: &EntryState<'_>) -> Found {
    let uid = header_of(entry).map(|h| h.uid());
    match (entry, uid) {
        (EntryState::Sealed { .. }, Some(uid)) if is_unsaved(entry) => Found::Unsaved { uid },
        (EntryState::Sealed { .. }, Some(uid)) => Found::Sealed { uid },
        (EntryState::Live { .. }, Some(uid)) => Found::Torn { uid },
        (EntryState::Discarding { .. } | EntryState::Wiped { .. }, _) => Found::Discarding,
        (EntryState::Empty, _) => Found::Nothing,
        (_, uid) => Found::Damaged { uid },
    }
}

/// Takes the name from an image that cannot be resumed; its memory stays.
fn set_aside(place: &Place<'_>) -> Outcome<()> {
    let mut image = place.store.take(place.slot)?.ok_or(EBUSY)?;
    Ok(place.store.pool.set_aside(&mut image.entry)?)
}

/// The blocks of RAM that the VMM presents.
fn presented(inner: &mut Inner, out: &mut KVec<RamBlock>) -> Outcome<()> {
    let mut sorted: KVec<Slot> =
        KVec::with_capacity(inner.slots.len(), GFP_KERNEL).map_err(Error::from)?;
    sorted
        .extend_from_slice(&inner.slots, GFP_KERNEL)
        .map_err(Error::from)?;
    out.resize(BLOCKS_MAX as usize, RamBlock::default(), GFP_KERNEL)
        .map_err(Error::from)?;
    let count = blocks::ram_blocks(&mut sorted, out)
        .map_err(|e| Failure::new(EINVAL, fmt!("its memory slots make no sense: {e}")))?;
    out.truncate(count);
    Ok(())
}

/// Whether the pool's memory can take the place of what the VMM presents. Storage, whose place it does not
/// take, is left out of `ram_blocks` and returned.
fn check_backing(ram_blocks: &mut KVec<RamBlock>) -> Outcome<KVec<RamBlock>> {
    let mut storage = KVec::new();
    for block in ram_blocks.iter() {
        let backing = ram::check_backing(block.gpa, block.hva, block.len).map_err(|why| {
            Failure::new(
                EOPNOTSUPP,
                fmt!("its RAM at guest {:#x} cannot be kept: {why}", block.gpa),
            )
        })?;
        if backing == Backing::Storage {
            storage.push(*block, GFP_KERNEL).map_err(Error::from)?;
        }
    }
    ram_blocks.retain(|block| !storage.contains(block));
    Ok(storage)
}

/// Gives a new VM its place in a pool and starts it.
fn start_new(vm: &Vm, this: Arc<Vm>, inner: &mut Inner) -> Outcome<()> {
    let start = Instant::<Monotonic>::now();
    let mut ram_blocks = KVec::new();
    presented(inner, &mut ram_blocks)?;
    for block in &check_backing(&mut ram_blocks)? {
        pr_info!(
            "{}: {:#x} bytes at guest {:#x} are a file, which keeps them\n",
            vm.binding.name(),
            block.len,
            block.gpa
        );
    }
    let scratch = Scratch::map()?;
    let vcpus = vm.vcpus.lock().len();
    let xsave = capture::xsave_len(&vm.kvm, &vm.kvm.get()?)?;
    let record_len = capture::record_len(vcpus, xsave);

    let mut uuid = [0; 16];
    // SAFETY: Fills the buffer.
    unsafe { c::get_random_bytes(uuid.as_mut_ptr().cast(), uuid.len()) };
    let identity = Identity {
        name: *vm.binding.id(),
        vm: uuid,
        uid: vm.binding.uid,
        created_ns: now_ns(),
        policy: vm.binding.policy,
    };
    let mut header = HeaderBuilder::new(buffer(HEADER_LEN)?, &identity)?;
    header.set_vcpus(vcpus as u32);
    let work = buffer(capture::WORK)?;
    let msrs = Msrs::of(vm, &scratch, &[])?;
    let has_run = migrate::has_run(vm, &scratch)?;
    // Last, so that nothing but a failed copy has to be undone in the pool.
    let (store, ram, entry) = vm.host.pools.create::<_, Failure>(
        &mut header,
        |store| Ram::new(&store.device),
        |header, memory| {
            place_areas(header, memory, record_len as u64)?;
            for block in ram_blocks.iter() {
                place_block(header, memory, block.gpa, block.len, BlockFlags::NONE)?;
            }
            Ok(())
        },
    )?;
    vm.set_slot(Some(store.number(entry.slot())));
    inner.image = Some(Image {
        store,
        entry: Some(entry),
        header,
        ram,
        work,
        msrs,
        sealed: false,
    });
    inner.scratch = Some(scratch);
    let done = fill_and_run(vm, this, inner, &ram_blocks, start);
    match done {
        Ok(()) if has_run => vm.devices.configured_elsewhere(),
        Ok(()) => {}
        Err(_) => abandon(vm, inner),
    }
    done
}

/// The entry exists and is being created: moves the RAM, makes the VM live.
fn fill_and_run(
    vm: &Vm,
    this: Arc<Vm>,
    inner: &mut Inner,
    ram_blocks: &[RamBlock],
    start: Instant<Monotonic>,
) -> Outcome<()> {
    let (Some(image), Some(scratch)) = (&mut inner.image, &inner.scratch) else {
        return Err(EIO.into());
    };
    let header = image.header.view();
    let mut pages = 0;
    for (block, from) in header.blocks().zip(ram_blocks) {
        pages += ram::copy_in(&image.store.device, &header, &block, from.hva)?;
    }
    for (block, from) in header.blocks().zip(ram_blocks) {
        image.ram.map(&header, &block, from.hva)?;
    }
    slots::redirect(vm, scratch, &inner.slots, image)?;
    vm.devices.start(vm, image)?;
    let header = image.header.view();
    let ram_bytes = header.ram_bytes();
    Keeper::start(&this)?;
    let entry = image.entry.as_mut().ok_or(EIO)?;
    image.store.pool.commit_live(entry, &mut image.header)?;
    image.ram.open();
    inner.timings.adopt_ns = since(start);
    inner.timings.adopted_pages = pages;
    vm.set_phase(Phase::Live);
    trace::adopt(vm.binding.id(), pages, inner.timings.adopt_ns);
    pr_info!(
        "{}: new VM: {} MiB of RAM in the pool, {pages} pages copied in {} us\n",
        vm.binding.name(),
        ram_bytes >> 20,
        inner.timings.adopt_ns / 1000
    );
    vm.devices.tell_of_disks();
    Ok(())
}

/// A new VM failed half way: takes its entry and memory back.
fn abandon(vm: &Vm, inner: &mut Inner) {
    vm.keeper.abandon();
    vm.devices.end();
    let Some(mut image) = inner.image.take() else {
        return;
    };
    image.ram.evict();
    let Some(mut entry) = image.entry.take() else {
        return;
    };
    let header = image.header.view();
    // What cannot be finished now is finished when the module is loaded next.
    let store = &image.store;
    let done = store.pool.begin_discard(&mut entry).and_then(|()| {
        if store.is_referenced(&header) {
            return Ok(());
        }
        store.finish_discard(entry, &header)
    });
    if let Err(why) = done {
        pr_err!("{}: {why}\n", vm.binding.name());
    }
}

/// Reads the record and compares what can be compared before the vCPUs are here.
fn prepare_resume(vm: &Vm, inner: &mut Inner, place: &Place<'_>) -> Outcome<()> {
    let store = place.store;
    let Taken {
        entry,
        header,
        record,
    } = store.take(place.slot)?.ok_or(EBUSY)?;
    let sealed = record.ok_or(EBUSY)?;
    let owned = store
        .pool
        .take_record(&entry, &sealed, buffer(sealed.len())?)?;
    let record = owned.view();
    let ours = [
        kind::SHAPE,
        kind::EXIT,
        kind::SLOTS,
        kind::SCRIPT,
        kind::LIVE_SCRIPT,
        kind::QUEUES,
        kind::LINES,
        kind::COMMANDS,
        kind::UNKEPT,
        kind::STORAGE,
        kind::PLATFORM,
    ];
    if let Some(item) = record
        .items()
        .find(|item| !plan::restores(item.kind) && !ours.contains(&item.kind))
    {
        return Err(Failure::new(
            EOPNOTSUPP,
            fmt!(
                "its record has an item of kind {:#x}, which this version does not know",
                item.kind
            ),
        ));
    }
    let policy = header.view().policy().with(vm.binding.policy);
    keepable::check(&record, policy)?;
    let mut sregs = record.items().filter(|item| item.kind == abi::SET_SREGS2);
    if let Some(what) = sregs.find_map(|item| plan::beyond(item.payload)) {
        return Err(Failure::new(
            EOPNOTSUPP,
            fmt!("its guest uses {what}, whose state is not kept: 'nvhv discard' gives it up"),
        ));
    }
    let shape = shape(&record)?;
    let is = Shape {
        vcpus: vm.vcpus.lock().len() as u32,
        irqchip: inner.irqchip,
        pit: inner.pit,
    };
    // A vCPU may be created late, by the thread that runs it; one too many is a difference.
    let comparable = Shape {
        vcpus: is.vcpus.max(shape.vcpus),
        ..is
    };
    if comparable != shape {
        return Err(Failure::new(
            EXDEV,
            fmt!("the image has {shape}; the VM presented has {is}"),
        ));
    }
    vm.set_slot(Some(place.number()));
    inner.resume = Some(Resume {
        store: store.clone(),
        entry: Some(entry),
        header: Some(header),
        vcpus: shape.vcpus,
        record: owned,
        stage: Stage::Gathering,
    });
    Ok(())
}

fn shape(record: &Record<'_>) -> Outcome<Shape> {
    record
        .find(kind::SHAPE, VM_WIDE)
        .and_then(|item| Shape::from_bytes(item.payload))
        .ok_or_else(|| Failure::new(EUCLEAN, fmt!("its record has no shape")))
}

/// All vCPUs are here: puts the image's RAM in place, and gets ready to configure the devices. The
/// VMM's view of its RAM stays closed, and nothing writes to RAM until the image is live: until then it
/// is as it was sealed.
fn begin_resume(vm: &Vm, inner: &mut Inner, replayer: u32) -> Outcome<()> {
    let start = Instant::<Monotonic>::now();
    let mut resume = inner.resume.take().ok_or(EIO)?;
    let store = resume.store.clone();
    let (entry, mut header) = (
        resume.entry.take().ok_or(EIO)?,
        resume.header.take().ok_or(EIO)?,
    );
    let present = vm.vcpus.lock().len() as u32;
    if present != resume.vcpus {
        return Err(Failure::new(
            EXDEV,
            fmt!(
                "the image has {} vCPUs; the VM presented has {present}",
                resume.vcpus
            ),
        ));
    }
    let record = resume.record.view();
    let resumes = header.view().resumes();
    header.set_resumes(resumes.saturating_add(1));
    // What was chosen stays, and something may be added.
    let policy = header.view().policy();
    header.set_policy(policy.with(vm.binding.policy));
    let mut ram_blocks = KVec::new();
    presented(inner, &mut ram_blocks)?;
    let storage = check_backing(&mut ram_blocks)?;
    let was = record.find(kind::STORAGE, VM_WIDE);
    blocks::compare(places(was.map_or(&[], |item| item.payload)), &storage)
        .map_err(|d| Failure::new(EXDEV, fmt!("what a file keeps of its memory differs: {d}")))?;
    let mut early: KVec<(u64, u64)> = KVec::new();
    for block in header.view().blocks() {
        if !block.flags.has(BlockFlags::LATE) {
            early
                .push((block.gpa, block.len), GFP_KERNEL)
                .map_err(Error::from)?;
        }
    }
    blocks::compare(early.iter().copied(), &ram_blocks)
        .map_err(|d| Failure::new(EXDEV, fmt!("{d}")))?;
    let scratch = Scratch::map()?;
    let mut work = buffer(capture::WORK)?;
    restore::check_cpuid(vm, &record, &scratch, &mut work)?;

    // Their processors were found to be the same.
    let first = record.items().find(|item| item.kind == abi::SET_MSRS);
    let msrs = Msrs::of(vm, &scratch, first.map_or(&[], |item| item.payload))?;
    vm.set_slot(Some(store.number(entry.slot())));
    inner.image = Some(Image {
        ram: Ram::new(&store.device)?,
        store,
        entry: Some(entry),
        header,
        work,
        msrs,
        sealed: false,
    });
    let Some(image) = &mut inner.image else {
        return Err(EIO.into());
    };
    let view = image.header.view();
    for block in view.blocks() {
        let hva = ram_blocks
            .iter()
            .find(|b| (b.gpa, b.len) == (block.gpa, block.len))
            .map_or(0, |b| b.hva);
        image.ram.map(&view, &block, hva)?;
    }
    slots::redirect(vm, &scratch, &inner.slots, image)?;
    add_phantoms(vm, &record, &scratch, image, &mut inner.phantoms)?;
    vm.devices.resume(vm, &record, image)?;
    resume.stage = Stage::Replaying {
        vcpu: replayer,
        replay: script(&record, kind::SCRIPT)?,
    };
    inner.scratch = Some(scratch);
    inner.resume = Some(resume);
    inner.timings.restore_ns = since(start);
    Ok(())
}

/// One of the record's scripts, as it is put to the VMM.
fn script(record: &Record<'_>, kind: u32) -> Outcome<Replay<KVVec<u8>>> {
    let saved = record.find(kind, VM_WIDE).map_or(&[][..], |i| i.payload);
    Ok(Replay::new(copied(saved)?))
}

/// The devices are configured: restores the state, makes the VM live.
fn finish_resume(vm: ArcBorrow<'_, Vm>, inner: &mut Inner, replayer: u32) -> Outcome<()> {
    let start = Instant::<Monotonic>::now();
    let this: Arc<Vm> = vm.into();
    let Inner {
        image,
        scratch,
        resume,
        timings,
        slots,
        ..
    } = inner;
    let (Some(image), Some(scratch), Some(resume)) = (image, scratch, resume) else {
        return Err(EIO.into());
    };
    let Stage::Replaying { replay, .. } = &resume.stage else {
        return Err(EIO.into());
    };
    let steps = replay.steps();
    trace::replay(vm.binding.id(), steps as u64);
    let record = resume.record.view();
    vm.devices.replayed(&record)?;
    for slot in slots.iter() {
        migrate::may_be_logged(&vm, slot)?;
    }
    restore::restore(&vm, &record, scratch)?;
    let live = script(&record, kind::LIVE_SCRIPT)?;
    if vm.host.going_down.load(Ordering::Relaxed) {
        // Who makes the host go down has sealed what is live, and this is not.
        return Err(Failure::new(ESHUTDOWN, fmt!("the host is going down")));
    }
    let cause = record.info().cause;
    Keeper::start(&this)?;
    let entry = image.entry.as_mut().ok_or(EIO)?;
    if let Err(why) = image.store.pool.commit_live(entry, &mut image.header) {
        vm.keeper.abandon();
        return Err(why.into());
    }
    image.ram.open();
    timings.restore_ns = timings.restore_ns.saturating_add(since(start));
    let number = image.header.view().resumes();
    trace::resume(vm.binding.id(), number.into(), timings.restore_ns);
    pr_info!(
        "{}: resumed (number {}), sealed because of {cause}, devices configured in {steps} steps, \
         rebuilt in {} us\n",
        vm.binding.name(),
        number,
        timings.restore_ns / 1000
    );
    vm.devices.tell_of_disks();
    resume.stage = Stage::Replaying {
        vcpu: replayer,
        replay: live,
    };
    vm.replaying.store(true, Ordering::Release);
    vm.set_phase(Phase::Live);
    Ok(())
}

/// The guest addresses and lengths in the item of a record about storage.
fn places(item: &[u8]) -> impl Iterator<Item = (u64, u64)> + Clone + '_ {
    item.chunks_exact(slots::PLACE).map(|raw| {
        let word = |at: usize| {
            let bytes = raw.get(at..at + 8).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        (word(0), word(8))
    })
}

/// Makes the slots of RAM that the guest had and that this VMM has not added yet.
fn add_phantoms(
    vm: &Vm,
    record: &Record<'_>,
    scratch: &Scratch,
    image: &Image,
    phantoms: &mut KVec<Slot>,
) -> Outcome<()> {
    let saved = record
        .find(kind::SLOTS, VM_WIDE)
        .map_or(&[][..], |i| i.payload);
    for raw in saved.chunks_exact(MEMORY_REGION) {
        let raw: &[u8; MEMORY_REGION] = raw.try_into().map_err(|_| EIO)?;
        let slot = abi::memory_region_from(raw);
        let missing = image
            .ram
            .blocks()
            .iter()
            .find(|b| b.hva == 0 && b.gpa == slot.gpa && b.len == slot.size);
        let Some(block) = missing.filter(|_| slot.flags & abi::MEM_READONLY == 0) else {
            continue;
        };
        // From the top of KVM's range, where no VMM counts its own.
        let number = TOP_SLOT
            .checked_sub(phantoms.len() as u32)
            .ok_or_else(|| Failure::new(E2BIG, fmt!("it has too many late blocks of RAM")))?;
        let phantom = Slot {
            id: slot.id & !0xffff | number,
            hva: block.alias,
            flags: 0,
            ..slot
        };
        slots::put(vm, scratch, &phantom)?;
        phantoms.push(phantom, GFP_KERNEL).map_err(Error::from)?;
    }
    Ok(())
}
