// SPDX-License-Identifier: GPL-2.0

//! The devices of a VM: their models are the VMM's and die with it, so what the guest configures is
//! shadowed, put to the next VMM as a script, and its virtqueues go on.
//!
//! Lock order: `Vm::inner`, [`Devices::state`], then the locks of `queue`.

use super::{
    cached::Disks,
    capture::since,
    keepable,
    restore::Failure,
    run_page::RunPage,
    scratch::Scratch,
    vm::{Image, Vm},
};
use crate::{
    format::{
        record::{kind, VM_WIDE},
        Cause, Record, RecordWriter,
    },
    host::Binding,
    life::Policy,
    queue::{self, Notify, Options, Queues, Refused, Tell},
    shadow::{replay, Access, Action, DeviceId, Effect, Keep, Machine, Phase, Step, Whose},
    state::{
        exit::{self, Mmio, PortIo},
        kvm_events as abi,
        queues::QueueId,
        run_time::RunTime,
    },
    sys::{c, compat::EUCLEAN, user},
};
use core::sync::atomic::AtomicBool;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
    time::{Instant, Monotonic},
};

/// Lines that an interrupt can come by: KVM's GSIs below `KVM_MAX_IRQ_ROUTES` that are wired.
const LINES: usize = 64;

/// Bytes of a script at most: half of what `capture` reserves for devices.
const SCRIPT_MOST: usize = 512 << 10;

/// A shadow, as it is allocated.
#[repr(transparent)]
struct Zeroed(Machine);

// SAFETY: All bytes zero is the machine just powered on, as `Machine` documents and tests.
unsafe impl pin_init::Zeroable for Zeroed {}

/// Queues whose refusal is remembered.
const REFUSALS: usize = 512;

/// What `Devices::state` protects.
pub(super) struct State {
    /// The shadow, from adoption on.
    machine: Option<KVBox<Zeroed>>,
    /// The lines that a VMM of this VM has used: bit N for GSI N.
    lines: u64,
    /// Those that this VMM has raised and not lowered.
    high: u64,
    /// The guest's time. It stands still from a seal to a thaw, and until a resumed VM's devices run.
    time: RunTime,
    /// What the VM's owner chose.
    pub(super) policy: Policy,
    /// A device of the host is the VM's.
    pub(super) passed_through: bool,
    /// The guest had configured devices before it came here.
    pub(super) elsewhere: bool,
    /// Disks that were in the host's page cache when the VM was adopted.
    pub(super) disks: Disks,
}

/// What comes next to tell devices what their drivers had told the ones before.
pub(super) enum Telling {
    /// Nothing.
    Done,
    /// To give them time.
    Wait,
    /// To put this to the VMM.
    Ask(Step),
}

impl State {
    /// The shadow, if there is one.
    pub(super) fn machine(&self) -> Option<&Machine> {
        self.machine.as_deref().map(|Zeroed(machine)| machine)
    }
}

/// See the module's description.
#[pin_data]
pub(crate) struct Devices {
    pub(super) binding: Arc<Binding>,
    /// It was said that the VM cannot be kept.
    pub(super) told: AtomicBool,
    #[pin]
    pub(super) state: Mutex<State>,
    /// Why queues are not shadowed that their drivers have enabled.
    #[pin]
    refused: Mutex<KVec<(QueueId, Refused)>>,
    #[pin]
    pub(super) queues: Queues,
    /// When the host's time is 0 for `State::time`.
    epoch: Instant<Monotonic>,
}

impl Devices {
    /// Nothing known. Does not sleep.
    pub(super) fn new(binding: Arc<Binding>) -> Result<impl PinInit<Self>> {
        let queues = Queues::new()?;
        let state = State {
            machine: None,
            lines: 0,
            high: 0,
            time: RunTime::default(),
            policy: Policy::default(),
            passed_through: false,
            elsewhere: false,
            disks: Disks::none(),
        };
        Ok(pin_init!(Self {
            binding,
            told: AtomicBool::new(false),
            state <- new_mutex!(state, "nvhv_devices"),
            refused <- new_mutex!(KVec::new(), "nvhv_refused_queues"),
            queues <- queues,
            epoch: Instant::now(),
        }))
    }

