// SPDX-License-Identifier: GPL-2.0
//! A VM with a little RAM, and what its guest does, said line by line.

use crate::{guest, script};
use kvm_bindings::{
    kvm_enable_cap, kvm_mp_state, kvm_segment, kvm_userspace_memory_region, KVM_CAP_SPLIT_IRQCHIP,
    KVM_EXIT_INTERNAL_ERROR, KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_RUNNABLE,
};
use kvm_ioctls::{Error, Kvm, VcpuExit, VcpuFd, VmFd};

/// Bytes of the RAM that every guest has at address 0.
pub const LOW_RAM: usize = 64 << 10;

/// Memory of this process that is or may become memory of the guest.
#[derive(Clone, Copy)]
pub struct Memory {
    pub at: *mut u8,
    pub len: usize,
}

// SAFETY: Plain memory; its users only read and write words of it.
unsafe impl Send for Memory {}

impl Memory {
    pub fn new(len: usize) -> Self {
        Self::mapped(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
    }

    pub fn mapped(len: usize, flags: libc::c_int) -> Self {
        Self::of_file(len, flags, -1)
    }

    /// A mapping of `file` from its beginning on.
    pub fn of_file(len: usize, flags: libc::c_int, file: libc::c_int) -> Self {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: Maps where the kernel chooses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, file, 0) };
        assert_ne!(at, libc::MAP_FAILED, "no memory");
        Self { at: at.cast(), len }
    }

    /// Gives it back. No slot shows it any more, and nobody uses a copy of this.
    pub fn unmap(self) {
        // SAFETY: It was mapped by `mapped`, and by this function's contract nothing refers to it.
        let done = unsafe { libc::munmap(self.at.cast(), self.len) };
        assert_eq!(done, 0, "munmap");
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) {
        assert!(offset as usize + bytes.len() <= self.len);
        // SAFETY: Inside the memory.
        unsafe {
            self.at
                .add(offset as usize)
                .copy_from(bytes.as_ptr(), bytes.len())
        }
    }

    pub fn word(&self, offset: u64) -> u32 {
        assert!(offset as usize + 4 <= self.len);
        // SAFETY: Inside the memory, which is page-aligned.
        unsafe { self.at.add(offset as usize).cast::<u32>().read_volatile() }
    }

    pub fn set_word(&self, offset: u64, word: u32) {
        self.write(offset, &word.to_le_bytes());
    }

    /// A slot that shows this memory at `gpa`.
    pub fn slot(&self, slot: u32, gpa: u64) -> kvm_userspace_memory_region {
        kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: gpa,
            memory_size: self.len as u64,
            userspace_addr: self.at as u64,
        }
    }
}

/// A VM, with RAM and vCPUs that are about to execute one of the guests.
pub struct Machine {
    pub vm: VmFd,
    pub low: Memory,
    pub vcpus: Vec<VcpuFd>,
}

impl Machine {
    /// A VM with vCPU 0.
    pub fn new(code: &[u8]) -> Self {
        Self::with_vcpus(code, &[0])
    }

    /// A VM with vCPUs of these numbers.
    pub fn with_vcpus(code: &[u8], ids: &[u64]) -> Self {
        let kvm = Kvm::new().expect("/dev/kvm");
        let vm = kvm.create_vm().expect("KVM_CREATE_VM");
        vm.set_tss_address(0xfffb_d000).expect("KVM_SET_TSS_ADDR");
        let irqchip = script::irqchip();
        match irqchip {
            "kernel" => vm.create_irq_chip().expect("KVM_CREATE_IRQCHIP"),
            "split" => {
                let mut cap = kvm_enable_cap {
                    cap: KVM_CAP_SPLIT_IRQCHIP,
                    ..Default::default()
                };
                cap.args[0] = 24;
                vm.enable_cap(&cap).expect("split irqchip");
            }
            _ => {}
        }
        let low = Memory::new(LOW_RAM);
        low.write(guest::CODE, code);
        set_slot(&vm, low.slot(0, 0)).expect("slot 0");
        let mut cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .expect("CPUID");
        let mut machine = Self {
            vm,
            low,
            vcpus: Vec::new(),
        };
        for (index, &id) in ids.iter().enumerate() {
            let vcpu = machine.vm.create_vcpu(id).expect("KVM_CREATE_VCPU");
            for leaf in cpuid.as_mut_slice() {
                // The number of the host's processor stands here.
                match leaf.function {
                    1 => leaf.ebx = (leaf.ebx & 0x00ff_ffff) | ((id as u32) << 24),
                    0xb | 0x1f => leaf.edx = id as u32,
                    0x8000_001e => leaf.eax = id as u32,
                    _ => {}
                }
            }
            vcpu.set_cpuid2(&cpuid).expect("KVM_SET_CPUID2");
            set_registers(&vcpu, index as u64);
            if irqchip != "none" {
                let runnable = kvm_mp_state {
                    mp_state: KVM_MP_STATE_RUNNABLE,
                };
                vcpu.set_mp_state(runnable).expect("KVM_SET_MP_STATE");
            }
            machine.vcpus.push(vcpu);
        }
        machine
    }

