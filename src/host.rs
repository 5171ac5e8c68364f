// SPDX-License-Identifier: GPL-2.0

//! What the module holds for as long as it is loaded, and who is bound to which name.

use crate::{
    abi::{TextWriter, TEXT_LEN},
    kvm::{
        device::KvmDevice,
        vm::{Phase, Vm},
    },
    life::{may_act_on, Denied, Found, Name, Policy},
    pool::Pools,
    sys::{
        c,
        task::{self, Process},
    },
    trace,
};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use kernel::{
    fmt, new_mutex, new_spinlock,
    prelude::*,
    sync::{global_lock, Arc, Mutex, SpinLock},
};

/// A process that is bound to a name: the VM it creates gets that name.
pub(crate) struct Binding {
    name: Name,
    /// Who bound it; the image belongs to this user.
    pub(crate) uid: u32,
    /// Whether that user may act on others' images.
    pub(crate) admin: bool,
    /// What to do with an image that cannot be resumed.
    pub(crate) policy: Policy,
    process: Process,
}

impl Binding {
    /// The VM's name as text.
    pub(crate) fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The VM's name.
    pub(crate) fn id(&self) -> &Name {
        &self.name
    }
}

/// Why a VM was last refused.
struct NotedRefusal {
    name: Name,
    errno: i32,
    text: [u8; TEXT_LEN],
}

/// How many names' refusals are remembered.
const REFUSALS: usize = 64;

/// Everything that outlives single VMs.
#[pin_data]
pub(crate) struct Host {
    /// `/dev/kvm`.
    pub(crate) kvm: KvmDevice,
    /// The pools there are.
    pub(crate) pools: Pools,
    /// Set once the host shuts down, reboots or starts another kernel.
    pub(crate) going_down: AtomicBool,
    #[pin]
    bindings: SpinLock<KVec<Arc<Binding>>>,
    /// The last refusal of each name.
    #[pin]
    refusals: Mutex<KVec<NotedRefusal>>,
    #[pin]
    taken: Mutex<Taken>,
}

/// Who has names and images here.
struct Taken {
    /// The VMs that have a name: being adopted, running, or being ended.
    vms: KVec<Arc<Vm>>,
    /// What is being copied.
    held: KVec<Arc<Hold>>,
}

/// What nobody else may take.
pub(crate) struct Hold {
    /// A name; none for an image that was set aside.
    pub(crate) name: Option<Name>,
    /// An image that is in the pool already.
    pub(crate) slot: Option<u32>,
    /// A VM whose image is being brought here.
    pub(crate) vm: Option<[u8; 16]>,
    /// Whose it is.
    pub(crate) uid: u32,
}

/// Nobody else takes a name and an image while this lives.
pub(crate) struct Held {
    host: Arc<Host>,
    hold: Arc<Hold>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = self.host.taken.lock();
        taken.held.retain(|other| !Arc::ptr_eq(other, &self.hold));
    }
}

global_lock! {
    // SAFETY: Initialized in the module's init function before anything uses it.
    unsafe(uninit) static HOST: SpinLock<Option<Arc<Host>>> = None;
}

/// Bindings there are: lets the probe decide without a lock.
static BINDINGS: AtomicU32 = AtomicU32::new(0);

/// Whether any process is bound.
pub(crate) fn has_bindings() -> bool {
    BINDINGS.load(Ordering::Relaxed) != 0
}

/// The host, while the module is loaded.
pub(crate) fn get() -> Option<Arc<Host>> {
    HOST.lock().clone()
}

/// The host is known by this value until it is dropped.
pub(crate) struct Published(());

/// Prepares the global pointer.
///
/// # Safety
///
/// To be called once, before anything else of this file.
pub(crate) unsafe fn init() {
    // SAFETY: By this function's contract.
    unsafe { HOST.init() }
}

/// Makes `host` the one that [`get`] returns.
pub(crate) fn publish(host: Arc<Host>) -> Published {
    *HOST.lock() = Some(host);
    Published(())
}

impl Drop for Published {
    fn drop(&mut self) {
        let host = HOST.lock().take();
        BINDINGS.store(0, Ordering::Relaxed);
        drop(host);
    }
}

