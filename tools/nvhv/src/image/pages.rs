// SPDX-License-Identifier: GPL-2.0

//! Which pages of a piece of RAM hold anything.

use std::ops::Range;

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// The runs of pages in `bytes` that are not all zero.
pub fn used(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let is_zero = |page: &[u8]| page.iter().all(|&byte| byte == 0);
    let mut pages = bytes.chunks(PAGE).enumerate().peekable();
    std::iter::from_fn(move || {
        let (first, page) = pages.find(|(_, page)| !is_zero(page))?;
        let mut end = first * PAGE + page.len();
        while let Some((at, page)) = pages.next_if(|(_, page)| !is_zero(page)) {
            end = at * PAGE + page.len();
        }
        Some(first * PAGE..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_runs() {
        let mut bytes = vec![0; 6 * PAGE];
        assert_eq!(used(&bytes).next(), None);
        bytes[PAGE] = 1;
        bytes[3 * PAGE - 1] = 1;
        bytes[5 * PAGE] = 1;
        let runs: Vec<_> = used(&bytes).collect();
        assert_eq!(runs, [PAGE..3 * PAGE, 5 * PAGE..6 * PAGE]);
        assert_eq!(used(&[1; 10]).next(), Some(0..10));
    }
}
