// SPDX-License-Identifier: GPL-2.0

//! An ELF core of a guest: its RAM by guest physical addresses, its vCPUs' registers, and, for drgn and
//! crash, what its kernel says of itself.
//!
//! As kdump's vmcore has it: one PT_LOAD for each block of RAM, with its physical address and, where it is
//! known, the one at which the guest's kernel has it mapped; one more for what is kernel of it; an NT_PRSTATUS
//! note for each vCPU; and the guest kernel's own note.

use super::kernel::Kernel;
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

/// As many vCPUs as KVM allows; a record that came from elsewhere may say anything.
const CPUS_MAX: usize = 4096;

/// Bytes in a `struct elf_prstatus` (`include/linux/elfcore.h`) of x86-64.
const PRSTATUS_LEN: usize = 336;
/// Where its registers are.
const PR_REG: usize = 112;
/// Where its pid is; ours is the vCPU.
const PR_PID: usize = 32;

/// The registers of a vCPU, in the order of `struct user_regs_struct`.
#[derive(Debug, PartialEq, Eq)]
pub struct Cpu {
    number: u32,
    registers: [u64; 27],
}

/// The registers of all vCPUs in a record.
pub fn cpus(record: &Record<'_>) -> Vec<Cpu> {
    let all = record.items().filter(|item| item.kind == SET_REGS);
    all.take(CPUS_MAX)
        .map(|item| {
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

/// A part of the file that is memory, or notes.
#[derive(Default)]
struct Segment {
    /// Where it is in the file.
    at: u64,
    /// Where the guest's kernel has it, or 0.
    address: u64,
    gpa: u64,
    len: u64,
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

    /// Headers and notes.
    pub fn head(&self, cpus: &[Cpu], kernel: Option<&Kernel>) -> Vec<u8> {
        let mut notes = Vec::new();
        for cpu in cpus {
            note(&mut notes, NT_PRSTATUS, &status(cpu));
        }
        notes.extend_from_slice(kernel.map_or(&[], Kernel::note));
        let loads = self.loads(kernel);
        let header = size_of::<FileHeader64<LittleEndian>>();
        let table = (1 + loads.len()) * size_of::<ProgramHeader64<LittleEndian>>();
        let said = Segment {
            at: (header + table) as u64,
            len: notes.len() as u64,
            ..Segment::default()
        };
        let mut head = bytes_of(&file_header(1 + loads.len())).to_vec();
        head.extend_from_slice(bytes_of(&program(PT_NOTE, &said)));
        for load in &loads {
            head.extend_from_slice(bytes_of(&program(PT_LOAD, load)));
        }
        head.extend_from_slice(&notes);
        debug_assert!(head.len() as u64 <= ROOM);
        head
    }

    /// All RAM, and once more what of it is kernel.
    fn loads(&self, kernel: Option<&Kernel>) -> Vec<Segment> {
        let mut loads = Vec::new();
        for (number, block) in (0..).zip(self.blocks) {
            let ram = Segment {
                at: self.place(number),
                address: kernel.map_or(0, |kernel| kernel.mapped_at(block.gpa)),
                gpa: block.gpa,
                len: block.len,
            };
            let image = kernel.and_then(|kernel| kernel.image_in(block.gpa, block.len));
            loads.extend(image.map(|image| Segment {
                at: ram.at + (image.gpa - block.gpa),
                address: image.address,
                gpa: image.gpa,
                len: image.len,
            }));
            loads.push(ram);
        }
        loads
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
        // At most 129.
        e_phnum: U16::new(le, programs as u16),
        e_shentsize: U16::new(le, 0),
        e_shnum: U16::new(le, 0),
        e_shstrndx: U16::new(le, 0),
    }
}

fn program(kind: u32, segment: &Segment) -> ProgramHeader64<LittleEndian> {
    let le = LittleEndian;
    ProgramHeader64 {
        p_type: U32::new(le, kind),
        p_flags: U32::new(le, 0),
        p_offset: U64::new(le, segment.at),
        p_vaddr: U64::new(le, segment.address),
        p_paddr: U64::new(le, segment.gpa),
        p_filesz: U64::new(le, segment.len),
        p_memsz: U64::new(le, segment.len),
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
}
