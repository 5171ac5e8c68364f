// SPDX-License-Identifier: GPL-2.0

//! Where a split virtqueue lies (virtio 1.3, section 2.7).

use super::{fault::Fault, memory::PAGE};

/// The largest queue size.
pub const SIZE_MAX: u16 = 32768;

/// Bytes of `struct virtq_desc`.
pub(super) const DESC_LEN: u64 = 16;
/// Bytes of `struct virtq_used_elem`.
pub(super) const USED_ELEM_LEN: u64 = 8;

/// Addresses and size of a split virtqueue, and the ring features that were negotiated.
///
/// A legacy queue (section 2.7.2) is three addresses and a size as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Queue Size: number of descriptors, and of entries of either ring.
    pub size: u16,
    /// Guest-physical address of the descriptor table.
    pub desc: u64,
    /// Guest-physical address of the available ring, the driver area.
    pub avail: u64,
    /// Guest-physical address of the used ring, the device area.
    pub used: u64,
    /// VIRTIO_F_EVENT_IDX
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC
    pub indirect: bool,
}

impl Layout {
    /// Checks size, alignment, and that the three parts neither wrap around nor overlap. With a
    /// layout that passes, no arithmetic on addresses below overflows.
    pub fn check(&self) -> Result<(), Fault> {
        if !self.size.is_power_of_two() || self.size > SIZE_MAX {
            return Err(Fault::Layout(
                "the queue size is no power of two up to 32768",
            ));
        }
        if self.desc % 16 != 0 || self.avail % 2 != 0 || self.used % 4 != 0 {
            return Err(Fault::Layout("a part of the queue is not aligned"));
        }
        let parts @ [desc, avail, used] = [
            (self.desc, DESC_LEN * u64::from(self.size)),
            (self.avail, self.avail_len()),
            (self.used, self.used_len()),
        ];
        let fits = |&(start, len): &(u64, u64)| start <= u64::MAX - PAGE - len;
        if !parts.iter().all(fits) {
            return Err(Fault::Layout("a part of the queue wraps around"));
        }
        let apart = |a: (u64, u64), b: (u64, u64)| a.0 + a.1 <= b.0 || b.0 + b.1 <= a.0;
        if apart(desc, avail) && apart(desc, used) && apart(avail, used) {
            Ok(())
        } else {
            Err(Fault::Layout("parts of the queue overlap"))
        }
    }

    /// Guest-physical addresses of the pages that hold part of the available or used ring, each
    /// once. None for a layout that does not pass [`Layout::check`].
    pub fn pages(&self) -> impl Iterator<Item = u64> {
        let pages_of = |start: u64, len: u64| start / PAGE..(start + len).div_ceil(PAGE);
        let (avail, used) = match self.check() {
            Ok(()) => (
                pages_of(self.avail, self.avail_len()),
                pages_of(self.used, self.used_len()),
            ),
            Err(_) => (0..0, 0..0),
        };
        let shared = avail.clone();
        avail
            .chain(used.filter(move |page| !shared.contains(page)))
            .map(|page| page * PAGE)
    }

    /// Start and end of the available ring, and of the used ring.
    pub fn rings(&self) -> [(u64, u64); 2] {
        [
            (self.avail, self.avail + self.avail_len()),
            (self.used, self.used + self.used_len()),
        ]
    }

    /// Bytes of the descriptor table in which commands are told again: a page at most.
    pub(super) fn table_len(&self) -> u64 {
        (DESC_LEN * u64::from(self.size)).min(PAGE)
    }

    /// Guest-physical addresses of the pages that must differ as well for commands to be told again by
    /// this queue, see [`Ring::tell`](super::Ring::tell). Some may be among [`Layout::pages`].
    pub fn table_pages(&self) -> impl Iterator<Item = u64> {
        let pages = match self.check() {
            Ok(()) => self.desc / PAGE..(self.desc + self.table_len()).div_ceil(PAGE),
            Err(_) => 0..0,
        };
        pages.map(|page| page * PAGE)
    }

    /// The parts of `start..end` that are not in the available or used ring. Some may be empty.
    pub(super) fn outside_rings(&self, start: u64, end: u64) -> [(u64, u64); 3] {
        let [avail, used] = self.rings();
        let (low, high) = if avail < used {
            (avail, used)
        } else {
            (used, avail)
        };
        [
            (start, end.min(low.0)),
            (start.max(low.1), end.min(high.0)),
            (start.max(high.1), end),
        ]
    }

    /// Where `avail->flags` is.
    pub(super) fn avail_flags(&self) -> u64 {
        self.avail
    }

    /// Where `avail->idx` is.
    pub(super) fn avail_idx(&self) -> u64 {
        self.avail + 2
    }

    /// Where the entry of the available ring is that index `idx` counts.
    pub(super) fn avail_entry(&self, idx: u16) -> u64 {
        self.avail + 4 + 2 * self.position(idx)
    }

    /// Where `used_event` is: the driver's side of notification suppression.
    pub(super) fn used_event(&self) -> u64 {
        self.avail + 4 + 2 * u64::from(self.size)
    }

