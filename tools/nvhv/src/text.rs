// SPDX-License-Identifier: GPL-2.0

//! Numbers and fields as text.

use std::time::{Duration, UNIX_EPOCH};

/// A text field without its padding. It may be another user's: a terminal is told nothing by it.
pub fn field(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).replace(char::is_control, "\u{fffd}")
}

/// Bytes, rounded, in binary units.
pub fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let power = (n.max(1).ilog2() / 10).min(5);
    if power == 0 {
        return format!("{n} B");
    }
    let unit = 1u64 << (10 * power);
    let tenths = (u128::from(n % unit) * 10 / u128::from(unit)) as u64;
    let unit_name = units[power as usize];
    match tenths {
        0 => format!("{} {unit_name}", n / unit),
        _ => format!("{}.{tenths} {unit_name}", n / unit),
    }
}

/// A point in time, or `-`.
pub fn time(ns: u64) -> String {
    match ns {
        0 => "-".into(),
        _ => {
            let time = UNIX_EPOCH + Duration::from_nanos(ns);
            humantime::format_rfc3339_seconds(time).to_string()
        }
    }
}

/// A duration.
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{}.{} us", ns / 1_000, ns / 100 % 10),
        1_000_000..1_000_000_000 => format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10),
        _ => format!("{}.{} s", ns / 1_000_000_000, ns / 100_000_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(2 << 20), "2 MiB");
        assert_eq!(bytes((3 << 30) / 2), "1.5 GiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(5_250_000), "5.2 ms");
        assert_eq!(time(0), "-");
        assert_eq!(time(1_000_000_000), "1970-01-01T00:00:01Z");
        assert_eq!(field(b"dax0.0\0\0"), "dax0.0");
        assert_eq!(field(b"a\x1b]0;b\x07\xff"), "a\u{fffd}]0;b\u{fffd}\u{fffd}");
    }
}
