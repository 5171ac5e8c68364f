// SPDX-License-Identifier: GPL-2.0

//! `nvhv`: virtual machines that outlive their host.
//!
//! Everything but `format` is a conversation with the module over `/dev/nvhv` (`docs/abi.md`).
//! `format` writes an empty pool to a device that the module does not hold.

mod check;
mod cli;
mod dax;
mod device;
mod devices;
mod drill;
mod enable;
mod events;
mod failure;
mod format;
mod generate;
mod image;
mod launch;
mod list;
mod metrics;
mod progress;
mod resume;
mod run;
mod select;
mod show;
mod table;
mod terminal;
mod text;
mod top;
mod usage;
mod vm;

use clap::Parser;
use cli::{Cli, Verb};
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Format(args) => format::format(&args),
        Verb::Run(args) => run::run(&args),
        Verb::List(args) => list::list(&args),
        Verb::Show(args) => show::show(&args),
        Verb::Discard(args) => select::discard(&args),
        Verb::Seal(args) => select::seal(&args),
        Verb::Thaw(args) => select::thaw(&args),
        Verb::Resume(args) => resume::resume(&args),
        Verb::Enable(args) => enable::enable(&args),
        Verb::Disable(args) => enable::disable(&args),
        Verb::Drill(args) => drill::drill(&args),
        Verb::Events(args) => events::events(&args),
        Verb::Top(args) => top::top(&args),
        Verb::Metrics(args) => metrics::metrics(&args),
        Verb::Export(args) => image::export(&args),
        Verb::Import(args) => image::import(&args),
        Verb::Dump(args) => image::dump(&args),
        Verb::Generate(args) => generate::generate(&args),
        Verb::Check(args) => check::check(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("nvhv: {failure}");
            failure.code()
        }
    }
}
