// SPDX-License-Identifier: GPL-2.0

//! The device: who may ask for what, and passing it on.

use super::{
    discard::discard,
    plain::{get, get_boxed, put},
    report,
    transfer::Transfer,
};
use crate::{
    abi::{self, power_flag, Bind, Info, Select},
    host::{self, Host},
    life::{self, Cause, Claim, Claimant, Denied, Name, Policy},
    outage::power,
    pool::Named,
    sys::{compat, cpus, task},
    trace,
};
use kernel::{
    fs::File,
    miscdevice::{MiscDevice, MiscDeviceRegistration},
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
};

/// One open `/dev/nvhv`.
#[pin_data]
pub(crate) struct Control {
    host: Arc<Host>,
    /// What is being copied through it.
    #[pin]
    transfer: Mutex<Transfer>,
}

#[vtable]
impl MiscDevice for Control {
    type Ptr = Pin<KBox<Self>>;

    fn open(file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Pin<KBox<Self>>> {
        compat::own_file(file)?;
        let host = host::get().ok_or(ENODEV)?;
        KBox::pin_init(
            pin_init!(Self {
                host,
                transfer <- new_mutex!(Transfer::None, "nvhv_transfer"),
            }),
            GFP_KERNEL,
        )
    }

    fn ioctl(me: Pin<&Self>, _file: &File, request: u32, arg: usize) -> Result<isize> {
        let host = &me.host;
        match request {
            abi::INFO => {
                let mut info = Info {
                    pool: get::<Info>(arg)?.pool,
                    ..Info::ZERO
                };
                report::info(host, &mut info)?;
                put(arg, &info)?;
            }
            abi::BIND => bind(host, &get::<Bind>(arg)?)?,
            abi::UNBIND => host.unbind(),
            abi::VM => {
                let asked = get::<abi::Vm>(arg)?;
                // Too large for the stack beside what it is filled from.
                let mut vm = KBox::new(abi::Vm::ZERO, GFP_KERNEL)?;
                report::vm(host, asked.slot, &mut vm)?;
                put(arg, &*vm)?;
            }
            abi::DEVICES => devices(host, arg)?,
            abi::DISCARD => discard(host, &get::<Select>(arg)?)?,
            abi::SEAL => each(host, &get::<Select>(arg)?, |vm| {
                vm.keeper.seal(Cause::REQUEST)
            })?,
            abi::POWER_FAILING => power_failing(host, arg)?,
            abi::THAW => each(host, &get::<Select>(arg)?, |vm| vm.keeper.thaw())?,
            abi::HOLD => {
                let mut image = get_boxed::<abi::Image>(arg)?;
                let number = number_of(host, &image.select)?;
                let asked = Name::from_field(&image.select).ok();
                let mut transfer = me.transfer.lock();
                transfer.hold(host, number, asked.as_ref(), &mut image)?;
                drop(transfer);
                put(arg, &*image)?;
            }
            abi::READ => me.transfer.lock().read(&get(arg)?)?,
            abi::IMPORT => me
                .transfer
                .lock()
                .import(host, &*get_boxed::<abi::Image>(arg)?)?,
            abi::WRITE => me.transfer.lock().write(&get(arg)?)?,
            abi::COMMIT => me.transfer.lock().commit(&get(arg)?)?,
            abi::GIVE_UP => me.transfer.lock().give_up()?,
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}

/// Seals all VMs as when power fails, whosever they are; or only tries that.
fn power_failing(host: &Host, arg: usize) -> Result {
    let mut asked = get::<abi::PowerFailing>(arg)?;
    if !task::capable_admin() {
        return Err(EPERM);
    }
    if asked.budget_ms == 0 {
        asked.budget_ms = crate::holdup_ms();
    }
    let began = cpus::fast_ns();
    let outcome = match asked.flags {
        0 => power::failing(host, "request", began, asked.budget_ms)?,
        power_flag::DRILL => power::drill(host, began, asked.budget_ms)?,
        _ => return Err(EINVAL),
    };
    asked.asked = outcome.asked;
    asked.sealed = outcome.sealed;
    asked.elapsed_ns = outcome.elapsed_ns;
    put(arg, &asked)
}

/// Tells of the devices of a VM that is here.
fn devices(host: &Host, arg: usize) -> Result {
    let mut asked = get::<abi::Devices>(arg)?;
    let vm = host.holder_of(asked.slot).ok_or(ENOENT)?;
    if !host.may_act_on(vm.binding.uid) {
        return Err(EPERM);
    }
    let (entries, cached) = vm.devices.report()?;
    let mut to = usize::try_from(asked.entries)?;
    for entry in entries.iter().take(asked.room as usize) {
        put(to, entry)?;
        to = to
            .checked_add(size_of::<abi::DeviceEntry>())
            .ok_or(EFAULT)?;
    }
    asked.count = u32::try_from(entries.len())?;
    asked.cached = cached;
    put(arg, &asked)
}

/// Binds the caller, unless it is clear already that its VM would be refused.
fn bind(host: &Host, bind: &Bind) -> Result {
    let name = Name::from_field(&bind.name).map_err(|_| EINVAL)?;
    let policy = Policy::from_bits(bind.policy).ok_or(EINVAL)?;
    host.pools.check()?;
    let who = Claimant {
        uid: task::current_uid(),
        admin: task::capable_admin(),
        policy,
    };
    host.await_ending(&name);
    let found = match host.taker_of(&name) {
        Some(taken) => taken,
        None => crate::kvm::adopt::found(&host.pools, &host.pools.find(&name)?)?,
    };
    if let Claim::Denied(denied) = life::claim(&who, found) {
        let error = Error::from_errno(-denied.errno());
        pr_err!("{}: refused to bind: {denied}\n", name.as_str());
        host.note_refusal(&name, error, fmt!("{denied}"));
        return Err(error);
    }
    host.bind(name, policy)?;
    trace::bind(&name, policy.bits());
    Ok(())
}

/// Calls `f` on the VM that is meant, or on all that the caller may act on if none is named.
fn each(host: &Host, select: &Select, f: impl Fn(&crate::kvm::vm::Vm) -> Result) -> Result {
    if select.name[0] != 0 {
        let vm = if select.name[0] == b'#' {
            host.holder_of(number_of(host, &select.name)?)
        } else {
            host.find(&Name::from_field(&select.name).map_err(|_| EINVAL)?)
        };
        let vm = vm.ok_or(ENOENT)?;
        if !host.may_act_on(vm.binding.uid) {
            return Err(EPERM);
        }
        return f(&vm);
    }
    let mut all = Ok(());
    for vm in host.all()?.iter() {
        if !host.may_act_on(vm.binding.uid) {
            continue;
        }
        match f(vm) {
            // It ended meanwhile, or has not begun.
            Err(e) if e == ESRCH => {}
            Err(e) => all = Err(e),
            Ok(()) => {}
        }
    }
    all
}

/// The slot that is meant, as all pools number theirs: by a name, or by `#` and that number.
pub(super) fn number_of(host: &Host, select: &[u8; abi::NAME_LEN]) -> Result<u32> {
    let end = select.iter().position(|&b| b == 0).unwrap_or(select.len());
    let text = select.get(..end).unwrap_or(&[]);
    if let Some(number) = text.strip_prefix(b"#") {
        let number = core::str::from_utf8(number).map_err(|_| EINVAL)?;
        return number.parse().map_err(|_| EINVAL);
    }
    let name = Name::new(text).map_err(|_| EINVAL)?;
    match host.pools.find(&name)? {
        Named::Nobody => Err(ENOENT),
        Named::One(place) => Ok(place.number()),
        Named::Two(_) => Err(Error::from_errno(-Denied::Clash([0; 2]).errno())),
    }
}
