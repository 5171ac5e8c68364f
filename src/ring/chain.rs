// SPDX-License-Identifier: GPL-2.0

//! Descriptor chains (virtio 1.3, sections 2.7.4 and 2.7.5), as far as they lie in shadowed pages.
//!
//! A page that holds part of a ring may also hold descriptors, indirect tables or buffers. There the
//! device reads and writes its own view, so these bytes are carried over: to the device when a chain
//! is made available, back to the guest when it was used. Device-writable buffers go both ways, so
//! that bytes which the device leaves alone keep what the driver put there. Whether a chain touches a
//! shadowed page is only known when it has been followed, so every new chain is followed once; it is
//! followed again only if the device writes into such a page.
//!
//! The driver may change descriptors at any time. Each is read once per pass, and what the device
//! finds in a shadowed page is what was read. A driver that changes a chain in flight breaks section
//! 2.7.13.1 and gets at its own memory only.

use super::{
    fault::Fault,
    layout::{Layout, DESC_LEN},
    memory::{Memory, View, PAGE},
};

/// VIRTQ_DESC_F_NEXT
const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE
const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT
const INDIRECT: u16 = 4;

/// Bytes copied, or of a table read, at a time: the stack is small.
const CHUNK: usize = 256;
/// Descriptors in a chunk.
const WINDOW: u32 = 16;
/// The most descriptors in an indirect table: `next` has 16 bits.
const TABLE_MAX: u64 = 65536;

/// Work that the requests in flight on one ring may be altogether.
///
/// A guest's driver decides how long chains are, and they are followed with a lock held: one that
/// means harm gets some tens of milliseconds, and then a broken ring. Drivers that mean none get some
/// hundreds of thousands at the very most, with 1024 requests of a MiB each in flight. As it limits all
/// that is in flight, what was accepted at kicks can be restored.
pub(super) const WORK_MAX: u32 = 1 << 20;

/// What is done with the bytes of a chain that lie in shadowed pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// The device is shown descriptors, tables and buffers.
    ToDevice,
    /// The guest is shown what the device wrote.
    ToGuest,
    /// Nothing: it is only looked at.
    Look,
}

/// What was found out about a chain.
#[derive(Clone, Copy, Default)]
pub(super) struct Chain {
    /// Descriptors, shadowed pages, and 16-byte units of what was copied.
    pub(super) work: u32,
    /// Whether a device-writable buffer lies in shadowed pages.
    pub(super) returns: bool,
}

/// `struct virtq_desc`
struct Desc {
    bytes: [u8; DESC_LEN as usize],
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// A descriptor table, read in windows: chains mostly go on with the next descriptor.
struct Table {
    gpa: u64,
    len: u32,
    /// Number of the first descriptor in `window`.
    base: u32,
    window: [u8; CHUNK],
    /// Whether `window` was read.
    read: bool,
}

impl Table {
    fn new(gpa: u64, len: u32) -> Self {
        Self {
            gpa,
            len,
            base: 0,
            window: [0; CHUNK],
            read: false,
        }
    }

    /// Where descriptor `index` is. The caller has checked that the table does not wrap around.
    fn gpa_of(&self, index: u32) -> u64 {
        self.gpa.wrapping_add(DESC_LEN * u64::from(index))
    }

