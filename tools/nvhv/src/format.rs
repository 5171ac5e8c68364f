// SPDX-License-Identifier: GPL-2.0

//! `nvhv format`

use crate::cli::Format;
use crate::dax::Mapped;
use crate::device::Device;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text;
use nvhv_pure::format::{
    Allocator, EntryState, HeaderView, Pool, Refusal, HEADER_LEN, SUPERBLOCK_LEN,
};
use std::time::SystemTime;
use uuid::Uuid;

/// Makes an empty pool.
pub fn format(args: &Format) -> Result<(), Failure> {
    let name = args.device.display();
    let refused = |why: &dyn std::fmt::Display| Failure::Refused(format!("{name}: {why}"));
    if let Ok(info) = Device::open().and_then(|device| device.info()) {
        let held = text::field(&info.device);
        if args.device.file_name().is_some_and(|name| *name == *held) {
            return Err(refused(
                &"the module holds it: unload the module first ('rmmod nvhv')",
            ));
        }
    }
    let media = Mapped::open(&args.device).map_err(|error| refused(&error))?;
    if !args.force {
        match Pool::open(&media, &mut [0; SUPERBLOCK_LEN]) {
            Err(Refusal::NotAPool) => {}
            Err(why) => {
                let why = format!("it seems to hold a pool ({why}); --force destroys it");
                return Err(refused(&why));
            }
            Ok(pool) => {
                let lost = lost(&pool).map_err(|why| refused(&why))?;
                return Err(refused(&format!(
                    "it holds a pool {lost}; --force destroys it"
                )));
            }
        }
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |time| time.as_nanos() as u64);
    let uuid = Uuid::new_v4();
    let mut progress = Progress::new(&name, "zeroing");
    let page = &mut [0; SUPERBLOCK_LEN];
    let made = Pool::format(
        &media,
        args.vm_slots,
        uuid.into_bytes(),
        now,
        page,
        &mut |done, all| progress.tell(done, all),
    );
    drop(progress);
    let made = made.map_err(|why| refused(&why))?;
    println!(
        "{name}: pool {uuid}, {} for up to {} VMs",
        text::bytes(u64::from(made.data_granules()) * nvhv_pure::format::GRANULE),
        made.slots()
    );
    Ok(())
}

/// What a pool holds, in words.
fn lost(pool: &Pool<&Mapped>) -> Result<String, Refusal> {
    let bits = vec![0; Allocator::<Vec<u64>>::words(pool.geometry())];
    let mut buf = vec![0; HEADER_LEN];
    let alloc = pool.survey(bits, &mut buf)?;
    let about = |header: HeaderView<'_>, state: &str| {
        format!(
            "{} ({state}, {})",
            header.name(),
            text::bytes(header.ram_bytes())
        )
    };
    let mut lost = Vec::new();
    for slot in 0..pool.geometry().slots() {
        lost.push(match pool.load(slot, &alloc, &mut buf)? {
            EntryState::Empty | EntryState::Discarding { .. } | EntryState::Wiped { .. } => {
                continue
            }
            EntryState::Live { header, .. } => about(header, "torn"),
            EntryState::Sealed { header, .. } => about(header, "sealed"),
            EntryState::Damaged {
                header: Some(header),
                ..
            } => about(header, "damaged"),
            EntryState::Damaged { header: None, .. } => format!("#{slot} (damaged)"),
        });
    }
    Ok(match lost.len() {
        0 => "without VMs".into(),
        1 => format!("with the VM {}", lost[0]),
        n => format!("with {n} VMs: {}", lost.join(", ")),
    })
}
