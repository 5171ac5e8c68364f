// SPDX-License-Identifier: GPL-2.0

//! What the platform says of the memory modules that hold a pool: whether they saved what they held when
//! power was lost, and what of it is bad.
//!
//! A module says so by words (`nfit/flags`, `Documentation/ABI/testing/sysfs-bus-nfit`) that hold for the last
//! outage only, and by a number that grows with each outage at which it did not save all (`dirty_shutdown`,
//! also `sysfs-bus-cxl`). What was so at a seal goes into its record:
//!
//! ```text
//!  PLATFORM    0  40 bytes: the boot's id (boot_id, random(4)), padded with zero bytes
//!             40  for each module that has such a number:
//!                 0  32 bytes: its id, padded with zero bytes    32  u64 number, little-endian
//! ```

use core::fmt;

/// Bytes of a module's id.
pub const ID_LEN: usize = 32;

/// Bytes of a boot's id.
pub const BOOT_LEN: usize = 40;

/// Bytes of a module in a PLATFORM item.
pub const SHUTDOWNS_LEN: usize = ID_LEN + 8;

/// Bytes in a sector of a list of bad blocks.
const SECTOR: u64 = 512;

/// The word that says that a module did not save or restore all when power was lost last, if there is one among
/// `flags`.
pub fn failure(flags: &str) -> Option<&str> {
    const FAILED: [&str; 4] = ["save_fail", "restore_fail", "flush_fail", "map_fail"];
    flags.split_whitespace().find(|word| FAILED.contains(word))
}

/// Whether `flags` say that a module would save nothing if power were lost now.
pub fn is_disarmed(flags: &str) -> bool {
    flags.split_whitespace().any(|word| word == "not_armed")
}

/// How often a module did not save all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdowns {
    /// The module's id, padded with zero bytes.
    pub id: [u8; ID_LEN],
    /// The number.
    pub count: u64,
}

impl Shutdowns {
    /// Of the module that is called `id`, of which only so much counts as there is room for.
    pub fn new(id: &str, count: u64) -> Self {
        Shutdowns {
            id: field(id),
            count,
        }
    }

    /// As it is in a PLATFORM item.
    pub fn to_bytes(&self) -> [u8; SHUTDOWNS_LEN] {
        let mut out = [0; SHUTDOWNS_LEN];
        let (id, count) = out.split_at_mut(ID_LEN);
        id.copy_from_slice(&self.id);
        count.copy_from_slice(&self.count.to_le_bytes());
        out
    }

    fn from_bytes(bytes: &[u8; SHUTDOWNS_LEN]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let count = u64::from_le_bytes(*rest.first_chunk()?);
        Some(Shutdowns { id: *id, count })
    }

    fn name(&self) -> &str {
        let end = self.id.iter().position(|&b| b == 0).unwrap_or(ID_LEN);
        let name = self.id.get(..end).unwrap_or(&[]);
        core::str::from_utf8(name).unwrap_or("?")
    }
}

/// A text padded with zero bytes, of which only so much counts as there is room for.
pub fn field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    field
}

/// What the platform says today.
#[derive(Clone, Copy, Debug)]
pub struct Today<'a> {
    /// The boot's id.
    pub boot: &'a [u8; BOOT_LEN],
    /// A module that did not save all when power was lost last, and its word for that.
    pub failed: Option<&'a str>,
    /// The modules that say how often they did not save all.
    pub shutdowns: &'a [Shutdowns],
}

/// Why an image cannot be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust<'a> {
    /// A module did not save all in the outage that it was to survive.
    Failed(&'a str),
    /// A module has not saved all since it was sealed.
    Shutdown {
        /// What its number was then.
        was: Shutdowns,
        /// What it is now.
        now: u64,
    },
    /// The PLATFORM item is not whole.
    Malformed,
}

impl fmt::Display for Distrust<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distrust::Failed(word) => write!(f, "the platform says {word}"),
            Distrust::Shutdown { was, now } => write!(
                f,
                "{} counts {now} dirty shutdowns, and {} when it was sealed",
                was.name(),
                was.count
            ),
            Distrust::Malformed => {
                f.write_str("what its platform said when it was sealed makes no sense")
            }
        }
    }
}

impl<'a> Today<'a> {
    /// Whether an image can be trusted whose record has this PLATFORM item, or none. A module that says nothing
    /// today is no reason for distrust, as it is none if it never says anything.
    pub fn trusts(&self, item: Option<&[u8]>) -> Result<(), Distrust<'a>> {
        let mut rest = item.unwrap_or(&[]);
        if item.is_some() {
            let (boot, modules) = rest
                .split_first_chunk::<BOOT_LEN>()
                .ok_or(Distrust::Malformed)?;
            if boot == self.boot && *boot != [0; BOOT_LEN] {
                // There was no outage since.
                return Ok(());
            }
            rest = modules;
        }
        if let Some(word) = self.failed {
            return Err(Distrust::Failed(word));
        }
        while !rest.is_empty() {
            let (one, more) = rest
                .split_first_chunk::<SHUTDOWNS_LEN>()
                .ok_or(Distrust::Malformed)?;
            rest = more;
            let was = Shutdowns::from_bytes(one).ok_or(Distrust::Malformed)?;
            let mut now = self.shutdowns.iter().filter(|now| now.id == was.id);
            if let Some(now) = now.find(|now| now.count != was.count) {
                let now = now.count;
                return Err(Distrust::Shutdown { was, now });
            }
        }
        Ok(())
    }
}

/// A run of bytes of a device, both in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it starts.
    pub at: u64,
    /// How long it is.
    pub len: u64,
}