    /// Where `used->flags` is.
    pub(super) fn used_flags(&self) -> u64 {
        self.used
    }

    /// Where `used->idx` is.
    pub(super) fn used_idx(&self) -> u64 {
        self.used + 2
    }

    /// Where the element of the used ring is that index `idx` counts.
    pub(super) fn used_elem(&self, idx: u16) -> u64 {
        self.used + 4 + USED_ELEM_LEN * self.position(idx)
    }

    /// Where `avail_event` is: the device's side of notification suppression.
    pub(super) fn avail_event(&self) -> u64 {
        self.used + 4 + USED_ELEM_LEN * u64::from(self.size)
    }

    /// Indexes count modulo 65536, of which the size is a divisor.
    fn position(&self, idx: u16) -> u64 {
        u64::from(idx & self.size.wrapping_sub(1))
    }

    /// Bytes of the available ring. Without VIRTIO_F_EVENT_IDX nobody touches `used_event`, and a
    /// driver that spares it may have put something else there.
    fn avail_len(&self) -> u64 {
        4 + 2 * u64::from(self.size) + self.event_len()
    }

    /// Bytes of the used ring, with `avail_event` only where it is used.
    fn used_len(&self) -> u64 {
        4 + USED_ELEM_LEN * u64::from(self.size) + self.event_len()
    }

    fn event_len(&self) -> u64 {
        if self.event_idx {
            2
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: Layout = Layout {
        size: 8,
        desc: 0x1000,
        avail: 0x1080,
        used: 0x10a0,
        event_idx: true,
        indirect: false,
    };

    fn pages<const N: usize>(layout: Layout) -> [u64; N] {
        let mut pages = [u64::MAX; N];
        let mut found = layout.pages();
        pages
            .iter_mut()
            .zip(&mut found)
            .for_each(|(to, page)| *to = page);
        assert_eq!(found.next(), None);
        pages
    }

    #[test]
    fn sizes_are_powers_of_two() {
        for size in 0..=u16::MAX {
            let layout = Layout {
                size,
                avail: 1 << 20,
                used: 2 << 20,
                ..SOUND
            };
            assert_eq!(layout.check().is_ok(), size.count_ones() == 1, "{size}");
        }
    }

    #[test]
    fn parts_are_aligned_and_apart() {
        assert_eq!(SOUND.check(), Ok(()));
        let bad = [
            Layout {
                desc: 0x1008,
                ..SOUND
            },
            Layout {
                avail: 0x1081,
                ..SOUND
            },
            Layout {
                used: 0x10a2,
                ..SOUND
            },
            Layout {
                avail: 0x107e,
                ..SOUND
            },
            Layout {
                used: 0x1094,
                ..SOUND
            },
            Layout {
                used: 0x0ff0,
                ..SOUND
            },
            Layout {
                desc: u64::MAX - 15,
                ..SOUND
            },
            Layout {
                avail: u64::MAX - 21,
                ..SOUND
            },
            Layout {
                used: u64::MAX - 4095,
                ..SOUND
            },
        ];
        for layout in bad {
            assert!(layout.check().is_err(), "{layout:x?}");
            assert_eq!(layout.pages().count(), 0);
        }
        // 4 + 16 bytes of available ring end where the used ring starts, without `used_event`.
        let spared = Layout {
            used: 0x1094,
            event_idx: false,
            ..SOUND
        };
        assert_eq!(spared.check(), Ok(()));
    }

    #[test]
    fn pages_are_told_once() {
        assert_eq!(pages(SOUND), [0x1000]);
        let across = Layout {
            avail: 0x1ff8,
            used: 0x2ff0,
            ..SOUND
        };
        assert_eq!(pages(across), [0x1000, 0x2000, 0x3000]);
        let used_first = Layout {
            used: 0x1ff0,
            avail: 0x2ff0,
            ..SOUND
        };
        assert_eq!(pages(used_first), [0x2000, 0x3000, 0x1000]);
        let to_the_end = Layout {
            avail: 0x2fea,
            used: 0x4000,
            ..SOUND
        };
        assert_eq!(pages(to_the_end), [0x2000, 0x4000]);
    }

    #[test]
    fn what_is_outside_the_rings() {
        // avail 0x1080..0x1096, used 0x10a0..0x10e6
        let outside = |start, end| {
            let mut bytes = 0;
            for (from, to) in SOUND.outside_rings(start, end) {
                bytes += (from..to).count();
            }
            bytes
        };
        assert_eq!(outside(0x1000, 0x2000), 4096 - 22 - 70);
        assert_eq!(outside(0x1080, 0x1096), 0);
        assert_eq!(outside(0x107f, 0x1097), 2);
        assert_eq!(outside(0x1096, 0x10a0), 10);
        assert_eq!(outside(0x1090, 0x10b0), 10);
        assert_eq!(outside(0x10e0, 0x10e8), 2);
        assert_eq!(outside(0x3000, 0x3010), 16);
        assert_eq!(outside(0x0800, 0x0900), 256);
    }
}
