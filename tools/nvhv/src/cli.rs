// SPDX-License-Identifier: GPL-2.0

//! The command line. Help, man page and completions follow from it.

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// Virtual machines that outlive their host.
#[derive(Parser)]
#[command(name = "nvhv", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 the module is not there; \
4 no such VM. 'run' becomes the VMM, whose exit code counts; before that: 125 refused or failed, \
126 the VMM cannot be run, 127 there is no such VMM.";

#[derive(Subcommand)]
pub enum Verb {
    /// Make an empty pool on a devdax device
    Format(Format),
    /// Run an unmodified VMM whose VM has a name, and resume that VM if there is an image of it
    Run(Run),
    /// List the VMs of the pool
    List(List),
    /// Show all that is known of a VM
    Show(Show),
    /// Give up a VM's image and free its memory
    Discard(Discard),
    /// Freeze a running VM and seal it: power may be cut then
    Seal(Seal),
    /// Let a VM go on after 'seal'
    Thaw(Which),
    /// Start VMs again as they were started when they were sealed
    Resume(Resume),
    /// Have 'resume --all' start a VM, as it is called when the host has booted
    Enable(Enable),
    /// Have it not
    Disable(Disable),
    /// Measure what a power failure costs here: seal all VMs as 'seal --now' does, and let them go on
    Drill(Drill),
    /// Copy a sealed image into a file, for another host
    Export(Export),
    /// Bring an image here from a file that 'export' made
    Import(Import),
    /// Write an image, sealed or torn, as an ELF core for drgn, crash or gdb
    Dump(Dump),
    /// Print what becomes of VMs as it happens
    Events(Events),
    /// Watch the VMs, and what their VMMs take of the processors: 'q' quits
    Top(Top),
    /// Print pool and VMs for Prometheus
    Metrics(Metrics),
    /// Write man pages and completions below a directory
    #[command(hide = true)]
    Generate(Generate),
    /// Say which prerequisites hold, and how to mend the others
    Check(Check),
}

#[derive(Args)]
pub struct Format {
    /// The device, such as /dev/dax0.0
    pub device: PathBuf,
    /// How many VMs the pool can hold
    #[arg(long, value_name = "N", default_value_t = nvhv_pure::format::SLOTS_DEFAULT)]
    pub vm_slots: u32,
    /// Destroy the pool that is on the device, with its VMs
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct Run {
    /// The VM's name: letters, digits, '_', and inside also '.' and '-'; at most 63
    #[arg(long)]
    pub name: String,
    /// What to do: torn=refuse (default) or torn=cold, which sets a torn or mismatching image
    /// aside and starts anew; moved=refuse (default) or moved=resume, which resumes this once an image
    /// whose VM was being migrated: make sure that it lives nowhere else
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    pub policy: Vec<String>,
    /// Seal and resume the VM also while its guest uses devices whose state cannot be kept: it goes on
    /// without that state
    #[arg(long)]
    pub allow_partial: bool,
    /// What the guest's drivers are shown of virtio disks: as-is, or writethrough, which hides their
    /// cache, so that what is acknowledged is stable
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Disk::AsIs)]
    pub disk: Disk,
    /// Record this variable, too, for 'resume', beside PATH, HOME, LANG and their kind
    #[arg(long, value_name = "VARIABLE")]
    pub env: Vec<String>,
    /// It is 'resume' that calls: what is recorded stays as it is
    #[arg(long, hide = true)]
    pub as_recorded: bool,
    /// The VMM and its arguments
    #[arg(last = true, required = true, value_name = "VMM")]
    pub command: Vec<OsString>,
}

/// What becomes of the caches of disks.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Disk {
    /// The guest sees what the VMM offers
    AsIs,
    /// The guest sees no cache
    Writethrough,
}

#[derive(Args)]
pub struct List {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// For scripts: no header, tabs between columns
    #[arg(short = 'H')]
    pub plain: bool,
    /// Exact numbers: bytes, nanoseconds since 1970
    #[arg(short = 'p')]
    pub exact: bool,
}

