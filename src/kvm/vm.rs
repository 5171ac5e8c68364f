// SPDX-License-Identifier: GPL-2.0

//! A VM of a bound process: its life from KVM_CREATE_VM to its last file.

use super::{
    adopt::{self, Arrival},
    devices::Devices,
    files,
    gate::Gate,
    ioctl::KvmFile,
    keeper::Keeper,
    migrate,
    msrs::Msrs,
    run_page::RunPage,
    scratch::Scratch,
    slots,
    vcpu::Vcpu,
};
use crate::{
    abi::Timings,
    format::{Entry, HeaderBuilder, OwnedRecord},
    host::{Binding, Host},
    life::Exit,
    outage::{emergency, signals::Watch},
    queue,
    ram::adopt::Ram,
    shadow::Replay,
    state::{blocks::Slot, kvm_abi as abi, plan::Irqchip},
    sys::{
        c,
        file::FileRef,
        task::{self, Process},
        user,
    },
};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use kernel::{
    mm::Mm,
    new_condvar, new_mutex,
    prelude::*,
    sync::{aref::ARef, Arc, ArcBorrow, CondVar, Mutex},
};

/// No entry of the pool.
const NO_SLOT: u32 = u32::MAX;

/// Where a VM is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Phase {
    /// Created; no vCPU has run. It holds no name yet, or is being resumed.
    New = 0,
    /// Its RAM is in the pool and it runs, or is frozen.
    Live = 1,
    /// It does not get the name it is bound to: its vCPUs do not run.
    Refused = 2,
    /// Its VMM is gone or going.
    Ended = 3,
}

/// A VM's image in the pool.
pub(crate) struct Image {
    /// The handle on its entry; `None` once the entry was given up.
    pub(crate) entry: Option<Entry>,
    /// Its header as it was committed last.
    pub(crate) header: HeaderBuilder<KVVec<u8>>,
    /// Its RAM in this VMM.
    pub(crate) ram: Ram,
    /// Room for an unfinished exit.
    pub(crate) work: KVVec<u8>,
    /// The MSRs that are captured.
    pub(crate) msrs: Msrs,
    /// A record of this state was committed, and the gate is closed since.
    pub(crate) sealed: bool,
}

/// A sealed image that is on its way back.
pub(crate) struct Resume {
    /// Its entry and header, until they are the VM's.
    pub(crate) entry: Option<Entry>,
    pub(crate) header: Option<HeaderBuilder<KVVec<u8>>>,
    /// Its record.
    pub(crate) record: OwnedRecord<KVVec<u8>>,
    /// vCPUs it had.
    pub(crate) vcpus: u32,
    pub(crate) stage: Stage,
}

/// How far a resume has come.
pub(crate) enum Stage {
    /// It waits for its vCPUs.
    Gathering,
    /// A script is put to the VMM by way of one vCPU; the others wait.
    Replaying {
        vcpu: u32,
        replay: Replay<KVVec<u8>>,
    },
    /// The devices run, and are told what their drivers had told the ones before. That vCPU waits for
    /// them, the others for it.
    Telling { vcpu: u32 },
}

/// What `Vm::inner` protects.
pub(crate) struct Inner {
    /// The VMM's memory slots, as it sees them.
    pub(crate) slots: KVec<Slot>,
    /// The slots in KVM that the VMM knows nothing of: RAM that the guest had when it was sealed and
    /// that this VMM has not added yet.
    pub(crate) phantoms: KVec<Slot>,
    pub(crate) irqchip: Irqchip,
    pub(crate) pit: bool,
    /// Something the VMM asked for that cannot be kept.
    pub(crate) unsupported: Option<&'static str>,
    pub(crate) scratch: Option<Scratch>,
    pub(crate) resume: Option<Resume>,
    /// vCPUs that wait for the others at their first KVM_RUN.
    pub(crate) waiting: u32,
    pub(crate) image: Option<Image>,
    pub(crate) timings: Timings,
}

