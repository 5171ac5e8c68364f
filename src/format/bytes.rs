// SPDX-License-Identifier: GPL-2.0

//! Little-endian fields in byte slices.
//!
//! Reading is total: a field that is not wholly inside the slice reads as zero. The views check the
//! slice's length when they are made, so for them that case does not arise.

/// The `N` bytes at `at`, or zeroes.
pub(super) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .unwrap_or([0; N])
}

/// The `u32` at `at`, or zero.
pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(bytes, at))
}

/// The `u64` at `at`, or zero.
pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(bytes, at))
}

/// Copies `value` to `at`. Says whether it fitted; if not, nothing was written.
#[must_use]
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> bool {
    let room = at
        .checked_add(value.len())
        .and_then(|end| bytes.get_mut(at..end));
    match room {
        Some(room) => {
            room.copy_from_slice(value);
            true
        }
        None => false,
    }
}

/// Whether `at..` of `bytes` is all zero.
pub(super) fn zero_from(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..).unwrap_or(&[]).iter().all(|&b| b == 0)
}
