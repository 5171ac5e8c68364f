// SPDX-License-Identifier: GPL-2.0

//! `nvhv dump`

use super::core::{self, Core, Cpu};
use super::kernel::Kernel;
use super::may_make;
use super::pages::{self, PAGE};
use crate::cli::Dump;
use crate::device::{refused, Device};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::select::select;
use crate::text;
use nix::errno::Errno;
use nvhv_pure::abi::{Image, ImageBlock, PIECE_MAX, RECORD};
use nvhv_pure::format::record::Record;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// Writes an image as an ELF core.
pub fn dump(args: &Dump) -> Result<(), Failure> {
    let device = Device::open()?;
    let held = device.hold(&select(&args.name)?);
    let image = held.map_err(|error| refused(&args.name, error))?;
    let shown = args.file.display();
    let failed = |error: io::Error| Failure::Refused(format!("{shown}: {error}"));
    may_make(&args.file, args.force)?;
    let cpus = registers(&device, &image, &args.name)?;
    if args.force {
        match fs::remove_file(&args.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    // It holds a guest's memory: nobody else's business.
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.file)
        .map_err(failed)?;
    let blocks = &image.block[..image.blocks as usize];
    let core = Core::new(blocks);
    let all = blocks.iter().map(|block| block.len).sum();
    let mut progress = Progress::new(&args.name, "dumping");
    let (mut piece, mut done, mut lost) = (vec![0; PIECE_MAX as usize], 0, 0);
    let mut kernel = None;
    for (number, block) in (0..).zip(blocks) {
        let mut offset = 0;
        while offset < block.len {
            let len = PIECE_MAX.min(block.len - offset);
            progress.tell(done, all);
            let bytes = &mut piece[..len as usize];
            lost +=
                read(&device, number, offset, bytes).map_err(|error| refused(&args.name, error))?;
            kernel = kernel.or_else(|| bytes.chunks(PAGE).find_map(Kernel::in_page));
            for run in pages::used(bytes) {
                let at = core.place(number) + offset + run.start as u64;
                file.write_all_at(&bytes[run], at).map_err(failed)?;
            }
            offset += len;
            done += len;
        }
    }
    drop(progress);
    if let Some(kernel) = &mut kernel {
        let direct = kernel.asks().and_then(|gpa| word(&device, blocks, gpa));
        direct
            .into_iter()
            .for_each(|direct| kernel.answered(direct));
    }
    let head = core.head(&cpus, kernel.as_ref());
    file.write_all_at(&head, 0).map_err(failed)?;
    file.set_len(core.len()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    println!(
        "{}: dumped, {} of RAM, {} vCPUs",
        args.name,
        text::bytes(all),
        image.vcpus
    );
    if cpus.is_empty() {
        eprintln!("{}: it is torn: there are no registers", args.name);
    }
    if kernel.is_none() {
        eprintln!(
            "{}: there is no VMCOREINFO in its memory: tools have to be told of its kernel",
            args.name
        );
    }
    if lost > 0 {
        eprintln!("{}: {lost} pages cannot be read, and are zero", args.name);
    }
    Ok(())
}

/// The registers of its vCPUs, if it is sealed.
fn registers(device: &Device, image: &Image, name: &str) -> Result<Vec<Cpu>, Failure> {
    if image.record_bytes == 0 {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; image.record_bytes as usize];
    let read = device.read(RECORD, 0, &mut bytes);
    read.map_err(|error| refused(name, error))?;
    let record = Record::parse(&bytes, crc32c::crc32c_append)
        .map_err(|why| Failure::Refused(format!("{name}: {why}")))?;
    Ok(core::cpus(&record))
}

/// Reads a piece, page by page if some of it is bad. Returns how many are.
fn read(device: &Device, block: u32, offset: u64, to: &mut [u8]) -> Result<u64, Errno> {
    match device.read(block, offset, to) {
        Err(Errno::EIO) => {}
        done => return done.map(|()| 0),
    }
    let mut lost = 0;
    for (page, at) in to.chunks_mut(PAGE).zip((offset..).step_by(PAGE)) {
        match device.read(block, at, page) {
            Err(Errno::EIO) => {
                page.fill(0);
                lost += 1;
            }
            done => done?,
        }
    }
    Ok(lost)
}

/// Eight bytes of RAM, if there are.
fn word(device: &Device, blocks: &[ImageBlock], gpa: u64) -> Option<u64> {
    let mut word = [0; 8];
    (0..).zip(blocks).find_map(|(number, block)| {
        let offset = gpa.checked_sub(block.gpa)?;
        device.read(number, offset, &mut word).ok()?;
        Some(u64::from_le_bytes(word))
    })
}
