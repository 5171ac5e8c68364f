// SPDX-License-Identifier: GPL-2.0

//! Registers of Intel chipsets that move other registers. VMMs model these chipsets because guests know
//! them by their identity.

use super::function::Function;

/// 82Q35 MCH: Intel 316966, host bridge.
const MCH: u32 = 0x29c0_8086;
/// 82371AB (PIIX4), function 3, power management: Intel 290562.
const PIIX4_PM: u32 = 0x7113_8086;
/// ICH9 LPC bridge: Intel 316972.
const ICH9_LPC: u32 = 0x2918_8086;

/// Whether a function is the host bridge of Q35.
pub fn is_mch(function: &Function) -> bool {
    function.identity() == MCH
}

/// Base and bytes of ECAM by PCIEXBAR (MCH data sheet, section 5.1.16), if it is on.
pub fn pciexbar(function: &Function) -> Option<(u64, u64)> {
    let low = function.current_u32(0x60);
    let high = function.current_u32(0x64);
    let size: u64 = match (low >> 1) & 3 {
        0 => 256 << 20,
        1 => 128 << 20,
        2 => 64 << 20,
        _ => return None,
    };
    let register = (u64::from(high) << 32) | u64::from(low);
    let base = register & 0xf_ffff_ffff & !(size - 1);
    (low & 1 != 0).then_some((base, size))
}

/// PMBASE, if the function has it: 0 while its block is not decoded.
pub fn pm_base(function: &Function) -> Option<u16> {
    let (mask, enabled) = match function.identity() {
        // PMBASE and PMREGMISC
        PIIX4_PM => (0xffc0, function.current(0x80) & 1 != 0),
        // PMBASE and ACPI_CNTL
        ICH9_LPC => (0xff80, function.current(0x44) & 0x80 != 0),
        _ => return None,
    };
    // CAST: the port is in the low half.
    let base = function.current_u32(0x40) as u16 & mask;
    Some(if enabled { base } else { 0 })
}
