// SPDX-License-Identifier: GPL-2.0
//! vCPUs: some come late, some are interrupted while they wait, one has no `kvm_run` any more.

use crate::{
    guest,
    machine::{step_and_say, Event, Machine},
    script::{self, errno_name, saw},
    virtio::send_message,
};
use kvm_ioctls::VcpuFd;
use std::{os::fd::AsRawFd, thread};

/// KVM_RUN (`include/uapi/linux/kvm.h`).
pub const RUN: libc::c_ulong = 0xae80;

/// The numbers of vCPUs may have gaps.
const IDS: [u64; 3] = [0, 5, 37];

/// Every vCPU counts. Each comes to its first KVM_RUN `--apart` milliseconds after the one before.
pub fn apart() -> ! {
    let pause = script::number("apart", 0);
    let machine = Machine::with_vcpus(guest::count(), &IDS);
    run_all(machine.vcpus, move |index| {
        script::sleep(index as u64 * pause)
    })
}

/// As [`apart`], with the last vCPU a second late and signals for the others until it comes.
pub fn interrupted() -> ! {
    no_restart(libc::SIGUSR1);
    let machine = Machine::with_vcpus(guest::count(), &IDS);
    run_all(machine.vcpus, |index| match index {
        2 => script::sleep(1000),
        _ => {
            // SAFETY: Names the calling thread, which goes on for ever.
            let me = unsafe { libc::pthread_self() };
            thread::spawn(move || {
                for _ in 0..5 {
                    script::sleep(150);
                    // SAFETY: As above.
                    unsafe { libc::pthread_kill(me, libc::SIGUSR1) };
                }
            });
        }
    })
}

/// As many interrupts as the guest takes.
pub fn many_interrupts() -> ! {
    let Machine { vm, mut vcpus, .. } = Machine::new(guest::interrupts());
    thread::spawn(move || loop {
        send_message(&vm);
    });
    loop {
        step_and_say(&mut vcpus[0], 0);
    }
}

fn run_all(vcpus: Vec<VcpuFd>, first: impl Fn(usize) + Clone + Send + 'static) -> ! {
    let mut threads = Vec::new();
    for (index, mut vcpu) in vcpus.into_iter().enumerate() {
        let first = first.clone();
        threads.push(thread::spawn(move || {
            first(index);
            loop {
                step_and_say(&mut vcpu, index);
                script::sleep(5);
            }
        }));
    }
    for thread in threads {
        let _ = thread.join();
    }
    script::die()
}

/// A handler that does nothing: a blocking system call returns EINTR.
pub fn no_restart(signal: libc::c_int) {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: All-zero is a valid `sigaction`: no flags, nothing blocked.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// KVM_RUN without a look at `kvm_run`.
pub fn run_blindly(vcpu: &impl AsRawFd) -> Result<(), i32> {
    // SAFETY: The ioctl takes no argument.
    match unsafe { libc::ioctl(vcpu.as_raw_fd(), RUN, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
}

/// `kvm_run` is unmapped before the first KVM_RUN, or after a few. The guest's progress is seen in
/// its memory.
pub fn unmapped() -> ! {
    let mut machine = Machine::new(guest::count());
    let steps = script::number("after", 0);
    for _ in 0..steps {
        step_and_say(&mut machine.vcpus[0], 0);
    }
    let mut vcpu = machine.vcpus.remove(0);
    let run: *mut _ = vcpu.get_kvm_run();
    // SAFETY: Nobody uses the mapping any more: `vcpu` is not dropped.
    unsafe { libc::munmap(run.cast(), 4096 * 3) };
    let fd = vcpu.as_raw_fd();
    std::mem::forget(vcpu);
    loop {
        if let Err(errno) = run_blindly(&fd) {
            saw(&format!("failed 0 {}", errno_name(errno)));
        }
        saw(&format!("memory {}", machine.low.word(guest::COUNTER)));
    }
}

/// The VM's own descriptor is closed; its vCPU runs on.
pub fn without_vm() -> ! {
    let Machine { vm, mut vcpus, .. } = Machine::new(guest::count());
    let after = script::number("after", 3);
    let mut vm = Some(vm);
    for round in 0.. {
        if round == after {
            drop(vm.take());
            saw("closed");
        }
        if let Event::Failed(_) = step_and_say(&mut vcpus[0], 0) {
            break;
        }
    }
    script::die()
}
