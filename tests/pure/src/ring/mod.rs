// SPDX-License-Identifier: GPL-2.0

//! A driver, a device and guest RAM in two views, to test shadow rings against. They share no code
//! with the engine: what they do is written from the specification once more.

mod device;
mod driver;
pub mod hostile;
mod ram;
mod world;

pub use device::Device;
pub use driver::Driver;
pub use ram::{Crash, Ram, BASE};
pub use world::World;

use crate::random::Random;
use nvhv_pure::ring::Layout;

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// A descriptor, as either side sees it.
#[derive(Clone, Copy)]
struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

impl Desc {
    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; 16]) -> Self {
        Self {
            addr: u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")),
            len: u32::from_le_bytes(bytes[8..12].try_into().expect("4 bytes")),
            flags: u16::from_le_bytes(bytes[12..14].try_into().expect("2 bytes")),
            next: u16::from_le_bytes(bytes[14..].try_into().expect("2 bytes")),
        }
    }
}

/// What byte `at` of request `id` is: `kind` 0 to the device, 1 from it, 2 before it wrote.
fn pattern(kind: u32, id: u32, at: usize) -> u8 {
    let mut random = Random::new((u64::from(kind) << 56) ^ (u64::from(id) << 20) ^ at as u64);
    random.word() as u8
}

/// Whether an index that went from `old` to `new` made the entry that `event` names.
fn passed(event: u16, old: u16, new: u16) -> bool {
    let mut at = old;
    while at != new {
        if at == event {
            return true;
        }
        at = at.wrapping_add(1);
    }
    false
}

/// A layout of `size` with parts anywhere from the start of RAM on, and how many pages it spans.
pub fn place(size: u16, random: &mut Random) -> (Layout, u64) {
    let s = u64::from(size);
    let event_idx = random.below(2) == 0;
    let (desc_len, avail_len, used_len) = (16 * s, 6 + 2 * s, 6 + 8 * s);
    let mut layout = Layout {
        size,
        desc: BASE,
        avail: 0,
        used: 0,
        event_idx,
        indirect: random.below(2) == 0,
    };
    let mut end;
    match random.below(3) {
        // As dense as it gets, in any order.
        0 => {
            end = BASE + random.below(PAGE) / 16 * 16;
            let mut parts = [0, 1, 2];
            parts.swap(0, random.below(3) as usize);
            parts.swap(1, 1 + random.below(2) as usize);
            for part in parts {
                let (to, len, align) = match part {
                    0 => (&mut layout.desc, desc_len, 16),
                    1 => (&mut layout.avail, avail_len, 2),
                    _ => (&mut layout.used, used_len, 4),
                };
                *to = end.next_multiple_of(align);
                end = *to + len;
            }
        }
        // Section 2.7.2, the legacy layout.
        1 => {
            layout.avail = layout.desc + desc_len;
            layout.used = (layout.avail + avail_len).next_multiple_of(PAGE);
            end = layout.used + used_len;
        }
        // Apart, so that descriptors are not in shadowed pages.
        _ => {
            layout.avail = (layout.desc + desc_len).next_multiple_of(PAGE) + random.below(2000) * 2;
            layout.used =
                (layout.avail + avail_len).next_multiple_of(PAGE) + random.below(1000) * 4;
            end = layout.used + used_len;
        }
    }
    (layout, (end - BASE).div_ceil(PAGE))
}
