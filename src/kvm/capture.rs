// SPDX-License-Identifier: GPL-2.0

//! Capturing a frozen VM into a record, and making that durable.
//!
//! The record is made where it stays, in the area of the pool that holds none that counts: sealing needs
//! next to no memory, and copies what KVM answers once.
//!
//! The order of work is the commit protocol's: the record, then everything that any CPU has stored
//! to the guest's RAM, then the one word that makes both count.

use super::{
    ioctl::KvmFile,
    msrs,
    scratch::Scratch,
    slots,
    vcpu::Vcpu,
    vm::{Image, Inner, Vm},
};
use crate::{
    abi::Timings,
    format::{
        record::{kind, VM_WIDE},
        Cause, HeaderView, Media, RecordInfo, RecordWriter, Refusal, PAGE,
    },
    outage::emergency,
    pool::store::{refused, Store},
    ram::adopt::Ram,
    state::{
        blocks::Slot,
        clock,
        exit::{self, PortIo},
        kvm_abi::{self as abi, CPUID_ENTRY, CPUID_MAX, LIST_HEADER},
        lapic,
        plan::{self, How, Irqchip, Item, Shape},
    },
    sys::{c, cpus, file::FileRef},
    trace,
};
use core::sync::atomic::Ordering;
use kernel::{
    prelude::*,
    sync::Arc,
    time::{Instant, Monotonic},
};

/// Bytes of the buffer for an unfinished exit, or for what KVM answers that is not put into a record.
pub(super) const WORK: usize = 16 << 10;

/// In the byte at the address of MSR_KVM_PV_EOI_EN: the guest may end the interrupt by clearing this
/// (KVM documentation, "x86/msr.rst").
const PV_EOI_ALLOWED: u8 = 1;

/// Bytes of a record for scripts and virtqueues.
const DEVICES: usize = 2 << 20;

/// Bytes of a record area for `vcpus` vCPUs whose XSAVE areas have `xsave` bytes: what the items of a
/// vCPU take at most, and room for the VM's own.
pub(super) fn record_len(vcpus: usize, xsave: usize) -> usize {
    DEVICES + (64 << 10) + vcpus * ((48 << 10) + xsave)
}

/// What a VM is sealed for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occasion {
    pub(super) cause: Cause,
    /// When its trigger came, or somebody asked for it, in ns of [`cpus::fast_ns`].
    pub(super) since_ns: u64,
    /// If power fails: how long there is; else 0.
    pub(super) budget_ms: u32,
}

impl Occasion {
    /// Somebody asks now.
    pub(super) fn now(cause: Cause) -> Self {
        Self {
            cause,
            since_ns: cpus::fast_ns(),
            budget_ms: 0,
        }
    }

    fn elapsed_ns(&self) -> u64 {
        cpus::fast_ns().saturating_sub(self.since_ns)
    }
}

/// Of a seal that has failed, or of the one before it, no times are told.
pub(super) fn forget_times(timings: &mut Timings) {
    *timings = Timings {
        adopt_ns: timings.adopt_ns,
        adopted_pages: timings.adopted_pages,
        restore_ns: timings.restore_ns,
        ..Timings::default()
    };
}

/// Whether a record of the VM's present state was committed.
pub(super) fn is_sealed(vm: &Vm) -> bool {
    vm.inner
        .lock()
        .image
        .as_ref()
        .is_some_and(|image| image.sealed)
}

