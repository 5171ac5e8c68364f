// SPDX-License-Identifier: GPL-2.0

//! `nvhv grow`

use crate::cli::Grow;
use crate::dax::Mapped;
use crate::device::not_held;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text;
use nvhv_pure::format::{Pool, GRANULE, SUPERBLOCK_LEN};
use uuid::Uuid;

/// Lets a pool have what its device has become longer by.
pub fn grow(args: &Grow) -> Result<(), Failure> {
    let name = args.device.display().to_string();
    let refused = |why: &dyn std::fmt::Display| Failure::Refused(format!("{name}: {why}"));
    not_held(&args.device)?;
    let media = Mapped::open_sparing_bad(&args.device).map_err(|error| refused(&error))?;
    let page = &mut [0; SUPERBLOCK_LEN];
    let mut pool = Pool::open(&media, page).map_err(|why| refused(&why))?;
    let mut progress = Progress::new(&name, "zeroing");
    let gained = pool.grow(page, &mut |done, all| progress.tell(done, all));
    drop(progress);
    let gained = gained.map_err(|why| refused(&why))?;
    let granules = |count: u32| text::bytes(u64::from(count) * GRANULE);
    let geometry = pool.geometry();
    println!(
        "{name}: pool {}, {} for up to {} VMs: {}",
        Uuid::from_bytes(*geometry.uuid()),
        granules(geometry.data_granules()),
        geometry.slots(),
        match gained {
            0 => "that is all of the device".into(),
            gained => format!("{} more", granules(gained)),
        }
    );
    Ok(())
}
