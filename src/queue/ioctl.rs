// SPDX-License-Identifier: GPL-2.0

//! The VMM's requests that concern eventfds and interrupts, on their way to KVM.

use super::{
    hook::{Hook, Role},
    Queues, Trigger,
};
use crate::{
    pool::store::buffer,
    ring::Occasion,
    state::kvm_events::{self as abi, Doorbell, IoEventFd, IrqFd, Message},
    sys::{c, eventfd::EventFd, user},
};
use core::mem::size_of;
use kernel::prelude::*;

const _: () = {
    assert!(abi::IOEVENTFD_LEN == size_of::<c::kvm_ioeventfd>());
    assert!(abi::IRQFD_LEN == size_of::<c::kvm_irqfd>());
    assert!(abi::IRQ_LINE_LEN == size_of::<c::kvm_irq_level>());
    assert!(abi::MSI_LEN == size_of::<c::kvm_msi>());
    assert!(abi::ROUTE_LEN == size_of::<c::kvm_irq_routing_entry>());
};

/// Whether `request` is one for [`ioctl`].
pub(crate) fn concerns(request: u32) -> bool {
    matches!(
        request,
        abi::IOEVENTFD
            | abi::IRQFD
            | abi::SIGNAL_MSI
            | abi::IRQ_LINE
            | abi::IRQ_LINE_STATUS
            | abi::SET_GSI_ROUTING
            | abi::INTERRUPT
    )
}

/// A request of the VMM with the argument at `arg`, which `pass` hands to KVM. Returns what the
/// ioctl returns.
///
/// A VMM that changes the argument between our look at it and KVM's confuses its own devices, and
/// nothing else.
pub(crate) fn ioctl(
    queues: &Queues,
    request: u32,
    arg: usize,
    pass: impl FnOnce() -> isize,
) -> isize {
    let done = match request {
        abi::IOEVENTFD => ioeventfd(queues, arg, pass),
        abi::IRQFD => irqfd(queues, arg, pass),
        abi::SET_GSI_ROUTING => routing(queues, arg, pass),
        abi::SIGNAL_MSI => {
            let mut raw = [0; abi::MSI_LEN];
            if user::read(arg, &mut raw).is_ok() {
                queues.interrupted(Trigger::Message(abi::message(&raw)));
            }
            Ok(pass())
        }
        abi::INTERRUPT => {
            queues.interrupted(Trigger::Unknown);
            Ok(pass())
        }
        abi::IRQ_LINE | abi::IRQ_LINE_STATUS => {
            let mut raw = [0; abi::IRQ_LINE_LEN];
            if user::read(arg, &mut raw).is_ok() && abi::raises_line(&raw) {
                queues.interrupted(Trigger::Line);
            }
            Ok(pass())
        }
        _ => Ok(pass()),
    };
    done.unwrap_or_else(|e| e.to_errno() as isize)
}

/// KVM_IOEVENTFD. Watched before the guest can ring it, and until it cannot.
fn ioeventfd(queues: &Queues, arg: usize, pass: impl FnOnce() -> isize) -> Result<isize> {
    let mut raw = [0; abi::IOEVENTFD_LEN];
    user::read(arg, &mut raw)?;
    let io = IoEventFd::parse(&raw);
    let Ok(event) = EventFd::from_fd(io.fd) else {
        return Ok(pass());
    };
    if io.deassign {
        let ret = pass();
        if ret == 0 {
            queues.forget_doorbell(&event, &io.doorbell);
        }
        return Ok(ret);
    }
    let again = EventFd::from_fd(io.fd)?;
    queues.add_doorbell(event, io.doorbell)?;
    let ret = pass();
    if ret != 0 {
        queues.forget_doorbell(&again, &io.doorbell);
    }
    Ok(ret)
}

/// KVM_IRQFD. Watched as soon as KVM has it: KVM does not take an eventfd that somebody else watches
/// with priority. What came before our watch is made up for.
fn irqfd(queues: &Queues, arg: usize, pass: impl FnOnce() -> isize) -> Result<isize> {
    let mut raw = [0; abi::IRQFD_LEN];
    user::read(arg, &mut raw)?;
    let irq = IrqFd::parse(&raw);
    let Ok(event) = EventFd::from_fd(irq.fd) else {
        return Ok(pass());
    };
    if irq.deassign {
        let ret = pass();
        if ret == 0 {
            queues.forget_interrupt(&event, irq.gsi);
        }
        return Ok(ret);
    }
    let again = EventFd::from_fd(irq.fd)?;
    queues.announce_interrupt(event, irq.gsi)?;
    let ret = pass();
    if ret == 0 {
        queues.add_interrupt(&again, irq.gsi);
    } else {
        queues.forget_announced(&again, irq.gsi);
    }
    Ok(ret)
}