    /// A VM has got its place: from here on everything is shadowed. The current task is its VMM's.
    pub(super) fn start(&self, vm: &Vm, image: &Image) -> Result {
        self.prepare(vm, image)?;
        self.run_time(RunTime::start);
        Ok(())
    }

    fn prepare(&self, vm: &Vm, image: &Image) -> Result {
        let mut machine = KVBox::<Zeroed>::zeroed(GFP_KERNEL)?;
        let policy = image.header.view().policy();
        let write_through = policy.has(Policy::WRITE_THROUGH);
        machine.0.set_write_through(write_through);
        let disks = Disks::of_current()?;
        self.settle(vm, image)?;
        let mut state = self.state.lock();
        state.policy = policy;
        state.disks = disks;
        state.machine = Some(machine);
        Ok(())
    }

    /// Says in the log what there is to say of the VM's disks. A console may be slow: nobody waits for it before
    /// the image is live.
    pub(super) fn tell_of_disks(&self) {
        let state = self.state.lock();
        let write_through = state.policy.has(Policy::WRITE_THROUGH);
        state.disks.tell(self.binding.name(), write_through);
    }

    /// Starts or stops the guest's time.
    fn run_time(&self, change: impl FnOnce(&mut RunTime, u64)) {
        change(&mut self.state.lock().time, since(self.epoch));
    }

    /// The VM has got RAM, at first or more.
    pub(super) fn settle(&self, vm: &Vm, image: &Image) -> Result {
        self.queues
            .settle(vm.binding.id(), &image.ram, &image.header.view())
    }

    /// Takes over what the record says of the devices, and shadows the queues that are in use: the VMM
    /// is about to learn of them.
    pub(super) fn resume(
        &self,
        vm: &Vm,
        record: &Record<'_>,
        image: &Image,
    ) -> core::result::Result<(), Failure> {
        self.prepare(vm, image)?;
        let policy = image.header.view().policy().with(vm.binding.policy);
        if keepable::check(record, policy)?.is_any() {
            pr_warn!(
                "{}: goes on without the state of devices\n",
                self.binding.name()
            );
        }
        let find = |kind| record.find(kind, VM_WIDE).map(|item| item.payload);
        if let Some(saved) = find(kind::QUEUES) {
            self.queues.load(saved)?;
        }
        if let Some(saved) = find(kind::COMMANDS) {
            self.queues.load_commands(saved)?;
        }
        let mut state = self.state.lock();
        if let Some(Ok(lines)) = find(kind::LINES).map(<[u8; 8]>::try_from) {
            state.lines = u64::from_le_bytes(lines);
        }
        let Some(Zeroed(machine)) = state.machine.as_deref_mut() else {
            return Err(EIO.into());
        };
        relearn(machine, record)?;
        for (device, _) in machine.virtio() {
            for index in machine.queues(device).map(|queue| queue.index) {
                self.enable(machine, device, index).map_err(|why| {
                    Failure::new(
                        EUCLEAN,
                        fmt!("queue {index} of {device} cannot go on: {why}"),
                    )
                })?;
            }
        }
        if let Some(id) = self.queues.loaded() {
            return Err(Failure::new(
                EUCLEAN,
                fmt!("its record has no layout of queue {}", id.queue),
            ));
        }
        match self.queues.commands_loaded() {
            None => Ok(()),
            Some(id) => Err(Failure::new(
                EUCLEAN,
                fmt!(
                    "its record has commands for queue {}, which takes none",
                    id.queue
                ),
            )),
        }
    }

    /// The device that a step of a script is for.
    pub(super) fn whose(&self, step: &Step) -> Whose {
        let state = self.state.lock();
        let machine = state.machine();
        machine.map_or(Whose::Unknown, |machine| machine.whose(&step.access))
    }

    /// The VMM has answered a step of a script.
    pub(super) fn answered(&self, step: &Step, answer: u64) {
        let mut state = self.state.lock();
        let now = state.time.ns(since(self.epoch));
        let Some(Zeroed(machine)) = state.machine.as_deref_mut() else {
            return;
        };
        let mut answered = *step;
        if step.action != Action::Write {
            answered.access.value = answer;
        }
        // Writes as well: what a read means depends on what was selected before.
        machine.relearn(&answered, now);
    }

