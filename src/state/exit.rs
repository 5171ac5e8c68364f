// SPDX-License-Identifier: GPL-2.0

//! Exits to user space, as `struct kvm_run` describes them (KVM API, section 5).
//!
//! A VMM answers an exit and calls KVM_RUN again; only then does KVM finish the instruction. If
//! the VMM is gone before that, one of two things holds. KVM has not retired the instruction (port
//! reads and writes, MMIO reads, and everything else that needs an answer): the guest executes it
//! again when it is resumed. Or KVM has retired it (MMIO writes, string port writes, HLT, the guest's
//! own end): then it must be delivered to the new VMM as its first exit. Either way the access happens
//! at least once.

/// KVM_EXIT_IO
pub const IO: u32 = 2;
/// KVM_EXIT_HLT: only without a local APIC in KVM
pub const HLT: u32 = 5;
/// KVM_EXIT_MMIO
pub const MMIO: u32 = 6;
/// KVM_EXIT_SHUTDOWN: a triple fault
pub const SHUTDOWN: u32 = 8;
/// KVM_EXIT_INTR
pub const INTR: u32 = 10;
/// KVM_EXIT_SYSTEM_EVENT
pub const SYSTEM_EVENT: u32 = 24;

/// Offset of `exit_reason`.
pub const EXIT_REASON: usize = 8;
/// Offset of `immediate_exit`.
pub const IMMEDIATE_EXIT: usize = 1;
/// Offset of `if_flag`.
pub const IF_FLAG: usize = 13;
/// Offset of `apic_base`.
pub const APIC_BASE: usize = 24;
/// Offset of `cr8`.
pub const CR8: usize = 16;
/// Offset of `kvm_dirty_regs`.
pub const DIRTY_REGS: usize = 296;
/// Offset of the union that describes the exit.
pub const UNION: usize = 32;
/// Bytes of that union.
pub const UNION_SIZE: usize = 256;
/// Bytes of `struct kvm_run` that an unfinished exit keeps: the fixed part and the union.
pub const HEAD: usize = UNION + UNION_SIZE;

/// A port access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortIo {
    /// Whether the guest writes.
    pub out: bool,
    /// Bytes of one access: 1, 2 or 4.
    pub size: u8,
    /// The port.
    pub port: u16,
    /// Number of accesses.
    pub count: u32,
    /// Where the data are, from the start of `struct kvm_run`.
    pub data_offset: u64,
}

impl PortIo {
    /// Reads the `io` member of the union.
    pub fn parse(union: &[u8]) -> Option<Self> {
        Some(Self {
            out: *union.first()? == 1,
            size: *union.get(1)?,
            port: u16::from_le_bytes(union.get(2..4)?.try_into().ok()?),
            count: u32::from_le_bytes(union.get(4..8)?.try_into().ok()?),
            data_offset: u64::from_le_bytes(union.get(8..16)?.try_into().ok()?),
        })
    }

    /// The `io` member of the union.
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut out = [0; 16];
        let head = u64::from_le_bytes([
            self.out.into(),
            self.size,
            self.port.to_le_bytes()[0],
            self.port.to_le_bytes()[1],
            self.count.to_le_bytes()[0],
            self.count.to_le_bytes()[1],
            self.count.to_le_bytes()[2],
            self.count.to_le_bytes()[3],
        ]);
        for (to, word) in out.chunks_exact_mut(8).zip([head, self.data_offset]) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Where the `index`th value is, from the start of `struct kvm_run`.
    pub fn offset_of(&self, index: u32) -> Option<usize> {
        let offset = u64::from(index).checked_mul(self.size.into())?;
        usize::try_from(self.data_offset.checked_add(offset)?).ok()
    }

    /// Bytes of data, if they are as KVM lays them out: within one page.
    pub fn bytes(&self) -> Option<usize> {
        let bytes = usize::from(self.size).checked_mul(usize::try_from(self.count).ok()?)?;
        (matches!(self.size, 1 | 2 | 4) && bytes <= 4096).then_some(bytes)
    }
}

/// Offset of the data in the `mmio` member of the union.
pub const MMIO_DATA: usize = 8;

/// An access to memory that is not RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mmio {
    /// Guest physical address.
    pub addr: u64,
    /// The data, or room for them.
    pub data: [u8; 8],
    /// Bytes: 1 to 8.
    pub len: u32,
    /// Whether the guest writes.
    pub write: bool,
}

impl Mmio {
    /// Bytes of the `mmio` member of the union.
    pub const LEN: usize = 24;

    /// Reads the `mmio` member of the union.
    pub fn parse(union: &[u8]) -> Option<Self> {
        Some(Self {
            addr: u64::from_le_bytes(union.get(..8)?.try_into().ok()?),
            data: union.get(MMIO_DATA..16)?.try_into().ok()?,
            len: u32::from_le_bytes(union.get(16..20)?.try_into().ok()?),
            write: *union.get(20)? != 0,
        })
    }

