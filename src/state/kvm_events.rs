// SPDX-License-Identifier: GPL-2.0

//! The requests by which a VMM connects eventfds to its VM or raises interrupts itself:
//! `Documentation/virt/kvm/api.rst`, sections 4.16, 4.25, 4.52, 4.59, 4.71
//! and 4.75.
//!
//! Arguments are read as KVM would read them; what KVM refuses is left to KVM.

use super::kvm_abi::size_of_request;
use crate::shadow::Space;

/// 4.25 KVM_IRQ_LINE
pub const IRQ_LINE: u32 = 0x4008_ae61;
/// 4.25 KVM_IRQ_LINE_STATUS
pub const IRQ_LINE_STATUS: u32 = 0xc008_ae67;
/// 4.75 KVM_IRQFD
pub const IRQFD: u32 = 0x4020_ae76;
/// 4.59 KVM_IOEVENTFD
pub const IOEVENTFD: u32 = 0x4040_ae79;
/// 4.71 KVM_SIGNAL_MSI
pub const SIGNAL_MSI: u32 = 0x4020_aea5;
/// 4.52 KVM_SET_GSI_ROUTING
pub const SET_GSI_ROUTING: u32 = 0x4008_ae6a;
/// 4.16 KVM_INTERRUPT, on a vCPU
pub const INTERRUPT: u32 = 0x4004_ae86;

/// KVM_IOEVENTFD_FLAG_DATAMATCH, _PIO, _DEASSIGN
const IOEVENTFD_DATAMATCH: u32 = 1 << 0;
const IOEVENTFD_PIO: u32 = 1 << 1;
const IOEVENTFD_DEASSIGN: u32 = 1 << 2;
/// KVM_IRQFD_FLAG_DEASSIGN
const IRQFD_DEASSIGN: u32 = 1 << 0;

/// Bytes of the argument of KVM_IOEVENTFD.
pub const IOEVENTFD_LEN: usize = size_of_request(IOEVENTFD);
/// Bytes of the argument of KVM_IRQFD.
pub const IRQFD_LEN: usize = size_of_request(IRQFD);
/// Bytes of the argument of KVM_SIGNAL_MSI.
pub const MSI_LEN: usize = size_of_request(SIGNAL_MSI);
/// Bytes of the argument of KVM_IRQ_LINE.
pub const IRQ_LINE_LEN: usize = size_of_request(IRQ_LINE);

/// Which writes of the guest signal an eventfd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doorbell {
    /// Address space.
    pub space: Space,
    /// Port, or guest-physical address.
    pub addr: u64,
    /// Bytes written; 0 for any number.
    pub len: u32,
    /// The value written; any if `None`.
    pub value: Option<u64>,
}

impl Doorbell {
    /// Whether a write of `value` with `len` bytes to `addr` in `space` may ring it. A `len` of 0
    /// stands for a length that is not known.
    pub fn may_be(&self, space: Space, addr: u64, len: u32, value: u64) -> bool {
        self.space == space
            && self.addr == addr
            && (self.len == 0 || len == 0 || self.len == len)
            && self.value.is_none_or(|mine| mine == value)
    }
}

/// `struct kvm_ioeventfd`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoEventFd {
    /// The descriptor.
    pub fd: u32,
    /// What signals it.
    pub doorbell: Doorbell,
    /// It is to be disconnected.
    pub deassign: bool,
}

impl IoEventFd {
    /// Reads the argument of KVM_IOEVENTFD.
    pub fn parse(raw: &[u8; IOEVENTFD_LEN]) -> Self {
        let flags = u32_at(raw, 24);
        let space = match flags & IOEVENTFD_PIO {
            0 => Space::Memory,
            _ => Space::Port,
        };
        IoEventFd {
            fd: u32_at(raw, 20),
            doorbell: Doorbell {
                space,
                addr: u64_at(raw, 8),
                len: u32_at(raw, 16),
                value: (flags & IOEVENTFD_DATAMATCH != 0).then(|| u64_at(raw, 0)),
            },
            deassign: flags & IOEVENTFD_DEASSIGN != 0,
        }
    }
}

/// `struct kvm_irqfd`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IrqFd {
    /// The descriptor.
    pub fd: u32,
    /// The interrupt that it raises.
    pub gsi: u32,
    /// It is to be disconnected.
    pub deassign: bool,
}

impl IrqFd {
    /// Reads the argument of KVM_IRQFD.
    pub fn parse(raw: &[u8; IRQFD_LEN]) -> Self {
        IrqFd {
            fd: u32_at(raw, 0),
            gsi: u32_at(raw, 4),
            deassign: u32_at(raw, 8) & IRQFD_DEASSIGN != 0,
        }
    }
}

