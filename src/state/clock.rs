// SPDX-License-Identifier: GPL-2.0

//! Keeping a guest's two clocks together: its TSC and its kvmclock.
//!
//! Both stop when the VM is frozen and go on where they stopped. A guest's kernel compares them, and
//! gives up on the TSC if they drift apart by more than 500 parts per million of half a second. So the
//! relation between them has to survive exactly, by the algorithm of
//! `Documentation/virt/kvm/devices/vcpu.rst`, section 4.1: KVM tells host TSC and kvmclock of one
//! instant, before and after, and the new TSC offset follows.

/// `struct kvm_clock_data`, as far as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// kvmclock in nanoseconds.
    pub ns: u64,
    /// The host's TSC at that instant, if KVM runs on its master clock.
    pub host_tsc: Option<u64>,
}

/// KVM_CLOCK_HOST_TSC
const HOST_TSC: u32 = 1 << 3;

impl Clock {
    /// Reads what KVM_GET_CLOCK returned.
    pub fn from_bytes(raw: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(raw.get(at..at + 8)?.try_into().ok()?));
        // CAST: the flags are the low half.
        let flags = word(8)? as u32;
        let host_tsc = word(24)?;
        Some(Self {
            ns: word(0)?,
            host_tsc: (flags & HOST_TSC != 0).then_some(host_tsc),
        })
    }
}

/// The TSC offset with which a vCPU's TSC stands to the kvmclock as it did before. `None` if KVM
/// could not tell the host's TSC; then the TSC is as exact as the time between two ioctls.
///
/// `khz` is the frequency of the guest's TSC, which must be the host's own: with TSC scaling an
/// offset is not relative to the host's TSC.
pub fn tsc_offset(before: &Clock, offset: u64, now: &Clock, khz: u32) -> Option<u64> {
    // The guest's TSC at the instant of `before`; it wraps like the register.
    let guest_tsc = before.host_tsc?.wrapping_add(offset);
    let passed = ticks(now.ns.abs_diff(before.ns), khz);
    let guest_tsc = if now.ns >= before.ns {
        guest_tsc.wrapping_add(passed)
    } else {
        guest_tsc.wrapping_sub(passed)
    };
    Some(guest_tsc.wrapping_sub(now.host_tsc?))
}

/// Whether KVM runs a guest of `guest` kHz on a host of `host` kHz without scaling its TSC: within
/// 250 parts per million (`tsc_tolerance_ppm`).
pub fn same_frequency(guest: u32, host: u32) -> bool {
    u64::from(guest.abs_diff(host)) * 4000 <= u64::from(host)
}

/// Ticks of a clock of `khz` in `ns`, modulo 2^64. In 64 bits: the kernel has no wider division.
fn ticks(ns: u64, khz: u32) -> u64 {
    const NS_PER_MS: u64 = 1_000_000;
    let khz = u64::from(khz);
    // The second product is below 2^20 * 2^32.
    (ns / NS_PER_MS)
        .wrapping_mul(khz)
        .wrapping_add(ns % NS_PER_MS * khz / NS_PER_MS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn clock(ns: u64, host_tsc: u64) -> Clock {
        Clock {
            ns,
            host_tsc: Some(host_tsc),
        }
    }

    #[test]
    fn the_relation_of_the_clocks_survives() {
        // 2 GHz. The guest's TSC was 1000 at kvmclock 5 s, when the host's was 4000.
        let before = clock(5_000_000_000, 4_000);
        let offset = 1_000u64.wrapping_sub(4_000);
        // A new host: kvmclock says 3 us more, the host's TSC is 70.
        let now = clock(5_000_003_000, 70);
        let new = tsc_offset(&before, offset, &now, 2_000_000).unwrap();
        assert_eq!(70u64.wrapping_add(new), 1_000 + 6_000);
    }

    #[test]
    fn a_clock_set_back_takes_the_tsc_with_it() {
        let new = tsc_offset(&clock(1_000, 500), 0, &clock(0, 500), 1_000_000).unwrap();
        assert_eq!(500u64.wrapping_add(new), 500u64.wrapping_sub(1_000));
    }

    #[test]
    fn without_the_master_clock_there_is_no_offset() {
        let mut raw = [0; 48];
        raw[0] = 7;
        let clock = Clock::from_bytes(&raw).unwrap();
        assert_eq!((clock.ns, clock.host_tsc), (7, None));
        assert_eq!(tsc_offset(&clock, 0, &clock, 1), None);
        assert_eq!(Clock::from_bytes(&raw[..31]), None);
    }
}