    /// The `mmio` member of the union.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let tail = u64::from(self.len) | (u64::from(self.write) << 32);
        let words = [self.addr, u64::from_le_bytes(self.data), tail];
        for (to, word) in out.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}

/// The exit reason in a saved head of `struct kvm_run`.
pub fn reason(head: &[u8]) -> u32 {
    head.get(EXIT_REASON..EXIT_REASON + 4)
        .and_then(|raw| raw.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// Whether the `mmio` member of the union is a write.
pub fn mmio_is_write(union: &[u8]) -> bool {
    Mmio::parse(union).is_some_and(|mmio| mmio.write)
}

/// Whether the instruction at the guest's instruction pointer is the plain OUT that made the port
/// exit `io` with these data, so that KVM has not retired it. String forms are retired before their
/// exit; an OUT that follows one is told apart by what it writes where.
///
/// Source: Intel SDM, volume 2, OUT and OUTS: opcodes E6, E7, EE, EF with operand-size (66) and
/// REX (4x) prefixes.
pub fn is_plain_out(code: &[u8], io: &PortIo, data: &[u8], rax: u64, rdx: u64) -> bool {
    let mut code = code.iter();
    while let Some(&byte) = code.next() {
        let port = match byte {
            0x66 | 0x40..=0x4f => continue,
            0xe6 | 0xe7 => code.next().map(|&port| u16::from(port)),
            // CAST: the port is in DX.
            0xee | 0xef => Some(rdx as u16),
            _ => return false,
        };
        let one_byte = byte & 1 == 0;
        return port == Some(io.port)
            && io.count == 1
            && one_byte == (io.size == 1)
            && rax.to_le_bytes().starts_with(data);
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn port_write(size: u8, port: u16) -> PortIo {
        PortIo {
            out: true,
            size,
            port,
            count: 1,
            data_offset: 4096,
        }
    }

    #[test]
    fn plain_out_is_told_from_string_out() {
        let is = |code: &[u8], size: u8, data: &[u8]| {
            is_plain_out(code, &port_write(size, 0x80), data, 0x0403_0201, 0x1_0080)
        };
        assert!(is(&[0xee], 1, &[1]));
        assert!(is(&[0x66, 0xef], 2, &[1, 2]));
        assert!(is(&[0xef], 4, &[1, 2, 3, 4]));
        assert!(is(&[0xe6, 0x80], 1, &[1]));
        assert!(!is(&[0xf3, 0x6e], 1, &[1]));
        assert!(!is(&[0x6f], 4, &[1, 2, 3, 4]));
        assert!(!is(&[0x66], 2, &[1, 2]));
        assert!(!is(&[], 1, &[1]));
    }

    #[test]
    fn an_out_after_a_string_out_is_not_taken_for_it() {
        let is = |code: &[u8], io: &PortIo, data: &[u8]| is_plain_out(code, io, data, 0x55, 0x80);
        assert!(!is(&[0xe6, 0x10], &port_write(1, 0x80), &[0x55]));
        assert!(!is(&[0xee], &port_write(1, 0x80), &[0x54]));
        assert!(!is(&[0xee], &port_write(2, 0x80), &[0x55, 0]));
        assert!(!is(&[0xef], &port_write(1, 0x80), &[0x55]));
        let several = PortIo {
            count: 2,
            ..port_write(1, 0x80)
        };
        assert!(!is(&[0xee], &several, &[0x55, 0]));
    }

    #[test]
    fn members_of_the_union_are_parsed_as_they_are_written() {
        let io = PortIo {
            count: 0x0102_0304,
            ..port_write(4, 0xcfc)
        };
        assert_eq!(PortIo::parse(&io.to_bytes()), Some(io));
        assert_eq!(io.offset_of(3), Some(4096 + 12));
        let mmio = Mmio {
            addr: 0xfee0_1234_5678,
            data: [1, 2, 3, 4, 5, 6, 7, 8],
            len: 4,
            write: true,
        };
        assert_eq!(Mmio::parse(&mmio.to_bytes()), Some(mmio));
        assert!(mmio_is_write(&mmio.to_bytes()));
    }

    #[test]
    fn port_data_larger_than_a_page_are_refused() {
        let mut union = [0; 16];
        union[1] = 4;
        union[4..8].copy_from_slice(&1025u32.to_le_bytes());
        assert_eq!(PortIo::parse(&union).unwrap().bytes(), None);
        union[4..8].copy_from_slice(&1024u32.to_le_bytes());
        assert_eq!(PortIo::parse(&union).unwrap().bytes(), Some(4096));
        union[1] = 3;
        assert_eq!(PortIo::parse(&union).unwrap().bytes(), None);
    }
}
