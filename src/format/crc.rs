// SPDX-License-Identifier: GPL-2.0

//! CRC-32C (Castagnoli; RFC 3720, appendix B.4), the checksum of every structure in a pool.

/// A function that continues a CRC-32C: `crc(0, a ++ b) == crc(crc(0, a), b)`.
///
/// This is the finished checksum (inverted at both ends). Linux's `crc32c(seed, p, len)` inverts
/// nothing: wrap it as `!crc32c(!seed, p, len)`.
pub type Crc = fn(u32, &[u8]) -> u32;

/// The polynomial 0x1EDC6F41, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

static TABLE: [u32; 256] = table();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, below 256"
)]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        // CAST: `i` is below 256.
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

/// CRC-32C of `bytes`, continued from `crc` (0 to begin). Portable; a [`Crc`].
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = crc.to_le_bytes();
        // A `u8` is always a valid index of the table; `get` keeps the panic out of the code.
        let entry = TABLE.get(usize::from(low ^ byte)).copied().unwrap_or(0);
        (crc >> 8) ^ entry
    };
    !bytes.iter().fold(!crc, step)
}