/// Seals the VM, whose vCPUs are out of KVM. The VMM's address space is in use.
pub(super) fn seal(vm: &Vm, occasion: &Occasion) -> Result {
    let cause = occasion.cause;
    let Inner {
        image,
        scratch,
        slots: vmm_slots,
        phantoms,
        irqchip,
        pit,
        timings,
        ..
    } = &mut *vm.inner.lock();
    let (Some(image), Some(scratch)) = (image, scratch) else {
        return Err(ESRCH);
    };
    let store = vm.host.store()?;
    if image.sealed {
        // I/O that was on its way when it was sealed may have arrived since. What cannot be written is in the log.
        let _ = slots::sync_storage(vm, vmm_slots, &image.ram);
        return write_back(store);
    }
    let Image {
        entry,
        header,
        ram,
        work,
        msrs,
        sealed,
    } = image;
    let entry = entry.as_mut().ok_or(ESRCH)?;
    vm.devices.freeze();
    if emergency::lost_cpu().is_none() {
        ram.close();
    }
    // Else a CPU with interrupts off would never answer the shootdown of its TLB. What threads of the VMM
    // write until they are stopped is what devices had been asked for, as with direct I/O in flight.

    timings.freeze_ns = occasion.elapsed_ns();
    trace::freeze(vm.binding.id(), timings.freeze_ns);
    let start = Instant::<Monotonic>::now();
    let vcpus = sorted_vcpus(vm)?;
    let file = vm.kvm.get()?;
    let xsave = xsave_len(&vm.kvm, &file)?;
    let nested = vm
        .kvm
        .call(&file, abi::CHECK_EXTENSION, abi::CAP_NESTED_STATE as usize)?;
    let msrs = msrs.list(vm.caps_changed.load(Ordering::Acquire));
    let about = RecordInfo {
        vm: *entry.vm(),
        header_seq: entry.header_seq(),
        record_seq: entry.next_record_seq(),
        sealed_ns: now_ns(),
        cause,
        kernel: kernel_release(),
    };
    let failed = |why| refused(fmt!("{}: cannot be sealed", vm.binding.name()), why);
    let (mut stored, mut committing) = (0, start);
    let token = store
        .pool
        .make_record(entry, &about, |writer| {
            let shape = Shape {
                vcpus: vcpus.len() as u32,
                irqchip: *irqchip,
                pit: *pit,
            };
            writer.push(kind::SHAPE, VM_WIDE, &shape.to_bytes())?;
            writer.push(kind::PLATFORM, VM_WIDE, store.device.platform.item())?;
            memory(writer, vmm_slots, phantoms, ram)?;
            for vcpu in vcpus.iter() {
                let mut source = Source {
                    vcpu,
                    file: vcpu.kvm.get()?,
                    scratch,
                    work,
                    xsave,
                    nested,
                    msrs,
                    memory: Memory {
                        store,
                        header: header.view(),
                        ram,
                    },
                };
                source.capture_all(*irqchip, writer)?;
            }
            vm_wide(vm, &file, scratch, *irqchip, *pit, writer)?;
            vm.devices.capture(vm, cause, writer)?;
            timings.capture_ns = since(start);
            // Slow, and may fail: before anything is durable.
            let storing = Instant::<Monotonic>::now();
            slots::sync_storage(vm, vmm_slots, ram)?;
            stored = since(storing);
            committing = Instant::now();
            Ok(())
        })
        .map_err(|unmade| match unmade {
            Unmade::Refused(why) => failed(why),
            Unmade::Said(e) => e,
        })?;
    let written = since(committing);

    let writing_back = Instant::<Monotonic>::now();
    write_back(store)?;
    store.device.flush_region();
    timings.writeback_ns = stored + since(writing_back);

    let committing = Instant::<Monotonic>::now();
    let len = token.bytes();
    store.pool.commit_sealed(entry, token).map_err(failed)?;
    timings.commit_ns = written + since(committing);
    timings.seal_ns = occasion.elapsed_ns();
    timings.budget_ms = occasion.budget_ms.into();
    *sealed = true;
    trace::seal(vm.binding.id(), cause, len as u64, timings.seal_ns);
    pr_info!(
        "{}: record of {len} bytes, frozen in {} us, captured in {} us, written back in {} us, committed in {} us, {} us in all\n",
        vm.binding.name(),
        timings.freeze_ns / 1000,
        timings.capture_ns / 1000,
        timings.writeback_ns / 1000,
        timings.commit_ns / 1000,
        timings.seal_ns / 1000
    );
    Ok(())
}

