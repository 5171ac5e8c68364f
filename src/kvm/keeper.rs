// SPDX-License-Identifier: GPL-2.0

//! The thread that keeps a VM: it seals it, thaws it and ends it.
//!
//! State can be captured only with the VMM's address space in use, and when the VMM has died none of
//! its threads is left to do it. So each running VM has a kernel thread, made at adoption, which
//! borrows the address space (`kthread_use_mm`); the VM holds a use of it (`mmget`) until its end.

use super::{
    alarm::{Alarms, Answer, Kind},
    capture::{self, Occasion},
    exits,
    vm::{Phase, Vm},
};
use crate::{
    life::{self, Cause, End, Exit, Verdict},
    outage::{emergency, power},
    sys::{c, cpus},
};
use core::{
    ffi::c_void,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering},
};
use kernel::{
    mm::MmWithUser,
    new_condvar, new_mutex,
    prelude::*,
    str::CString,
    sync::{aref::ARef, Arc, CondVar, Mutex},
    time::msecs_to_jiffies,
};

/// How long vCPUs may take to leave KVM. They do in microseconds unless the host is in trouble.
const FREEZE_MS: u32 = 10_000;
/// How often the thread looks whether the VMM is gone without a word.
const WATCH_MS: u32 = 1_000;

/// What a keeper is asked to do.
#[derive(Clone, Copy, Debug)]
enum Request {
    Seal(Occasion),
    Thaw,
    /// How the VMM ended, and when that was seen, in ns of [`cpus::fast_ns`].
    End(Exit, u64),
    Abandon,
    /// Nobody waits for the answer in the mailbox.
    Alarm(Kind, Occasion),
    /// The drill that has sealed the VM is over. Likewise.
    DrillOver,
}

/// Threads that serve somebody.
static SERVING: AtomicU32 = AtomicU32::new(0);

/// Whether any VM has a keeper.
pub(crate) fn are_any() -> bool {
    SERVING.load(Ordering::Acquire) != 0
}

enum Mail {
    /// No thread: the VM is not adopted, or has ended.
    Closed,
    Empty,
    Posted(Request),
    Serving,
    Answered(Result),
}

/// The mailbox of a VM's keeper.
#[pin_data(PinnedDrop)]
pub(crate) struct Keeper {
    #[pin]
    mail: Mutex<Mail>,
    #[pin]
    changed: CondVar,
    alarms: Alarms,
    /// The thread serves nobody any more.
    closed: AtomicBool,
    /// The thread, referenced; null if there was none yet.
    task: AtomicPtr<c::task_struct>,
}

/// What the thread owns.
struct Thread {
    vm: Arc<Vm>,
    mm: ARef<MmWithUser>,
}

