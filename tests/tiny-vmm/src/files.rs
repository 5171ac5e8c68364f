// SPDX-License-Identifier: GPL-2.0
//! Descriptors that others hold, and processes that claim what they must not get.

use crate::{
    guest,
    machine::{set_slot, step, step_and_say, Event, Machine, Memory},
    script::{self, errno_name, saw},
};
use kvm_bindings::{kvm_create_device, kvm_device_type_KVM_DEV_TYPE_VFIO};
use kvm_ioctls::{VcpuFd, VmFd};
use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
};

/// Forks. The child leaves this process's standard output alone, so that nobody waits for it, and
/// calls `child`, which ends it.
pub fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: This process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let null = fs::OpenOptions::new()
            .write(true)
            .open("/dev/null")
            .expect("/dev/null");
        for fd in [1, 2] {
            // SAFETY: Both are descriptors.
            unsafe { libc::dup2(null.as_raw_fd(), fd) };
        }
        child();
        // SAFETY: Ends this process.
        unsafe { libc::_exit(0) };
    }
    assert!(pid > 0, "fork");
    pid
}

/// Closes a descriptor of a child, which does not return to where its owner is dropped.
pub fn close(file: &impl AsRawFd) {
    // SAFETY: Nobody uses it any more.
    unsafe { libc::close(file.as_raw_fd()) };
}

fn wait(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is writable.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    libc::WEXITSTATUS(status)
}

fn errno_of(result: libc::c_int) -> i32 {
    match result {
        0.. => 0,
        _ => std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
    }
}

/// What another process gets from the VM's and the vCPU's ioctls, one word each.
fn strangers_luck(vm: RawFd, vcpu: RawFd) -> String {
    const GET_REGS: libc::c_ulong = 0x8090_ae81;
    const SET_REGS: libc::c_ulong = 0x4090_ae82;
    const CREATE_VCPU: libc::c_ulong = 0xae41;
    const SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_ae46;
    const CHECK_EXTENSION: libc::c_ulong = 0xae03;
    let mut room = [0u64; 64];
    let room = room.as_mut_ptr();
    // SAFETY: Each is an ioctl that reads or writes no more than `room` has.
    let results = unsafe {
        [
            libc::ioctl(vcpu, GET_REGS, room),
            libc::ioctl(vcpu, SET_REGS, room),
            libc::ioctl(vcpu, crate::vcpus::RUN, 0),
            libc::ioctl(vm, SET_USER_MEMORY_REGION, room),
            libc::ioctl(vm, CREATE_VCPU, 9),
            libc::ioctl(vm, CHECK_EXTENSION, 0),
        ]
        .map(errno_of)
    };
    results.map(errno_name).join(" ")
}

/// Runs until the guest has counted to `count` more.
fn run_a_while(vcpu: &mut VcpuFd, count: u64) {
    for _ in 0..count {
        step_and_say(vcpu, 0);
    }
}

/// Descriptors passed to a process that outlives this one; duplicates of them here are closed. The
/// other process tries them in this one's life and after it, writes what it got to `--report`, and
/// keeps them for `--keep` milliseconds.
pub fn passed() -> ! {
    let (here, there) = UnixStream::pair().expect("socket pair");
    let report = script::option("report").expect("--report");
    let keep = script::number("keep", 3000);
    fork(|| {
        close(&here);
        let fds = receive(&there);
        let before = strangers_luck(fds[0], fds[1]);
        let _ = (&there).write_all(b"tried");
        // Returns once the other end is closed: its process is gone.
        let _ = (&there).read(&mut [0]);
        script::sleep(500);
        let after = strangers_luck(fds[0], fds[1]);
        fs::write(&report, format!("before: {before}\nafter: {after}\n")).expect("report");
        script::sleep(keep);
    });
    drop(there);
    let mut machine = Machine::new(guest::count());
    run_a_while(&mut machine.vcpus[0], 3);
    let fds = [machine.vm.as_raw_fd(), machine.vcpus[0].as_raw_fd()];
    for fd in fds {
        // SAFETY: A new descriptor of this process, which it closes.
        unsafe { libc::close(libc::dup(fd)) };
    }
    send(&here, fds);
    (&here).read_exact(&mut [0; 5]).expect("the other process");
    machine.run()
}

/// A child that inherits the descriptors exits at once; another one outlives this process by
/// `--keep` milliseconds. Neither is the VM's end.
pub fn forked() -> ! {
    let mut machine = Machine::new(guest::count());
    run_a_while(&mut machine.vcpus[0], 3);
    let first = fork(|| {});
    saw(&format!("child exited {}", wait(first)));
    run_a_while(&mut machine.vcpus[0], 3);
    let keep = script::number("keep", 3000);
    let (vm, vcpu) = (machine.vm.as_raw_fd(), machine.vcpus[0].as_raw_fd());
    let low = machine.low;
    let second = fork(|| {
        // The guest's memory must not be there.
        let mut pages = [0u8; 1];
        // SAFETY: Only looks whether the page is mapped.
        let mapped = unsafe { libc::mincore(low.at.cast(), 4096, pages.as_mut_ptr()) } == 0;
        fs::write(
            "/tmp/forked",
            format!("mapped: {mapped}\nioctls: {}\n", strangers_luck(vm, vcpu)),
        )
        .expect("/tmp/forked");
        script::sleep(keep);
    });
    saw(&format!(
        "child {}",
        if second > 0 { "stays" } else { "failed" }
    ));
    machine.run()
}

