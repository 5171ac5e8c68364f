// SPDX-License-Identifier: GPL-2.0

//! A vCPU of a hooked VM: entering KVM_RUN, being kicked out of it, and what it was doing.

use super::{exits, gate::Position, ioctl::KvmFile, run_page::RunPage, vm::Vm};
use crate::{
    outage::emergency,
    sys::{c, file::FileRef},
};
use core::{
    cell::UnsafeCell,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{Arc, Mutex, SetOnce, SpinLock},
};

/// Which task is inside KVM_RUN.
///
/// # Invariants
///
/// Not null only while that task is inside [`Vcpu::run_in_kvm`]: a task inside a system call is not
/// freed, so the pointer is valid while the lock around it is held.
struct Runner(*mut c::task_struct);

// SAFETY: The pointer is only used under the lock, see the invariant.
unsafe impl Send for Runner {}

/// What became of an attempt to enter KVM_RUN.
enum Entered {
    Inside,
    /// The gate is not open.
    NotOpen,
    /// Another task is inside.
    Occupied,
}

/// See the module's description.
#[pin_data]
pub(crate) struct Vcpu {
    /// The VM it belongs to.
    pub(crate) vm: Arc<Vm>,
    /// Its number, as given to KVM_CREATE_VCPU.
    pub(crate) id: u32,
    /// The operations that its file has now; `files` finds the vCPU by their address.
    pub(super) fops: c::file_operations,
    /// KVM's side of its file.
    pub(crate) kvm: KvmFile,
    /// The VM's file: a vCPU can be captured and restored only with it. Given back when the vCPU's
    /// own file is released.
    #[pin]
    vm_file: SpinLock<Option<FileRef>>,
    #[pin]
    runner: SpinLock<Runner>,
    page: SetOnce<RunPage>,
    pin_tried: AtomicBool,
    /// KVM_RUN returned an exit, and the VMM has not called it since.
    outstanding: AtomicBool,
    /// Its VMM has read its registers since it ran last.
    copied: AtomicBool,
    /// Whether it was inside KVM_RUN since the guest's RAM is being logged.
    ran: AtomicBool,
    /// The guest asked for its end in this vCPU's last exit, as `life` encodes it; 0 for no.
    pub(super) asked_end: core::sync::atomic::AtomicU32,
    /// An exit of the sealed VM that the new VMM has yet to see.
    #[pin]
    kept_exit: Mutex<Option<KVec<u8>>>,
    has_kept_exit: AtomicBool,
    kick: UnsafeCell<c::callback_head>,
    kick_queued: AtomicBool,
    kicked: AtomicBool,
    /// It was taken from a task that never leaves KVM_RUN.
    taken: AtomicBool,
}

// SAFETY: `kick` is handed to the kernel only by whoever set `kick_queued`; `fops` is not written
// after construction; all else is `Send` and `Sync` itself.
unsafe impl Send for Vcpu {}
// SAFETY: As above.
unsafe impl Sync for Vcpu {}

impl Vcpu {
    /// Takes over the vCPU file that KVM_CREATE_VCPU made.
    pub(super) fn new(
        vm: Arc<Vm>,
        id: u32,
        kvm: KvmFile,
        fops: c::file_operations,
    ) -> Result<Arc<Self>> {
        let vm_file = vm.kvm.get()?;
        Arc::pin_init(
            pin_init!(Self {
                vm,
                id,
                fops,
                kvm,
                vm_file <- new_spinlock!(Some(vm_file), "nvhv_vcpu_vm_file"),
                runner <- new_spinlock!(Runner(ptr::null_mut()), "nvhv_vcpu_runner"),
                page: SetOnce::new(),
                pin_tried: AtomicBool::new(false),
                outstanding: AtomicBool::new(false),
                copied: AtomicBool::new(false),
                ran: AtomicBool::new(false),
                asked_end: core::sync::atomic::AtomicU32::new(0),
                kept_exit <- new_mutex!(None, "nvhv_vcpu_kept_exit"),
                has_kept_exit: AtomicBool::new(false),
                kick: UnsafeCell::new(c::callback_head::default()),
                kick_queued: AtomicBool::new(false),
                kicked: AtomicBool::new(false),
                taken: AtomicBool::new(false),
            }),
            GFP_KERNEL,
        )
    }

