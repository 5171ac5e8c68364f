// SPDX-License-Identifier: GPL-2.0

//! The one hook: a probe on KVM's device ioctl that sees VMs being created.
//!
//! C header: `include/linux/fprobe.h`.

use super::{device::KvmDevice, vm::Vm};
use crate::{
    host,
    state::kvm_abi as abi,
    sys::{c, file::FileRef},
};
use core::{ffi::c_void, mem};
use kernel::{prelude::*, types::Opaque};

/// The registered probe.
#[pin_data(PinnedDrop)]
pub(crate) struct Hook {
    #[pin]
    probe: Opaque<c::fprobe>,
}

// SAFETY: The probe is only registered and unregistered.
unsafe impl Send for Hook {}
// SAFETY: As above.
unsafe impl Sync for Hook {}

impl Hook {
    /// Probes the ioctl function of `kvm`'s device, which must stay open while the hook lives.
    pub(crate) fn install(kvm: &KvmDevice) -> impl PinInit<Self, Error> + use<> {
        let mut entry_point = kvm.entry_point();
        try_pin_init!(Self {
            probe <- Opaque::try_ffi_init(move |slot: *mut c::fprobe| {
                // SAFETY: `slot` is pinned memory for the probe; `entry_point` is one address.
                let ret = unsafe {
                    slot.write(c::fprobe {
                        entry_data_size: mem::size_of::<usize>(),
                        entry_handler: Some(entered),
                        exit_handler: Some(returned),
                        ..Default::default()
                    });
                    c::register_fprobe_ips(slot, &mut entry_point, 1)
                };
                if ret != 0 {
                    pr_err!("cannot probe kvm_dev_ioctl (error {ret}): the kernel needs CONFIG_FPROBE\n");
                }
                kernel::error::to_result(ret)
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Hook {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered in `install`. Waits until no handler runs.
        unsafe { c::unregister_fprobe(self.probe.get()) };
    }
}

/// Keeps the VM's type for [`returned`]. Returns non-zero if the call is none of ours.
unsafe extern "C" fn entered(
    _probe: *mut c::fprobe,
    _entry: usize,
    _ret: usize,
    regs: *mut c::ftrace_regs,
    data: *mut c_void,
) -> i32 {
    // SAFETY: `regs` are those of `kvm_dev_ioctl(file, request, arg)`.
    let request = unsafe { c::nvhv_regs_argument(regs, 1) };
    if request as u32 != abi::CREATE_VM || !host::has_bindings() {
        return 1;
    }
    // SAFETY: `data` has the size that the probe asked for.
    unsafe { *data.cast::<usize>() = c::nvhv_regs_argument(regs, 2) };
    0
}

/// KVM_CREATE_VM returned: takes the new VM over if its process is bound. May not sleep.
unsafe extern "C" fn returned(
    _probe: *mut c::fprobe,
    _entry: usize,
    _ret: usize,
    regs: *mut c::ftrace_regs,
    data: *mut c_void,
) {
    // SAFETY: `data` was filled by `entered`; `regs` hold the returned descriptor or error.
    let (kind, fd) = unsafe { (*data.cast::<usize>(), c::nvhv_regs_return(regs) as i32) };
    let Ok(fd) = u32::try_from(fd) else { return };
    let Some(host) = host::get() else { return };
    let Some(binding) = host.binding_of_current() else {
        return;
    };
    // Another thread may have closed the descriptor already and made something else of it.
    let Ok(file) = FileRef::from_fd(fd) else {
        return;
    };
    // SAFETY: `file` is a live reference.
    if !file.is_named(c"kvm-vm") || unsafe { c::nvhv_file_owner(file.as_ptr()) } != host.kvm.owner()
    {
        return;
    }
    if let Err(e) = Vm::hook(host, binding.clone(), &file, kind) {
        pr_err!(
            "{}: cannot take over a new VM ({e:?}): it runs unprotected\n",
            binding.name()
        );
    }
}
