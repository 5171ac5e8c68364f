// SPDX-License-Identifier: GPL-2.0

//! The host reboots, shuts down or starts another kernel.
//!
//! By then init has ended most VMMs, which sealed their VMs; those that are left are sealed here.
//!
//! C header: `include/linux/reboot.h`.

use crate::{host, life::Cause, sys::c};
use core::{ffi::c_void, sync::atomic::Ordering};
use kernel::{prelude::*, types::Opaque};

/// The registered notifier.
#[pin_data(PinnedDrop)]
pub(crate) struct RebootNotifier {
    #[pin]
    block: Opaque<c::notifier_block>,
}

// SAFETY: The block is only registered and unregistered.
unsafe impl Send for RebootNotifier {}
// SAFETY: As above.
unsafe impl Sync for RebootNotifier {}

impl RebootNotifier {
    /// Registers the notifier, before those of devices: sealing needs a working host.
    pub(crate) fn register() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            block <- Opaque::try_ffi_init(|slot: *mut c::notifier_block| {
                // SAFETY: `slot` is pinned memory for the block.
                let ret = unsafe {
                    slot.write(c::notifier_block {
                        notifier_call: Some(going_down),
                        priority: i32::MAX,
                        ..Default::default()
                    });
                    c::register_reboot_notifier(slot)
                };
                kernel::error::to_result(ret)
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for RebootNotifier {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered in `register`.
        unsafe { c::unregister_reboot_notifier(self.block.get()) };
    }
}

/// Seals every VM that is left. Runs in process context and may sleep.
unsafe extern "C" fn going_down(_: *mut c::notifier_block, _: usize, _: *mut c_void) -> i32 {
    if let Some(host) = host::get() {
        host.going_down.store(true, Ordering::Relaxed);
        // Without memory for the list the VMs are as after a power cut.
        let all = host.all().unwrap_or_else(|e| {
            pr_err!("VMs are not sealed before the host goes down ({e:?})\n");
            KVec::new()
        });
        for vm in all.iter() {
            // One that is being adopted is let finish; no further one begins.
            let sealed = vm.keeper.seal(Cause::REBOOT).or_else(|e| {
                drop(vm.inner.lock());
                if e == ESRCH {
                    vm.keeper.seal(Cause::REBOOT)
                } else {
                    Err(e)
                }
            });
            match sealed {
                Ok(()) => pr_info!("{}: sealed: the host goes down\n", vm.binding.name()),
                Err(e) if e == ESRCH => {}
                Err(e) => pr_err!("{}: not sealed ({e:?})\n", vm.binding.name()),
            }
        }
    }
    c::NOTIFY_DONE as i32
}