    /// The script has been put to the VMM: what is known of the devices is what the record says.
    pub(super) fn replayed(&self, record: &Record<'_>) -> core::result::Result<(), Failure> {
        match self.state.lock().machine.as_deref_mut() {
            Some(Zeroed(machine)) => relearn(machine, record),
            None => Ok(()),
        }
    }

    /// The VMM's devices run: goes on telling them what their drivers had told the ones before.
    pub(super) fn tell(&self) -> Telling {
        match self.queues.tell() {
            Tell::Done => Telling::Done,
            Tell::Wait => Telling::Wait,
            Tell::Notify(id, notify) => Telling::Ask(Step {
                access: Access {
                    space: notify.space,
                    addr: notify.addr,
                    // Sections 4.2.2 and 4.1.5.2.
                    len: match DeviceId::from_raw(id.device).bdf() {
                        Some(_) => 2,
                        None => 4,
                    },
                    value: notify.value,
                },
                action: Action::Write,
            }),
        }
    }

    /// An exit is on its way to the VMM.
    pub(super) fn exiting(&self, page: &RunPage) {
        self.each_access(page, |machine, policy, access, write, now| {
            // A write that does not concern queues counts once the VMM has handled it: if it dies
            // before that, the guest makes it again.
            if write && machine.is_virtio(access) {
                let effect = machine.writing(access, now);
                self.take(machine, effect);
                self.notice(machine, policy);
            }
            None
        });
    }

    /// The VMM has answered the exit, and the guest is about to learn it.
    pub(super) fn exited(&self, page: &RunPage) {
        self.each_access(page, |machine, policy, access, write, now| {
            let virtio = machine.is_virtio(access);
            let mut seen = *access;
            if write {
                if !virtio {
                    let effect = machine.writing(access, now);
                    self.take(machine, effect);
                    self.notice(machine, policy);
                }
                let effect = machine.written(access);
                self.take(machine, effect);
            } else {
                let effect = machine.read(&mut seen, now);
                self.take(machine, effect);
            }
            (seen.value != access.value).then_some(seen.value)
        });
    }

    /// Calls `f` for each access of the exit in `page`, with the guest's time; what it returns is what the guest reads instead.
    fn each_access(
        &self,
        page: &RunPage,
        mut f: impl FnMut(&mut Machine, Policy, &Access, bool, u64) -> Option<u64>,
    ) {
        let reason = page.exit_reason();
        if !matches!(reason, exit::IO | exit::MMIO) {
            return;
        }
        let mut state = self.state.lock();
        let now = state.time.ns(since(self.epoch));
        let policy = state.policy;
        let Some(Zeroed(machine)) = state.machine.as_deref_mut() else {
            return;
        };
        if reason == exit::MMIO {
            let Some(mmio) = Mmio::parse(&page.union::<{ Mmio::LEN }>()) else {
                return;
            };
            let Some(len) = register_len(mmio.len) else {
                return;
            };
            let value = u64::from_le_bytes(mmio.data);
            let access = Access::memory(mmio.addr, len, value);
            if let Some(value) = f(machine, policy, &access, mmio.write, now) {
                let _ = page.set_mmio_value(value, len.into());
            }
            return;
        }
        let Some(io) = PortIo::parse(&page.union::<16>()).filter(|io| io.bytes().is_some()) else {
            return;
        };
        for index in 0..io.count {
            let Some(value) = page.port_value(&io, index) else {
                return;
            };
            let access = Access::port(io.port, io.size, value);
            if let Some(value) = f(machine, policy, &access, io.out, now) {
                let _ = page.set_port_value(&io, index, value);
            }
        }
    }

    /// Shadows a queue from now on, if its driver has made it live.
    fn enable(
        &self,
        machine: &Machine,
        device: DeviceId,
        queue: u16,
    ) -> core::result::Result<(), Refused> {
        let Some(layout) = machine.layout(device, queue) else {
            return Ok(());
        };
        let options = options(machine, device, queue);
        self.queues
            .enable(queue_id(device, queue), &layout, options)
    }