/// Why a record was not made.
enum Unmade {
    /// The pool's format says so.
    Refused(Refusal),
    /// What is in the log, or is told by its errno.
    Said(Error),
}

impl From<Refusal> for Unmade {
    fn from(why: Refusal) -> Self {
        Unmade::Refused(why)
    }
}

impl From<Error> for Unmade {
    fn from(error: Error) -> Self {
        Unmade::Said(error)
    }
}

/// The VM's memory slots, and what of them is storage.
fn memory(
    writer: &mut RecordWriter<'_>,
    vmm_slots: &[Slot],
    phantoms: &[Slot],
    ram: &Ram,
) -> core::result::Result<(), Refusal> {
    writer.push_with::<Refusal>(
        kind::SLOTS,
        VM_WIDE,
        (vmm_slots.len() + phantoms.len()) * abi::MEMORY_REGION,
        |room| {
            // What this VMM has not added yet, the next one may not add at once either.
            let all = Iterator::chain(vmm_slots.iter(), phantoms.iter());
            for (to, slot) in room.chunks_exact_mut(abi::MEMORY_REGION).zip(all) {
                to.copy_from_slice(&abi::memory_region_to(slot));
            }
            Ok(())
        },
    )?;
    let storage = slots::storage(vmm_slots, ram).count();
    if storage == 0 {
        return Ok(());
    }
    writer.push_with(kind::STORAGE, VM_WIDE, storage * slots::PLACE, |room| {
        let all = slots::storage(vmm_slots, ram);
        for (to, slot) in room.chunks_exact_mut(slots::PLACE).zip(all) {
            let (gpa, len) = to.split_at_mut(slots::PLACE / 2);
            gpa.copy_from_slice(&slot.gpa.to_le_bytes());
            len.copy_from_slice(&slot.size.to_le_bytes());
        }
        Ok(())
    })
}

/// Makes durable what any CPU has stored to the pool.
fn write_back(store: &Store) -> Result {
    let memory = &store.device.memory;
    memory.write_back_everything(emergency::write_back_all_caches)
}

/// Nanoseconds since `start`.
pub(super) fn since(start: Instant<Monotonic>) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(0)
}

/// Real time in nanoseconds.
pub(super) fn now_ns() -> u64 {
    // SAFETY: May be called anywhere.
    u64::try_from(unsafe { c::nvhv_real_ns() }).unwrap_or(0)
}

fn kernel_release() -> [u8; 64] {
    let mut out = [0; 64];
    // SAFETY: The name of the running kernel is a C string of at most 64 bytes that stays.
    let release = unsafe { CStr::from_char_ptr(c::nvhv_kernel_release()) };
    for (to, from) in out.iter_mut().zip(release.to_bytes()) {
        *to = *from;
    }
    out
}

/// The VM's vCPUs, in order of their numbers.
pub(super) fn sorted_vcpus(vm: &Vm) -> Result<KVec<Arc<Vcpu>>> {
    let list = vm.vcpus.lock();
    let mut vcpus = KVec::with_capacity(list.len(), GFP_KERNEL)?;
    for vcpu in list.iter() {
        vcpus.push(vcpu.clone(), GFP_KERNEL)?;
    }
    Ok(vcpus)
}

/// Bytes of an XSAVE area of this VM.
pub(super) fn xsave_len(kvm: &KvmFile, file: &FileRef) -> Result<usize> {
    let len = kvm.call(file, abi::CHECK_EXTENSION, abi::CAP_XSAVE2 as usize)?;
    Ok(len.max(abi::size_of_request(abi::GET_XSAVE)))
}

