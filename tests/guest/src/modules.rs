// SPDX-License-Identifier: GPL-2.0
//! Loads the kernel modules that lie in the initramfs, in the order that `/modules/order` gives.

use crate::report::report;
use crate::Orders;
use std::ffi::CString;
use std::fs::{read_to_string, File};
use std::os::fd::AsRawFd;

/// Takes devices as parameters that VMMs mean for `virtio_mmio`, which in the stock kernel does not.
const LINE: &str = "virtio_mmio_line.ko";

pub fn load(orders: &Orders) {
    for path in read_to_string("/modules/order").unwrap_or_default().lines() {
        let parameters = if path.ends_with(LINE) {
            devices(orders)
        } else {
            String::new()
        };
        if let Err(error) = insert(path, &parameters) {
            report(&format!("fail module {path}: {error}"));
        }
    }
}

/// The virtio-mmio devices of the kernel's command line.
fn devices(orders: &Orders) -> String {
    let devices: Vec<String> = orders
        .all("virtio_mmio.device")
        .map(|device| format!("device={device}"))
        .collect();
    devices.join(" ")
}

fn insert(path: &str, parameters: &str) -> std::io::Result<()> {
    let file = File::open(path)?;
    let parameters = CString::new(parameters)?;
    // SAFETY: The parameters are a C string that lives, and the descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            parameters.as_ptr(),
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