impl Host {
    /// A host without bindings and VMs.
    pub(crate) fn new(kvm: KvmDevice, pools: Pools) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                kvm,
                pools,
                going_down: AtomicBool::new(false),
                bindings <- new_spinlock!(KVec::new(), "nvhv_bindings"),
                refusals <- new_mutex!(KVec::new(), "nvhv_refusals"),
                taken <- new_mutex!(Taken { vms: KVec::new(), held: KVec::new() }, "nvhv_taken"),
            }),
            GFP_KERNEL,
        )
    }

    /// Binds the current process to `name`, in place of a binding that it may have.
    pub(crate) fn bind(&self, name: Name, policy: Policy) -> Result {
        let binding = Arc::new(
            Binding {
                name,
                uid: task::current_uid(),
                admin: task::capable_admin(),
                policy,
                process: Process::current(),
            },
            GFP_KERNEL,
        )?;
        // Dropped after the lock: a binding may be the last user of a pid.
        let mut gone = KVec::with_capacity(1, GFP_KERNEL)?;
        let mut bindings = self.bindings.lock();
        // Processes that ended are forgotten here: a binding is of no use to anybody then.
        bindings.retain(|b| {
            let keep = !b.process.is_current() && b.process.is_alive();
            if !keep {
                let _ = gone.push(b.clone(), GFP_ATOMIC);
            }
            keep
        });
        let pushed = bindings.push(binding, GFP_ATOMIC);
        BINDINGS.store(bindings.len() as u32, Ordering::Relaxed);
        drop(bindings);
        Ok(pushed?)
    }

    /// Undoes [`Self::bind`] for the current process.
    pub(crate) fn unbind(&self) {
        let mut bindings = self.bindings.lock();
        bindings.retain(|b| !b.process.is_current());
        BINDINGS.store(bindings.len() as u32, Ordering::Relaxed);
    }

    /// The binding of the current process or of its closest bound ancestor. Does not sleep.
    pub(crate) fn binding_of_current(&self) -> Option<Arc<Binding>> {
        let bindings = self.bindings.lock();
        let own = bindings.iter().find(|b| b.process.is_current());
        own.or_else(|| bindings.iter().find(|b| b.process.is_current_or_ancestor()))
            .cloned()
    }

    /// If the VM called `name` is about to end with its VMM, waits until it has: a VMM that is
    /// started again at once finds the image sealed, not busy.
    pub(crate) fn await_ending(&self, name: &Name) {
        const STEP_MS: u32 = 5;
        const PATIENCE_MS: u32 = 20_000;
        let mut waited = 0;
        while waited < PATIENCE_MS {
            let ending = self
                .find(name)
                .is_some_and(|vm| vm.phase() == Phase::Ended || vm.owner.is_exiting());
            if !ending {
                return;
            }
            // SAFETY: Called in process context, without spinlocks.
            unsafe { c::nvhv_msleep(STEP_MS) };
            waited += STEP_MS;
        }
    }

    /// Takes `vm`'s name for it, or says who has it.
    pub(crate) fn claim_name(&self, vm: &Arc<Vm>) -> Result<core::result::Result<(), Found>> {
        let mut taken = self.taken.lock();
        if let Some(found) = taken.by(vm.binding.id()) {
            return Ok(Err(found));
        }
        taken.vms.push(vm.clone(), GFP_KERNEL)?;
        Ok(Ok(()))
    }

    /// Gives `vm`'s name back.
    pub(crate) fn release_name(&self, vm: &Vm) {
        let mut gone = None;
        self.taken.lock().vms.retain(|other| {
            let same = core::ptr::eq(&**other, vm);
            if same {
                gone = Some(other.clone());
            }
            !same
        });
        drop(gone);
    }

    /// Takes what is given from all others: EBUSY if somebody has any of it.
    pub(crate) fn hold(self: &Arc<Self>, what: Hold) -> Result<Held> {
        let hold = Arc::new(what, GFP_KERNEL)?;
        let mut taken = self.taken.lock();
        let found = taken.by_any(&hold);
        if found.is_none() {
            taken.held.push(hold.clone(), GFP_KERNEL)?;
        }
        drop(taken);
        if let Some(found) = found {
            return Err(busy(hold.name.as_ref(), found));
        }
        Ok(Held {
            host: self.clone(),
            hold,
        })
    }

    /// Who has `name` here.
    pub(crate) fn taker_of(&self, name: &Name) -> Option<Found> {
        self.taken.lock().by(name)
    }

    /// Remembers why `name` was refused, for those who ask later.
    pub(crate) fn note_refusal(&self, name: &Name, error: Error, why: fmt::Arguments<'_>) {
        let mut text = [0; TEXT_LEN];
        // Writing to the field cannot fail: what does not fit is dropped.
        let _ = fmt::Write::write_fmt(&mut TextWriter::new(&mut text), why);
        let errno = error.to_errno().abs();
        trace::refuse(name, errno, &text);
        let mut refusals = self.refusals.lock();
        refusals.retain(|r| r.name != *name);
        if refusals.len() >= REFUSALS {
            let _ = refusals.remove(0);
        }
        let noted = NotedRefusal {
            name: *name,
            errno,
            text,
        };
        // Without memory it is only in the log.
        let _ = refusals.push(noted, GFP_KERNEL);
    }

    /// Why `name` was last refused: the errno and the words.
    pub(crate) fn last_refusal(&self, name: &Name) -> Option<(i32, [u8; TEXT_LEN])> {
        let refusals = self.refusals.lock();
        refusals
            .iter()
            .find(|r| r.name == *name)
            .map(|r| (r.errno, r.text))
    }

    /// The VM that holds `name` here.
    pub(crate) fn find(&self, name: &Name) -> Option<Arc<Vm>> {
        let taken = self.taken.lock();
        let mut vms = taken.vms.iter();
        vms.find(|vm| vm.binding.id() == name).cloned()
    }

    /// The VM here whose image is in slot `slot` of all pools.
    pub(crate) fn holder_of(&self, slot: u32) -> Option<Arc<Vm>> {
        let taken = self.taken.lock();
        let mut vms = taken.vms.iter();
        vms.find(|vm| vm.holds_slot(slot)).cloned()
    }

    /// The VMs that hold a name here.
    pub(crate) fn all(&self) -> Result<KVec<Arc<Vm>>> {
        let taken = self.taken.lock();
        let mut all = KVec::with_capacity(taken.vms.len(), GFP_KERNEL)?;
        for vm in taken.vms.iter() {
            all.push(vm.clone(), GFP_KERNEL)?;
        }
        Ok(all)
    }

    /// Calls `f` with each VM that holds a name here, in an emergency: waits for the list no longer than
    /// `remaining` gives time, in ns. Says whether it could.
    pub(crate) fn try_each(
        &self,
        remaining: impl Fn() -> u64,
        mut f: impl FnMut(&Arc<Vm>),
    ) -> bool {
        loop {
            if let Some(taken) = self.taken.try_lock() {
                taken.vms.iter().for_each(&mut f);
                return true;
            }
            if remaining() == 0 {
                return false;
            }
            // SAFETY: Called in process context, without spinlocks.
            unsafe { c::nvhv_msleep(1) };
        }
    }

    /// Whether the caller may act on what `uid` owns.
    pub(crate) fn may_act_on(&self, uid: u32) -> bool {
        may_act_on(task::current_uid(), task::capable_admin(), uid)
    }
}

