// SPDX-License-Identifier: GPL-2.0
//! What things cost without the module, and what exits cost with and without it.
//!
//! `bench [--vcpus N] [--ram MIB] [--touch 1] [--measure 1]`: a VM with N vCPUs and RAM above 16 MiB, of
//! which every page is there with `--touch 1`. With `--measure 1` it says, each the best of some rounds,
//! in ns:
//! - `exit`: one OUT that its VMM answers;
//! - `kernel`: one OUT that KVM answers, as the interrupt controller is its;
//! - `get`, `set`: all the ioctls that capturing and restoring its state is made of;
//! - `slots`: those by which its memory slots are deleted and made again.
//!
//! Then it counts slowly, until its end.

use crate::{
    guest,
    machine::{set_slot, step_and_say, Machine, Memory},
    script,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use nvhv_pure::state::{
    kvm_abi as abi,
    plan::{self, msr, How, Item},
};
use std::{
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

const HIGH: u64 = 16 << 20;
const ROUNDS: u32 = 7;
const EXITS: u32 = 2000;

/// The shortest of some rounds.
fn best(mut round: impl FnMut() -> Duration) -> u64 {
    (0..ROUNDS)
        .map(|_| round().as_nanos() as u64)
        .min()
        .unwrap_or(0)
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The case.
pub fn bench() -> ! {
    let vcpus: Vec<u64> = (0..script::number("vcpus", 1)).collect();
    let mut machine = Machine::with_vcpus(guest::kernel_exits(), &vcpus);
    let ram = (script::number("ram", 0) as usize) << 20;
    if ram > 0 {
        let high = Memory::new(ram);
        let touched = script::number("touch", 0) * high.len as u64;
        for page in (0..touched).step_by(4096) {
            high.set_word(page, 1);
        }
        set_slot(&machine.vm, high.slot(1, HIGH)).expect("slot 1");
    }
    let mut vcpus = std::mem::take(&mut machine.vcpus);
    if script::number("measure", 0) == 1 {
        measure(&mut vcpus[0]);
        state(&machine, &vcpus);
        slots(&machine);
    }
    let mut first = vcpus.remove(0);
    for mut vcpu in vcpus {
        // They stand still, as idle ones do.
        let halted = kvm_bindings::kvm_mp_state {
            mp_state: kvm_bindings::KVM_MP_STATE_HALTED,
        };
        vcpu.set_mp_state(halted).expect("KVM_SET_MP_STATE");
        thread::spawn(move || loop {
            let _ = vcpu.run().map(|_| ());
        });
    }
    loop {
        step_and_say(&mut first, 0);
        script::sleep(10);
    }
}

/// Exits of a vCPU whose guest makes [`guest::KERNEL_EXITS`] of those that KVM answers before each
/// of those that it does not.
fn measure(vcpu: &mut VcpuFd) {
    set_dx(vcpu, 0);
    exits(vcpu, 3);
    let kernel = best(|| timed(|| exits(vcpu, 3))) / 3;
    println!("kernel {}", kernel / u64::from(guest::KERNEL_EXITS));
    set_dx(vcpu, 1);
    exits(vcpu, 3);
    let exit = best(|| timed(|| exits(vcpu, EXITS)));
    println!("exit {}", exit / u64::from(EXITS));
    set_dx(vcpu, 0);
}

fn exits(vcpu: &mut VcpuFd, count: u32) {
    for _ in 0..count {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(guest::PORT_COUNT, _)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Says whether the guest leaves away the exits that KVM answers.
fn set_dx(vcpu: &VcpuFd, value: u64) {
    let mut regs = vcpu.get_regs().expect("KVM_GET_REGS");
    regs.rdx = value;
    vcpu.set_regs(&regs).expect("KVM_SET_REGS");
}

/// An ioctl that reads state, and the one that writes it back; 0: none.
struct Call {
    fd: i32,
    get: u32,
    set: u32,
    argument: Vec<u64>,
}

impl Call {
    fn new(fd: i32, get: u32, set: u32, bytes: usize) -> Self {
        let argument = vec![0; bytes.div_ceil(8).max(1)];
        Self {
            fd,
            get,
            set,
            argument,
        }
    }

    fn ioctl(&mut self, request: u32) -> i32 {
        // SAFETY: The argument is at least as large as KVM takes it to be.
        unsafe { libc::ioctl(self.fd, u64::from(request), self.argument.as_mut_ptr()) }
    }

    fn words(mut self, words: &[(usize, u64)]) -> Self {
        for &(at, word) in words {
            self.argument[at] |= word;
        }
        self
    }
}

/// All that the state of the VM is read and written by, as the module does it.
fn state(machine: &Machine, vcpus: &[VcpuFd]) {
    let kvm = Kvm::new().expect("/dev/kvm");
    let xsave = machine
        .vm
        .check_extension_int(kvm_ioctls::Cap::Xsave2)
        .max(4096) as usize;
    let nested = kvm.check_extension_raw(abi::CAP_NESTED_STATE.into()).max(0) as usize;
    let listed = kvm.get_msr_index_list().expect("MSRs");
    let mut calls = Vec::new();
    for vcpu in vcpus {
        for item in plan::VCPU {
            calls.extend(calls_of(
                vcpu.as_raw_fd(),
                item,
                xsave,
                nested,
                listed.as_slice(),
            ));
        }
    }
    let fd = machine.vm.as_raw_fd();
    for chip in plan::IRQCHIPS {
        let call = Call::new(fd, abi::GET_IRQCHIP, abi::SET_IRQCHIP, 520);
        calls.push(call.words(&[(0, chip.into())]));
    }
    // What it says besides the time is not taken back.
    calls.push(Call::new(fd, abi::GET_CLOCK, 0, 48));
    calls.push(Call::new(fd, 0, abi::SET_CLOCK, 48));
    let mut all = |get: bool| {
        best(|| {
            timed(|| {
                for call in &mut calls {
                    let request = if get { call.get } else { call.set };
                    if request == 0 {
                        continue;
                    }
                    let done = call.ioctl(request);
                    assert!(
                        done >= 0,
                        "{request:#x}: {}",
                        std::io::Error::last_os_error()
                    );
                }
            })
        })
    };
    println!("get {}", all(true));
    println!("set {}", all(false));
}

fn slots(machine: &Machine) {
    let slot = machine.low.slot(0, 0);
    let none = kvm_bindings::kvm_userspace_memory_region {
        memory_size: 0,
        ..slot
    };
    let once = || {
        set_slot(&machine.vm, none).expect("no slot 0");
        set_slot(&machine.vm, slot).expect("slot 0");
    };
    println!("slots {}", best(|| timed(once)));
}

fn calls_of(fd: i32, item: &Item, xsave: usize, nested: usize, listed: &[u32]) -> Vec<Call> {
    let call = |bytes| Call::new(fd, item.get, item.set, bytes);
    let fixed = abi::size_of_request(item.get);
    match item.how {
        How::Fixed => vec![call(fixed)],
        How::Xsave => vec![call(xsave)],
        // Restoring is skipped by the module as well where no nested guest ever ran.
        How::Nested if nested == 0 => Vec::new(),
        How::Nested => vec![call(nested).words(&[(0, (nested as u64) << 32)])],
        // It takes its argument by value, and is what it was.
        How::TscKhz | How::TscOffset => Vec::new(),
        // It is compared, not set.
        How::Cpuid => vec![Call {
            set: 0,
            ..call(8 + abi::CPUID_MAX * abi::CPUID_ENTRY).words(&[(0, abi::CPUID_MAX as u64)])
        }],
        How::Msrs => {
            let list = |numbers: &[u32]| {
                let mut call = call(8 + numbers.len() * abi::MSR_ENTRY);
                call.argument[0] = numbers.len() as u64;
                for (entry, &number) in call.argument[1..].chunks_exact_mut(2).zip(numbers) {
                    entry[0] = number.into();
                }
                call
            };
            let mut read = Vec::new();
            let mut written = Vec::new();
            for number in listed.iter().copied().chain(msr::unlisted()) {
                let mut one = list(&[number]);
                if one.ioctl(item.get) == 1 {
                    read.push(number);
                    if one.ioctl(item.set) == 1 {
                        written.push(number);
                    }
                }
            }
            let reads = read.chunks(abi::MSRS_MAX).map(|numbers| Call {
                set: 0,
                ..list(numbers)
            });
            let writes = written.chunks(abi::MSRS_MAX).map(|numbers| {
                let mut call = list(numbers);
                call.ioctl(item.get);
                Call { get: 0, ..call }
            });
            reads.chain(writes).collect()
        }
    }
}
