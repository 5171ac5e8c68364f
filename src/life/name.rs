// SPDX-License-Identifier: GPL-2.0

//! The name of a virtual machine.

use core::fmt;

/// A VM's name: 1 to 63 of `A-Z a-z 0-9 . _ -`, of which the first is a letter, a digit or `_`.
///
/// So a name is safe as a file name and on a command line, and `#7` can stand for slot 7.
///
/// # Invariants
///
/// `field` is such a name followed by zero bytes only, or, for [`Name::NONE`], all zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    field: [u8; Name::FIELD],
}

/// Why something is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Nothing there.
    Empty,
    /// More than [`Name::MAX`] bytes.
    TooLong,
    /// A byte that no name has, or not in this place.
    BadByte(u8),
}

impl Name {
    /// Bytes in the field that holds a name.
    pub const FIELD: usize = 64;

    /// Bytes in the longest name.
    pub const MAX: usize = 63;

    /// No name; what a damaged header's name reads as.
    pub const NONE: Name = Name {
        field: [0; Name::FIELD],
    };

    /// Checks a name.
    pub fn new(name: &[u8]) -> Result<Self, NameError> {
        let first = *name.first().ok_or(NameError::Empty)?;
        if matches!(first, b'.' | b'-') {
            return Err(NameError::BadByte(first));
        }
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if let Some(&bad) = name.iter().find(|&&b| !good(b)) {
            return Err(NameError::BadByte(bad));
        }
        let mut field = [0; Name::FIELD];
        match field.get_mut(..name.len()) {
            Some(part) if name.len() <= Name::MAX => part.copy_from_slice(name),
            _ => return Err(NameError::TooLong),
        }
        // INVARIANT: checked above.
        Ok(Name { field })
    }

    /// Checks a name in a field padded with zero bytes.
    pub fn from_field(field: &[u8; Name::FIELD]) -> Result<Self, NameError> {
        let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
        let (name, rest) = field.split_at_checked(end).unwrap_or((field, &[]));
        match rest.iter().find(|&&b| b != 0) {
            Some(&bad) => Err(NameError::BadByte(bad)),
            None => Name::new(name),
        }
    }

    /// The name padded with zero bytes.
    pub fn field(&self) -> &[u8; Name::FIELD] {
        &self.field
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let end = self.field.iter().position(|&b| b == 0).unwrap_or(0);
        let name = self.field.get(..end).unwrap_or(&[]);
        // By the type invariants it is ASCII.
        core::str::from_utf8(name).unwrap_or("")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Empty => f.write_str("a VM's name cannot be empty"),
            NameError::TooLong => write!(f, "a VM's name has at most {} bytes", Name::MAX),
            NameError::BadByte(b) => write!(
                f,
                "'{}' cannot be there in a VM's name: use letters, digits, '_', and inside also '.' and '-'",
                b.escape_ascii()
            ),
        }
    }
}