impl Keeper {
    /// Without a thread.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            mail <- new_mutex!(Mail::Closed, "nvhv_keeper_mail"),
            changed <- new_condvar!("nvhv_keeper_changed"),
            alarms: Alarms::new(),
            closed: AtomicBool::new(false),
            task: AtomicPtr::new(ptr::null_mut()),
        })
    }

    /// Starts the thread for `vm`, which holds its VMM's address space from now on.
    pub(super) fn start(vm: &Arc<Vm>) -> Result {
        let mm = vm.mm.mmget_not_zero().ok_or(ESRCH)?;
        let name = CString::try_from_fmt(fmt!("{}", vm.binding.name()))?;
        let thread = KBox::new(Thread { vm: vm.clone(), mm }, GFP_KERNEL)?;
        let data = KBox::into_raw(thread);
        // SAFETY: `keep` takes `data` over once the thread runs.
        let task = unsafe { c::nvhv_kthread_create(Some(keep), data.cast(), name.as_char_ptr()) };
        // SAFETY: Looks at the pointer's value.
        if unsafe { c::nvhv_is_err(task.cast()) } {
            // SAFETY: No thread was made.
            drop(unsafe { KBox::from_raw(data) });
            return Err(ENOMEM);
        }
        vm.keeper.closed.store(false, Ordering::SeqCst);
        SERVING.fetch_add(1, Ordering::AcqRel);
        // SAFETY: The thread has not begun.
        let task_ref = unsafe { c::nvhv_get_task(task) };
        drop_task(vm.keeper.task.swap(task_ref, Ordering::AcqRel));
        *vm.keeper.mail.lock() = Mail::Empty;
        // SAFETY: The thread runs our code and holds our module until its end.
        unsafe {
            c::nvhv_module_get(crate::THIS.as_ptr().cast());
            // It sleeps but for moments. A real-time thread that sleeps can be woken without the lock of the CPU on
            // which it ran last, others cannot.
            c::sched_set_fifo_low(task);
            c::wake_up_process(task);
        }
        Ok(())
    }

    /// Freezes the VM, captures it and makes that durable. It stays frozen.
    pub(crate) fn seal(&self, cause: Cause) -> Result {
        self.ask(Request::Seal(Occasion::now(cause)))
    }

    /// Lets a sealed VM go on.
    pub(crate) fn thaw(&self) -> Result {
        self.ask(Request::Thaw)
    }

    /// The VMM is at its end: seals or discards the VM. Returns when that is durable.
    pub(super) fn end(&self, exit: Exit) {
        // There is nobody to tell: the thread has logged what went wrong.
        let _ = self.ask(Request::End(exit, cpus::fast_ns()));
    }

    /// Ends the thread of a VM that did not become live after all.
    pub(super) fn abandon(&self) {
        let _ = self.ask(Request::Abandon);
    }

    /// Makes the thread look whether anybody is left, and whether it was told of an alarm.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Tells the thread of an alarm whose trigger came at `since_ns`, and sees that it runs: it seals the VM
    /// whatever else it was asked. After an emergency it calls [`emergency::settled`]. Says whether there is a
    /// thread that will hear of it. Takes no lock that is held for more than moments.
    pub(crate) fn alarm(&self, kind: Kind, since_ns: u64, budget_ms: u32) -> bool {
        let task = self.task.load(Ordering::Acquire);
        if task.is_null() {
            return false;
        }
        if !self.alarms.post(kind, since_ns, budget_ms) {
            return false;
        }
        if self.closed.load(Ordering::SeqCst) {
            // Whoever takes the alarm, this function or `close`, settles it.
            return self.alarms.take().is_none();
        }
        // SAFETY: The reference is given back with the keeper, which the caller holds.
        unsafe { emergency::hasten(task) };
        self.changed.notify_all();
        true
    }

    /// As [`Self::alarm`], of power that fails or of a drill; [`Self::answered`] tells what comes of it.
    pub(crate) fn alarm_of_power(&self, kind: Kind, since_ns: u64, budget_ms: u32) {
        self.alarms.answer(kind, Answer::Asked);
        if self.alarm(kind, since_ns, budget_ms) {
            self.nudge();
        } else {
            self.alarms.answer(kind, Answer::Apart);
        }
    }

    /// Whether it was told of an emergency.
    pub(crate) fn heard_of_emergency(&self) -> bool {
        self.alarms.has_emergency()
    }

    /// Whether the thread ran last on this CPU.
    pub(crate) fn was_on(&self, cpu: Option<u32>) -> bool {
        let task = self.task.load(Ordering::Acquire);
        // SAFETY: The reference is given back with the keeper, which the caller holds.
        cpu.is_some_and(|cpu| !task.is_null() && unsafe { c::nvhv_was_on(task, cpu) })
    }

    /// What came of the last alarm of power, or of the last drill.
    pub(crate) fn answered(&self, kind: Kind) -> Answer {
        self.alarms.answered(kind)
    }

    /// Makes the thread look at once. In process context, where nothing stands still that holds the mailbox.
    pub(crate) fn nudge(&self) {
        // With the mailbox locked it is not between its look and its sleep, where it would miss this.
        let _mail = self.mail.lock();
        self.changed.notify_all();
    }

    fn ask(&self, request: Request) -> Result {
        let mut mail = self.mail.lock();
        loop {
            match *mail {
                Mail::Closed => return Err(ESRCH),
                Mail::Empty => break,
                _ => self.changed.wait(&mut mail),
            }
        }
        *mail = Mail::Posted(request);
        self.changed.notify_all();
        loop {
            match *mail {
                Mail::Answered(result) => {
                    *mail = Mail::Empty;
                    self.changed.notify_all();
                    return result;
                }
                Mail::Closed => return Ok(()),
                _ => self.changed.wait(&mut mail),
            }
        }
    }

    /// The next request, or that the VMM is gone without one, or, of a VM that a drill has sealed, that the
    /// drill is over.
    fn next(&self, vm: &Vm, drilled: bool) -> Request {
        let mut mail = self.mail.lock();
        loop {
            if let Some((kind, occasion)) = self.alarms.take() {
                return Request::Alarm(kind, occasion);
            }
            if let Mail::Posted(request) = *mail {
                *mail = Mail::Serving;
                return request;
            }
            if drilled && !power::is_drill() {
                return Request::DrillOver;
            }
            if !matches!(*mail, Mail::Empty) {
                // Somebody has yet to fetch the last answer.
                let _ = self
                    .changed
                    .wait_interruptible_timeout(&mut mail, msecs_to_jiffies(WATCH_MS));
                continue;
            }
            if vm.is_closed() {
                *mail = Mail::Serving;
                return Request::End(Exit::Closed, cpus::fast_ns());
            }
            if !vm.owner.is_alive() {
                // It had closed all its descriptors, or died in a way that closes none. How it
                // ended is not known, so the image is kept.
                *mail = Mail::Serving;
                return Request::End(Exit::Signal(9), cpus::fast_ns());
            }
            // A kernel thread gets no signals; woken or timed out, the conditions are looked at anew.
            let _ = self
                .changed
                .wait_interruptible_timeout(&mut mail, msecs_to_jiffies(WATCH_MS));
        }
    }

    fn answer(&self, result: Result) {
        *self.mail.lock() = Mail::Answered(result);
        self.changed.notify_all();
    }

    /// Whatever the thread was told to do is done, or has nobody to be done for.
    fn drop_alarm(&self) {
        match self.alarms.take() {
            None => {}
            Some((Kind::Emergency(_), _)) => emergency::settled(),
            Some((kind, _)) => self.alarms.answer(kind, Answer::Apart),
        }
    }

    /// Nobody is served any more.
    fn close(&self) {
        *self.mail.lock() = Mail::Closed;
        self.changed.notify_all();
        if !self.closed.swap(true, Ordering::SeqCst) {
            SERVING.fetch_sub(1, Ordering::AcqRel);
        }
        self.drop_alarm();
    }
}