/// The VM's own state.
fn vm_wide(
    vm: &Vm,
    file: &FileRef,
    scratch: &Scratch,
    irqchip: Irqchip,
    pit: bool,
    writer: &mut RecordWriter<'_>,
) -> Result {
    let mut get = |get: u32, set: u32, prefix: &[u8]| {
        writer.push_with::<Error>(set, VM_WIDE, abi::size_of_request(get), |room| {
            room.fill(0);
            if let Some(to) = room.get_mut(..prefix.len()) {
                to.copy_from_slice(prefix);
            }
            scratch.call(&vm.kvm, file, get, room)?;
            Ok(())
        })
    };
    if irqchip == Irqchip::Kernel {
        for chip in plan::IRQCHIPS {
            get(abi::GET_IRQCHIP, abi::SET_IRQCHIP, &chip.to_le_bytes())?;
        }
    }
    if pit {
        get(abi::GET_PIT2, abi::SET_PIT2, &[])?;
    }
    get(abi::GET_CLOCK, abi::SET_CLOCK, &[])
}

/// One vCPU being captured.
struct Source<'a> {
    vcpu: &'a Vcpu,
    file: FileRef,
    scratch: &'a Scratch,
    work: &'a mut [u8],
    xsave: usize,
    nested: usize,
    msrs: &'a [u8],
    memory: Memory<'a>,
}

/// The guest's RAM.
struct Memory<'a> {
    store: &'a Store,
    header: HeaderView<'a>,
    ram: &'a Ram,
}

impl Memory<'_> {
    /// Where the byte at a guest-physical address is in the pool, if it is RAM.
    fn locate(&self, gpa: u64) -> Option<u64> {
        let block = self
            .header
            .blocks()
            .find(|b| gpa >= b.gpa && gpa - b.gpa < b.len)
            .filter(|b| self.ram.blocks().iter().any(|placed| placed.gpa == b.gpa))?;
        let (at, _) = self.header.locate(&block, gpa - block.gpa)?;
        Some(at)
    }

    fn read(&self, at: u64) -> Result<u8> {
        let mut one = [0];
        let media = self.store.pool.media();
        media.read(at, &mut one).map_err(|_| EIO)?;
        let [value] = one;
        Ok(value)
    }
}

