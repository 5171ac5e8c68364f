// SPDX-License-Identifier: GPL-2.0

//! Guest RAM as a ring sees it: two views of the same guest-physical addresses.

/// Bytes in a page: the unit in which views differ.
pub(super) const PAGE: u64 = 4096;

/// Whose view of guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// What the guest's processors read and write.
    Guest,
    /// What the VMM, and with it the device, reads and writes.
    Device,
}

/// Guest RAM by guest-physical address. `None`: some of the bytes are not RAM.
///
/// Both sides may change memory at any time, so two reads of one place may differ. Accesses may
/// cross pages. Nothing here may sleep.
pub trait Memory {
    /// Copies from guest RAM.
    fn read(&self, view: View, gpa: u64, out: &mut [u8]) -> Option<()>;

    /// Copies to guest RAM.
    fn write(&self, view: View, gpa: u64, data: &[u8]) -> Option<()>;

    /// Loads a little-endian word in one access, with acquire semantics. `gpa` is even.
    fn load_u16(&self, view: View, gpa: u64) -> Option<u16>;

    /// Stores a little-endian word in one access, with release semantics. `gpa` is even.
    fn store_u16(&self, view: View, gpa: u64, value: u16) -> Option<()>;

    /// Orders all accesses before it against all after it.
    fn fence(&self);

    /// Whether the page that holds `gpa` differs between the views.
    fn is_shadowed(&self, gpa: u64) -> bool;

    /// The first address from `first` to `last`, both included, whose page differs between the views.
    ///
    /// A guest chooses how long a buffer is, up to 4 GiB for each of many descriptors. An implementer
    /// that serves guests must therefore answer by a search among the shadowed pages; what stands here
    /// looks at every page of the range.
    fn next_shadowed(&self, first: u64, last: u64) -> Option<u64> {
        let mut at = first;
        while at <= last {
            if self.is_shadowed(at) {
                return Some(at);
            }
            at = (at | (PAGE - 1)).checked_add(1)?;
        }
        None
    }
}