/// Two VMs of one process: the first to run gets the name.
pub fn two_vms() -> ! {
    let mut first = Machine::new(guest::count());
    let mut second = Machine::new(guest::count());
    run_a_while(&mut first.vcpus[0], 3);
    for _ in 0..2 {
        let result = step(&mut second.vcpus[0], 0);
        saw(&format!("second {}", name_of(result)));
    }
    run_a_while(&mut first.vcpus[0], 3);
    drop(second);
    first.run()
}

/// Two processes with one binding: as [`two_vms`].
pub fn two_processes() -> ! {
    let (here, there) = UnixStream::pair().expect("socket pair");
    let child = fork(|| {
        close(&here);
        let mut machine = Machine::new(guest::count());
        let _ = (&there).read(&mut [0]);
        let result = step(&mut machine.vcpus[0], 0);
        // SAFETY: Ends this process.
        unsafe {
            libc::_exit(if let Event::Failed(errno) = result {
                errno
            } else {
                0
            })
        };
    });
    drop(there);
    let mut machine = Machine::new(guest::count());
    run_a_while(&mut machine.vcpus[0], 3);
    (&here).write_all(b"go").expect("the other process");
    saw(&format!("second {}", errno_name(wait(child))));
    machine.run()
}

fn name_of(event: Event) -> String {
    match event {
        Event::Failed(errno) => errno_name(errno),
        other => format!("{other:?}"),
    }
}

/// Arguments that make no sense, before the guest runs and while it does.
pub fn rubbish() -> ! {
    let mut machine = Machine::new(guest::count());
    let memory = Memory::new(1 << 20);
    try_rubbish("new", &machine, &memory);
    run_a_while(&mut machine.vcpus[0], 2);
    try_rubbish("live", &machine, &memory);
    machine.run()
}

fn try_rubbish(when: &str, machine: &Machine, memory: &Memory) {
    let good = memory.slot(1, 16 << 20);
    let unmapped = Memory::new(1 << 20);
    // SAFETY: Nobody uses it.
    unsafe { libc::munmap(unmapped.at.cast(), unmapped.len) };
    type Change<'a> = (
        &'a str,
        &'a dyn Fn(&mut kvm_bindings::kvm_userspace_memory_region),
    );
    let changes: [Change; 13] = [
        ("overlapping", &|s| s.guest_phys_addr = 4096),
        ("unaligned-host-address", &|s| s.userspace_addr += 1),
        ("unaligned-guest-address", &|s| s.guest_phys_addr += 512),
        ("unaligned-size", &|s| s.memory_size -= 1),
        ("wrapping-guest-address", &|s| {
            s.guest_phys_addr = 0u64.wrapping_sub(4096)
        }),
        ("wrapping-host-address", &|s| {
            s.userspace_addr = 0u64.wrapping_sub(4096)
        }),
        ("kernel-address", &|s| {
            s.userspace_addr = 0xffff_8880_0000_0000
        }),
        ("huge", &|s| s.memory_size = 1 << 62),
        ("number", &|s| s.slot = 0xffff),
        ("address-space", &|s| s.slot = 7 << 16),
        ("flags", &|s| s.flags = 0x8000_0000),
        ("null", &|s| s.userspace_addr = 0),
        ("resized", &|s| {
            s.slot = 0;
            s.guest_phys_addr = 0;
        }),
    ];
    for (name, change) in changes {
        let mut slot = good;
        change(&mut slot);
        let errno = set_slot(&machine.vm, slot)
            .err()
            .map_or(0, |error| error.errno());
        saw(&format!("{when} {name} {}", errno_name(errno)));
        if errno == 0 {
            slot.memory_size = 0;
            set_slot(&machine.vm, slot).expect("deletion");
        }
    }
    // KVM_SET_USER_MEMORY_REGION, KVM_SET_USER_MEMORY_REGION2, KVM_ENABLE_CAP, KVM_IRQFD, KVM_GET_DIRTY_LOG,
    // KVM_CREATE_VCPU with a number too many, and none at all.
    let (vm, vcpu) = (machine.vm.as_raw_fd(), machine.vcpus[0].as_raw_fd());
    for request in [
        0x4020_ae46u64,
        0x40a0_ae49,
        0x4068_aea3,
        0x4020_ae76,
        0x4010_ae42,
        0xae41,
        0xae7f,
    ] {
        for arg in [0u64, 0xffff_8880_0000_0000] {
            // SAFETY: The addresses are no memory of this process.
            let errno = errno_of(unsafe { libc::ioctl(vm, request, arg) });
            saw(&format!(
                "{when} vm-{request:x}-{arg:x} {}",
                errno_name(errno)
            ));
        }
    }
    for request in [
        0x8090_ae81u64,
        0x4090_ae82,
        0xc008_ae88,
        0x4048_aecc,
        0xae7f,
    ] {
        // SAFETY: As above.
        let errno = errno_of(unsafe { libc::ioctl(vcpu, request, 0u64) });
        saw(&format!("{when} vcpu-{request:x} {}", errno_name(errno)));
    }
}

