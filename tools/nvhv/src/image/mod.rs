// SPDX-License-Identifier: GPL-2.0

//! Images outside the pool: files that carry one to another host, and cores for debuggers.

mod core;
mod dump;
mod export;
mod import;
mod kernel;
mod pages;
mod parts;

pub use dump::dump;
pub use export::export;
pub use import::import;

use crate::failure::Failure;
use std::path::Path;

/// Refuses to make a file where there is something that is not to be replaced: never anything but a file.
fn may_make(path: &Path, force: bool) -> Result<(), Failure> {
    let refused = |why: &str| Err(Failure::Refused(format!("{}: {why}", path.display())));
    match path.symlink_metadata() {
        Ok(about) if !about.is_file() => {
            refused("it is there already, and no ordinary file: name another one")
        }
        Ok(_) if !force => refused("it is there already: --force replaces it"),
        _ => Ok(()),
    }
}