    /// Descriptor `index`, if the table has it.
    fn get<M: Memory>(&mut self, m: &M, index: u32) -> Result<Option<Desc>, Fault> {
        if index >= self.len {
            return Ok(None);
        }
        let base = index - index % WINDOW;
        if !self.read || base != self.base {
            // CAST: at most 16 descriptors of 16 bytes.
            let len = (self.len - base).min(WINDOW) as usize * DESC_LEN as usize;
            let gpa = self.gpa_of(base);
            self.window
                .get_mut(..len)
                .and_then(|window| m.read(View::Guest, gpa, window))
                .ok_or(Fault::NotRam(gpa))?;
            (self.base, self.read) = (base, true);
        }
        let at = (index % WINDOW) as usize * DESC_LEN as usize;
        Ok(self
            .window
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map(Desc::parse))
    }
}

impl Desc {
    fn parse(bytes: &[u8; DESC_LEN as usize]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = *bytes;
        Self {
            bytes: *bytes,
            addr: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }
}

/// Follows the chain at `head`, and carries over what `pass` says. More work than `limit` is a fault.
pub(super) fn follow<M: Memory>(
    m: &M,
    layout: &Layout,
    head: u16,
    pass: Pass,
    limit: u32,
) -> Result<Chain, Fault> {
    let walk = Walk {
        m,
        layout,
        head,
        pass,
        limit,
        chain: Chain::default(),
        said: None,
    };
    walk.all()
}

/// What a request said and was answered.
pub(super) struct Said<'a> {
    /// What the driver said, as far as there is room.
    room: &'a mut [u8],
    /// Bytes that it said.
    pub(super) len: usize,
    /// Where the last byte is that the device could write.
    pub(super) last: Option<u64>,
}

impl<'a> Said<'a> {
    pub(super) fn new(room: &'a mut [u8]) -> Self {
        Self {
            room,
            len: 0,
            last: None,
        }
    }

    /// Takes in the next buffer of a chain.
    fn buffer<M: Memory>(&mut self, m: &M, desc: &Desc) -> Result<(), Fault> {
        if desc.flags & WRITE != 0 {
            if let Some(before_last) = desc.len.checked_sub(1) {
                self.last = desc.addr.checked_add(before_last.into());
            }
            return Ok(());
        }
        // CAST: 32 bits.
        let len = desc.len as usize;
        let room = self.room.get_mut(self.len..).unwrap_or_default();
        let part = len.min(room.len());
        room.get_mut(..part)
            .and_then(|part| m.read(View::Guest, desc.addr, part))
            .ok_or(Fault::NotRam(desc.addr))?;
        self.len = self.len.saturating_add(len);
        Ok(())
    }
}

/// Follows the chain at `head` for what it says. More work than `limit` is a fault.
pub(super) fn read<M: Memory>(
    m: &M,
    layout: &Layout,
    head: u16,
    limit: u32,
    said: &mut Said<'_>,
) -> Result<(), Fault> {
    let walk = Walk {
        m,
        layout,
        head,
        pass: Pass::Look,
        limit,
        chain: Chain::default(),
        said: Some(said),
    };
    walk.all().map(|_| ())
}

/// A pass over one chain.
struct Walk<'a, 'b, M> {
    m: &'a M,
    layout: &'a Layout,
    head: u16,
    pass: Pass,
    limit: u32,
    chain: Chain,
    /// Where what is said goes, if that is what the pass is for.
    said: Option<&'a mut Said<'b>>,
}

impl<M: Memory> Walk<'_, '_, M> {
    /// Follows the whole chain.
    fn all(mut self) -> Result<Chain, Fault> {
        let layout = self.layout;
        let table = Table::new(layout.desc, u32::from(layout.size));
        if let Some(indirect) = self.table(table, self.head, layout.indirect)? {
            self.table(indirect, 0, false)?;
        }
        Ok(self.chain)
    }

    /// Follows descriptors in one table from `first` on. Gives the indirect table that the last one
    /// refers to (section 2.7.5.3.2: it may come after ordinary ones), if that is allowed here.
    fn table(
        &mut self,
        mut table: Table,
        first: u16,
        may_refer: bool,
    ) -> Result<Option<Table>, Fault> {
        let mut index = first;
        // A chain that is longer than its table has come back to where it was.
        for _ in 0..table.len {
            self.spend(1)?;
            let Some(desc) = table.get(self.m, u32::from(index))? else {
                return Err(self.bad("it leads outside its table"));
            };
            self.show_desc(table.gpa_of(u32::from(index)), &desc)?;
            if desc.flags & INDIRECT != 0 {
                if !may_refer {
                    return Err(self.bad("an indirect table where none is allowed"));
                }
                if desc.flags & NEXT != 0 {
                    return Err(self.bad("it goes on after an indirect table"));
                }
                return self.indirect(&desc).map(Some);
            }
            self.buffer(&desc)?;
            if desc.flags & NEXT == 0 {
                return Ok(None);
            }
            index = desc.next;
        }
        Err(self.bad("it is a loop"))
    }