/// Bytes of the head of KVM_SET_GSI_ROUTING's argument.
pub const ROUTING_HEAD: usize = size_of_request(SET_GSI_ROUTING);
/// Bytes of each entry behind it.
pub const ROUTE_LEN: usize = 48;
/// KVM_MAX_IRQ_ROUTES
pub const ROUTES_MOST: u32 = 4096;
/// KVM_IRQ_ROUTING_MSI
const ROUTE_MSI: u32 = 2;

/// An interrupt as the message that a device sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Where it is written to.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// What the argument of KVM_SIGNAL_MSI says.
pub fn message(raw: &[u8; MSI_LEN]) -> Message {
    Message {
        address: u64_at(raw, 0),
        data: u32_at(raw, 8),
    }
}

/// How many entries follow the head of KVM_SET_GSI_ROUTING's argument.
pub fn routes(head: &[u8; ROUTING_HEAD]) -> u32 {
    u32_at(head, 0)
}

/// The interrupt number of a `struct kvm_irq_routing_entry` and the message that it stands for, if it
/// stands for one.
pub fn route(raw: &[u8; ROUTE_LEN]) -> Option<(u32, Message)> {
    let message = Message {
        address: u64_at(raw, 16),
        data: u32_at(raw, 24),
    };
    (u32_at(raw, 4) == ROUTE_MSI).then_some((u32_at(raw, 0), message))
}

/// The argument of KVM_SIGNAL_MSI (`struct kvm_msi`).
pub fn msi(address: u64, data: u32) -> [u8; MSI_LEN] {
    let mut raw = [0; MSI_LEN];
    let (to, rest) = raw.split_at_mut(8);
    to.copy_from_slice(&address.to_le_bytes());
    if let Some(to) = rest.get_mut(..4) {
        to.copy_from_slice(&data.to_le_bytes());
    }
    raw
}

/// Whether the argument of KVM_IRQ_LINE raises the line, rather than lowers it.
pub fn raises_line(raw: &[u8; IRQ_LINE_LEN]) -> bool {
    u32_at(raw, 4) != 0
}

fn u32_at(raw: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(raw.get(at..at + 4).unwrap_or(&[0; 4]));
    u32::from_le_bytes(bytes)
}

fn u64_at(raw: &[u8], at: usize) -> u64 {
    u64::from(u32_at(raw, at)) | (u64::from(u32_at(raw, at + 4)) << 32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn ioeventfd() {
        let mut raw = [0; IOEVENTFD_LEN];
        raw[0..8].copy_from_slice(&0x1_0000_0002u64.to_le_bytes());
        raw[8..16].copy_from_slice(&0xc050u64.to_le_bytes());
        raw[16..20].copy_from_slice(&2u32.to_le_bytes());
        raw[20..24].copy_from_slice(&7u32.to_le_bytes());
        raw[24..28].copy_from_slice(&3u32.to_le_bytes());
        let io = IoEventFd::parse(&raw);
        assert_eq!(io.fd, 7);
        assert!(!io.deassign);
        assert_eq!(io.doorbell.value, Some(0x1_0000_0002));
        assert!(io.doorbell.may_be(Space::Port, 0xc050, 2, 0x1_0000_0002));
        assert!(io.doorbell.may_be(Space::Port, 0xc050, 0, 0x1_0000_0002));
        assert!(!io.doorbell.may_be(Space::Port, 0xc050, 4, 0x1_0000_0002));
        assert!(!io.doorbell.may_be(Space::Port, 0xc050, 2, 2));
        assert!(!io.doorbell.may_be(Space::Memory, 0xc050, 2, 0x1_0000_0002));
        raw[24] = 4;
        let io = IoEventFd::parse(&raw);
        assert!(io.deassign);
        assert!(io.doorbell.may_be(Space::Memory, 0xc050, 2, 9));
    }

    #[test]
    fn messages() {
        let raw = msi(0x1_fee0_1004, 0x4021);
        let sent = message(&raw);
        assert_eq!((sent.address, sent.data), (0x1_fee0_1004, 0x4021));
        let mut raw = [0; ROUTE_LEN];
        raw[0] = 24;
        raw[16..28].copy_from_slice(&msi(0x1_fee0_1004, 0x4021)[..12]);
        assert_eq!(route(&raw), None);
        raw[4] = 2;
        assert_eq!(route(&raw), Some((24, sent)));
        assert_eq!(routes(&[3, 1, 0, 0, 0, 0, 0, 0]), 259);
    }

    #[test]
    fn irqfd_and_line() {
        let mut raw = [0; IRQFD_LEN];
        raw[0] = 5;
        raw[4] = 24;
        let fd = IrqFd::parse(&raw);
        assert_eq!((fd.fd, fd.gsi, fd.deassign), (5, 24, false));
        raw[8] = 3;
        assert!(IrqFd::parse(&raw).deassign);
        assert!(!raises_line(&[1, 0, 0, 0, 0, 0, 0, 0]));
        assert!(raises_line(&[1, 0, 0, 0, 1, 0, 0, 0]));
    }
}