impl Taken {
    /// Who has `name`.
    fn by(&self, name: &Name) -> Option<Found> {
        self.first(
            |vm| vm.binding.id() == name,
            |hold| hold.name.as_ref() == Some(name),
        )
    }

    /// Who has the image in `slot`.
    fn by_slot(&self, slot: u32) -> Option<Found> {
        self.first(|vm| vm.holds_slot(slot), |hold| hold.slot == Some(slot))
    }

    fn first(&self, vm: impl Fn(&Vm) -> bool, hold: impl Fn(&Hold) -> bool) -> Option<Found> {
        let here = self.vms.iter().find(|other| vm(other));
        let held = || self.held.iter().find(|other| hold(other));
        here.map(|vm| Found::Here {
            uid: vm.binding.uid,
        })
        .or_else(|| held().map(|hold| Found::Copied { uid: hold.uid }))
    }

    /// Who has any of what somebody wants to hold.
    fn by_any(&self, hold: &Hold) -> Option<Found> {
        let by_slot = || hold.slot.and_then(|slot| self.by_slot(slot));
        let by_vm = || {
            let mut others = self.held.iter();
            let other = others.find(|other| hold.vm.is_some() && other.vm == hold.vm);
            other.map(|other| Found::Copied { uid: other.uid })
        };
        let by_name = hold.name.as_ref().and_then(|name| self.by(name));
        by_name.or_else(by_slot).or_else(by_vm)
    }
}

/// What somebody has is not for others. Not to be called under the lock, which an emergency waits for: it prints.
fn busy(name: Option<&Name>, found: Found) -> Error {
    let why = match found {
        Found::Copied { .. } => Denied::Copied,
        _ => Denied::Busy,
    };
    pr_err!("{}: {why}\n", name.map_or("an image", Name::as_str));
    EBUSY
}