impl Source<'_> {
    fn get(&self, request: u32, buf: &mut [u8]) -> Result<usize> {
        self.scratch.call(&self.vcpu.kvm, &self.file, request, buf)
    }

    /// Whether the guest's TSC runs at another frequency than the host's, which is the VM's default.
    fn is_scaled(&self) -> Result<bool> {
        let vm = &self.vcpu.vm.kvm;
        let host = vm.call(&vm.get()?, abi::GET_TSC_KHZ, 0).unwrap_or(0) as u32;
        let guest = self.vcpu.kvm.call(&self.file, abi::GET_TSC_KHZ, 0)? as u32;
        Ok(!clock::same_frequency(guest, host))
    }

    /// All of the vCPU.
    fn capture_all(&mut self, irqchip: Irqchip, writer: &mut RecordWriter<'_>) -> Result {
        // KVM takes in a pending INIT or SIPI when it is asked for the MP state, which changes other
        // state; so it is asked before anything is read.
        let mut mp_state = [0; abi::size_of_request(abi::GET_MP_STATE)];
        self.get(abi::GET_MP_STATE, &mut mp_state)?;
        for item in plan::VCPU {
            if item.set == abi::SET_LAPIC && irqchip == Irqchip::User {
                // KVM has no LAPIC of it.
                continue;
            }
            self.capture(item, writer).inspect_err(|e| {
                pr_err!(
                    "{}: vCPU {}: {}: {e:?}\n",
                    self.vcpu.vm.binding.name(),
                    self.vcpu.id,
                    item.name
                )
            })?;
        }
        self.exit(writer)
    }

    fn capture(&mut self, item: &Item, writer: &mut RecordWriter<'_>) -> Result {
        let id = self.vcpu.id;
        match item.how {
            How::Fixed => {
                let len = abi::size_of_request(item.get);
                writer.push_with(item.set, id, len, |room| {
                    self.get(item.get, room)?;
                    if item.set == abi::SET_LAPIC {
                        self.take_eoi(room)?;
                    }
                    Ok(())
                })
            }
            How::Xsave => {
                let whole = abi::size_of_request(abi::GET_XSAVE);
                let get = if self.xsave > whole {
                    item.get
                } else {
                    abi::GET_XSAVE
                };
                writer.push_with(item.set, id, self.xsave, |room| {
                    self.get(get, room).map(|_| ())
                })
            }
            How::Nested if self.nested == 0 => Ok(()),
            How::Nested => writer.push_up_to(item.set, id, self.nested, |room| self.nested(room)),
            How::TscKhz => {
                let khz = self.vcpu.kvm.call(&self.file, item.get, 0)? as u32;
                Ok(writer.push(item.set, id, &khz.to_le_bytes())?)
            }
            How::TscOffset => {
                let (kvm, file) = (&self.vcpu.kvm, &self.file);
                if self.is_scaled()? {
                    // An offset from a scaled TSC is of no use to a host that does not scale it.
                    return Ok(());
                }
                match self.scratch.tsc_offset(kvm, file, item.get, 0) {
                    Ok(offset) => Ok(writer.push(item.set, id, &offset.to_le_bytes())?),
                    // A KVM that has no such attribute.
                    Err(e) if e == ENXIO => Ok(()),
                    Err(e) => Err(e),
                }
            }
            How::Cpuid => {
                let (kvm, file) = (&self.vcpu.kvm, &self.file);
                writer.push_up_to(item.set, id, CPUID_MAX * CPUID_ENTRY, |room| {
                    cpuid(kvm, file, self.scratch, room)
                })
            }
            How::Msrs => {
                let (kvm, file) = (&self.vcpu.kvm, &self.file);
                writer.push_up_to(item.set, id, self.msrs.len(), |room| {
                    msrs::read(kvm, file, self.scratch, self.msrs, room)
                })
            }
        }
    }

    /// KVM_GET_NESTED_STATE; returns how many bytes it is: a head, and more if a guest of the guest runs.
    fn nested(&self, room: &mut [u8]) -> Result<usize> {
        const HEAD: usize = abi::size_of_request(abi::GET_NESTED_STATE);
        // At offset 4 stands the size that the caller has room for, then that of the state.
        let mut head = [0; HEAD];
        head[4..8].copy_from_slice(&(room.len() as u32).to_le_bytes());
        let (kvm, file) = (&self.vcpu.kvm, &self.file);
        self.scratch.set(kvm, file, abi::GET_NESTED_STATE, &head)?;
        self.scratch.read(0, &mut head)?;
        let size = list_len(&head[4..8]);
        let state = room.get_mut(..size).ok_or(EINVAL)?;
        let (to, rest) = state.split_at_mut_checked(HEAD).ok_or(EINVAL)?;
        to.copy_from_slice(&head);
        self.scratch.read(HEAD, rest)?;
        Ok(size)
    }

    /// A guest may be allowed to end an interrupt by a bit in its memory (KVM's paravirtual EOI), which KVM looks
    /// at after an exit. For a vCPU that was taken from its task before that, it is done here as there.
    fn take_eoi(&self, lapic: &mut [u8]) -> Result {
        let mut gpa = 0;
        // SAFETY: The file is a vCPU's.
        let allowed = unsafe { c::nvhv_vcpu_eoi_allowed(self.file.as_ptr(), &mut gpa) };
        if !self.vcpu.was_taken() || !allowed {
            return Ok(());
        }
        let at = self.memory.locate(gpa).ok_or(EFAULT)?;
        let word = self.memory.read(at)?;
        if word & PV_EOI_ALLOWED == 0 {
            lapic::end_of_interrupt(lapic);
            return Ok(());
        }
        // It has yet to end the interrupt, and will do it the other way.
        let media = self.memory.store.pool.media();
        media.write(at, &[word & !PV_EOI_ALLOWED]).map_err(|_| EIO)
    }

    /// An exit that KVM has retired and the VMM may not have answered.
    fn exit(&mut self, writer: &mut RecordWriter<'_>) -> Result {
        let id = self.vcpu.id;
        let yet_to_be_seen = self
            .vcpu
            .with_kept_exit(|exit| writer.push(kind::EXIT, id, exit));
        if let Some(pushed) = yet_to_be_seen {
            return Ok(pushed?);
        }
        let Some(page) = self.vcpu.page().filter(|_| self.vcpu.exit_outstanding()) else {
            return Ok(());
        };
        // What is decided about is the copy, which the VMM cannot change.
        let Some(len) = page.save(self.work) else {
            return Ok(());
        };
        let deliver = match exit::reason(self.work) {
            exit::MMIO => exit::mmio_is_write(self.saved_union(len)),
            exit::IO => match PortIo::parse(self.saved_union(len)) {
                Some(io) if io.out => !self.is_plain_out(&io, len)?,
                _ => false,
            },
            exit::HLT | exit::SHUTDOWN | exit::SYSTEM_EVENT => true,
            _ => false,
        };
        if !deliver {
            return Ok(());
        }
        let saved = self.work.get(..len).ok_or(EINVAL)?;
        Ok(writer.push(kind::EXIT, id, saved)?)
    }

    fn saved_union(&self, len: usize) -> &[u8] {
        self.work.get(exit::UNION..len).unwrap_or(&[])
    }

    /// Whether the port write that is saved in `work` is one that the guest executes again.
    fn is_plain_out(&self, io: &PortIo, len: usize) -> Result<bool> {
        let mut regs = [0; abi::size_of_request(abi::GET_REGS)];
        self.get(abi::GET_REGS, &mut regs)?;
        let code = self.code(&regs)?;
        let data = self.work.get(exit::HEAD..len).unwrap_or(&[]);
        // `struct kvm_regs` begins with rax, rbx, rcx, rdx.
        Ok(exit::is_plain_out(
            &code,
            io,
            data,
            word(&regs, 0),
            word(&regs, 24),
        ))
    }

    /// The guest's code at its instruction pointer; zeroes if it cannot be read.
    fn code(&self, regs: &[u8]) -> Result<[u8; 4]> {
        // `rip` follows the sixteen general registers; `cs.base` is the first field of the special
        // registers.
        let mut sregs = [0; abi::size_of_request(abi::GET_SREGS2)];
        self.get(abi::GET_SREGS2, &mut sregs)?;
        let linear = word(&sregs, 0).wrapping_add(word(regs, 128));
        let mut code = [0; 4];
        let mut next = None;
        for (i, byte) in code.iter_mut().enumerate() {
            let linear = linear.wrapping_add(i as u64);
            if i == 0 || linear % PAGE == 0 {
                let mut translation = [0; abi::size_of_request(abi::TRANSLATE)];
                let (to, _) = translation.split_at_mut(8);
                to.copy_from_slice(&linear.to_le_bytes());
                self.get(abi::TRANSLATE, &mut translation)?;
                let (gpa, valid) = (word(&translation, 8), translation[16]);
                next = self.memory.locate(gpa).filter(|_| valid != 0);
            }
            // A page of the guest is one of the pool.
            let Some(at) = next else { break };
            *byte = self.memory.read(at)?;
            next = at.checked_add(1);
        }
        Ok(code)
    }
}

/// The little-endian word at `at`.
fn word(raw: &[u8], at: usize) -> u64 {
    raw.get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// KVM_GET_CPUID2: the entries, in `room`; returns their bytes.
pub(super) fn cpuid(
    kvm: &KvmFile,
    file: &FileRef,
    scratch: &Scratch,
    room: &mut [u8],
) -> Result<usize> {
    scratch.set_list(kvm, file, abi::GET_CPUID2, CPUID_MAX, &[])?;
    let mut head = [0; LIST_HEADER];
    scratch.read(0, &mut head)?;
    let len = list_len(&head).min(CPUID_MAX) * CPUID_ENTRY;
    scratch.read(LIST_HEADER, room.get_mut(..len).ok_or(EINVAL)?)?;
    Ok(len)
}

/// The count at the head of one of KVM's lists.
pub(super) fn list_len(buf: &[u8]) -> usize {
    buf.get(..4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, |b| u32::from_le_bytes(b) as usize)
}
