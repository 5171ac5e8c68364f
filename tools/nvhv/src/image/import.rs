// SPDX-License-Identifier: GPL-2.0

//! `nvhv import`
//!
//! Until the record is committed, at the end of the file, there is no image: an import that is interrupted
//! leaves nothing, and is begun anew.

use super::parts::{Fault, Reader, END};
use crate::cli::Import;
use crate::device::{refused, Device};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text;
use nix::errno::Errno;
use nvhv_pure::abi::RECORD;
use nvhv_pure::life::Name;
use std::fs::File;
use std::io::{stdin, BufReader, Read};
use std::path::Path;

/// Brings an image here from a file.
pub fn import(args: &Import) -> Result<(), Failure> {
    let from: Box<dyn Read> = if args.file == Path::new("-") {
        Box::new(stdin().lock())
    } else {
        let file = File::open(&args.file);
        Box::new(file.map_err(|error| bad(args, &Fault::Io(error)))?)
    };
    let device = Device::open()?;
    let mut reader = Reader::new(BufReader::new(from)).map_err(|fault| bad(args, &fault))?;
    let name = Name::new(args.name.as_bytes())
        .map_err(|_| Failure::Usage(format!("{}: not a VM's name", args.name)))?;
    let mut image = *reader.image();
    image.name = *name.field();
    image.uid = args.uid.unwrap_or(image.uid);
    device.import(&image).map_err(|error| match error {
        Errno::EPERM => Failure::Refused("only an administrator may import an image".into()),
        Errno::EINVAL => bad(args, &Fault::Bad("its head makes no sense here")),
        other => refused(&args.name, other),
    })?;
    let blocks = &image.block[..image.blocks as usize];
    let all = blocks.iter().map(|block| block.len).sum();
    let mut progress = Progress::new(&args.name, "importing");
    let mut record = None;
    loop {
        let part = reader.part().map_err(|fault| bad(args, &fault))?;
        match part.block {
            END => break,
            RECORD => record = Some(part.payload),
            number => {
                let before = blocks.iter().take(number as usize).map(|b| b.len);
                progress.tell(before.sum::<u64>() + part.offset, all);
                let written = device.write(number, part.offset, &part.payload);
                written.map_err(|error| failed(args, error))?;
            }
        }
    }
    drop(progress);
    reader.expect_end().map_err(|fault| bad(args, &fault))?;
    let record = record.ok_or_else(|| bad(args, &Fault::Bad("it has no record")))?;
    device
        .commit(&record)
        .map_err(|error| failed(args, error))?;
    println!(
        "{}: imported, {} of RAM, {} vCPUs",
        args.name,
        text::bytes(all),
        image.vcpus
    );
    Ok(())
}

fn bad(args: &Import, fault: &Fault) -> Failure {
    Failure::Refused(format!("{}: {fault}", args.file.display()))
}

/// What the module refuses once it has begun is the file's fault, or the device's.
fn failed(args: &Import, error: Errno) -> Failure {
    match error {
        Errno::EINVAL => bad(args, &Fault::Bad("its parts do not fit its head")),
        other => refused(&args.name, other),
    }
}
