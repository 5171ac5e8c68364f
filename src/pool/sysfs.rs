// SPDX-License-Identifier: GPL-2.0

//! Reading attributes in sysfs and procfs, as user space reads them.

use crate::sys::{c, file::FileRef};
use kernel::{fmt, prelude::*, str::CString};

/// The text of the attribute at `path`, if there is one. What does not fit into `buf` is left out.
pub(super) fn text<'a>(path: fmt::Arguments<'_>, buf: &'a mut [u8]) -> Result<Option<&'a str>> {
    let file = match FileRef::open(&CString::try_from_fmt(path)?, c::O_RDONLY) {
        Err(e) if e == ENOENT => return Ok(None),
        opened => opened?,
    };
    let got = file.read(buf)?;
    let text = core::str::from_utf8(buf.get(..got).ok_or(EIO)?).map_err(|_| EIO)?;
    Ok(Some(text))
}

/// As [`text`], of an attribute that is one line.
pub(super) fn line<'a>(path: fmt::Arguments<'_>, buf: &'a mut [u8]) -> Result<Option<&'a str>> {
    Ok(text(path, buf)?.map(str::trim_end))
}

/// An attribute that is a number, decimal or with 0x.
pub(super) fn number(path: fmt::Arguments<'_>) -> Result<Option<u64>> {
    let mut buf = [0; 32];
    let Some(text) = line(path, &mut buf)? else {
        return Ok(None);
    };
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map(Some).map_err(|_| EIO)
}