    /// Lets the queues follow the shadow.
    fn take(&self, machine: &Machine, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Notify { device, queue } => self.queues.kick(queue_id(device, queue)),
            Effect::Enabled { device, queue } => {
                if let Err(why) = self.enable(machine, device, queue) {
                    self.note_refused(device, queue, why);
                }
            }
            Effect::Disabled { device, queue } => {
                let _ = self.queues.disable(queue_id(device, queue));
            }
            Effect::Reset { device } => {
                let _ = self.queues.reset(device.to_raw());
            }
            Effect::ResetSome => self.queues.retain(|id| {
                let device = DeviceId::from_raw(id.device);
                machine.layout(device, id.queue).is_some()
            }),
            Effect::Interrupts { device } => self.queues.set_interrupts(device.to_raw(), |queue| {
                machine.interrupt(device, Some(queue))
            }),
            Effect::Looks { device } => self.queues.driver_looks(device.to_raw()),
        }
    }

    /// A queue cannot be shadowed. It is the VMM's own until its driver enables it again.
    fn note_refused(&self, device: DeviceId, queue: u16, why: Refused) {
        // SAFETY: May be called anywhere. A guest can enable queues as often as it likes.
        if unsafe { c::nvhv_may_log() } {
            let name = self.binding.name();
            pr_err!("{name}: queue {queue} of {device} cannot be kept: {why}\n");
        }
        let id = queue_id(device, queue);
        let mut refused = self.refused.lock();
        refused.retain(|(other, _)| *other != id);
        if refused.len() >= REFUSALS {
            refused.clear();
        }
        // Without memory, only the reason is forgotten.
        let _ = refused.push((id, why), GFP_KERNEL);
    }

    /// Why a queue that its driver has enabled is not shadowed, if that is known.
    pub(super) fn why_refused(&self, id: QueueId) -> Option<Refused> {
        let refused = self.refused.lock();
        refused.iter().find(|r| r.0 == id).map(|r| r.1)
    }
}

impl Devices {
    /// A request of the VMM that concerns eventfds and interrupts.
    pub(super) fn ioctl(&self, request: u32, arg: usize, pass: impl FnOnce() -> isize) -> isize {
        if matches!(request, abi::IRQ_LINE | abi::IRQ_LINE_STATUS) {
            // `struct kvm_irq_level`: the GSI, then the level.
            let mut raw = [0; 8];
            if user::read(arg, &mut raw).is_ok() {
                let word = u64::from_le_bytes(raw);
                // CAST: the low half.
                let line = 1u64.checked_shl(word as u32).unwrap_or(0);
                let mut state = self.state.lock();
                state.lines |= line;
                state.high &= !line;
                state.high |= if abi::raises_line(&raw) { line } else { 0 };
            }
        }
        queue::ioctl(&self.queues, request, arg, pass)
    }

    /// The VMM has reset the whole VM.
    pub(super) fn reset(&self) {
        let mut state = self.state.lock();
        let Some(Zeroed(machine)) = state.machine.as_deref_mut() else {
            return;
        };
        self.queues.retain(|_| false);
        machine.reset();
        if core::mem::take(&mut state.elsewhere) {
            pr_info!("{}: can be kept again\n", self.binding.name());
        }
    }

    /// Device and number of a queue in `len` bytes at `gpa` that only this device can go on with.
    pub(super) fn stays(&self, gpa: u64, len: u64) -> Option<(DeviceId, u16)> {
        let id = self.queues.stays(gpa, len)?;
        Some((DeviceId::from_raw(id.device), id.queue))
    }

    /// Stops all copying: the VM is being captured. The gate is closed.
    pub(super) fn freeze(&self) {
        self.queues.freeze();
        self.run_time(RunTime::stop);
    }

    /// The VM runs on after all.
    pub(super) fn thaw(&self) {
        self.run_time(RunTime::start);
        self.queues.thaw();
    }

