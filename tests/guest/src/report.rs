// SPDX-License-Identifier: GPL-2.0
//! Reporting to the outside through an I/O port that takes characters, one line a message:
//! `~SEQUENCE TEXT*CRC32`, the checksum being that of what stands between `~` and `*`. The port is that
//! of QEMU's isa-debugcon, unless it is told to be another, such as the data register of a UART.
//!
//! Bytes may be delivered twice when the VMM dies in the middle of a line; the reader finds the
//! overlap with the help of the checksum. A gap in the sequence is a loss, and never allowed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

static PORT: AtomicU64 = AtomicU64::new(0xe9);
static PORTS: OnceLock<File> = OnceLock::new();
static SEQUENCE: Mutex<u64> = Mutex::new(0);

/// All I/O ports, as the kernel offers them. `ioperm` would do with fewer system calls, but QEMU's
/// emulated SVM refuses it to user mode once a hypervisor has written the task register back.
pub fn ports() -> &'static File {
    PORTS.get_or_init(|| {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/port")
            .expect("/dev/port")
    })
}

/// Reports go through this port from now on.
pub fn through(port: u64) {
    PORT.store(port, Ordering::Relaxed);
}

/// Sends one line.
pub fn report(text: &str) {
    send(&mut lock(), text);
}

/// Sends one line, and lets nobody send another: what fails from here on fails because the system ends.
pub fn last_word(text: &str) {
    let mut sequence = lock();
    send(&mut sequence, text);
    std::mem::forget(sequence);
}

fn lock() -> MutexGuard<'static, u64> {
    SEQUENCE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn send(sequence: &mut u64, text: &str) {
    let text = text.replace(['\n', '\r', '*', '~'], " ");
    let body = format!("{} {text}", *sequence);
    *sequence += 1;
    for byte in format!("~{body}*{:08x}\n", crc32(body.as_bytes())).bytes() {
        let port = PORT.load(Ordering::Relaxed);
        ports().write_all_at(&[byte], port).expect("the port");
    }
}

/// The checksum of zlib, Ethernet and Python's `zlib.crc32`.
pub fn crc32(data: &[u8]) -> u32 {
    crc32_more(0, data)
}

/// Continues a checksum with more data.
pub fn crc32_more(crc: u32, data: &[u8]) -> u32 {
    !data.iter().fold(!crc, |crc, &byte| {
        (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)]
    })
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ (0xedb8_8320 & (value & 1).wrapping_neg());
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};
