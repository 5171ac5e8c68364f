// SPDX-License-Identifier: GPL-2.0

//! `nvhv export`
//!
//! The image is held meanwhile, so it stays what it is; and what has been written of it is as good later as
//! it is now. An export that was interrupted therefore goes on where its file ends.

use super::parts::{Mark, Reader, Writer, END, MAGIC};
use super::{may_make, pages};
use crate::cli::Export;
use crate::device::{refused, Device};
use crate::failure::Failure;
use crate::launch::Store;
use crate::progress::Progress;
use crate::select::select;
use crate::text;
use nix::errno::Errno;
use nix::fcntl::{renameat2, Flock, FlockArg, RenameFlags, AT_FDCWD};
use nix::libc;
use nix::sys::statfs::{fstatfs, FsType, TMPFS_MAGIC};
use nix::unistd::geteuid;
use nvhv_pure::abi::{vm_flag, vm_state, Image, PIECE_MAX, RECORD};
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, stdout, BufReader, BufWriter, IsTerminal, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Copies a sealed image into a file.
pub fn export(args: &Export) -> Result<(), Failure> {
    let to_pipe = args.file == Path::new("-");
    if to_pipe && args.discard {
        return Err(Failure::Usage(
            "a pipe does not say that its other end has all of it: 'nvhv discard' it when it has"
                .into(),
        ));
    }
    let device = Device::open()?;
    let image = device
        .hold(&select(&args.name)?)
        .map_err(|error| refused(&args.name, error))?;
    if let Some(why) = unfit(&image) {
        return Err(Failure::Refused(format!("{}: {why}", args.name)));
    }
    let source = Source::new(&device, image, &args.name)?;
    if to_pipe {
        write_pipe(&source)?;
    } else {
        write_file(&source, &args.file, args.force, args.discard)?;
    }
    if args.discard {
        device.give_up().map_err(|error| {
            let why = format!("{}: it was exported, but not given up", args.name);
            refused(&why, error)
        })?;
        // There may be no record of how it was started.
        let _ = Store::of(image.uid).remove(&source.name);
    }
    Ok(())
}

/// Why an image cannot be exported.
fn unfit(image: &Image) -> Option<&'static str> {
    if image.state != vm_state::SEALED {
        return Some("it is torn: nobody could resume it. 'nvhv dump' writes a core to look into");
    }
    if image.flags & vm_flag::UNSAVED != 0 {
        return Some("the platform did not save it: nobody could resume it. 'nvhv dump' writes a core to look into");
    }
    (image.flags & vm_flag::ASIDE != 0).then_some(
        "it was set aside: nobody could resume it. 'nvhv dump' writes a core to look into",
    )
}

/// What is exported.
struct Source<'a> {
    device: &'a Device,
    image: Image,
    name: String,
    record: Vec<u8>,
}

/// Where in an image an export is: a block, and a byte in it.
type Place = (u32, u64);

impl<'a> Source<'a> {
    fn new(device: &'a Device, image: Image, asked: &str) -> Result<Self, Failure> {
        let mut record = vec![0; image.record_bytes as usize];
        let read = device.read(RECORD, 0, &mut record);
        read.map_err(|error| refused(asked, error))?;
        Ok(Source {
            device,
            image,
            name: text::field(&image.name),
            record,
        })
    }

    /// Writes the record, unless it is there, and all RAM from `from` on.
    fn write<W: Write>(&self, writer: &mut Writer<W>, from: Option<Place>) -> Result<(), Failure> {
        let written = |done: io::Result<()>| {
            done.map_err(|error| Failure::Refused(format!("{}: {error}", self.name)))
        };
        if from.is_none() {
            written(writer.part(RECORD, 0, &self.record))?;
        }
        let from = from.unwrap_or((0, 0));
        let blocks = &self.image.block[..self.image.blocks as usize];
        let all = blocks.iter().map(|block| block.len).sum();
        let mut progress = Progress::new(&self.name, "exporting");
        let (mut piece, mut done) = (vec![0; PIECE_MAX as usize], 0);
        for (number, block) in (0..).zip(blocks) {
            let mut offset = 0;
            while offset < block.len {
                let len = PIECE_MAX.min(block.len - offset);
                progress.tell(done, all);
                done += len;
                if (number, offset + len) > from {
                    let bytes = &mut piece[..len as usize];
                    let read = self.device.read(number, offset, bytes);
                    read.map_err(|error| refused(&self.name, error))?;
                    // Bytes of this piece that the file has already.
                    let have = if number == from.0 {
                        from.1.saturating_sub(offset).min(len) as usize
                    } else {
                        0
                    };
                    for run in pages::used(&bytes[have..]) {
                        let run = run.start + have..run.end + have;
                        let at = offset + run.start as u64;
                        written(writer.part(number, at, &bytes[run]))?;
                    }
                }
                offset += len;
            }
        }
        Ok(())
    }

