// SPDX-License-Identifier: GPL-2.0

//! What the exits of a guest tell about its life.
//!
//! Every exit to user space passes here on its way to the VMM.

use super::vcpu::Vcpu;
use crate::{
    life::{asks_s5, GuestEnd},
    state::exit::{self, PortIo},
};
use core::sync::atomic::Ordering;

/// KVM_SYSTEM_EVENT_SHUTDOWN, _RESET, _CRASH
const EVENT_SHUTDOWN: u32 = 1;
const EVENT_RESET: u32 = 2;
const EVENT_CRASH: u32 = 3;

/// Notes what the exit that KVM just returned says. `kvm_run` may be changing: nothing depends on
/// more than one read of it.
pub(super) fn observe(vcpu: &Vcpu) {
    let Some(page) = vcpu.page() else { return };
    vcpu.vm.devices.exiting(page);
    let end = match page.exit_reason() {
        exit::SHUTDOWN => GuestEnd::TripleFault,
        exit::SYSTEM_EVENT => match u32::from_le_bytes(page.union()) {
            EVENT_SHUTDOWN => GuestEnd::PowerOff,
            EVENT_RESET => GuestEnd::Reset,
            EVENT_CRASH => GuestEnd::Crash,
            _ => return,
        },
        exit::IO => {
            let io = PortIo::parse(&page.union::<16>());
            let Some(io) = io.filter(|io| io.out && io.size == 2 && io.count == 1) else {
                return;
            };
            let Some(data) = page.port_data(&io) else {
                return;
            };
            if !asks_s5(io.port, &data) {
                return;
            }
            vcpu.vm.powered_off.store(true, Ordering::Relaxed);
            GuestEnd::AcpiS5
        }
        _ => return,
    };
    vcpu.asked_end.store(code(end), Ordering::Relaxed);
}

/// What `vm`'s guest asked for last.
pub(super) fn guest_end(vm: &super::vm::Vm) -> GuestEnd {
    // The write that enters S5 is answered like any other, and the guest may execute some more
    // before the VMM stops it. Nothing but a reset of the whole VM follows it.
    if vm.powered_off.load(Ordering::Relaxed) {
        return GuestEnd::AcpiS5;
    }
    let vcpus = vm.vcpus.lock();
    vcpus
        .iter()
        .map(|vcpu| decode(vcpu.asked_end.load(Ordering::Relaxed)))
        .find(|&end| end != GuestEnd::None)
        .unwrap_or_default()
}

const fn code(end: GuestEnd) -> u32 {
    end as u32
}

fn decode(raw: u32) -> GuestEnd {
    [
        GuestEnd::TripleFault,
        GuestEnd::PowerOff,
        GuestEnd::Reset,
        GuestEnd::Crash,
        GuestEnd::AcpiS5,
    ]
    .into_iter()
    .find(|&end| code(end) == raw)
    .unwrap_or_default()
}
