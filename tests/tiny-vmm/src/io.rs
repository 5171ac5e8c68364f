// SPDX-License-Identifier: GPL-2.0
//! I/O from and to the guest's RAM that is still in flight when this process ends.

use crate::{
    files::{close, fork},
    guest,
    machine::{set_slot, step_and_say, Machine, Memory},
    script::{self, saw},
};
use std::{
    ffi::CString,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

/// What stands on the device, and so in the guest's RAM once a read is through.
const PATTERN: u32 = 0x5a5a_5a5a;
const IO_AT: u64 = 32 << 20;
const IO_LEN: usize = 1 << 20;

/// A guest with RAM for I/O beside its own.
fn machine() -> (Machine, Memory) {
    let machine = Machine::new(guest::count());
    let memory = Memory::new(IO_LEN);
    set_slot(&machine.vm, memory.slot(1, IO_AT)).expect("slot");
    (machine, memory)
}

fn say_found(machine: &mut Machine, memory: &Memory) {
    // The guest's RAM is in place once it has run.
    step_and_say(&mut machine.vcpus[0], 0);
    let found = (0..memory.len as u64 / 4096).filter(|page| memory.word(page * 4096) == PATTERN);
    saw(&format!("found {}", found.count()));
}

/// Has the kernel read from `--device` into the guest's RAM, past the page cache, and does not wait.
pub fn direct() -> ! {
    let (mut machine, memory) = machine();
    say_found(&mut machine, &memory);
    let device = CString::new(script::option("device").expect("--device")).expect("a path");
    // `struct iocb` (include/uapi/linux/aio_abi.h): key and flags, operation, descriptor, buffer,
    // length, offset.
    let mut iocb = [0u64; 8];
    // SAFETY: A path, and arguments as aio_abi.h has them; the context stays until this process ends.
    unsafe {
        let fd = libc::open(device.as_ptr(), libc::O_RDONLY | libc::O_DIRECT);
        assert!(fd >= 0, "cannot open the device");
        let mut context = 0u64;
        assert_eq!(
            libc::syscall(libc::SYS_io_setup, 1, &mut context),
            0,
            "io_setup"
        );
        iocb[2] = (fd as u64) << 32;
        iocb[3] = memory.at as u64;
        iocb[4] = memory.len as u64;
        let list = [iocb.as_mut_ptr()];
        assert_eq!(
            libc::syscall(libc::SYS_io_submit, context, 1, list.as_ptr()),
            1,
            "io_submit"
        );
    }
    saw("submitted");
    machine.run()
}

/// Puts the guest's RAM, not a copy of it, into a pipe that another process holds for `--keep`
/// milliseconds.
pub fn spliced() -> ! {
    let keep = script::number("keep", 3000);
    let mut pipe = [0; 2];
    // SAFETY: Room for two descriptors.
    unsafe { libc::pipe(pipe.as_mut_ptr()) };
    let (here, there) = UnixStream::pair().expect("socket pair");
    fork(|| {
        close(&here);
        let _ = (&there).read(&mut [0]);
        let _ = (&there).write(b"!");
        script::sleep(keep);
    });
    let (mut machine, memory) = machine();
    say_found(&mut machine, &memory);
    let part = libc::iovec {
        iov_base: memory.at.cast(),
        iov_len: 16 * 4096,
    };
    // SAFETY: The memory stays mapped.
    let spliced = unsafe { libc::vmsplice(pipe[1], &part, 1, libc::SPLICE_F_NONBLOCK) };
    assert!(spliced > 0, "vmsplice");
    (&here).write_all(b"?").expect("the other process");
    (&here).read_exact(&mut [0]).expect("the other process");
    saw("spliced");
    machine.run()
}

/// Says every 100 ms how many pages of a lot of RAM have what another VM's device held.
pub fn watch() -> ! {
    let mut machine = Machine::new(guest::count());
    let memory = Memory::new(script::number("mib", 64) as usize * (1 << 20));
    set_slot(&machine.vm, memory.slot(1, IO_AT)).expect("slot");
    loop {
        say_found(&mut machine, &memory);
        script::sleep(100);
    }
}
