// SPDX-License-Identifier: GPL-2.0

//! What went wrong, in one line, and the exit code that says which kind it is.

use std::fmt;
use std::process::ExitCode;

/// Why a verb failed.
#[derive(Debug)]
pub enum Failure {
    /// Refused or failed (1).
    Refused(String),
    /// Wrong usage that the command line's grammar cannot tell (2).
    Usage(String),
    /// The module is not there (3).
    NoModule(String),
    /// There is no such VM (4).
    NoVm(String),
    /// `run` failed before there was a VMM (125).
    NotRun(String),
    /// The VMM cannot be run (126).
    CannotRun(String),
    /// There is no such VMM (127).
    NoVmm(String),
}

impl Failure {
    /// The process's exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Refused(_) => 1,
            Failure::Usage(_) => 2,
            Failure::NoModule(_) => 3,
            Failure::NoVm(_) => 4,
            Failure::NotRun(_) => 125,
            Failure::CannotRun(_) => 126,
            Failure::NoVmm(_) => 127,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(text)
            | Failure::Usage(text)
            | Failure::NoModule(text)
            | Failure::NoVm(text)
            | Failure::NotRun(text)
            | Failure::CannotRun(text)
            | Failure::NoVmm(text) => f.write_str(text),
        }
    }
}