/// KVM_SET_GSI_ROUTING: which messages the interrupts of eventfds are.
fn routing(queues: &Queues, arg: usize, pass: impl FnOnce() -> isize) -> Result<isize> {
    let mut head = [0; abi::ROUTING_HEAD];
    user::read(arg, &mut head)?;
    let count = abi::routes(&head).min(abi::ROUTES_MOST) as usize;
    let mut raw = buffer(count * abi::ROUTE_LEN)?;
    let at = arg.checked_add(head.len()).ok_or(EFAULT)?;
    user::read(at, &mut raw)?;
    let mut routes = KVec::new();
    let entries = raw.chunks_exact(abi::ROUTE_LEN);
    for route in entries.filter_map(|raw| abi::route(raw.try_into().ok()?)) {
        routes.push(route, GFP_KERNEL)?;
    }
    let ret = pass();
    if ret == 0 {
        queues.set_routes(routes);
    }
    Ok(ret)
}

impl Queues {
    fn set_routes(&self, routes: KVec<(u32, Message)>) {
        let mut control = self.control.lock();
        control.routes = routes;
        for hook in control.hooks.iter() {
            if let Role::Interrupt { gsi, .. } = hook.role {
                hook.set_trigger(control.trigger(gsi));
            }
        }
    }

    fn add_doorbell(&self, event: EventFd, doorbell: Doorbell) -> Result {
        let mut control = self.control.lock();
        control.sweep();
        let same = control
            .hooks
            .iter_mut()
            .find(|hook| matches!(hook.role, Role::Kick(_)) && hook.event().is(&event));
        match same {
            Some(Hook {
                role: Role::Kick(doorbells),
                ..
            }) => doorbells.push(doorbell, GFP_KERNEL)?,
            _ => {
                let mut doorbells = KVec::new();
                doorbells.push(doorbell, GFP_KERNEL)?;
                let hook = Hook::new(event, Role::Kick(doorbells), control.frozen)?;
                control.hooks.push(hook, GFP_KERNEL)?;
            }
        }
        control.retarget_all()
    }

    fn forget_doorbell(&self, event: &EventFd, doorbell: &Doorbell) {
        let mut control = self.control.lock();
        control.hooks.retain(|hook| {
            let is = hook.event().is(event);
            let Role::Kick(doorbells) = &mut hook.role else {
                return true;
            };
            if is {
                if let Some(at) = doorbells.iter().position(|mine| mine == doorbell) {
                    let _ = doorbells.remove(at);
                }
            }
            !doorbells.is_empty()
        });
        // Without memory a watch stays that has become needless.
        let _ = control.retarget_all();
    }

    /// An interrupt is about to be connected. Whatever can fail is done here.
    fn announce_interrupt(&self, event: EventFd, gsi: u32) -> Result {
        let mut control = self.control.lock();
        control.sweep();
        let role = Role::Interrupt {
            gsi,
            connected: false,
        };
        let hook = Hook::new(event, role, control.frozen)?;
        hook.set_trigger(control.trigger(gsi));
        Ok(control.hooks.push(hook, GFP_KERNEL)?)
    }

    fn add_interrupt(&self, event: &EventFd, gsi: u32) {
        let mut control = self.control.lock();
        let all = control.all.clone();
        let hook = control
            .hooks
            .iter_mut()
            .find(|hook| hook.is_interrupt(event, gsi, false));
        let Some(hook) = hook else { return };
        hook.role = Role::Interrupt {
            gsi,
            connected: true,
        };
        if all.is_empty() {
            return;
        }
        hook.retarget(Some(all.clone()));
        for queue in all.iter() {
            queue.complete(Occasion::Other);
        }
        // An interrupt may have gone past before we watched, and what it was for been copied at
        // another one. It comes again; one too many does no harm.
        hook.event().signal();
    }

    fn forget_announced(&self, event: &EventFd, gsi: u32) {
        let mut control = self.control.lock();
        let mut announced = control.hooks.iter();
        if let Some(at) = announced.position(|hook| hook.is_interrupt(event, gsi, false)) {
            let _ = control.hooks.remove(at);
        }
    }

    fn forget_interrupt(&self, event: &EventFd, gsi: u32) {
        let mut control = self.control.lock();
        control
            .hooks
            .retain(|hook| !hook.is_interrupt(event, gsi, true));
    }
}
