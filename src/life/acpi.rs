// SPDX-License-Identifier: GPL-2.0

//! How a guest powers itself off through ACPI.

/// Where VMMs put the PM1a control register (ACPI 6.5, 4.8.3.2.1): QEMU q35 (0x604), QEMU i440fx
/// with and without its older firmware tables (0x604, 0xb004), VirtualBox (0x4004), Intel PCHs as
/// firmware sets them (0x404, 0x1804).
const PM1A_CNT: [u16; 5] = [0x604, 0xb004, 0x4004, 0x404, 0x1804];

/// SLP_EN: the write enters the sleep state it names.
const SLP_EN: u16 = 1 << 13;

/// SLP_TYP, the sleep state.
const SLP_TYP_SHIFT: u16 = 10;
const SLP_TYP_MASK: u16 = 7;

/// The value of SLP_TYP that these VMMs' tables give for S5. QEMU's i440fx and q35 say 0 (`\_S5`
/// in `hw/i386/acpi-build.c`); 1 and 2 are their S3 and S4; 5 and 7 are others'.
const S5: [u16; 3] = [0, 5, 7];

/// Where Cloud Hypervisor and Alioth put the sleep control register of hardware-reduced ACPI (4.8.3.7).
/// It is like the upper byte of PM1a control.
const SLEEP_CONTROL: u16 = 0x600;

/// Whether a write of `data` to I/O port `port` asks for S5 (soft off).
///
/// It is the write's whole data: registers are as wide as ACPI writes them, two bytes and one.
pub fn asks_s5(port: u16, data: &[u8]) -> bool {
    let value = match *data {
        [low, high] if PM1A_CNT.contains(&port) => u16::from_le_bytes([low, high]),
        [high] if port == SLEEP_CONTROL => u16::from_le_bytes([0, high]),
        _ => return false,
    };
    value & SLP_EN != 0 && S5.contains(&((value >> SLP_TYP_SHIFT) & SLP_TYP_MASK))
}
