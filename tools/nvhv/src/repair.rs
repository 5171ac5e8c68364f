// SPDX-License-Identifier: GPL-2.0

//! `nvhv repair`: what can be mended of a pool without a guess, and what is lost with the rest.

use crate::cli::Repair;
use crate::dax::Mapped;
use crate::device::not_held;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text;
use crate::vm::user;
use nvhv_pure::format::{
    Allocator, EntryState, HeaderView, Pool, Refusal, GRANULE, HEADER_LEN, SUPERBLOCK_LEN,
};

type Alloc = Allocator<Vec<u64>>;

/// How much of free memory is looked at in one go.
const CHUNK: usize = 64 << 10;

/// Mends what can be mended, and says what cannot.
pub fn repair(args: &Repair) -> Result<(), Failure> {
    let name = args.device.display().to_string();
    let refused = |why: &dyn std::fmt::Display| Failure::Refused(format!("{name}: {why}"));
    not_held(&args.device)?;
    let media = Mapped::open_sparing_bad(&args.device).map_err(|error| refused(&error))?;
    let pool = Pool::open(&media, &mut [0; SUPERBLOCK_LEN]).map_err(|why| refused(&why))?;
    match mend(&name, pool, args.force).map_err(|why| refused(&why))? {
        0 => Ok(()),
        left => Err(refused(&format!(
            "{left} damaged images were left alone: --force discards them"
        ))),
    }
}

/// Mends a pool; says how many damaged entries it still has.
fn mend(name: &str, mut pool: Pool<&Mapped>, force: bool) -> Result<usize, Refusal> {
    let mut buf = vec![0; HEADER_LEN];
    if pool.heal(&mut [0; SUPERBLOCK_LEN])? {
        println!("{name}: one of two superblocks was damaged, or not grown yet: rewritten");
    }
    let mut alloc = survey(&pool, &mut buf)?;
    let tidied = pool.tidy(&mut alloc, &mut buf)?;
    if tidied > 0 {
        println!("{name}: {tidied} interrupted discards were finished");
    }
    for slot in 0..pool.geometry().slots() {
        let Some(damage) = damage(&pool, slot, &alloc, &mut buf)? else {
            continue;
        };
        println!("{name}: slot {slot}: {damage}");
        if force {
            let bits = pool.discard_damaged(slot, alloc, &mut buf)?;
            alloc = reserve_bad(&pool, pool.survey(bits, &mut buf)?);
            println!("{name}: slot {slot}: discarded");
        }
    }
    let mut left = 0;
    for slot in 0..pool.geometry().slots() {
        left += usize::from(damage(&pool, slot, &alloc, &mut buf)?.is_some());
    }
    if alloc.suspect().is_some() {
        println!("{name}: free memory was not looked at: it may be a damaged image's");
        return Ok(left);
    }
    let mut progress = Progress::new(&name, "looking at");
    let looking = &mut |done, all| progress.tell(done, all);
    let found = pool.scrub(&alloc, &mut vec![0; CHUNK], looking);
    drop(progress);
    let found = found?;
    if found > 0 {
        println!("{name}: {found} free granules of 2 MiB were not zero: zeroed");
    }
    let bad = bad_granules(&pool).count();
    if bad > 0 {
        println!(
            "{name}: {bad} granules of 2 MiB have bad blocks: see 'ndctl list --media-errors'"
        );
    }
    if left == 0 {
        let free = u64::from(alloc.free_granules()) * GRANULE;
        println!("{name}: the pool is sound, {} are free", text::bytes(free));
    }
    Ok(left)
}

fn survey(pool: &Pool<&Mapped>, buf: &mut [u8]) -> Result<Alloc, Refusal> {
    let bits = vec![0; Alloc::words(pool.geometry())];
    Ok(reserve_bad(pool, pool.survey(bits, buf)?))
}

/// What is bad is nobody's, and not looked at.
fn reserve_bad(pool: &Pool<&Mapped>, mut alloc: Alloc) -> Alloc {
    bad_granules(pool).for_each(|granule| alloc.reserve(granule));
    alloc
}

fn bad_granules<'a>(pool: &Pool<&'a Mapped>) -> impl Iterator<Item = u32> + 'a {
    let end = pool.geometry().granules();
    let granules = pool.media().bad().iter().flat_map(|run| {
        let last = run.at.saturating_add(run.len).div_ceil(GRANULE);
        run.at / GRANULE..last
    });
    let mut all: Vec<_> = granules.filter_map(|g| u32::try_from(g).ok()).collect();
    all.retain(|granule| *granule < end);
    all.dedup();
    all.into_iter()
}

/// What is damaged of a slot, and what could be lost with it.
fn damage(
    pool: &Pool<&Mapped>,
    slot: u32,
    alloc: &Alloc,
    buf: &mut [u8],
) -> Result<Option<String>, Refusal> {
    let EntryState::Damaged { why, header } = pool.load(slot, alloc, buf)? else {
        return Ok(None);
    };
    let whose = match header {
        Some(header) => about(&header),
        None => "whose it was cannot be read".into(),
    };
    let reach = match alloc.suspect() {
        Some(_) => "; it may own any free memory",
        None => "",
    };
    Ok(Some(format!("{why}: {whose}{reach}")))
}

fn about(header: &HeaderView<'_>) -> String {
    format!(
        "it was {} of {}, with {} of RAM, created {}",
        header.name(),
        user(header.uid()),
        text::bytes(header.ram_bytes()),
        text::time(header.created_ns())
    )
}