    /// Writes what the next VMM needs.
    pub(super) fn capture(&self, vm: &Vm, cause: Cause, writer: &mut RecordWriter<'_>) -> Result {
        let state = self.state.lock();
        let now = state.time.ns(since(self.epoch));
        let lines = state.lines;
        let Some(machine) = state.machine() else {
            return Ok(());
        };
        if let Some(why) = machine.lack() {
            return Err(self.refuse(vm, fmt!("its devices cannot be described: {why}")));
        }
        self.capture_unkept(vm, &state, cause, writer)?;
        for (kind, phase) in [
            (kind::SCRIPT, Phase::Configure),
            (kind::LIVE_SCRIPT, Phase::Run),
        ] {
            writer.push_up_to(kind, VM_WIDE, SCRIPT_MOST, |room| {
                let mut keep = Keep::new(room);
                machine.script(now, phase, &mut keep).map_err(|_| E2BIG)?;
                Ok::<_, Error>(SCRIPT_MOST - keep.left())
            })?;
        }
        writer.push_up_to::<Error>(kind::QUEUES, VM_WIDE, self.queues.saved_len(), |room| {
            self.queues.save(room).ok_or(EIO)
        })?;
        let told = self.queues.commands_len();
        writer.push_up_to::<Error>(kind::COMMANDS, VM_WIDE, told, |room| {
            self.queues.save_commands(room).ok_or(EIO)
        })?;
        Ok(writer.push(kind::LINES, VM_WIDE, &lines.to_le_bytes())?)
    }

    /// The devices run again: whatever has been lost on the way of kicks and interrupts is made up for.
    /// A driver that finds nothing new takes no harm.
    pub(super) fn wake(&self, vm: &Vm, scratch: &Scratch) {
        self.run_time(RunTime::start);
        self.queues.wake();
        let Ok(file) = vm.kvm.get() else { return };
        let mut state = self.state.lock();
        let lines = state.lines;
        if let Some(Zeroed(machine)) = state.machine.as_deref_mut() {
            machine.owe_all();
            for (address, data) in machine.messages() {
                let raw = abi::msi(address, data);
                let _ = scratch.set(&vm.kvm, &file, abi::SIGNAL_MSI, &raw);
            }
        }
        let high = state.high;
        drop(state);
        for gsi in (0..LINES as u32).filter(|gsi| lines >> gsi & 1 != 0) {
            // An edge, and in the end the level that this VMM believes in: a line may have been
            // asserted when the VM was sealed.
            let levels = if high >> gsi & 1 != 0 {
                [0u32, 1]
            } else {
                [1, 0]
            };
            for level in levels {
                // `struct kvm_irq_level`.
                let raw = (u64::from(level) << 32 | u64::from(gsi)).to_le_bytes();
                // A line that this VMM has not wired raises nothing, and need not.
                let _ = scratch.set(&vm.kvm, &file, abi::IRQ_LINE, &raw);
            }
        }
    }

    /// The VM is gone or refused.
    pub(super) fn end(&self) {
        self.queues.end();
        self.state.lock().machine = None;
    }
}

/// Makes `machine` what the scripts of a record were made from. The guest's time begins anew.
fn relearn(machine: &mut Machine, record: &Record<'_>) -> core::result::Result<(), Failure> {
    machine.reset();
    for kind in [kind::SCRIPT, kind::LIVE_SCRIPT] {
        let script = record.find(kind, VM_WIDE).map_or(&[][..], |i| i.payload);
        replay::each(script, |step| machine.relearn(&step, 0))
            .ok_or_else(|| Failure::new(EUCLEAN, fmt!("its record has no sound script")))?;
    }
    Ok(())
}

/// A queue, as the queues of the VM are numbered.
fn queue_id(device: DeviceId, queue: u16) -> QueueId {
    QueueId {
        device: device.to_raw(),
        queue,
    }
}

fn options(machine: &Machine, device: DeviceId, queue: u16) -> Options {
    Options {
        notify: machine.kick(device, queue).map(|kick| Notify {
            space: kick.space,
            addr: kick.addr,
            value: kick.value.into(),
        }),
        interrupt: machine.interrupt(device, Some(queue)),
        control: machine.control(device, queue),
    }
}

/// Bytes of an access to a register; whatever else KVM reports is none.
fn register_len(len: u32) -> Option<u8> {
    matches!(len, 1 | 2 | 4 | 8).then_some(len as u8)
}
