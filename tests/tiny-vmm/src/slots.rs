// SPDX-License-Identifier: GPL-2.0
//! Memory slots: many, odd, deleted, moved, read-only, late.

use crate::{
    guest,
    machine::{set_slot, step_and_say, Event, Machine, Memory},
    script::{self, saw},
};
use kvm_bindings::{kvm_userspace_memory_region, KVM_MEM_READONLY};

const PAGE: usize = 4096;

/// Forty slots of sizes that are no multiples of 2 MiB, far apart.
fn table_slots(machine: &Machine) -> Vec<(Memory, u64)> {
    let mut slots = Vec::new();
    for number in 0..40u64 {
        let len = match number {
            0 => (2 << 20) + PAGE,
            1 => (4 << 20) - PAGE,
            2 => 2 << 20,
            _ => PAGE * (1 + number as usize % 7),
        };
        // An odd number of pages apart, so that no two have the same place in 2 MiB.
        let gpa = (8 << 20) + number * ((6 << 20) + 3 * PAGE as u64);
        slots.push((Memory::new(len), gpa));
    }
    for (number, (memory, gpa)) in slots.iter().enumerate() {
        set_slot(&machine.vm, memory.slot(1 + number as u32, *gpa)).expect("slot");
        machine
            .low
            .set_word(guest::TABLE + 4 * number as u64, *gpa as u32);
    }
    slots
}

/// The guest counts in each of many slots.
pub fn many() -> ! {
    let machine = Machine::new(guest::table());
    table_slots(&machine);
    machine.run()
}

/// Slots are deleted and made again, the same and elsewhere, while the guest runs; at death some
/// are missing.
pub fn delete() -> ! {
    let mut machine = Machine::new(guest::table());
    let slots = table_slots(&machine);
    let set = |number: usize, gpa: u64, delete: bool| {
        let (memory, _) = slots[number];
        let mut slot = memory.slot(1 + number as u32, gpa);
        if delete {
            slot.memory_size = 0;
        }
        set_slot(&machine.vm, slot).expect("slot");
    };
    for round in 0.. {
        let number = round % slots.len();
        let (memory, gpa) = slots[number];
        // Deleted and made again as it was.
        set(number, gpa, true);
        set(number, gpa, false);
        // Deleted, shown elsewhere, and back.
        set(number, gpa, true);
        let elsewhere = gpa + (1 << 30);
        set(number, elsewhere, false);
        set(number, elsewhere, true);
        let before = memory.word(0);
        // The last line of a life may be this one, with the slot missing.
        saw(&format!("missing {number}"));
        set(number, gpa, false);
        assert_eq!(memory.word(0), before);
        step_and_say(&mut machine.vcpus[0], 0);
    }
    unreachable!()
}

/// The guest reads memory that it cannot write; its content is this VMM's to provide again.
pub fn rom() -> ! {
    let machine = Machine::new(guest::rom());
    let rom = Memory::new(3 * PAGE);
    rom.set_word(0, std::process::id());
    println!("rom {:#x}", std::process::id());
    let mut slot = rom.slot(7, guest::UNBACKED);
    slot.flags = KVM_MEM_READONLY;
    set_slot(&machine.vm, slot).expect("read-only slot");
    machine.run()
}

/// The VMM maps other memory over a part of its VM's RAM while the guest runs, as one does that shows its
/// guest a file there, and takes a part away. The guest goes on with its RAM either way.
pub fn over() -> ! {
    let mut machine = Machine::new(guest::count());
    let part = 3 * PAGE;
    loop {
        if let Event::Failed(_) = step_and_say(&mut machine.vcpus[0], 0) {
            script::die();
        }
        // SAFETY: Inside of the memory of `low`, whose users only read and write words of it.
        let (mapped, unmapped) = unsafe {
            let at = machine.low.at.add(part).cast();
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let mapped = libc::mmap(at, PAGE, libc::PROT_READ, flags, -1, 0);
            (mapped != libc::MAP_FAILED, libc::munmap(at, PAGE) == 0)
        };
        saw(&format!("over {mapped} {unmapped}"));
    }
}

