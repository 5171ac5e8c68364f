// SPDX-License-Identifier: GPL-2.0

//! NV-Hypervisor: virtual machines that outlive their host.
//!
//! This file acquires the module's parts in order and drops them in reverse; nothing else. Where
//! things are:
//!
//! - `kvm`: the KVM boundary; `ram`: guest RAM; `pool`: the device; `control`: `/dev/nvhv`;
//!   `outage`: triggers; `sys`: the edge to C. Unsafe code lives there.
//! - `format`, `state`, `life`, `abi`: pure. The same files make up the host crate that tests them.

// The pure rooms offer more than the module uses: the tool and the tests use the rest.
#[allow(dead_code, unreachable_pub)]
mod abi;
mod control;
#[allow(dead_code, unused_imports, unreachable_pub)]
mod format;
mod host;
mod kvm;
#[allow(dead_code, unused_imports, unreachable_pub)]
mod life;
mod messages;
mod outage;
mod pool;
mod queue;
mod ram;
#[allow(dead_code, unused_imports, unreachable_pub)]
mod ring;
#[allow(dead_code, unused_imports, unreachable_pub)]
mod shadow;
#[allow(dead_code, unused_imports, unreachable_pub)]
mod state;
mod sys;
mod trace;

use kernel::{
    miscdevice::{MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
};

module! {
    type: Nvhv,
    name: "nvhv",
    authors: ["The NV-Hypervisor authors"],
    description: "Virtual machines that outlive their host",
    license: "GPL",
    params: {
        emergency_ms: u32 {
            default: 3000,
            description: "How long a panic may be held up to seal VMs, in milliseconds",
        },
        holdup_ms: u32 {
            default: 1000,
            description: "How long there is power after it is said to fail, in milliseconds",
        },
    },
}

/// The module's version.
const VERSION: &str = "0.1.0";

/// How long a panic may be held up to seal VMs, in milliseconds.
fn emergency_ms() -> u32 {
    sys::compat::parameter(module_parameters::emergency_ms.value())
}

/// How long there is power after it is said to fail, in milliseconds.
fn holdup_ms() -> u32 {
    sys::compat::parameter(module_parameters::holdup_ms.value())
}

/// This module, as the owner of files and threads.
const THIS: &ThisModule = sys::compat::this_module();

/// The loaded module. Fields are dropped in the order of declaration: first no new VM or request can
/// come in, then what they used goes. Files and keepers of VMs hold the module, so there are none by then.
#[pin_data]
struct Nvhv {
    #[pin]
    _control: MiscDeviceRegistration<control::Control>,
    #[pin]
    _hook: kvm::hook::Hook,
    _power: sys::power::Triggers,
    #[pin]
    _reboot: outage::reboot::RebootNotifier,
    #[pin]
    _panic: outage::panic::PanicHook,
    _threads: sys::cpus::Threads,
    _deadline: sys::aside::Deadline,
    _signals: outage::signals::SignalWatch,
    _published: host::Published,
}

impl kernel::InPlaceModule for Nvhv {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // Fields are initialized in the order given here.
        try_pin_init!(Self {
            _published: {
                // SAFETY: Once, before all else.
                unsafe { host::init() };
                let kvm = kvm::device::KvmDevice::open()?;
                let host = host::Host::new(kvm, pool::Pools::claim()?)?;
                host::publish(host)
            },
            _signals: outage::signals::SignalWatch::register()?,
            _threads: sys::cpus::Threads::start(outage::emergency::woken)?,
            _deadline: sys::aside::Deadline::new(outage::emergency::late),
            _panic <- outage::panic::PanicHook::install(),
            _reboot <- outage::reboot::RebootNotifier::register(),
            _power: sys::power::Triggers::start(outage::power::told)?,
            _hook <- kvm::hook::Hook::install(&host::get().ok_or(ENODEV)?.kvm),
            _control <- MiscDeviceRegistration::register(MiscDeviceOptions { name: c"nvhv" }),
        })
    }
}