    /// The indirect table that `desc` refers to.
    fn indirect(&self, desc: &Desc) -> Result<Table, Fault> {
        let len = u64::from(desc.len);
        if len == 0 || len % DESC_LEN != 0 || len / DESC_LEN > TABLE_MAX {
            return Err(self.bad("an indirect table of a length that no table has"));
        }
        if desc.addr.checked_add(len).is_none() {
            return Err(self.bad("an indirect table wraps around"));
        }
        // CAST: a 32-bit length, divided.
        Ok(Table::new(desc.addr, (len / DESC_LEN) as u32))
    }

    /// Shows the device a descriptor at `gpa` as it was read.
    fn show_desc(&mut self, gpa: u64, desc: &Desc) -> Result<(), Fault> {
        if self.pass != Pass::ToDevice {
            return Ok(());
        }
        let end = gpa.wrapping_add(DESC_LEN);
        let mut at = gpa;
        while let Some((start, stop)) = self.shadowed(at, end)? {
            at = stop;
            for (from, to) in self.layout.outside_rings(start, stop) {
                if from >= to {
                    continue;
                }
                // CAST: offsets in a descriptor.
                desc.bytes
                    .get((from - gpa) as usize..(to - gpa) as usize)
                    .and_then(|bytes| self.m.write(View::Device, from, bytes))
                    .ok_or(Fault::NotRam(from))?;
            }
        }
        Ok(())
    }

    /// Carries over what of a buffer lies in shadowed pages.
    fn buffer(&mut self, desc: &Desc) -> Result<(), Fault> {
        if let Some(said) = &mut self.said {
            return said.buffer(self.m, desc);
        }
        let writable = desc.flags & WRITE != 0;
        let (from, to) = match self.pass {
            Pass::ToDevice => (View::Guest, View::Device),
            Pass::ToGuest if writable => (View::Device, View::Guest),
            Pass::Look if writable => (View::Guest, View::Guest),
            Pass::ToGuest | Pass::Look => return Ok(()),
        };
        let Some(end) = desc.addr.checked_add(u64::from(desc.len)) else {
            return Err(self.bad("a buffer wraps around"));
        };
        let mut at = desc.addr;
        while let Some((start, stop)) = self.shadowed(at, end)? {
            at = stop;
            self.chain.returns |= writable;
            if self.pass == Pass::Look {
                return Ok(());
            }
            // Neither view's rings are touched by what a driver claims to be a buffer: they are kept
            // by the engine, in the device's view and in the guest's.
            for (start, stop) in self.layout.outside_rings(start, stop) {
                self.copy(from, to, start, stop)?;
            }
        }
        Ok(())
    }

    /// The next part of `at..end` that lies in one shadowed page.
    fn shadowed(&mut self, at: u64, end: u64) -> Result<Option<(u64, u64)>, Fault> {
        if at >= end {
            return Ok(None);
        }
        let Some(start) = self.m.next_shadowed(at, end - 1) else {
            return Ok(None);
        };
        self.spend(1)?;
        let last_of_page = start | (PAGE - 1);
        let stop = end.min(last_of_page.saturating_add(1));
        Ok((at <= start && start < stop).then_some((start, stop)))
    }

    fn copy(&mut self, from: View, to: View, start: u64, stop: u64) -> Result<(), Fault> {
        let mut chunk = [0; CHUNK];
        let mut at = start;
        while at < stop {
            // CAST: at most 256.
            let len = (stop - at).min(CHUNK as u64) as usize;
            self.spend(len.div_ceil(DESC_LEN as usize) as u32)?;
            chunk
                .get_mut(..len)
                .and_then(|chunk| {
                    self.m.read(from, at, chunk)?;
                    self.m.write(to, at, chunk)
                })
                .ok_or(Fault::NotRam(at))?;
            at += len as u64;
        }
        Ok(())
    }

    fn spend(&mut self, work: u32) -> Result<(), Fault> {
        self.chain.work = self.chain.work.saturating_add(work);
        if self.chain.work > self.limit {
            return Err(Fault::TooMuchWork);
        }
        Ok(())
    }

    fn bad(&self, why: &'static str) -> Fault {
        Fault::Chain {
            head: self.head,
            why,
        }
    }
}
