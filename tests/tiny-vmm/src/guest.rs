// SPDX-License-Identifier: GPL-2.0
//! The guests: a few instructions each, in real mode with segments of 4 GiB.
//!
//! Each is given its counter's address in `bx`, and in `ecx` an address of its own use.

use std::arch::global_asm;

/// Where a guest's code is.
pub const CODE: u64 = 0x1000;
/// Where vCPU 0 has its counter; the others follow at distances of 16.
pub const COUNTER: u64 = 0x2000;
/// A list of addresses for [`table`], ended by 0.
pub const TABLE: u64 = 0x3000;
/// No slot covers this.
pub const UNBACKED: u64 = 0xd000_0000;

/// Exits that KVM answers before each number of [`kernel_exits`].
pub const KERNEL_EXITS: u32 = 1000;
/// Where a guest says its counter.
pub const PORT_COUNT: u16 = 0x10;
/// Where a guest says what is wrong.
pub const PORT_WRONG: u16 = 0x11;
/// Where a guest says what it was answered.
pub const PORT_ECHO: u16 = 0x13;
/// Where a guest writes strings.
pub const PORT_STRING: u16 = 0x14;

macro_rules! guests {
    ($($(#[$doc:meta])* $name:ident: $($line:literal)*;)*) => {
        $(
            global_asm!(
                ".pushsection .rodata.tiny",
                ".code16",
                concat!(".global tiny_", stringify!($name)),
                concat!(".global tiny_", stringify!($name), "_end"),
                concat!("tiny_", stringify!($name), ":"),
                $($line,)*
                concat!("tiny_", stringify!($name), "_end:"),
                ".code64",
                ".popsection",
            );

            $(#[$doc])*
            pub fn $name() -> &'static [u8] {
                extern "C" {
                    #[link_name = concat!("tiny_", stringify!($name))]
                    static FIRST: u8;
                    #[link_name = concat!("tiny_", stringify!($name), "_end")]
                    static END: u8;
                }
                let (first, end) = (&raw const FIRST, &raw const END);
                // SAFETY: The two labels enclose the bytes of one constant.
                unsafe { std::slice::from_raw_parts(first, end.offset_from(first) as usize) }
            }
        )*
    };
}

guests! {
    /// Counts, and says so.
    count:
        "2: inc dword ptr [bx]"
        "mov eax, [bx]"
        "out 0x10, eax"
        "jmp 2b";

    /// Counts, and has the interrupt controller in KVM answer that many writes in between unless `dx`
    /// says otherwise: operation command word 3 of the i8259A, which selects the register to read.
    kernel_exits:
        "2: inc dword ptr [bx]"
        "test dx, dx"
        "jnz 4f"
        "mov cx, 1000"
        "mov al, 0x0b"
        "3: out 0x20, al"
        "loop 3b"
        "4: mov eax, [bx]"
        "out 0x10, eax"
        "jmp 2b";

    /// Counts by writing to a device.
    mmio_write:
        "2: inc dword ptr [bx]"
        "mov eax, [bx]"
        "mov [ecx], eax"
        "jmp 2b";

    /// Reads from a device and says what.
    mmio_read:
        "2: inc dword ptr [bx]"
        "mov eax, [ecx]"
        "out 0x13, eax"
        "mov eax, [bx]"
        "out 0x10, eax"
        "jmp 2b";

    /// Reads from a port and says what.
    port_in:
        "2: inc dword ptr [bx]"
        "in eax, 0x12"
        "out 0x13, eax"
        "mov eax, [bx]"
        "out 0x10, eax"
        "jmp 2b";

    /// Writes its counter as a string of four bytes. What follows the last one is a plain OUT.
    outs:
        "2: inc dword ptr [bx]"
        "mov si, bx"
        "mov eax, [bx]"
        "mov cx, 3"
        "mov dx, 0x14"
        "cld"
        "rep outsb"
        "outsb"
        "out 0x10, eax"
        "jmp 2b";

    /// Halts after each number.
    hlt:
        "2: inc dword ptr [bx]"
        "mov eax, [bx]"
        "out 0x10, eax"
        "hlt"
        "jmp 2b";

    /// Faults until the processor gives up.
    triple_fault:
        "inc dword ptr [bx]"
        "mov eax, [bx]"
        "out 0x10, eax"
        "lidt [0x4000]"
        "int3";

    /// Counts in the first word of every page range of the table as well; all must agree.
    table:
        "2: inc dword ptr [bx]"
        "mov eax, [bx]"
        "mov esi, 0x3000"
        "3: mov edi, [esi]"
        "test edi, edi"
        "jz 4f"
        "inc dword ptr [edi]"
        "cmp [edi], eax"
        "je 5f"
        "xchg eax, edi"
        "out 0x11, eax"
        "xchg eax, edi"
        "5: add esi, 4"
        "jmp 3b"
        "4: out 0x10, eax"
        "jmp 2b";

    /// Reads from read-only memory, and writes to it, which its VMM gets to see.
    rom:
        "2: inc dword ptr [bx]"
        "mov eax, [ecx]"
        "out 0x13, eax"
        "mov eax, [bx]"
        "mov [ecx], eax"
        "out 0x10, eax"
        "jmp 2b";

    /// Counts interrupts of vector 0x40, and says every 1024th. One that comes while interrupts are disabled is wrong;
    /// it says what it came upon.
    interrupts:
        "call 9f"
        "push bp"
        "mov bp, sp"
        "test word ptr [bp + 6], 0x200"
        "jnz 1f"
        "movzx eax, word ptr [bp + 2]"
        "out 0x11, eax"
        "1: inc dword ptr [bx]"
        "test dword ptr [bx], 0x3ff"
        "jnz 3f"
        "mov eax, [bx]"
        "out 0x10, eax"
        "3: mov esi, 0xfee000b0"
        "mov dword ptr [esi], 0"
        "pop bp"
        "iret"
        "9: pop word ptr [0x100]"
        "mov word ptr [0x102], 0"
        // The local APIC's spurious vector register: enabled.
        "mov esi, 0xfee000f0"
        "mov dword ptr [esi], 0x1ff"
        "2: mov cx, 100"
        "4: loop 4b"
        "sti"
        "mov cx, 10"
        "5: loop 5b"
        "cli"
        "jmp 2b";

    /// Drives the virtio-mmio device at `ecx` (virtio 1.3, section 4.2): four requests at a time, a
    /// kick for each, then it waits for all of them. Each is a number; the device answers with twice the
    /// number and one. At [`TABLE`]: descriptor table, available ring, used ring, buffers, driver
    /// features 0 to 31, twice after how many rounds it resets the device, and driver features 32 to 63. What it
    /// counts is rounds.
    requests:
        "call 9f"
        // The interrupt, at the address that the call leaves: the interrupt status is read and cleared,
        // then end of interrupt to the local APIC.
        "push esi"
        "push eax"
        "mov eax, [ecx + 0x60]"
        "mov [ecx + 0x64], eax"
        "pop eax"
        "mov esi, 0xfee000b0"
        "mov dword ptr [esi], 0"
        "pop esi"
        "iret"
        "9: pop word ptr [0x100]"
        "mov word ptr [0x102], 0"
        // The local APIC's spurious vector register: enabled.
        "mov esi, 0xfee000f0"
        "mov dword ptr [esi], 0x1ff"
        "mov eax, [ecx]"
        "mov eax, [ecx + 0x04]"
        "mov eax, [ecx + 0x08]"
        "8: mov dword ptr [ecx + 0x70], 0"
        "mov edi, [0x3004]"
        "mov dword ptr [edi], 0"
        "mov edi, [0x3008]"
        "mov dword ptr [edi], 0"
        "mov dword ptr [ecx + 0x70], 1"
        "mov dword ptr [ecx + 0x70], 3"
        "mov dword ptr [ecx + 0x14], 0"
        "mov eax, [ecx + 0x10]"
        "mov dword ptr [ecx + 0x14], 1"
        "mov eax, [ecx + 0x10]"
        // What it must not be shown: packed rings, in-order use, data with notifications, resets of single
        // queues, an administration queue.
        "and eax, 0x3cc"
        "jz 1f"
        "out 0x11, eax"
        "1:"
        "mov dword ptr [ecx + 0x24], 0"
        "mov eax, [0x3010]"
        "mov [ecx + 0x20], eax"
        "mov dword ptr [ecx + 0x24], 1"
        "mov eax, [0x301c]"
        "mov [ecx + 0x20], eax"
        "mov dword ptr [ecx + 0x70], 0xb"
        "mov eax, [ecx + 0x70]"
        "mov dword ptr [ecx + 0x30], 0"
        "mov eax, [ecx + 0x34]"
        "mov dword ptr [ecx + 0x38], 8"
        "mov eax, [0x3000]"
        "mov [ecx + 0x80], eax"
        "mov dword ptr [ecx + 0x84], 0"
        "mov eax, [0x3004]"
        "mov [ecx + 0x90], eax"
        "mov dword ptr [ecx + 0x94], 0"
        "mov eax, [0x3008]"
        "mov [ecx + 0xa0], eax"
        "mov dword ptr [ecx + 0xa4], 0"
        "mov dword ptr [ecx + 0x44], 1"
        "mov dword ptr [ecx + 0x70], 0xf"

        // A round. edx: which of the four.
        "2: xor edx, edx"
        "3: mov eax, [bx]"
        "shl eax, 2"
        "add eax, edx"
        "mov edi, edx"
        "shl edi, 4"
        "add edi, [0x300c]"
        "mov [edi], eax"
        "mov dword ptr [edi + 8], 0"
        // Descriptors 2 * edx and the one after it: the number, then room for the answer.
        "mov esi, edx"
        "shl esi, 5"
        "add esi, [0x3000]"
        "mov [esi], edi"
        "mov dword ptr [esi + 4], 0"
        "mov dword ptr [esi + 8], 4"
        "mov ebp, edx"
        "add ebp, ebp"
        "lea eax, [ebp + 1]"
        "shl eax, 16"
        "or eax, 1"
        "mov [esi + 12], eax"
        "add edi, 8"
        "mov [esi + 16], edi"
        "mov dword ptr [esi + 20], 0"
        "mov dword ptr [esi + 24], 4"
        "mov dword ptr [esi + 28], 2"
        "mov edi, [0x3004]"
        "movzx eax, word ptr [edi + 2]"
        "mov esi, eax"
        "and esi, 7"
        "mov [edi + esi * 2 + 4], bp"
        "inc ax"
        "mov [edi + 2], ax"
        "mov dword ptr [ecx + 0x50], 0"
        "inc edx"
        "cmp edx, 4"
        "jne 3b"

        // Until the device has used as many as were made available.
        "mov edi, [0x3008]"
        "4: cli"
        // With VIRTIO_F_EVENT_IDX: the next interrupt is wanted when all are used.
        "mov esi, [0x3004]"
        "dec ax"
        "mov [esi + 20], ax"
        "inc ax"
        "mfence"
        "cmp [edi + 2], ax"
        "je 5f"
        "sti"
        "hlt"
        "jmp 4b"

        // All four answers.
        "5: xor edx, edx"
        "6: mov eax, [bx]"
        "shl eax, 2"
        "add eax, edx"
        "lea eax, [eax * 2 + 1]"
        "mov edi, edx"
        "shl edi, 4"
        "add edi, [0x300c]"
        "sub eax, [edi + 8]"
        "jz 7f"
        "mov eax, [edi + 8]"
        "out 0x11, eax"
        "7: inc edx"
        "cmp edx, 4"
        "jne 6b"
        "inc dword ptr [bx]"
        "mov eax, [bx]"
        "out 0x10, eax"
        "dec dword ptr [0x3014]"
        "jnz 2b"
        "mov eax, [0x3018]"
        "mov [0x3014], eax"
        "jmp 8b";
}