    /// How far an export of just this image has come that a file holds, and where the file's good part ends.
    fn done_in(&self, file: &File) -> Option<(Place, Mark)> {
        let mut reader = Reader::new(BufReader::new(file)).ok()?;
        let record = reader.part().ok()?;
        // No two records of a VM are the same: with this one, all else of it is this image's.
        if !reader.is_of(&self.image) || record.payload != self.record {
            return None;
        }
        let mut done = ((0, 0), reader.mark());
        while let Ok(part) = reader.part() {
            if part.block == END {
                break;
            }
            let end = part.offset + part.payload.len() as u64;
            done = ((part.block, end), reader.mark());
        }
        Some(done)
    }
}

fn write_pipe(source: &Source) -> Result<(), Failure> {
    let failed = |error| Failure::Refused(format!("standard output: {error}"));
    if stdout().is_terminal() {
        return Err(Failure::Usage(
            "standard output is a terminal: name a file, or redirect it".into(),
        ));
    }
    let mut writer = Writer::new(BufWriter::new(stdout().lock()), &source.image).map_err(failed)?;
    source.write(&mut writer, None)?;
    writer.end().map(drop).map_err(failed)
}

/// Makes the file. If the image `moves` there, it must be where it outlives this host.
fn write_file(source: &Source, path: &Path, force: bool, moves: bool) -> Result<(), Failure> {
    let shown = path.display();
    let failed = |error: io::Error| Failure::Refused(format!("{shown}: {error}"));
    may_make(path, force)?;
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let directory = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    if moves && is_in_memory(&directory).map_err(failed)? {
        return Err(Failure::Refused(format!(
            "{shown}: that is in memory, where it is lost with the host: with --discard, name a file on a disk"
        )));
    }
    let part = beside(path);
    let file = open_part(&part)?;
    let mut out: &File = &file;
    let writer = match source.done_in(&file) {
        Some((place, mark)) => {
            let end = mark.read;
            file.set_len(end).map_err(failed)?;
            out.seek(SeekFrom::Start(end)).map_err(failed)?;
            eprintln!("{shown}: going on after {}", text::bytes(end));
            let mut writer = Writer::after(BufWriter::new(out), mark);
            source.write(&mut writer, Some(place))?;
            writer
        }
        None => {
            file.set_len(0).map_err(failed)?;
            out.rewind().map_err(failed)?;
            let mut writer = Writer::new(BufWriter::new(out), &source.image).map_err(failed)?;
            source.write(&mut writer, None)?;
            writer
        }
    };
    writer.end().map_err(failed)?;
    if let Err(error) = file.sync_all() {
        // What was not written is still to be read, and the kernel takes it for written from now on.
        let _ = file.set_len(0);
        return Err(failed(error));
    }
    put(&part, path, force).map_err(failed)?;
    directory.sync_all().map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    println!("{}: exported, {}", source.name, text::bytes(len));
    Ok(())
}

/// Opens what is being made, alone. What is there already must be what an export has left, and this user's: it holds
/// a guest's memory, which is nobody else's business.
fn open_part(part: &Path) -> Result<Flock<File>, Failure> {
    let refused = |why: &dyn Display| Failure::Refused(format!("{}: {why}", part.display()));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(part)
        .map_err(|error| refused(&error))?;
    let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| refused(&format!("somebody writes it: {errno}")))?;
    let about = file.metadata().map_err(|error| refused(&error))?;
    let named = part.symlink_metadata().map_err(|error| refused(&error))?;
    if (about.dev(), about.ino()) != (named.dev(), named.ino()) {
        return Err(refused(&"somebody has just finished it: try again"));
    }
    let alone = about.uid() == geteuid().as_raw() && about.mode() & 0o077 == 0;
    let mut head = [0; 8];
    let is_ours = about.len() == 0 || file.read_exact_at(&mut head, 0).is_ok() && head == MAGIC;
    if !about.is_file() || !is_ours {
        return Err(refused(
            &"it was not left by an export of this user: remove it",
        ));
    }
    if !alone {
        return Err(refused(
            &"it is not this user's alone: remove it, or name a file system that keeps owners and modes",
        ));
    }
    Ok(file)
}

/// Gives a file that is whole its name, which is nobody's unless somebody may be replaced.
fn put(part: &Path, path: &Path, force: bool) -> io::Result<()> {
    if force {
        return fs::rename(part, path);
    }
    match renameat2(
        AT_FDCWD,
        part,
        AT_FDCWD,
        path,
        RenameFlags::RENAME_NOREPLACE,
    ) {
        // Not every file system can: NFS cannot.
        Err(Errno::EINVAL) if path.symlink_metadata().is_err() => fs::rename(part, path),
        done => Ok(done?),
    }
}

/// Whether what is in a directory is in memory only. Where devices are, it is, too.
fn is_in_memory(directory: &File) -> io::Result<bool> {
    let kind = fstatfs(directory)?.filesystem_type();
    Ok([TMPFS_MAGIC, RAMFS_MAGIC].contains(&kind))
}

/// `linux/magic.h`; nix does not know it.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Where a file is made.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