#[pinned_drop]
impl PinnedDrop for Keeper {
    fn drop(self: Pin<&mut Self>) {
        drop_task(self.task.load(Ordering::Relaxed));
    }
}

/// Gives a reference to a thread back.
fn drop_task(task: *mut c::task_struct) {
    if !task.is_null() {
        // SAFETY: It was taken in `Keeper::start`, and `swap` has handed it to us alone.
        unsafe { c::nvhv_put_task(task) };
    }
}

/// Runs `f` with the VMM's address space in use.
fn with_mm<T>(mm: &MmWithUser, f: impl FnOnce() -> T) -> T {
    // SAFETY: The caller is a kernel thread without an address space and holds a use of `mm`.
    unsafe { c::kthread_use_mm(mm.as_raw().cast()) };
    let result = f();
    // SAFETY: As above.
    unsafe { c::kthread_unuse_mm(mm.as_raw().cast()) };
    result
}

/// The thread.
unsafe extern "C" fn keep(data: *mut c_void) -> i32 {
    {
        // SAFETY: `data` was made for this thread by `Keeper::start`.
        let thread = unsafe { KBox::from_raw(data.cast::<Thread>()) };
        let Thread { vm, mm } = KBox::into_inner(thread);
        // A drill has sealed it and nobody has asked for anything since.
        let mut drilled = false;
        loop {
            let request = vm.keeper.next(&vm, drilled);
            let of_drill = matches!(request, Request::Alarm(Kind::Drill, _) | Request::DrillOver);
            let was_drilled = drilled && !of_drill;
            if was_drilled {
                // From here on others say whether it stands still: who asks that a VM be sealed finds it sealed.
                drilled = false;
                vm.keeper.alarms.answer(Kind::Drill, Answer::Apart);
            }
            match request {
                Request::Seal(occasion) => {
                    let done = with_mm(&mm, || seal(&vm, &occasion));
                    vm.keeper.answer(done);
                }
                Request::Alarm(Kind::Power, occasion) => {
                    let done = with_mm(&mm, || seal(&vm, &occasion));
                    if done.is_err() {
                        calm();
                    }
                    vm.keeper.alarms.answer(Kind::Power, answer_of(done));
                    // A drill that it was to hear of has given way.
                    vm.keeper.alarms.answer(Kind::Drill, Answer::Apart);
                }
                Request::Alarm(Kind::Drill, occasion) => {
                    // One that comes too late measures nothing, and one that is sealed already stays so.
                    if power::is_drill() && !capture::is_sealed(&vm) {
                        let done = with_mm(&mm, || seal(&vm, &occasion));
                        drilled = done.is_ok();
                        vm.keeper.alarms.answer(Kind::Drill, answer_of(done));
                    } else {
                        vm.keeper.alarms.answer(Kind::Drill, Answer::Apart);
                    }
                    if !drilled {
                        calm();
                    }
                }
                Request::DrillOver => {
                    drilled = false;
                    // What goes wrong is in the log: then it stands still until it is thawed.
                    let _ = thaw(&vm);
                    vm.keeper.alarms.answer(Kind::Drill, Answer::Apart);
                }
                Request::Alarm(Kind::Emergency(_), occasion) => {
                    // Who runs out of memory and panics keeps others from making room.
                    // SAFETY: For the rest of this thread's life, which is the host's.
                    unsafe { c::nvhv_memalloc() };
                    // What goes wrong is in the log.
                    let done = with_mm(&mm, || seal(&vm, &occasion));
                    emergency::finished(done.is_ok());
                }
                Request::Thaw => vm.keeper.answer(thaw(&vm)),
                Request::Abandon => {
                    take_turns();
                    drop(mm);
                    vm.keeper.close();
                    break;
                }
                Request::End(exit, since_ns) => {
                    if emergency::remaining_ms().is_none() {
                        take_turns();
                    }
                    let discard = with_mm(&mm, || end(&vm, exit, since_ns, was_drilled));
                    // What follows may take long, and nobody needs to wait for it.
                    vm.keeper.drop_alarm();
                    vm.devices.end();
                    if let Some(image) = &vm.inner.lock().image {
                        image.ram.revoke();
                    }
                    // The mappings, and with them KVM's VM, go with the last use.
                    drop(mm);
                    if discard {
                        // Given up durably, which is what the VMM waits for; I/O may hold the pages
                        // for longer. The name stays taken meanwhile.
                        vm.keeper.close();
                        finish_discard(&vm);
                    }
                    vm.host.release_name(&vm);
                    vm.keeper.close();
                    break;
                }
            }
        }
    }
    // SAFETY: Taken in `Keeper::start`; everything the thread owned is dropped.
    unsafe { c::__module_put_and_kthread_exit(crate::THIS.as_ptr().cast(), 0) }
}

