// SPDX-License-Identifier: GPL-2.0

//! The registers of a local APIC, as KVM_GET_LAPIC gives them.
//!
//! Source: Intel SDM, volume 3, "Advanced Programmable Interrupt Controller"; KVM API, section 4.57.

/// The first of eight in-service registers, 16 bytes apart, of 32 vectors each.
const ISR: usize = 0x100;
const REGISTERS: usize = 8;
const STRIDE: usize = 16;

/// Ends the interrupt of the highest priority that is in service, as a write to the EOI register does, for one
/// that no I/O APIC is to hear of. The processor's priority follows when the registers are set.
pub fn end_of_interrupt(lapic: &mut [u8]) {
    for register in (0..REGISTERS).rev() {
        let at = ISR + register * STRIDE;
        let Some(bytes) = lapic.get_mut(at..at + 4) else {
            continue;
        };
        let served = bytes
            .iter()
            .rev()
            .fold(0u32, |value, byte| (value << 8) | u32::from(*byte));
        if let Some(highest) = served.checked_ilog2() {
            bytes.copy_from_slice(&(served & !(1 << highest)).to_le_bytes());
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn with(vectors: &[usize]) -> [u8; 1024] {
        let mut lapic = [0; 1024];
        for vector in vectors {
            lapic[ISR + vector / 32 * STRIDE + vector % 32 / 8] |= 1 << (vector % 8);
        }
        lapic
    }

    #[test]
    fn the_highest_ends_and_no_other() {
        let mut lapic = with(&[33, 49, 236]);
        for left in [&[33, 49][..], &[33], &[], &[]] {
            end_of_interrupt(&mut lapic);
            assert_eq!(lapic, with(left));
        }
    }

    #[test]
    fn other_registers_stay() {
        let mut lapic = [0xff; 1024];
        end_of_interrupt(&mut lapic);
        let mut expected = [0xff; 1024];
        expected[ISR + 7 * STRIDE + 3] = 0x7f;
        assert_eq!(lapic, expected);
    }

    #[test]
    fn a_short_one_does_no_harm() {
        end_of_interrupt(&mut [0xff; 0x102]);
    }
}
