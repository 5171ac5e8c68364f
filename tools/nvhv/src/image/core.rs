// SPDX-License-Identifier: GPL-2.0

//! An ELF core of a guest: its RAM by guest physical addresses, its vCPUs' registers, and, for drgn and
//! crash, what its kernel says of itself.
//!
//! As kdump's vmcore has it: one PT_LOAD for each block of RAM with its physical address, an NT_PRSTATUS
//! note for each vCPU, and the note VMCOREINFO, which a Linux guest keeps ready in a page of its own
//! (`Documentation/admin-guide/kdump/vmcoreinfo.rst`).

use nvhv_pure::abi::ImageBlock;
use nvhv_pure::format::record::Record;
use nvhv_pure::state::kvm_abi::{SET_REGS, SET_SREGS, SET_SREGS2};
use object::elf::{
    FileHeader64, Ident, NoteHeader64, ProgramHeader64, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64,
    ET_CORE, EV_CURRENT, NT_PRSTATUS, PT_LOAD, PT_NOTE,
};
use object::pod::bytes_of;
use object::{LittleEndian, U16, U32, U64};

/// Room for headers and notes before the RAM: as many as there can be of blocks and vCPUs.
const ROOM: u64 = 4 << 20;

/// Bytes in a `struct elf_prstatus` (`include/linux/elfcore.h`) of x86-64.
const PRSTATUS_LEN: usize = 336;
/// Where its registers are.
const PR_REG: usize = 112;
/// Where its pid is; ours is the vCPU.
const PR_PID: usize = 32;

/// First bytes of the page that is a VMCOREINFO note: its name.
const KERNEL_NOTE: &[u8] = b"VMCOREINFO\0";
/// First bytes of what it says.
const KERNEL_SAYS: &[u8] = b"OSRELEASE=";
/// Bytes of the head of a note.
const NOTE_HEAD: usize = 12;

/// The registers of a vCPU, in the order of `struct user_regs_struct`.
#[derive(Debug, PartialEq, Eq)]
pub struct Cpu {
    number: u32,
    registers: [u64; 27],
}

/// The registers of all vCPUs in a record.
pub fn cpus(record: &Record<'_>) -> Vec<Cpu> {
    let all = record.items().filter(|item| item.kind == SET_REGS);
    all.map(|item| {
        let special = record
            .vcpu(item.vcpu)
            .find(SET_SREGS2)
            .or_else(|| record.vcpu(item.vcpu).find(SET_SREGS));
        let special = special.map_or(&[][..], |item| item.payload);
        Cpu {
            number: item.vcpu,
            registers: user_registers(item.payload, special),
        }
    })
    .collect()
}

/// From `struct kvm_regs` and `struct kvm_sregs`.
fn user_registers(general: &[u8], special: &[u8]) -> [u64; 27] {
    let word = |bytes: &[u8], at: usize| {
        let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
        found.map_or(0, |word| u64::from_le_bytes(*word))
    };
    let reg = |n: usize| word(general, n * 8);
    // `struct kvm_segment`: base (8), limit (4), selector (2), and more; 24 in all. CS, DS, ES, FS, GS, SS.
    let selector = |n: usize| word(special, n * 24 + 12) & 0xffff;
    let base = |n: usize| word(special, n * 24);
    let [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp] = [0, 1, 2, 3, 4, 5, 6, 7].map(reg);
    let [r8, r9, r10, r11, r12, r13, r14, r15] = [8, 9, 10, 11, 12, 13, 14, 15].map(reg);
    let [rip, flags] = [16, 17].map(reg);
    let [cs, ds, es, fs, gs, ss] = [0, 1, 2, 3, 4, 5].map(selector);
    // No system call is under way that a debugger could start again.
    let orig_rax = u64::MAX;
    [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        orig_rax,
        rip,
        cs,
        flags,
        rsp,
        ss,
        base(3),
        base(4),
        ds,
        es,
        fs,
        gs,
    ]
}

/// The VMCOREINFO note that a page of the guest is, if it is one.
pub fn kernel_note(page: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| {
        let found = page.get(at..).and_then(|rest| rest.first_chunk());
        found.map(|word| u32::from_le_bytes(*word) as usize)
    };
    let (name_len, text_len) = (number(0)?, number(4)?);
    let text_at = NOTE_HEAD + name_len.next_multiple_of(4);
    let is_note = name_len == KERNEL_NOTE.len() && page.get(NOTE_HEAD..)?.starts_with(KERNEL_NOTE);
    let says = page.get(text_at..)?.starts_with(KERNEL_SAYS);
    let end = text_at.checked_add(text_len.next_multiple_of(4))?;
    page.get(..end).filter(|_| is_note && says)
}

/// Where things are in a core.
pub struct Core<'a> {
    blocks: &'a [ImageBlock],
}

impl<'a> Core<'a> {
    /// Of these blocks of RAM.
    pub fn new(blocks: &'a [ImageBlock]) -> Self {
        Core { blocks }
    }

    /// Where a block is in the file.
    pub fn place(&self, block: u32) -> u64 {
        let before = self.blocks.iter().take(block as usize);
        ROOM + before.map(|block| block.len).sum::<u64>()
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.place(u32::MAX)
    }