/// This thread does not come before other real-time threads any more.
fn calm() {
    // SAFETY: The current task is a thread of ours.
    unsafe { c::sched_set_fifo_low(c::nvhv_current()) };
}

/// What this thread does from now on may take long.
fn take_turns() {
    // SAFETY: As above.
    unsafe { c::sched_set_normal(c::nvhv_current(), 0) };
}

/// What is said of a seal.
fn answer_of(done: Result) -> Answer {
    match done {
        Ok(()) => Answer::Sealed,
        Err(e) if e == ESRCH => Answer::Apart,
        Err(_) => Answer::Failed,
    }
}

/// How long a freeze may take.
fn freeze_ms() -> u32 {
    emergency::remaining_ms().unwrap_or(FREEZE_MS)
}

fn seal(vm: &Vm, occasion: &Occasion) -> Result {
    if vm.phase() != Phase::Live {
        // It is being adopted, by a thread that may wait for us.
        return Err(ESRCH);
    }
    if capture::is_sealed(vm) {
        return Ok(());
    }
    let done = vm
        .freeze(freeze_ms())
        .and_then(|()| capture::seal(vm, occasion));
    if let Err(e) = done {
        pr_err!(
            "{}: cannot be sealed ({e:?}): it runs on\n",
            vm.binding.name()
        );
        if emergency::lost_cpu().is_some() {
            // Threads that ran last on that CPU cannot be woken without a lock that it may hold.
            return done;
        }
        {
            let inner = &mut *vm.inner.lock();
            capture::forget_times(&mut inner.timings);
            if let Some(image) = &inner.image {
                image.ram.open();
            }
        }
        vm.devices.thaw();
        vm.gate.open();
    }
    done
}

