// SPDX-License-Identifier: GPL-2.0

//! What tells that the host's power is failing.
//!
//! C header: `src/sys/power.h`.

use super::c;
use kernel::prelude::*;

/// The triggers that listen.
pub(crate) struct Triggers(());

impl Triggers {
    /// Has `failing` called, in process context, with a word for what has told, and when it has, in ns of
    /// [`super::cpus::fast_ns`].
    pub(crate) fn start(failing: unsafe extern "C" fn(*const c_char, u64)) -> Result<Self> {
        // SAFETY: Once, as only the module's init calls this, with the module itself.
        let ret = unsafe { c::nvhv_power_start(crate::THIS.as_ptr().cast(), Some(failing)) };
        kernel::error::to_result(ret)?;
        Ok(Self(()))
    }
}

impl Drop for Triggers {
    fn drop(&mut self) {
        // SAFETY: They were started.
        unsafe { c::nvhv_power_stop(crate::THIS.as_ptr().cast()) };
    }
}