/// Counts, and gives the VM room for a device of the host after it has counted to 3.
pub fn passed_through_late() -> ! {
    let mut machine = Machine::new(guest::count());
    for _ in 0..3 {
        step_and_say(&mut machine.vcpus[0], 0);
    }
    make_vfio(&machine.vm);
    saw("passed-through");
    loop {
        step_and_say(&mut machine.vcpus[0], 0);
        script::sleep(10);
    }
}

fn make_vfio(vm: &VmFd) {
    let mut device = kvm_create_device {
        type_: kvm_device_type_KVM_DEV_TYPE_VFIO,
        ..Default::default()
    };
    // The VM keeps it.
    let made = vm.create_device(&mut device);
    std::mem::forget(made.expect("KVM_CREATE_DEVICE"));
}

/// Has the pages of some memory provided by whoever reads from a userfaultfd: nobody.
fn await_pages(memory: &Memory) {
    const UFFDIO_API: u64 = 0xc018_aa3f;
    const UFFDIO_REGISTER: u64 = 0xc020_aa00;
    let mut api = [0xaau64, 0, 0];
    // The range, UFFDIO_REGISTER_MODE_MISSING, and room for an answer.
    let mut register = [memory.at as u64, memory.len as u64, 1, 0];
    // SAFETY: The memory is this process's, the arguments are as long as the requests say. The descriptor stays open.
    unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) as RawFd;
        assert!(fd >= 0, "userfaultfd");
        assert_eq!(libc::ioctl(fd, UFFDIO_API, api.as_mut_ptr()), 0);
        assert_eq!(libc::ioctl(fd, UFFDIO_REGISTER, register.as_mut_ptr()), 0);
    }
}

/// What cannot be kept: RAM `--ram null`, `shared` with another process, still `awaited`, or a `file`'s; or, with `none`, ordinary
/// RAM and room for a device of the host.
pub fn unkept() -> ! {
    let mut machine = Machine::new(guest::count());
    let mut slot =
        Memory::mapped(1 << 20, libc::MAP_SHARED | libc::MAP_ANONYMOUS).slot(1, 16 << 20);
    match script::option("ram").as_deref() {
        Some("null") => slot.userspace_addr = 0,
        Some("none") => {
            make_vfio(&machine.vm);
            slot = Memory::new(1 << 20).slot(1, 16 << 20);
        }
        Some("awaited") => {
            let memory = Memory::new(1 << 20);
            await_pages(&memory);
            slot = memory.slot(1, 16 << 20);
        }
        Some("shared") => {
            fork(|| script::sleep(2000));
        }
        _ => {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let file = fs::File::options()
                .read(true)
                .write(true)
                .open("/share/ram")
                .expect("a file");
            // SAFETY: Maps fresh memory where the kernel chooses.
            let at = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    1 << 20,
                    prot,
                    libc::MAP_PRIVATE,
                    file.as_raw_fd(),
                    0,
                )
            };
            slot.userspace_addr = at as u64;
        }
    }
    set_slot(&machine.vm, slot).expect("slot");
    for _ in 0..2 {
        saw(&format!("run {}", name_of(step(&mut machine.vcpus[0], 0))));
    }
    script::die()
}

fn send(socket: &UnixStream, fds: [RawFd; 2]) {
    with_message(|message| {
        // SAFETY: The message has room for two descriptors.
        unsafe {
            let head = libc::CMSG_FIRSTHDR(message);
            (*head).cmsg_level = libc::SOL_SOCKET;
            (*head).cmsg_type = libc::SCM_RIGHTS;
            (*head).cmsg_len = libc::CMSG_LEN(8) as usize;
            libc::CMSG_DATA(head)
                .cast::<[RawFd; 2]>()
                .write_unaligned(fds);
            assert_eq!(libc::sendmsg(socket.as_raw_fd(), message, 0), 1, "sendmsg");
        }
    });
}

fn receive(socket: &UnixStream) -> [RawFd; 2] {
    with_message(|message| {
        // SAFETY: As in `send`.
        unsafe {
            assert_eq!(libc::recvmsg(socket.as_raw_fd(), message, 0), 1, "recvmsg");
            let head = libc::CMSG_FIRSTHDR(message);
            assert!(!head.is_null(), "no descriptors");
            libc::CMSG_DATA(head).cast::<[RawFd; 2]>().read_unaligned()
        }
    })
}

fn with_message<T>(f: impl FnOnce(*mut libc::msghdr) -> T) -> T {
    let mut byte = [0u8];
    let mut control = [0u64; 8];
    let mut vector = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: All-zero is a valid `msghdr`: no name, no data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: A computation.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(8) } as usize;
    f(&mut message)
}