/// See the module's description.
#[pin_data]
pub(crate) struct Vm {
    pub(crate) host: Arc<Host>,
    pub(crate) binding: Arc<Binding>,
    /// The operations that its file has now; `files` finds the VM by their address.
    pub(super) fops: c::file_operations,
    /// KVM's side of its file.
    pub(crate) kvm: KvmFile,
    /// The address space of the VMM, which KVM checks every ioctl against.
    pub(crate) mm: ARef<Mm>,
    phase: AtomicU32,
    /// With `Phase::Refused`: what KVM_RUN returns.
    refusal: AtomicU32,
    /// The entry of the pool that is its image, or `NO_SLOT`.
    slot: AtomicU32,
    /// Our files that are open.
    open_files: AtomicU32,
    /// Notes signals that ask the VMM to end. Stands before `owner`, which it refers to.
    pub(crate) signals: Watch,
    /// The VMM.
    pub(crate) owner: Process,
    /// The VM is live, but its devices are still being let run.
    pub(crate) replaying: AtomicBool,
    /// Capabilities were enabled since it was adopted.
    pub(crate) caps_changed: AtomicBool,
    /// The VMM has KVM log which pages of the guest's low RAM are written.
    pub(crate) logged: AtomicBool,
    /// The guest has powered itself off through ACPI.
    pub(crate) powered_off: AtomicBool,
    #[pin]
    pub(crate) gate: Gate,
    /// In order of their numbers.
    #[pin]
    pub(crate) vcpus: Mutex<KVec<Arc<Vcpu>>>,
    #[pin]
    pub(crate) inner: Mutex<Inner>,
    #[pin]
    pub(crate) gathered: CondVar,
    #[pin]
    pub(crate) devices: Devices,
    #[pin]
    pub(crate) keeper: Keeper,
}

// SAFETY: `fops` is not written after construction; all else is `Send` and `Sync` itself.
unsafe impl Send for Vm {}
// SAFETY: As above.
unsafe impl Sync for Vm {}

impl Vm {
    /// Takes over the VM behind `file`, which KVM has just created. Does not sleep.
    pub(super) fn hook(
        host: Arc<Host>,
        binding: Arc<Binding>,
        file: &FileRef,
        kind: usize,
    ) -> Result {
        // SAFETY: `file` is live and fresh from KVM.
        let kvm = unsafe { KvmFile::of(file.as_ptr()) };
        let fops = files::vm_operations(kvm.operations());
        let inner = Inner {
            slots: KVec::new(),
            phantoms: KVec::new(),
            irqchip: Irqchip::User,
            pit: false,
            unsupported: (kind != 0).then_some("its VM type is not the default (SEV, TDX, ...)"),
            scratch: None,
            resume: None,
            waiting: 0,
            image: None,
            timings: Timings::default(),
        };
        let owner = Process::current();
        let vm = Arc::pin_init(
            try_pin_init!(Self {
                host,
                binding,
                fops,
                kvm,
                mm: task::current_mm().ok_or(ESRCH)?,
                phase: AtomicU32::new(Phase::New as u32),
                refusal: AtomicU32::new(0),
                slot: AtomicU32::new(NO_SLOT),
                open_files: AtomicU32::new(1),
                signals: Watch::new(&owner),
                owner,
                replaying: AtomicBool::new(false),
                caps_changed: AtomicBool::new(false),
                logged: AtomicBool::new(false),
                powered_off: AtomicBool::new(false),
                gate <- Gate::new(),
                vcpus <- new_mutex!(KVec::new(), "nvhv_vm_vcpus"),
                inner <- new_mutex!(inner, "nvhv_vm_inner"),
                gathered <- new_condvar!("nvhv_vm_gathered"),
                devices <- Devices::new(binding.clone())?,
                keeper <- Keeper::new(),
            }? Error),
            GFP_ATOMIC,
        )?;
        let ops = core::ptr::addr_of!(vm.fops);
        // The file holds this reference until its release function.
        let _ = Arc::into_raw(vm);
        // SAFETY: `ops` live in the VM, which the file now holds.
        unsafe { files::hook(file, ops) };
        Ok(())
    }