    /// Headers and notes. `kernel` is a VMCOREINFO note.
    pub fn head(&self, cpus: &[Cpu], kernel: Option<&[u8]>) -> Vec<u8> {
        let mut notes = Vec::new();
        for cpu in cpus {
            note(&mut notes, NT_PRSTATUS, &status(cpu));
        }
        notes.extend_from_slice(kernel.unwrap_or(&[]));
        let header = size_of::<FileHeader64<LittleEndian>>();
        let table = (1 + self.blocks.len()) * size_of::<ProgramHeader64<LittleEndian>>();
        let notes_at = (header + table) as u64;
        let mut head = bytes_of(&file_header(1 + self.blocks.len())).to_vec();
        head.extend_from_slice(bytes_of(&program(PT_NOTE, notes_at, 0, notes.len() as u64)));
        for (number, block) in (0..).zip(self.blocks) {
            let load = program(PT_LOAD, self.place(number), block.gpa, block.len);
            head.extend_from_slice(bytes_of(&load));
        }
        head.extend_from_slice(&notes);
        debug_assert!(head.len() as u64 <= ROOM);
        head
    }
}

fn file_header(programs: usize) -> FileHeader64<LittleEndian> {
    let le = LittleEndian;
    FileHeader64 {
        e_ident: Ident {
            magic: ELFMAG,
            class: ELFCLASS64,
            data: ELFDATA2LSB,
            version: EV_CURRENT,
            os_abi: 0,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(le, ET_CORE),
        e_machine: U16::new(le, EM_X86_64),
        e_version: U32::new(le, EV_CURRENT.into()),
        e_entry: U64::new(le, 0),
        e_phoff: U64::new(le, size_of::<FileHeader64<LittleEndian>>() as u64),
        e_shoff: U64::new(le, 0),
        e_flags: U32::new(le, 0),
        e_ehsize: U16::new(le, size_of::<FileHeader64<LittleEndian>>() as u16),
        e_phentsize: U16::new(le, size_of::<ProgramHeader64<LittleEndian>>() as u16),
        // At most 65.
        e_phnum: U16::new(le, programs as u16),
        e_shentsize: U16::new(le, 0),
        e_shnum: U16::new(le, 0),
        e_shstrndx: U16::new(le, 0),
    }
}

fn program(kind: u32, offset: u64, gpa: u64, len: u64) -> ProgramHeader64<LittleEndian> {
    let le = LittleEndian;
    ProgramHeader64 {
        p_type: U32::new(le, kind),
        p_flags: U32::new(le, 0),
        p_offset: U64::new(le, offset),
        p_vaddr: U64::new(le, 0),
        p_paddr: U64::new(le, gpa),
        p_filesz: U64::new(le, len),
        p_memsz: U64::new(le, len),
        p_align: U64::new(le, 0),
    }
}

/// A `struct elf_prstatus`.
fn status(cpu: &Cpu) -> [u8; PRSTATUS_LEN] {
    let mut status = [0; PRSTATUS_LEN];
    // No process is 0, which tools take for "none".
    let pid = cpu.number.saturating_add(1);
    status[PR_PID..PR_PID + 4].copy_from_slice(&pid.to_le_bytes());
    let places = status[PR_REG..].chunks_exact_mut(8);
    for (place, register) in places.zip(cpu.registers) {
        place.copy_from_slice(&register.to_le_bytes());
    }
    status
}

fn note(notes: &mut Vec<u8>, kind: u32, content: &[u8]) {
    let le = LittleEndian;
    let name = b"CORE\0\0\0\0";
    notes.extend_from_slice(bytes_of(&NoteHeader64 {
        n_namesz: U32::new(le, 5),
        n_descsz: U32::new(le, content.len() as u32),
        n_type: U32::new(le, kind),
    }));
    notes.extend_from_slice(name);
    notes.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};

    #[test]
    fn is_a_core() {
        let blocks = [(0, 4096), (1 << 32, 8192)];
        let blocks = blocks.map(|(gpa, len)| ImageBlock { gpa, len, flags: 0 });
        let core = Core::new(&blocks);
        let mut general = [0; 144];
        general[16 * 8] = 0x42;
        let cpu = Cpu {
            number: 3,
            registers: user_registers(&general, &[]),
        };
        let mut file = core.head(&[cpu], None);
        file.resize(core.len() as usize, 0);
        let elf = ElfFile64::<LittleEndian>::parse(&*file).expect("an ELF file");
        let (le, header) = (LittleEndian, elf.elf_header());
        assert_eq!(header.e_type(le), ET_CORE);
        let programs = header.program_headers(le, &*file).expect("programs");
        let loads: Vec<_> = programs
            .iter()
            .filter(|program| program.p_type(le) == PT_LOAD)
            .map(|program| (program.p_paddr(le), program.p_filesz(le)))
            .collect();
        assert_eq!(loads, [(0, 4096), (1 << 32, 8192)]);
        let mut notes = programs[0]
            .notes(le, &*file)
            .expect("reads")
            .expect("notes");
        let note = notes.next().expect("reads").expect("a note");
        assert_eq!(note.name(), b"CORE");
        let (pid, rip) = (note.desc()[PR_PID], note.desc()[PR_REG + 16 * 8]);
        assert_eq!((pid, rip, note.desc().len()), (4, 0x42, PRSTATUS_LEN));
        assert!(notes.next().expect("reads").is_none());
    }

    #[test]
    fn finds_what_a_kernel_says() {
        let mut page = vec![0; 4096];
        assert_eq!(kernel_note(&page), None);
        page[0] = 11;
        page[4] = 14;
        page[12..23].copy_from_slice(b"VMCOREINFO\0");
        assert_eq!(kernel_note(&page), None);
        page[24..38].copy_from_slice(b"OSRELEASE=7.3\n");
        assert_eq!(kernel_note(&page).map(<[u8]>::len), Some(40));
        page[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(kernel_note(&page), None);
    }
}