    /// Runs vCPU 0 for ever, saying each of its exits.
    pub fn run(mut self) -> ! {
        loop {
            step_and_say(&mut self.vcpus[0], 0);
        }
    }
}

/// A VM whose guest's device is at the end of a page, so that an access takes two exits.
pub fn across_pages(code: &[u8]) -> Machine {
    let machine = Machine::new(code);
    let mut regs = machine.vcpus[0].get_regs().expect("KVM_GET_REGS");
    regs.rcx = guest::UNBACKED + 0xffe;
    machine.vcpus[0].set_regs(&regs).expect("KVM_SET_REGS");
    machine
}

/// KVM_SET_USER_MEMORY_REGION.
pub fn set_slot(vm: &VmFd, slot: kvm_userspace_memory_region) -> Result<(), Error> {
    // SAFETY: The memory of a slot stays mapped until this process ends.
    unsafe { vm.set_user_memory_region(slot) }
}

fn set_registers(vcpu: &VcpuFd, index: u64) {
    let mut sregs = vcpu.get_sregs().expect("KVM_GET_SREGS");
    let flat = |segment: &mut kvm_segment| {
        segment.selector = 0;
        segment.base = 0;
        segment.limit = 0xffff_ffff;
        segment.g = 1;
    };
    flat(&mut sregs.cs);
    flat(&mut sregs.ds);
    flat(&mut sregs.es);
    flat(&mut sregs.ss);
    vcpu.set_sregs(&sregs).expect("KVM_SET_SREGS");
    let mut regs = vcpu.get_regs().expect("KVM_GET_REGS");
    regs.rip = guest::CODE;
    regs.rflags = 2;
    regs.rsp = 0x8000;
    regs.rbx = guest::COUNTER + 16 * index;
    regs.rcx = guest::UNBACKED;
    vcpu.set_regs(&regs).expect("KVM_SET_REGS");
}

/// What a guest did, or why it does not run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    Out(u16, u32),
    In(u16),
    Read(u64),
    Write(u64, u32),
    Halt,
    Shutdown,
    Other,
    Failed(i32),
}

fn word(data: &[u8]) -> u32 {
    data.iter()
        .rev()
        .fold(0, |word, &byte| (word << 8) | u32::from(byte))
}

/// KVM_RUN once. What the guest asks for is answered with `answer`.
pub fn step(vcpu: &mut VcpuFd, answer: u32) -> Event {
    let fill = |data: &mut [u8]| {
        for (to, from) in data.iter_mut().zip(answer.to_le_bytes()) {
            *to = from;
        }
    };
    match vcpu.run() {
        Ok(VcpuExit::IoOut(port, data)) => Event::Out(port, word(data)),
        Ok(VcpuExit::MmioWrite(at, data)) => Event::Write(at, word(data)),
        Ok(VcpuExit::IoIn(port, data)) => {
            fill(data);
            Event::In(port)
        }
        Ok(VcpuExit::MmioRead(at, data)) => {
            fill(data);
            Event::Read(at)
        }
        Ok(VcpuExit::Hlt) => Event::Halt,
        Ok(VcpuExit::Shutdown) => Event::Shutdown,
        Ok(other) => {
            let name = format!("{other:?}");
            println!("# {}", unexpected(vcpu, &name));
            Event::Other
        }
        Err(error) => Event::Failed(error.errno()),
    }
}

/// An exit that nobody here expects, by its NAME; of KVM_EXIT_INTERNAL_ERROR also what KVM says of it, and where the guest is.
pub fn unexpected(vcpu: &mut VcpuFd, name: &str) -> String {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != KVM_EXIT_INTERNAL_ERROR {
        return name.to_owned();
    }
    // SAFETY: This is the member of the union that goes with the exit reason.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let data = &internal.data[..internal.data.len().min(internal.ndata as usize)];
    let data = data.iter().map(|word| format!("{word:x}"));
    format!(
        "{name} {} [{}] {:x?}",
        internal.suberror,
        data.collect::<Vec<_>>().join(" "),
        vcpu.get_regs()
    )
}

/// [`step`] with the number of the event as the answer; says the event, which may be the end.
pub fn step_and_say(vcpu: &mut VcpuFd, index: usize) -> Event {
    let answer = script::next_answer();
    let event = step(vcpu, answer);
    let line = match event {
        Event::Out(guest::PORT_COUNT, value) => format!("count {index} {value}"),
        Event::Out(guest::PORT_WRONG, value) => format!("wrong {index} {value:#x}"),
        Event::Out(guest::PORT_ECHO, value) => format!("echo {index} {value:#x}"),
        Event::Out(guest::PORT_STRING, value) => format!("string {index} {value}"),
        Event::Out(port, value) => format!("out {index} {port:#x} {value:#x}"),
        Event::In(_) => format!("in {index} {answer:#x}"),
        Event::Read(_) => format!("read {index} {answer:#x}"),
        Event::Write(_, value) => format!("write {index} {value}"),
        Event::Halt => format!("halt {index}"),
        Event::Shutdown => format!("shutdown {index}"),
        Event::Other => format!("other {index}"),
        Event::Failed(errno) => format!("failed {index} {}", script::errno_name(errno)),
    };
    script::saw(&line);
    event
}