fn off_by_one(slot: kvm_userspace_memory_region) -> kvm_userspace_memory_region {
    kvm_userspace_memory_region {
        userspace_addr: slot.userspace_addr + 1,
        ..slot
    }
}

/// Memory with something in it, whose last pages nobody can read: the file ends before them.
fn unreadable(len: usize) -> Memory {
    // SAFETY: A new file, which this process alone has.
    let file = unsafe {
        let file = libc::memfd_create(c"short".as_ptr(), 0);
        assert_eq!(libc::ftruncate(file, 2 << 20), 0, "ftruncate");
        file
    };
    let memory = Memory::of_file(len, libc::MAP_SHARED, file);
    memory.set_word(0, 0xbad0_bad0);
    memory
}

/// RAM that appears while the guest runs, and late again in the next life.
pub fn late() -> ! {
    const AT: u64 = (32 << 20) + 5 * PAGE as u64;
    let mut machine = Machine::new(guest::table());
    let memory = Memory::new((2 << 20) + 3 * PAGE);
    let after = script::number("after", 5);
    for round in 0.. {
        if round == after {
            let resumed = machine.low.word(guest::TABLE) != 0;
            // What a resumed VMM has here is not the guest's.
            let junk = if resumed {
                0xdead_beef
            } else {
                machine.low.word(guest::COUNTER)
            };
            memory.set_word(0, junk);
            for bad in [
                memory.slot(0xffff, AT),
                memory.slot(0, AT),
                off_by_one(memory.slot(9, AT)),
            ] {
                let errno = set_slot(&machine.vm, bad).expect_err("a bad slot").errno();
                saw(&format!("bad {}", script::errno_name(errno)));
            }
            if !resumed {
                let errno = set_slot(&machine.vm, unreadable(memory.len).slot(9, AT));
                let errno = errno.expect_err("memory that cannot be read").errno();
                saw(&format!("bad {}", script::errno_name(errno)));
            }
            set_slot(&machine.vm, memory.slot(9, AT)).expect("late slot");
            let mut gone = memory.slot(9, AT);
            gone.memory_size = 0;
            set_slot(&machine.vm, gone).expect("deleted slot");
            let errno = set_slot(&machine.vm, Memory::new(memory.len).slot(9, AT));
            let errno = errno.expect_err("other memory beside it").errno();
            saw(&format!("bad {}", script::errno_name(errno)));
            set_slot(&machine.vm, memory.slot(9, AT)).expect("the same slot again");
            saw(if resumed { "late again" } else { "late first" });
            machine.low.set_word(guest::TABLE, AT as u32);
        }
        if let Event::Failed(_) = step_and_say(&mut machine.vcpus[0], 0) {
            break;
        }
    }
    script::die()
}

/// Between any two numbers, RAM is taken away and other memory put in its place, as a VMM may do that
/// resets its VM: at the same address of this process, and at another one, in turn.
pub fn swap() -> ! {
    const AT: u64 = (32 << 20) + 5 * PAGE as u64;
    const LEN: usize = (2 << 20) + 3 * PAGE;
    const LAST: u64 = LEN as u64 - 4;
    let mut machine = Machine::new(guest::table());
    let mut memory = Memory::new(LEN);
    set_slot(&machine.vm, memory.slot(9, AT)).expect("slot");
    machine.low.set_word(guest::TABLE, AT as u32);
    for round in 0.. {
        step_and_say(&mut machine.vcpus[0], 0);
        let count = machine.low.word(guest::COUNTER);
        assert_eq!(memory.word(0), count, "the guest and its VMM see the same");
        memory.set_word(LAST, 0xdead_beef);
        let mut gone = memory.slot(9, AT);
        gone.memory_size = 0;
        set_slot(&machine.vm, gone).expect("deleted slot");
        memory.unmap();
        let between = (round % 2 == 1).then(|| Memory::new(LEN));
        memory = Memory::new(LEN);
        if let Some(between) = between {
            between.unmap();
        }
        memory.set_word(0, count);
        set_slot(&machine.vm, memory.slot(9, AT)).expect("slot of other memory");
        assert_eq!((memory.word(0), memory.word(LAST)), (count, 0));
        saw("swapped");
    }
    unreachable!()
}
