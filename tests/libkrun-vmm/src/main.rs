// SPDX-License-Identifier: GPL-2.0
//! A program that starts a VM of libkrun, which is a library, from words on a command line.
//!
//! It adds nothing to what libkrun does, and what it asks for is what the words say. It becomes the VMM.
//!
//! ```text
//! libkrun-vmm --cpus N --memory MIB --kernel ELF --initrd FILE --append LINE
//!     [--irqchip on|split] [--serial FILE]... [--disk FILE] [--disk-cache none|writeback] [--tap NAME --mac MAC]
//!     [--vsock on|off] [--share DIRECTORY] [--window MIB]
//! ```
//! `--window` is where the guest may map files of the directory (virtio-fs, DAX).

use std::ffi::{c_int, CStr, CString};
use std::fs::File;
use std::os::fd::IntoRawFd;
use std::process::ExitCode;

/// Of the formats of kernels, an ELF file that is not compressed (libkrun.h, KRUN_KERNEL_FORMAT_ELF).
const ELF: u32 = 1;
/// Of the formats of disks, the one without a format (KRUN_DISK_FORMAT_RAW).
const RAW: u32 = 0;
/// A flush reaches the medium (KRUN_SYNC_FULL).
const SYNC_FULL: u32 = 2;
/// Of what a network interface may offer: its checksums may be left to the other side (NET_FEATURE_CSUM,
/// NET_FEATURE_GUEST_CSUM).
const CHECKSUMS: u32 = 1 | 1 << 1;
/// What the guest knows the directory by.
const TAG: &CStr = c"share";
/// Nothing of TSI, which takes a kernel of libkrun's own: a plain socket device (krun_add_vsock).
const NO_TSI: u32 = 0;
/// There is nothing to read from.
const NO_INPUT: c_int = -1;

fn main() -> ExitCode {
    match start(std::env::args().skip(1)) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("libkrun-vmm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the words ask for.
struct Words {
    cpus: u8,
    memory: u32,
    kernel: CString,
    initrd: CString,
    append: CString,
    split: bool,
    serials: Vec<String>,
    disk: Option<CString>,
    direct: bool,
    tap: Option<CString>,
    mac: [u8; 6],
    vsock: bool,
    share: Option<CString>,
    window: u64,
}

impl Words {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut read = Self {
            cpus: 1,
            memory: 128,
            kernel: CString::default(),
            initrd: CString::default(),
            append: CString::default(),
            split: false,
            serials: Vec::new(),
            disk: None,
            direct: false,
            tap: None,
            mac: [0; 6],
            vsock: false,
            share: None,
            window: 0,
        };
        while let Some(name) = words.next() {
            let value = words.next().ok_or(format!("{name} of what?"))?;
            let wrong = || format!("{name} {value}?");
            let text = || CString::new(value.as_str()).map_err(|_| wrong());
            match name.as_str() {
                "--cpus" => read.cpus = value.parse().map_err(|_| wrong())?,
                "--memory" => read.memory = value.parse().map_err(|_| wrong())?,
                "--kernel" => read.kernel = text()?,
                "--initrd" => read.initrd = text()?,
                "--append" => read.append = text()?,
                "--irqchip" => read.split = choice(&value, "split", "on").ok_or_else(wrong)?,
                "--serial" => read.serials.push(value),
                "--disk" => read.disk = Some(text()?),
                "--disk-cache" => {
                    read.direct = choice(&value, "none", "writeback").ok_or_else(wrong)?
                }
                "--tap" => read.tap = Some(text()?),
                "--mac" => read.mac = mac(&value).ok_or_else(wrong)?,
                "--vsock" => read.vsock = choice(&value, "on", "off").ok_or_else(wrong)?,
                "--share" => read.share = Some(text()?),
                "--window" => read.window = value.parse().map_err(|_| wrong())?,
                _ => return Err(wrong()),
            }
        }
        Ok(read)
    }
}

fn choice(value: &str, yes: &str, no: &str) -> Option<bool> {
    (value == yes || value == no).then_some(value == yes)
}

fn mac(value: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = value
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

/// Nothing: a VM that was started ends with its process.
enum Never {}

fn start(words: impl Iterator<Item = String>) -> Result<Never, String> {
    let words = Words::read(words)?;
    let context = asked("krun_create_ctx", krun::krun_create_ctx())?;
    asked(
        "krun_set_vm_config",
        krun::krun_set_vm_config(context, words.cpus, words.memory),
    )?;
    // SAFETY: The strings end in zero and live.
    asked("krun_set_kernel", unsafe {
        krun::krun_set_kernel(
            context,
            words.kernel.as_ptr(),
            ELF,
            words.initrd.as_ptr(),
            words.append.as_ptr(),
        )
    })?;
    asked(
        "krun_split_irqchip",
        krun::krun_split_irqchip(context, words.split),
    )?;
    // What would be there by itself: a console on this program's descriptors, and a socket device that connects
    // the guest's kernel, if it is libkrun's own, to the host's network.
    asked(
        "krun_disable_implicit_console",
        krun::krun_disable_implicit_console(context),
    )?;
    asked(
        "krun_disable_implicit_vsock",
        krun::krun_disable_implicit_vsock(context),
    )?;
    for path in &words.serials {
        let file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| format!("{path}: {error}"))?;
        // SAFETY: The descriptor is open, and is libkrun's from here on.
        asked("krun_add_serial_console_default", unsafe {
            krun::krun_add_serial_console_default(context, NO_INPUT, file.into_raw_fd())
        })?;
    }
    if let Some(path) = &words.disk {
        // SAFETY: The strings end in zero and live.
        asked("krun_add_disk3", unsafe {
            krun::krun_add_disk3(
                context,
                c"disk".as_ptr(),
                path.as_ptr(),
                RAW,
                false,
                words.direct,
                SYNC_FULL,
            )
        })?;
    }
    if let Some(name) = &words.tap {
        // SAFETY: The string ends in zero, the address has six bytes, and both live.
        asked("krun_add_net_tap", unsafe {
            krun::krun_add_net_tap(context, name.as_ptr(), words.mac.as_ptr(), CHECKSUMS, 0)
        })?;
    }
    if words.vsock {
        asked("krun_add_vsock", krun::krun_add_vsock(context, NO_TSI))?;
    }
    if let Some(path) = &words.share {
        let window = words.window.checked_mul(1 << 20).ok_or("--window?")?;
        // SAFETY: The strings end in zero and live.
        asked("krun_add_virtiofs2", unsafe {
            krun::krun_add_virtiofs2(context, TAG.as_ptr(), path.as_ptr(), window)
        })?;
    }
    asked("krun_start_enter", krun::krun_start_enter(context))?;
    Err("krun_start_enter came back".into())
}

/// What a function of libkrun answered: an errno below zero, or what was asked for.
fn asked(what: &str, answer: c_int) -> Result<u32, String> {
    u32::try_from(answer)
        .map_err(|_| format!("{what}: {}", std::io::Error::from_raw_os_error(-answer)))
}
