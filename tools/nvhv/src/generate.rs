// SPDX-License-Identifier: GPL-2.0

//! `nvhv generate`, for packages: man pages and completions, from the definition of the command line.

use crate::cli::{Cli, Generate};
use crate::failure::Failure;
use clap::{Command, CommandFactory};
use clap_complete::{generate_to, Shell};
use clap_mangen::Man;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Writes them below a directory as /usr/share is.
pub fn generate(args: &Generate) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::Refused(format!("{}: {error}", args.directory.display()));
    write(&args.directory).map_err(failed)
}

fn write(share: &Path) -> io::Result<()> {
    let mut command = Cli::command();
    command.build();
    let man = share.join("man/man8");
    fs::create_dir_all(&man)?;
    page(&man, &command)?;
    for verb in command.get_subcommands() {
        if !verb.is_hide_set() && verb.get_name() != "help" {
            page(&man, verb)?;
        }
    }
    let shells = [
        (
            Shell::Bash,
            "bash-completion/completions",
            "nvhv.bash",
            "nvhv",
        ),
        (Shell::Zsh, "zsh/vendor-completions", "_nvhv", "_nvhv"),
        (
            Shell::Fish,
            "fish/vendor_completions.d",
            "nvhv.fish",
            "nvhv.fish",
        ),
    ];
    for (shell, directory, made, name) in shells {
        let directory = share.join(directory);
        fs::create_dir_all(&directory)?;
        generate_to(shell, &mut command, "nvhv", &directory)?;
        fs::rename(directory.join(made), directory.join(name))?;
    }
    Ok(())
}

fn page(directory: &Path, command: &Command) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut file = File::create(directory.join(format!("{name}.8")))?;
    Man::new(command.clone())
        .section("8")
        .manual("System administration")
        .render(&mut file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_a_page() {
        let share = std::env::temp_dir().join(format!("nvhv-generate-{}", std::process::id()));
        write(&share).expect("written");
        let read = |path: &str| fs::read_to_string(share.join(path)).expect(path);
        assert!(read("man/man8/nvhv.8").contains("nvhv\\-resume(8)"));
        assert!(read("man/man8/nvhv-resume.8").contains("\\-\\-foreground"));
        assert!(read("bash-completion/completions/nvhv").contains("resume"));
        assert!(read("zsh/vendor-completions/_nvhv").contains("resume"));
        assert!(read("fish/vendor_completions.d/nvhv.fish").contains("resume"));
        assert!(!share.join("man/man8/nvhv-generate.8").exists());
        fs::remove_dir_all(share).expect("removed");
    }
}