fn thaw(vm: &Vm) -> Result {
    calm();
    let inner = &mut *vm.inner.lock();
    let image = inner.image.as_mut().ok_or(ESRCH)?;
    if !image.sealed {
        return Ok(());
    }
    let entry = image.entry.as_mut().ok_or(ESRCH)?;
    image
        .store
        .pool
        .commit_live(entry, &mut image.header)
        .map_err(|why| {
            crate::pool::store::refused(fmt!("{}: cannot be thawed", vm.binding.name()), why)
        })?;
    image.sealed = false;
    image.ram.open();
    vm.devices.thaw();
    vm.gate.open();
    pr_info!("{}: thawed\n", vm.binding.name());
    Ok(())
}

/// Seals or gives up the VM, whose VMM was seen to end at `since_ns`; says whether its memory is to be discarded.
/// `drilled`: that it is sealed is a drill's doing only.
fn end(vm: &Vm, exit: Exit, since_ns: u64, drilled: bool) -> bool {
    let sealed = capture::is_sealed(vm);
    let verdict = life::end_of_life(&End {
        guest: exits::guest_end(vm),
        exit,
        was_signalled: vm.signals.signalled(),
        // Whoever had it sealed wants it.
        host_going_down: sealed && !drilled || vm.host.going_down.load(Ordering::Relaxed),
    });
    let name = vm.binding.name();
    let frozen = if sealed {
        Ok(())
    } else {
        vm.freeze(freeze_ms())
    };
    vm.set_phase(Phase::Ended);
    match verdict {
        Verdict::Keep(_) => {
            let occasion = Occasion {
                since_ns,
                ..Occasion::now(Cause::VMM_DIED)
            };
            match frozen.and_then(|()| capture::seal(vm, &occasion)) {
                Ok(()) => pr_info!("{name}: sealed; {verdict}\n"),
                Err(e) => pr_err!(
                    "{name}: cannot be sealed ({e:?}): its image is torn and will not be resumed\n"
                ),
            }
            false
        }
        Verdict::Discard(_) => {
            let mut inner = vm.inner.lock();
            let begun = inner.image.as_mut().ok_or(ESRCH).and_then(|image| {
                let entry = image.entry.as_mut().ok_or(ESRCH)?;
                image.store.pool.begin_discard(entry).map_err(|why| {
                    crate::pool::store::refused(fmt!("{name}: cannot be discarded"), why)
                })
            });
            if begun.is_ok() {
                pr_info!("{name}: {verdict}\n");
            }
            begun.is_ok()
        }
    }
}

/// Zeroes and frees the VM's memory once nothing can write to it any more: a direct-I/O request in
/// flight outlives its process.
fn finish_discard(vm: &Vm) {
    const PATIENCE_MS: u32 = 60_000;
    let Some(mut image) = vm.inner.lock().image.take() else {
        return;
    };
    let Some(entry) = image.entry.take() else {
        return;
    };
    let header = image.header.view();
    let mut waited = 0;
    while image.store.is_referenced(&header) {
        if waited >= PATIENCE_MS {
            pr_warn!(
                "{}: I/O still holds its memory: it is freed when the module is loaded next\n",
                vm.binding.name()
            );
            return;
        }
        // SAFETY: Sleeps in process context.
        unsafe { c::nvhv_msleep(10) };
        waited += 10;
    }
    if let Err(why) = image.store.finish_discard(entry, &header) {
        pr_err!("{}: cannot be discarded: {why}\n", vm.binding.name());
    }
}
