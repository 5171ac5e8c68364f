// SPDX-License-Identifier: GPL-2.0

//! Looking whether free memory is what it is taken for.

use super::{alloc::Allocator, bytes::zero_from, geometry::Pool, media::Media, Refusal, GRANULE};
use core::ops::DerefMut;

impl<M: Media> Pool<M> {
    /// Zeroes what of the granules that nobody owns is not zero. Says how many granules that were. `buf` is a
    /// scratch buffer, the larger the better; `progress` is called with bytes done and bytes in all.
    ///
    /// Refused while a damaged entry may own any of them.
    ///
    /// Crash: nothing is written but zeroes, and those where nobody's data are.
    pub fn scrub<B>(
        &self,
        alloc: &Allocator<B>,
        buf: &mut [u8],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u32, Refusal>
    where
        B: DerefMut<Target = [u64]>,
    {
        if let Some(slot) = alloc.suspect() {
            return Err(Refusal::PoolSuspect { slot });
        }
        let (first, end) = (self.geometry.first_data(), self.geometry.granules());
        let all = u64::from(self.geometry.data_granules()) * GRANULE;
        let mut found: u32 = 0;
        for granule in (first..end).filter(|&granule| alloc.is_free(granule)) {
            progress(u64::from(granule.saturating_sub(first)) * GRANULE, all);
            let at = u64::from(granule) * GRANULE;
            if !self.is_zero(at, buf)? {
                self.media.zero(at, GRANULE)?;
                self.media.flush(at, GRANULE)?;
                found = found.saturating_add(1);
            }
        }
        self.media.fence();
        progress(all, all);
        Ok(found)
    }

    /// Whether the granule at `at` is zero.
    fn is_zero(&self, at: u64, buf: &mut [u8]) -> Result<bool, Refusal> {
        let len = buf.len();
        if len == 0 {
            return Err(Refusal::Buffer { len, need: 1 });
        }
        let mut done = 0;
        while done < GRANULE {
            // CAST: at most the buffer's length.
            let part = (GRANULE - done).min(len as u64) as usize;
            let part = buf.get_mut(..part).unwrap_or(&mut []);
            self.media.read(at + done, part)?;
            if !zero_from(part, 0) {
                return Ok(false);
            }
            done += part.len() as u64;
        }
        Ok(true)
    }
}
