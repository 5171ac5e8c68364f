// SPDX-License-Identifier: GPL-2.0

//! A kernel function whose entry is watched, or whose callers come to a function of ours instead.
//!
//! C header: `include/linux/ftrace.h`.

use super::c;
use core::ptr;
use kernel::{prelude::*, types::Opaque};

/// What is called at the entry of the function, with preemption off: it may sleep no more than the
/// function's caller, and takes no lock.
pub(crate) type Handler = unsafe extern "C" fn(
    ip: usize,
    parent: usize,
    ops: *mut c::ftrace_ops,
    regs: *mut c::ftrace_regs,
);

/// The registered watch.
#[pin_data(PinnedDrop)]
pub(crate) struct Entry {
    #[pin]
    ops: Opaque<c::ftrace_ops>,
}

// SAFETY: It is only registered and unregistered.
unsafe impl Send for Entry {}
// SAFETY: As above.
unsafe impl Sync for Entry {}

impl Entry {
    /// Watches the function that is named `name`.
    pub(crate) fn watch(name: &'static CStr, handler: Handler) -> impl PinInit<Self, Error> {
        Self::register(name, handler, 0)
    }

    /// As [`Self::watch`]; `handler` may send the caller elsewhere with [`redirect`]. Nobody can switch it
    /// off while it is registered.
    pub(crate) fn divert(name: &'static CStr, handler: Handler) -> impl PinInit<Self, Error> {
        Self::register(
            name,
            handler,
            (c::FTRACE_OPS_FL_IPMODIFY | c::FTRACE_OPS_FL_PERMANENT) as usize,
        )
    }

    fn register(name: &'static CStr, handler: Handler, flags: usize) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            ops <- Opaque::try_ffi_init(move |slot: *mut c::ftrace_ops| {
                // SAFETY: `slot` is pinned memory for the operations; the name is copied.
                let ret = unsafe {
                    slot.write(c::ftrace_ops {
                        func: Some(handler),
                        flags,
                        ..Default::default()
                    });
                    let name = name.to_bytes();
                    match c::ftrace_set_filter(slot, name.as_ptr().cast_mut(), name.len() as i32, 1) {
                        0 => c::register_ftrace_function(slot),
                        ret => ret,
                    }
                };
                if ret != 0 {
                    let name = name.to_str().unwrap_or("?");
                    pr_err!("cannot watch {name} (error {ret}): is kernel.ftrace_enabled off, or {name} live-patched?\n");
                    // SAFETY: It is not registered.
                    unsafe { c::ftrace_free_filter(slot) };
                }
                kernel::error::to_result(ret)
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Entry {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered in `register`. Waits until no handler runs.
        unsafe {
            c::unregister_ftrace_function(self.ops.get());
            c::ftrace_free_filter(self.ops.get());
        }
    }
}

/// In a handler of [`Entry::divert`]: the caller comes to `to`, with its arguments and return address.
///
/// # Safety
///
/// `regs` are the handler's; `to` has the prototype of the function that is watched.
pub(crate) unsafe fn redirect(regs: *mut c::ftrace_regs, to: *const ()) {
    debug_assert!(!ptr::eq(to, ptr::null()));
    // SAFETY: By this function's contract.
    unsafe { c::nvhv_regs_redirect(regs, to as usize) }
}