    /// Whether its image is entry `slot` of the pool.
    pub(crate) fn holds_slot(&self, slot: u32) -> bool {
        self.slot.load(Ordering::Acquire) == slot
    }

    /// Notes which entry of the pool is its image.
    pub(crate) fn set_slot(&self, slot: Option<u32>) {
        self.slot.store(slot.unwrap_or(NO_SLOT), Ordering::Release);
    }

    /// Where the VM is in its life.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::New,
            1 => Phase::Live,
            2 => Phase::Refused,
            _ => Phase::Ended,
        }
    }

    /// Enters another phase. The caller holds `inner`.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Ordering::Release);
    }

    /// Refuses to run the VM, for good.
    pub(crate) fn set_refused(&self, why: Error) {
        self.refusal
            .store(why.to_errno().unsigned_abs(), Ordering::Relaxed);
        self.set_phase(Phase::Refused);
    }

    /// KVM_RUN of the VMM.
    ///
    /// # Safety
    ///
    /// `file` is `vcpu`'s file and stays alive during the call.
    pub(super) unsafe fn run(
        self: ArcBorrow<'_, Self>,
        vcpu: ArcBorrow<'_, Vcpu>,
        file: *mut c::file,
        arg: usize,
    ) -> isize {
        loop {
            match self.phase() {
                Phase::Live => {
                    vcpu.pin_page(file);
                    if self.replaying.load(Ordering::Acquire) {
                        let at_once = vcpu.page().is_some_and(RunPage::immediate_exit);
                        if at_once || self.gate.wait_open().is_err() {
                            // SAFETY: By this function's contract.
                            return unsafe { vcpu.bounce(file, arg) };
                        }
                        match adopt::arrive_live(self, &vcpu) {
                            Ok(Arrival::Settled) => {}
                            Ok(Arrival::Exit) => return 0,
                            // SAFETY: By this function's contract.
                            Err(_) => return unsafe { vcpu.bounce(file, arg) },
                        }
                        continue;
                    }
                    // SAFETY: By this function's contract.
                    return unsafe { vcpu.run(file, arg) };
                }
                Phase::Refused => return -(self.refusal.load(Ordering::Relaxed) as isize),
                Phase::Ended => return EIO.to_errno() as isize,
                Phase::New => {
                    vcpu.pin_page(file);
                    // Who asked to return at once is not made to wait for other vCPUs.
                    let at_once = vcpu.page().is_some_and(RunPage::immediate_exit);
                    let arrival = if at_once {
                        Err(adopt::Interrupted)
                    } else {
                        adopt::arrive(self, &vcpu)
                    };
                    match arrival {
                        Ok(Arrival::Settled) => {}
                        Ok(Arrival::Exit) => return 0,
                        // SAFETY: By this function's contract.
                        Err(_) => return unsafe { vcpu.bounce(file, arg) },
                    }
                }
            }
        }
    }

    /// Any other ioctl on the VM's file.
    ///
    /// # Safety
    ///
    /// `file` is the VM's file and stays alive during the call.
    pub(super) unsafe fn ioctl(
        self: ArcBorrow<'_, Self>,
        file: *mut c::file,
        request: u32,
        arg: usize,
    ) -> isize {
        if !task::is_current_mm(&self.mm) {
            return EIO.to_errno() as isize;
        }
        let Ok(_inside) = self.gate.enter() else {
            return -(c::NVHV_RESTARTNOINTR as isize);
        };
        // SAFETY: By this function's contract.
        let pass = || unsafe { self.kvm.call_raw(file, request, arg) };
        self.note_caps(request);
        match request {
            abi::SET_USER_MEMORY_REGION | abi::SET_USER_MEMORY_REGION2 => {
                slots::set(&self, request, arg).unwrap_or_else(|e| e.to_errno() as isize)
            }
            abi::CREATE_VCPU => self
                .create_vcpu(pass(), arg)
                .unwrap_or_else(|e| e.to_errno() as isize),
            abi::CREATE_IRQCHIP => self.after(pass(), |inner| inner.irqchip = Irqchip::Kernel),
            abi::CREATE_PIT2 => self.after(pass(), |inner| inner.pit = true),
            abi::ENABLE_CAP => {
                let mut cap = [0; 4];
                if let Err(e) = user::read(arg, &mut cap) {
                    return e.to_errno() as isize;
                }
                if abi::is_dirty_ring(u32::from_le_bytes(cap)) {
                    return EINVAL.to_errno() as isize;
                }
                let ret = pass();
                if u32::from_le_bytes(cap) != abi::CAP_SPLIT_IRQCHIP {
                    return ret;
                }
                self.after(ret, |inner| inner.irqchip = Irqchip::Split)
            }
            abi::MEMORY_ENCRYPT_OP => self.after(pass(), |inner| {
                inner.unsupported = Some("its memory is encrypted (SEV, TDX)")
            }),
            abi::CREATE_GUEST_MEMFD => {
                let fd = pass();
                self.after(fd.min(0), |inner| {
                    inner.unsupported = Some("it has private memory (guest_memfd)")
                });
                fd
            }
            abi::GET_DIRTY_LOG => {
                migrate::dirty_log(&self, arg, pass).unwrap_or_else(|e| e.to_errno() as isize)
            }
            // What we write into the guest's RAM is in no such ring. It is an optimization: a VMM takes the log.
            abi::CHECK_EXTENSION if abi::is_dirty_ring(arg as u32) => 0,
            abi::CREATE_DEVICE => {
                let mut raw = [0; abi::size_of_request(abi::CREATE_DEVICE)];
                let read = user::read(arg, &mut raw);
                let ret = pass();
                if read.is_err() || !abi::passes_through(&raw) {
                    return ret;
                }
                if ret == 0 {
                    self.devices.passed_through();
                }
                self.after(ret, |inner| {
                    inner.unsupported = Some("a device of the host is passed through (VFIO)");
                })
            }
            // Writes that KVM collects in a ring come to nobody's notice here. It is an optimization: a
            // VMM gets them as exits instead.
            abi::REGISTER_COALESCED_MMIO | abi::UNREGISTER_COALESCED_MMIO => 0,
            _ if queue::concerns(request) => self.devices.ioctl(request, arg, pass),
            _ => pass(),
        }
    }

    /// A capability may give vCPUs more state.
    pub(super) fn note_caps(&self, request: u32) {
        if request == abi::ENABLE_CAP {
            self.caps_changed.store(true, Ordering::Release);
        }
    }

    /// Notes what a successful ioctl changed.
    fn after(&self, ret: isize, note: impl FnOnce(&mut Inner)) -> isize {
        if ret == 0 {
            note(&mut self.inner.lock());
        }
        ret
    }

    /// KVM_CREATE_VCPU returned `ret`: takes the new vCPU over.
    fn create_vcpu(self: ArcBorrow<'_, Self>, ret: isize, id: usize) -> Result<isize> {
        let Ok(fd) = u32::try_from(ret) else {
            return Ok(ret);
        };
        let hooked = (|| -> Result {
            let file = FileRef::from_fd(fd)?;
            // SAFETY: `file` is live.
            let owner = unsafe { c::nvhv_file_owner(file.as_ptr()) };
            if !file.is_named(c"kvm-vcpu") || owner != self.host.kvm.owner() {
                // Another thread closed the descriptor and made something else of it.
                return Err(EBADF);
            }
            // SAFETY: `file` is live and has KVM's operations.
            let kvm = unsafe { KvmFile::of(file.as_ptr()) };
            let fops = files::vcpu_operations(kvm.operations());
            // CAST: KVM accepted the number.
            let vcpu = Vcpu::new(self.into(), id as u32, kvm, fops)?;
            insert_by_id(&mut self.vcpus.lock(), vcpu.clone())?;
            self.open_files.fetch_add(1, Ordering::Relaxed);
            let ops = core::ptr::addr_of!(vcpu.fops);
            // The file holds this reference until its release function.
            let _ = Arc::into_raw(vcpu);
            // SAFETY: `ops` live in the vCPU, which the file now holds.
            unsafe { files::hook(&file, ops) };
            Ok(())
        })();
        if let Err(e) = hooked {
            pr_err!(
                "{}: cannot take over vCPU {id} ({e:?}): it is refused\n",
                self.binding.name()
            );
            // SAFETY: Closes a descriptor of the current task, which has not been told of it yet.
            unsafe { c::nvhv_close_fd(fd) };
            return Err(e);
        }
        Ok(ret)
    }

    /// The current task closes one of our files. If its process is ending, so does the VM.
    pub(super) fn closed_by_current(self: ArcBorrow<'_, Self>) {
        if self.phase() != Phase::Live || !self.owner.is_current() {
            return;
        }
        // SAFETY: Reads a counter of `current`.
        let dead = task::current_exiting() && unsafe { c::nvhv_current_group_dead() };
        let exit = if dead {
            // As wait(2) encodes it: the signal in the low seven bits, else a status.
            let code = task::current_exit_code().unsigned_abs();
            match code & 0x7f {
                0 => Exit::Code(code >> 8 & 0xff),
                signal => Exit::Signal(signal),
            }
        } else if !task::current_exiting() && !task::is_current_mm(&self.mm) {
            Exit::Exec
        } else {
            // One descriptor of possibly many.
            return;
        };
        self.keeper.end(exit);
    }

    /// One of our files is gone.
    pub(super) fn file_released(&self) {
        if self.open_files.fetch_sub(1, Ordering::AcqRel) == 1 {
            // No thread can reach the VM any more: the references between it and its vCPUs go.
            let vcpus = core::mem::take(&mut *self.vcpus.lock());
            drop(vcpus);
            if self.phase() == Phase::New {
                // It ended before all its vCPUs had come: it has a name, perhaps, but no keeper.
                self.host.release_name(self);
            }
            self.keeper.wake();
        }
    }

    /// Whether none of its files is open.
    pub(crate) fn is_closed(&self) -> bool {
        self.open_files.load(Ordering::Acquire) == 0
    }

    /// Closes the gate: kicks every vCPU out of KVM and waits until nobody is inside.
    pub(crate) fn freeze(&self, deadline_ms: u32) -> Result {
        let kick = |vcpu: &Arc<Vcpu>| {
            // Before it is woken by the kick: it may be allowed on a CPU that is lost only.
            if emergency::remaining_ms().is_some() {
                vcpu.hasten();
            }
            vcpu.kick();
        };
        if let Some(torn) = self.vcpus.lock().iter().find(|vcpu| vcpu.is_torn()) {
            pr_emerg!(
                "{}: vCPU {}: the host is lost in the middle of what KVM does for it\n",
                self.binding.name(),
                torn.id
            );
            return Err(EBUSY);
        }
        self.gate.close(
            deadline_ms,
            || self.vcpus.lock().iter().for_each(kick),
            || self.vcpus.lock().iter().all(|vcpu| vcpu.is_quiet()),
        )
    }
}

/// Keeps the list in order of the vCPUs' numbers.
fn insert_by_id(list: &mut KVec<Arc<Vcpu>>, vcpu: Arc<Vcpu>) -> Result {
    let id = vcpu.id;
    list.push(vcpu, GFP_KERNEL)?;
    let at = list.iter().position(|other| other.id >= id).unwrap_or(0);
    if let Some(tail) = list.get_mut(at..) {
        tail.rotate_right(1);
    }
    Ok(())
}
