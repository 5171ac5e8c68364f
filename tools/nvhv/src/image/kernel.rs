// SPDX-License-Identifier: GPL-2.0

//! What a Linux guest says of itself: the note VMCOREINFO, which it keeps ready for kdump in a page of its own
//! (`Documentation/admin-guide/kdump/vmcoreinfo.rst`), and where it has its memory mapped
//! (`Documentation/arch/x86/x86_64/mm.rst`).

/// First bytes of the note: its name.
const NAME: &[u8] = b"VMCOREINFO\0";
/// First bytes of what it says.
const SAYS: &[u8] = b"OSRELEASE=";
/// Bytes of the head of a note.
const HEAD: usize = 12;

/// Where the kernel's image is mapped, from a physical address that is called `phys_base` on.
const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// How much is mapped there.
const IMAGE_LEN: u64 = 1 << 30;

/// What a guest's kernel says.
pub struct Kernel {
    note: Vec<u8>,
    /// `phys_base`, modulo 2^64.
    base: Option<u64>,
    /// Where all memory is mapped.
    direct: Option<u64>,
}

/// A range of RAM where the kernel has its image.
#[derive(Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it is mapped.
    pub address: u64,
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
}

impl Kernel {
    /// Of a page, if it is the note.
    pub fn in_page(page: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            let found = page.get(at..).and_then(|rest| rest.first_chunk());
            found.map(|word| u32::from_le_bytes(*word) as usize)
        };
        let (name_len, text_len) = (number(0)?, number(4)?);
        let text_at = HEAD + name_len.next_multiple_of(4);
        if name_len != NAME.len() || !page.get(HEAD..)?.starts_with(NAME) {
            return None;
        }
        let end = text_at.checked_add(text_len.next_multiple_of(4))?;
        let text = page.get(text_at..end)?;
        text.starts_with(SAYS).then(|| Kernel {
            note: page[..end].to_vec(),
            // CAST: it may be negative, which means the same.
            base: value(text, b"NUMBER(phys_base)=")
                .and_then(|text| text.parse::<i64>().ok())
                .map(|base| base as u64),
            direct: None,
        })
    }

    /// The note, with its head.
    pub fn note(&self) -> &[u8] {
        &self.note
    }

    /// The guest physical address at which it says where all memory is mapped.
    pub fn asks(&self) -> Option<u64> {
        let symbol = value(&self.note, b"SYMBOL(page_offset_base)=")?;
        let address = u64::from_str_radix(symbol, 16).ok()?;
        address
            .checked_sub(IMAGE)
            .filter(|&offset| offset < IMAGE_LEN)
            .and_then(|offset| self.base.map(|base| base.wrapping_add(offset)))
    }

    /// What it says there.
    pub fn answered(&mut self, direct: u64) {
        self.direct = Some(direct);
    }

    /// Where it has what is at guest physical address `gpa`; 0 if that is not known.
    pub fn mapped_at(&self, gpa: u64) -> u64 {
        self.direct.map_or(0, |direct| direct.wrapping_add(gpa))
    }

    /// What of `len` bytes at `gpa` is mapped as its image.
    pub fn image_in(&self, gpa: u64, len: u64) -> Option<Range> {
        let base = self.base?;
        // Signed, as `base` may be below zero: then the first bytes of the mapping are nothing.
        let (base, gpa, end) = (
            i128::from(base as i64),
            i128::from(gpa),
            i128::from(gpa) + i128::from(len),
        );
        let first = gpa.max(base);
        let len = end.min(base + i128::from(IMAGE_LEN)) - first;
        // CAST: inside what was given.
        (len > 0).then(|| Range {
            address: IMAGE.wrapping_add((first - base) as u64),
            gpa: first as u64,
            len: len as u64,
        })
    }
}

/// What follows `key` on the line that begins with it.
fn value<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a str> {
    let mut lines = text.split(|&byte| byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(key))?;
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[0] = 11;
        page[4..8].copy_from_slice(&(text.len() as u32).to_le_bytes());
        page[12..23].copy_from_slice(NAME);
        page[24..24 + text.len()].copy_from_slice(text.as_bytes());
        page
    }

    const TEXT: &str =
        "OSRELEASE=7.3\nNUMBER(phys_base)=-4194304\nSYMBOL(page_offset_base)=ffffffff81000010\n";

    #[test]
    fn is_found() {
        assert!(Kernel::in_page(&[0; 4096]).is_none());
        assert!(Kernel::in_page(&page("RELEASE=7.3\n")).is_none());
        let mut good = page(TEXT);
        let kernel = Kernel::in_page(&good).expect("is one");
        assert_eq!(kernel.note().len(), 24 + TEXT.len().next_multiple_of(4));
        good[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Kernel::in_page(&good).is_none());
    }

    #[test]
    fn says_where_memory_is() {
        let mut kernel = Kernel::in_page(&page(TEXT)).expect("is one");
        assert_eq!(kernel.asks(), Some(0x1000010 - 0x400000));
        assert_eq!(kernel.mapped_at(0x1000), 0);
        kernel.answered(0xffff_8880_0000_0000);
        assert_eq!(kernel.mapped_at(0x1000), 0xffff_8880_0000_1000);
        let want = Range {
            address: IMAGE + 0x400000,
            gpa: 0,
            len: 0x1000,
        };
        assert_eq!(kernel.image_in(0, 0x1000), Some(want));
        assert_eq!(kernel.image_in(1 << 30, 0x1000), None);
    }

    #[test]
    fn says_nothing_that_it_does_not_know() {
        let kernel =
            Kernel::in_page(&page("OSRELEASE=7.3\nNUMBER(phys_base)=x\n")).expect("is one");
        assert_eq!(kernel.asks(), None);
        assert_eq!(kernel.image_in(0, 0x1000), None);
    }
}