impl Run {
    /// What of it lies within `len` bytes at `start`, counted from there.
    pub fn within(&self, start: u64, len: u64) -> Option<Run> {
        let from = self.at.max(start);
        let to = self
            .at
            .saturating_add(self.len)
            .min(start.saturating_add(len));
        (from < to).then(|| Run {
            at: from - start,
            len: to - from,
        })
    }
}

/// The runs of a list of bad blocks as the kernel prints it: a line for each, with its first sector and how many
/// there are. `None` is a line that is none, or half of one: the list may not be whole.
pub fn bad_blocks(text: &str) -> impl Iterator<Item = Option<Run>> + '_ {
    text.split_inclusive('\n').map(|line| {
        let (first, count) = line.strip_suffix('\n')?.trim().split_once(' ')?;
        let sectors = |number: &str| number.parse::<u64>().ok()?.checked_mul(SECTOR);
        Some(Run {
            at: sectors(first)?,
            len: sectors(count)?,
        })
    })
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    extern crate std;
    use super::*;
    use std::{string::ToString, vec::Vec};

    #[test]
    fn words_of_failure() {
        assert_eq!(failure("\n"), None);
        assert_eq!(failure("smart_notify not_armed \n"), None);
        assert_eq!(failure("smart_notify save_fail \n"), Some("save_fail"));
        assert_eq!(failure("flush_fail \n"), Some("flush_fail"));
        assert_eq!(failure("unflush_fail \n"), None);
        assert!(is_disarmed("smart_event not_armed \n"));
        assert!(!is_disarmed("smart_event \n"));
    }

    const BOOT: [u8; BOOT_LEN] = [b'a'; BOOT_LEN];
    const OTHER: [u8; BOOT_LEN] = [b'b'; BOOT_LEN];

    fn item(boot: &[u8; BOOT_LEN], modules: &[Shutdowns]) -> Vec<u8> {
        let modules = modules.iter().flat_map(Shutdowns::to_bytes);
        boot.iter().copied().chain(modules).collect()
    }

    fn today(shutdowns: &[Shutdowns]) -> Today<'_> {
        Today {
            boot: &BOOT,
            failed: None,
            shutdowns,
        }
    }

    #[test]
    fn a_number_that_changed_is_distrusted() {
        let [a, b] = [Shutdowns::new("8089-a2", 4), Shutdowns::new("8089-a3", 0)];
        let was = item(&OTHER, &[a, b]);
        // The same, in another order, one gone, one new.
        for now in [
            &[a, b][..],
            &[b, a],
            &[a],
            &[],
            &[a, b, Shutdowns::new("x", 9)],
        ] {
            assert_eq!(today(now).trusts(Some(&was)), Ok(()));
            assert_eq!(today(now).trusts(None), Ok(()));
        }
        for count in [3, 5, u64::MAX] {
            let now = [b, Shutdowns { count, ..a }];
            let why = Distrust::Shutdown { was: a, now: count };
            assert_eq!(today(&now).trusts(Some(&was)), Err(why));
            assert!(why.to_string().starts_with("8089-a2 counts"));
            assert_eq!(today(&now).trusts(Some(&item(&BOOT, &[a, b]))), Ok(()));
        }
        for cut in 0..was.len() {
            let whole = cut >= BOOT_LEN && (cut - BOOT_LEN) % SHUTDOWNS_LEN == 0;
            assert_eq!(today(&[]).trusts(Some(&was[..cut])).is_ok(), whole, "{cut}");
        }
    }

    #[test]
    fn a_word_of_failure_counts_for_all_that_was_sealed_before() {
        let failed = Today {
            failed: Some("nmem0: save_fail"),
            ..today(&[])
        };
        let why = Err(Distrust::Failed("nmem0: save_fail"));
        assert_eq!(failed.trusts(None), why);
        assert_eq!(failed.trusts(Some(&item(&OTHER, &[]))), why);
        assert_eq!(failed.trusts(Some(&item(&BOOT, &[]))), Ok(()));
        // Nobody knows which boot it is.
        let unknown = Today {
            boot: &[0; BOOT_LEN],
            ..failed
        };
        assert_eq!(unknown.trusts(Some(&item(unknown.boot, &[]))), why);
    }

    #[test]
    fn lists_of_bad_blocks() {
        assert_eq!(bad_blocks("").next(), None);
        let found: Vec<_> = bad_blocks("8 1\n4096 16\n").collect();
        let run = |at, len| Run { at, len };
        assert_eq!(
            found,
            [Some(run(4096, 512)), Some(run(4096 * 512, 16 * 512))]
        );
        for text in [
            "8 1",
            "8\n",
            "x 1\n",
            "8 -1\n",
            "36028797018963968 1\n",
            "\n",
        ] {
            assert_eq!(bad_blocks(text).collect::<Vec<_>>(), [None], "{text:?}");
        }
        assert_eq!(
            bad_blocks("8 1\n16 ").collect::<Vec<_>>(),
            [Some(run(4096, 512)), None]
        );
    }

    #[test]
    fn runs() {
        let run = Run { at: 100, len: 10 };
        for (at, len) in [(0, 50), (0, 100), (110, 1), (u64::MAX, u64::MAX), (105, 0)] {
            assert_eq!(run.within(at, len), None, "{at} {len}");
        }
        assert_eq!(run.within(0, 101), Some(Run { at: 100, len: 1 }));
        assert_eq!(run.within(109, 1), Some(Run { at: 0, len: 1 }));
        assert_eq!(run.within(50, 52), Some(Run { at: 50, len: 2 }));
        assert_eq!(run.within(105, 500), Some(Run { at: 0, len: 5 }));
        assert_eq!(run.within(90, u64::MAX), Some(Run { at: 10, len: 10 }));
    }
}