#[derive(Args)]
pub struct Show {
    /// The VM: its name, or '#' and its slot
    pub name: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Discard {
    /// The VM: its name, or '#' and its slot
    pub name: String,
    /// Do it, rather than say what would be lost
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The VM: its name, or '#' and its slot
    pub name: Option<String>,
    /// All VMs that are here
    #[arg(long)]
    pub all: bool,
}

#[derive(Args)]
#[group(skip)]
#[command(group(ArgGroup::new("what").required(true).args(["name", "all", "now"])))]
pub struct Seal {
    /// The VM: its name, or '#' and its slot
    pub name: Option<String>,
    /// All VMs that are here
    #[arg(long)]
    pub all: bool,
    /// All VMs, whosever they are, at once and before all else, as power is failing
    #[arg(long)]
    pub now: bool,
    /// With --now: how long there is power, instead of the module's holdup_ms
    #[arg(long, value_name = "MS", conflicts_with_all = ["name", "all"], value_parser = clap::value_parser!(u32).range(1..))]
    pub budget: Option<u32>,
}

#[derive(Args)]
#[group(skip)]
#[command(group(ArgGroup::new("whom").required(true).args(["name", "all"])))]
pub struct Resume {
    /// The VM's name
    pub name: Option<String>,
    /// All that are enabled and have an image
    #[arg(long)]
    pub all: bool,
    /// Become the VMM, rather than start it in the background
    #[arg(long, requires = "name", conflicts_with_all = ["all", "jobs", "timeout"])]
    pub foreground: bool,
    /// How many to start at a time; by default as many as there are processors
    #[arg(long, value_name = "N")]
    pub jobs: Option<std::num::NonZeroUsize>,
    /// How long each may take until it runs, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub timeout: u64,
}

#[derive(Args)]
pub struct Enable {
    /// The VM's name
    pub name: String,
    /// Those of a higher priority are started first
    #[arg(long, value_name = "0..255", default_value_t = 0)]
    pub priority: u8,
}

#[derive(Args)]
pub struct Disable {
    /// The VM's name
    pub name: String,
}

#[derive(Args)]
pub struct Drill {
    /// How long there would be power, instead of the module's holdup_ms
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub budget: Option<u32>,
    /// Do it, rather than say what would stand still
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Export {
    /// The VM: its name, or '#' and its slot
    pub name: String,
    /// The file, or '-' for standard output. FILE.part is what an export that was interrupted has left: it
    /// goes on there
    pub file: PathBuf,
    /// Give the image up once the file is durable: the VM moves
    #[arg(long)]
    pub discard: bool,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct Import {
    /// The name that the VM has here
    pub name: String,
    /// The file, or '-' for standard input
    pub file: PathBuf,
    /// The user it belongs to here, instead of the one it belonged to
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
}

#[derive(Args)]
pub struct Dump {
    /// The VM: its name, or '#' and its slot
    pub name: String,
    /// The file
    pub file: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct Events {
    /// Until interrupted, which is all that there is to it: events are not kept
    #[arg(long, required = true)]
    pub follow: bool,
    /// Print JSON, an object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Top {
    /// How long to wait between two looks, in seconds
    #[arg(short = 'd', long = "delay", value_name = "SECONDS", default_value = "3", value_parser = delay)]
    pub delay: Duration,
    /// How many looks there are to be
    #[arg(short = 'n', long = "iterations", value_name = "N")]
    pub iterations: Option<NonZeroU64>,
    /// For files and pipes: one look below the other
    #[arg(short = 'b', long = "batch")]
    pub batch: bool,
    /// As -b -n 1
    #[arg(long, conflicts_with_all = ["delay", "iterations"])]
    pub once: bool,
}

/// A number of seconds, with a fraction if it must be.
fn delay(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is no number of seconds")?;
    let delay = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    // A day: what is longer cannot be waited for in one go.
    let sensible = Duration::from_millis(10)..=Duration::from_secs(86_400);
    let sensible = sensible.contains(&delay).then_some(delay);
    sensible.ok_or_else(|| "it is not between 0.01 and 86400".into())
}

#[derive(Args)]
pub struct Generate {
    /// As /usr/share
    pub directory: PathBuf,
}

#[derive(Args)]
pub struct Metrics {
    /// Put them into this file, whole, rather than print them: for node_exporter's textfile collector
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Args)]
pub struct Check {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::{CommandFactory, Parser};

    #[test]
    fn is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn takes_a_vmm_with_options() {
        let line = "nvhv run --name a -- qemu -name b --policy c";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
        assert!(Cli::try_parse_from(["nvhv", "run", "--name", "a"]).is_err());
        let line = "nvhv run --name a --allow-partial --disk=writethrough -- qemu";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
        let line = "nvhv run --name a --disk=writeback -- qemu";
        assert!(Cli::try_parse_from(line.split(' ')).is_err());
    }

    #[test]
    fn seals_one_or_all() {
        assert!(Cli::try_parse_from(["nvhv", "seal"]).is_err());
        assert!(Cli::try_parse_from(["nvhv", "seal", "a", "--all"]).is_err());
        assert!(Cli::try_parse_from(["nvhv", "seal", "--all"]).is_ok());
        assert!(Cli::try_parse_from(["nvhv", "seal", "--now"]).is_ok());
        assert!(Cli::try_parse_from(["nvhv", "seal", "--now", "--budget", "20"]).is_ok());
        assert!(Cli::try_parse_from(["nvhv", "seal", "--all", "--now"]).is_err());
        assert!(Cli::try_parse_from(["nvhv", "seal", "--all", "--budget", "20"]).is_err());
    }

    #[test]
    fn resumes_one_or_all() {
        assert!(Cli::try_parse_from(["nvhv", "resume"]).is_err());
        assert!(Cli::try_parse_from(["nvhv", "resume", "a", "--all"]).is_err());
        assert!(Cli::try_parse_from(["nvhv", "resume", "a", "--foreground"]).is_ok());
        assert!(Cli::try_parse_from(["nvhv", "resume", "--all", "--foreground"]).is_err());
        assert!(Cli::try_parse_from(["nvhv", "resume", "--all", "--jobs", "0"]).is_err());
        assert!(Cli::try_parse_from(["nvhv", "resume", "--all", "--jobs", "2"]).is_ok());
    }

    #[test]
    fn looks_as_often_as_top() {
        assert!(Cli::try_parse_from(["nvhv", "top", "-b", "-n", "2", "-d", "0.5"]).is_ok());
        assert!(Cli::try_parse_from(["nvhv", "top", "--once"]).is_ok());
        for wrong in [
            &["-d", "0"][..],
            &["-d", "-1"],
            &["-d", "NaN"],
            &["-d", "1e9"],
            &["-n", "0"],
            &["--once", "-n", "2"],
        ] {
            let line = ["nvhv", "top"].iter().chain(wrong);
            assert!(Cli::try_parse_from(line).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn drills_with_a_budget() {
        assert!(Cli::try_parse_from(["nvhv", "drill"]).is_ok());
        assert!(Cli::try_parse_from(["nvhv", "drill", "--force", "--json"]).is_ok());
        assert!(Cli::try_parse_from(["nvhv", "drill", "--budget", "20"]).is_ok());
        assert!(Cli::try_parse_from(["nvhv", "drill", "--budget", "0"]).is_err());
        assert!(Cli::try_parse_from(["nvhv", "drill", "a"]).is_err());
    }
}