    /// The vCPU's file is being released: the VM's own may go as well.
    pub(super) fn release_vm_file(&self) {
        let file = self.vm_file.lock().take();
        drop(file);
    }

    /// `struct kvm_run`, once the VMM has mapped it.
    pub(crate) fn page(&self) -> Option<&RunPage> {
        self.page.as_ref()
    }

    /// Pins `struct kvm_run`, if the VMM has mapped it before its first KVM_RUN, as VMMs do: without it
    /// they learn nothing of any exit. The current task is of the VMM.
    pub(crate) fn pin_page(&self, file: *mut c::file) {
        if self.page.as_ref().is_none() && !self.pin_tried.swap(true, Ordering::Relaxed) {
            if let Ok(page) = RunPage::pin(file) {
                // A race with another thread pins twice; the loser's reference is dropped.
                self.page.populate(page);
            }
        }
    }

    /// Whether nobody is inside KVM_RUN; a task that never goes on is parted from the vCPU here.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut runner = self.runner.lock();
        if runner.0.is_null() {
            return true;
        }
        // SAFETY: By the invariant of `Runner`.
        if !emergency::is_lost(runner.0) || unsafe { c::nvhv_task_on_cpu(runner.0) } {
            // It leaves, or has yet to step aside.
            return false;
        }
        // SAFETY: Such a task is what this is for.
        let parted = self
            .kvm
            .get()
            .is_ok_and(|file| unsafe { c::nvhv_vcpu_take(file.as_ptr()) });
        if parted {
            // INVARIANT: for all that is left of it, the task has left.
            runner.0 = ptr::null_mut();
            self.taken.store(true, Ordering::Release);
        }
        parted
    }

    /// Whether it was taken from a task that never leaves KVM_RUN.
    pub(crate) fn was_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// Whether an emergency keeps the task that is inside KVM_RUN from leaving it: it came upon it in the
    /// middle of what KVM does, or has lost the CPU on which it ran last, and which it is woken by.
    pub(crate) fn is_torn(&self) -> bool {
        let runner = self.runner.lock();
        if runner.0.is_null() {
            return false;
        }
        // SAFETY: By the invariant of `Runner`.
        let was_on = |cpu| unsafe { c::nvhv_was_on(runner.0, cpu) };
        if emergency::lost_cpu().is_some_and(was_on) {
            return true;
        }
        // SAFETY: The file is a vCPU's.
        let is_whole = |file: FileRef| unsafe { c::nvhv_vcpu_is_whole(file.as_ptr()) };
        emergency::is_lost(runner.0) && !self.kvm.get().is_ok_and(is_whole)
    }

    /// Whether KVM waits for the answer to an exit.
    pub(crate) fn exit_outstanding(&self) -> bool {
        self.outstanding.load(Ordering::Acquire)
    }

    /// Makes the task that is inside KVM_RUN return from it.
    pub(crate) fn kick(self: &Arc<Self>) {
        let runner = self.runner.lock();
        if runner.0.is_null() {
            return;
        }
        self.kicked.store(true, Ordering::Release);
        if self.kick_queued.swap(true, Ordering::AcqRel) {
            // Still queued: the signal that comes with it is pending.
            return;
        }
        let reference = Arc::into_raw(self.clone());
        // SAFETY: `kick_queued` was false, so the work is not queued and is ours; `runner` is inside
        // KVM_RUN and valid while we hold the lock. `reference` keeps the vCPU until the work ran.
        let failed = unsafe {
            c::nvhv_init_task_work(self.kick.get(), Some(kick_ran));
            c::task_work_add(
                runner.0,
                self.kick.get(),
                c::task_work_notify_mode_TWA_SIGNAL,
            ) != 0
        };
        if failed {
            // The task is exiting and leaves KVM_RUN by itself.
            self.kick_queued.store(false, Ordering::Release);
            // SAFETY: Taken from `into_raw` above; the work was not queued.
            drop(unsafe { Arc::from_raw(reference) });
        }
    }

    /// In an emergency: sees that the task that is inside KVM_RUN gets a CPU to leave it.
    pub(crate) fn hasten(&self) {
        let task = {
            let runner = self.runner.lock();
            if runner.0.is_null() {
                return;
            }
            // SAFETY: By the invariant of `Runner`.
            unsafe { c::nvhv_get_task(runner.0) }
        };
        // SAFETY: The reference is ours.
        unsafe {
            emergency::hasten(task);
            c::nvhv_put_task(task);
        }
    }

    /// Its VMM has read all of its registers.
    pub(super) fn note_copied(&self) {
        let runner = self.runner.lock();
        if runner.0.is_null() {
            self.copied.store(true, Ordering::Release);
        }
    }

    /// The guest's RAM is being logged from now on.
    pub(super) fn note_logged(&self) {
        let runner = self.runner.lock();
        self.ran.store(!runner.0.is_null(), Ordering::Release);
    }

    /// Whether it was inside KVM_RUN since the guest's RAM is being logged.
    pub(super) fn has_run(&self) -> bool {
        self.ran.load(Ordering::Acquire)
    }

    /// Whether it stands still, and has since its VMM has read all of its registers.
    pub(super) fn is_copied(&self) -> bool {
        self.copied.load(Ordering::Acquire)
    }

    /// Keeps an exit of the sealed VM for the new VMM.
    pub(crate) fn keep_exit(&self, exit: KVec<u8>) {
        *self.kept_exit.lock() = Some(exit);
        self.has_kept_exit.store(true, Ordering::Release);
    }

    /// Calls `f` with the exit of the sealed VM that the new VMM has yet to see, if there is one.
    pub(crate) fn with_kept_exit<T>(&self, f: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.kept_exit.lock().as_deref().map(f)
    }

    /// Enters KVM_RUN if the gate is open and no other task is inside.
    fn enter(&self) -> Entered {
        // Who freezes the VM closes the gate first and takes this lock then. So if it had the lock
        // before us, we see the gate closed; if after us, it sees us inside, and kicks.
        let mut runner = self.runner.lock();
        if !self.vm.gate.is_open() {
            return Entered::NotOpen;
        }
        if !runner.0.is_null() {
            return Entered::Occupied;
        }
        // SAFETY: Reads a per-CPU pointer.
        // INVARIANT: this task enters.
        runner.0 = unsafe { c::nvhv_current() };
        self.note_entered();
        self.kicked.store(false, Ordering::Release);
        Entered::Inside
    }

    /// It is inside from now on. Under the lock of `runner`.
    fn note_entered(&self) {
        self.copied.store(false, Ordering::Release);
        self.ran.store(true, Ordering::Release);
    }

    /// Enters KVM_RUN while the gate is closing, to finish an exit.
    fn enter_closing(&self) -> bool {
        let mut inside = false;
        self.vm.gate.if_in(Position::Closing, || {
            let mut runner = self.runner.lock();
            if runner.0.is_null() {
                // SAFETY: Reads a per-CPU pointer.
                // INVARIANT: this task enters.
                runner.0 = unsafe { c::nvhv_current() };
                self.note_entered();
                inside = true;
            }
        });
        inside
    }

    fn leave(&self) {
        // INVARIANT: this task has left.
        self.runner.lock().0 = ptr::null_mut();
        if !self.vm.gate.is_open() {
            self.vm.gate.left();
        }
    }

    /// KVM_RUN of the VMM, after adoption. Returns what the ioctl returns.
    ///
    /// # Safety
    ///
    /// `file` is this vCPU's file and stays alive during the call.
    pub(super) unsafe fn run(&self, file: *mut c::file, arg: usize) -> isize {
        if self.has_kept_exit.load(Ordering::Acquire) {
            if self.vm.gate.wait_open().is_err() {
                return self.interrupted();
            }
            if self.replay_kept_exit() {
                return 0;
            }
        }
        loop {
            match self.enter() {
                Entered::Inside => break,
                // One vCPU is run by one task at a time; KVM itself would let the second wait.
                Entered::Occupied => return EBUSY.to_errno() as isize,
                Entered::NotOpen => {
                    // SAFETY: By this function's contract.
                    if unsafe { self.finish_exit(file, arg) } {
                        return 0;
                    }
                    if self.vm.gate.wait_open().is_err() {
                        return self.interrupted();
                    }
                }
            }
        }
        self.asked_end.store(0, Ordering::Relaxed);
        self.take_answer();
        // SAFETY: By this function's contract.
        let ret = unsafe { self.kvm.call_raw(file, crate::state::kvm_abi::RUN, arg) };
        self.outstanding.store(ret == 0, Ordering::Release);
        if ret == 0 {
            exits::observe(self);
        }
        self.leave();
        self.after_run(ret)
    }

    /// KVM is about to take in the VMM's answer to the last exit, if there was one: so do the shadows.
    fn take_answer(&self) {
        if self.outstanding.swap(false, Ordering::AcqRel) {
            if let Some(page) = self.page() {
                self.vm.devices.exited(page);
            }
        }
    }

    /// What KVM_RUN returns when a signal ends a wait at the gate: the VMM gets EINTR if it has a
    /// handler for it or asked to return at once; else the call starts again.
    fn interrupted(&self) -> isize {
        if self.page().is_some_and(RunPage::immediate_exit) {
            return EINTR.to_errno() as isize;
        }
        -(c::NVHV_RESTARTNOHAND as isize)
    }

    /// What the VMM gets to see of KVM_RUN's result.
    fn after_run(&self, ret: isize) -> isize {
        if !self.kicked.load(Ordering::Acquire) {
            return ret;
        }
        self.kicked.store(false, Ordering::Release);
        if ret == EINTR.to_errno() as isize {
            // Our kick is not the VMM's business; a signal that came with it is.
            return self.interrupted();
        }
        if ret == 0 {
            // An exit came in between. It is kept from the VMM while the gate is closed, so that a
            // captured exit is not also answered here; a signal ends the wait, and then the access
            // may happen twice, which the resume rules allow.
            let _ = self.vm.gate.wait_open();
        }
        ret
    }

    /// While the gate is closing: lets KVM take in the VMM's answer to the last exit, so that the
    /// captured state is past it. KVM does that before it looks at `immediate_exit` (KVM API,
    /// section 5). Says whether the same instruction (a string operation, a split MMIO write) made a
    /// further exit, which the VMM has to see.
    ///
    /// # Safety
    ///
    /// As for [`Self::run`].
    unsafe fn finish_exit(&self, file: *mut c::file, arg: usize) -> bool {
        let Some(page) = self.page() else {
            return false;
        };
        if !self.exit_outstanding() || !self.enter_closing() {
            return false;
        }
        self.take_answer();
        let was = page.set_immediate_exit(true);
        // SAFETY: By this function's contract.
        let ret = unsafe { self.kvm.call_raw(file, crate::state::kvm_abi::RUN, arg) };
        page.set_immediate_exit(was);
        self.outstanding.store(ret == 0, Ordering::Release);
        if ret == 0 {
            exits::observe(self);
        }
        self.leave();
        ret == 0
    }

    /// Enters and leaves KVM_RUN at once, so that KVM fills `kvm_run` for a VMM that is about to
    /// read it. The vCPU has not run yet.
    ///
    /// # Safety
    ///
    /// As for [`Self::run`].
    pub(super) unsafe fn bounce(&self, file: *mut c::file, arg: usize) -> isize {
        let Some(page) = self.page() else {
            return EINTR.to_errno() as isize;
        };
        let was = page.set_immediate_exit(true);
        // SAFETY: By this function's contract.
        let ret = unsafe { self.kvm.call_raw(file, crate::state::kvm_abi::RUN, arg) };
        page.set_immediate_exit(was);
        if ret == -(c::NVHV_RESTARTNOINTR as isize) {
            // KVM makes a thread at the first KVM_RUN of a VM and fails so while a signal is pending.
            // Whoever sent the signal waits for KVM_RUN to return.
            return EINTR.to_errno() as isize;
        }
        ret
    }

    fn replay_kept_exit(&self) -> bool {
        let mut kept = self.kept_exit.lock();
        self.has_kept_exit.store(false, Ordering::Release);
        let Some(exit) = kept.take() else {
            return false;
        };
        let replayed = self.page().is_some_and(|page| page.replay(&exit).is_some());
        if replayed {
            // A VMM that dies before it has answered leaves it to the next one. Until here the lock
            // has kept a capture from seeing neither.
            self.outstanding.store(true, Ordering::Release);
            exits::observe(self);
        }
        replayed
    }
}

/// The kicked task is on its way to user space.
unsafe extern "C" fn kick_ran(work: *mut c::callback_head) {
    // SAFETY: `work` is the `kick` of a vCPU; `kick()` handed one reference to this function.
    let vcpu = unsafe {
        Arc::from_raw(kernel::container_of!(
            work.cast::<UnsafeCell<c::callback_head>>(),
            Vcpu,
            kick
        ))
    };
    vcpu.kick_queued.store(false, Ordering::Release);
}
