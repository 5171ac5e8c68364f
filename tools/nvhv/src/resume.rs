// SPDX-License-Identifier: GPL-2.0

//! `nvhv resume`: VMs are started as `nvhv run` recorded it, several at a time.
//!
//! With systemd each becomes a service of its own, `nvhv-vm-NAME.service`, whose output is in the journal, and which
//! is stopped after all VMs are sealed. Elsewhere it is a process in the background with a file for its output.

use crate::cli::Resume;
use crate::device::Device;
use crate::enable::{store_of, unknown};
use crate::failure::Failure;
use crate::launch::{clear_leftovers, slice, take_place, Launch, Store};
use crate::vm::Vm;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// How often one looks whether a VM runs.
const LOOK: Duration = Duration::from_millis(50);

/// Starts VMs again.
pub fn resume(args: &Resume) -> Result<(), Failure> {
    match args.name.as_deref() {
        Some(name) => {
            let launch = store_of(name)?
                .load(name)
                .map_err(|error| unknown(name, &error))?;
            if args.foreground {
                return become_vmm(&launch);
            }
            let vm = Vm::find(&Device::open()?, name)?;
            if let Some(why) = hindrance(&vm) {
                return Err(Failure::Refused(format!("{name}: {why}")));
            }
            start_all(vec![launch], Vec::new(), args)
        }
        None => {
            let (launches, hindered) = enabled()?;
            start_all(launches, hindered, args)
        }
    }
}

/// Those that are enabled and can be resumed, in order: root's first, then by priority. Says what is wrong with the
/// others, whose names follow. Without an image a VM has ended in order, by its guest's or somebody's will.
fn enabled() -> Result<(Vec<Launch>, Vec<String>), Failure> {
    let device = Device::open()?;
    let own = nix::unistd::geteuid();
    let (mut launches, mut hindered) = (Vec::new(), Vec::new());
    for vm in Vm::all(&device)? {
        if vm.aside || is_here(&vm) || !own.is_root() && own.as_raw() != vm.uid {
            continue;
        }
        let why = match Store::of(vm.uid).load(&vm.name) {
            Ok(launch) if !launch.enabled => continue,
            Ok(launch) => match hindrance(&vm) {
                None => {
                    launches.push(launch);
                    continue;
                }
                Some(why) => why,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => error.to_string(),
        };
        eprintln!("nvhv: {}: {why}", vm.name);
        hindered.push(vm.name);
    }
    let order = |launch: &Launch| (launch.uid != 0, Reverse(launch.priority));
    launches.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.name.cmp(&b.name)));
    Ok((launches, hindered))
}

/// Whether its VMM lives, be the VM frozen or not.
fn is_here(vm: &Vm) -> bool {
    vm.state == "live" || vm.frozen || vm.pid.is_some()
}

/// Why a VM cannot be resumed, if it cannot. The module has the last word.
fn hindrance(vm: &Vm) -> Option<String> {
    let cold = vm.policy.contains(&"torn=cold");
    match vm.state {
        _ if is_here(vm) => Some("it runs".into()),
        _ if vm.clash => Some(format!(
            "two pools have an image of this name, and this is {} on {}: see 'nvhv list'",
            vm.handle(),
            vm.device
        )),
        "sealed" if !vm.unsaved || cold => None,
        "torn" if cold => None,
        _ => Some(format!(
            "it is {}: see 'nvhv show {}'",
            vm.state_text(),
            vm.handle()
        )),
    }
}

/// Starts all, `jobs` at a time, and waits until each runs. Those that are `hindered` count among those that do not.
fn start_all(launches: Vec<Launch>, hindered: Vec<String>, args: &Resume) -> Result<(), Failure> {
    let total = launches.len() + hindered.len();
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok());
    let jobs = jobs.map_or(1, usize::from).min(launches.len());
    let waiting = Mutex::new(VecDeque::from(launches));
    let failed = Mutex::new(hindered);
    let next = || waiting.lock().expect("no thread panics").pop_front();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(launch) = next() {
                    let began = Instant::now();
                    match start(&launch, Duration::from_secs(args.timeout)) {
                        // Whoever listened may be gone; the others are started all the same.
                        Ok(pid) => drop(writeln!(
                            io::stdout(),
                            "{}: runs as process {pid}, after {:.1} s",
                            launch.name,
                            began.elapsed().as_secs_f64()
                        )),
                        Err(why) => {
                            eprintln!("nvhv: {}: {why}", launch.name);
                            failed.lock().expect("no thread panics").push(launch.name);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics");
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "{} of {total} VMs do not run: {}",
        failed.len(),
        failed.join(", ")
    )))
}

/// Starts one and waits until it runs; gives its VMM's process id.
fn start(launch: &Launch, limit: Duration) -> Result<i32, String> {
    let mut started = if Path::new("/run/systemd/system").exists() {
        Started::as_service(launch)
    } else {
        Started::in_background(launch)
    }?;
    let device = Device::open().map_err(|failure| failure.to_string())?;
    let deadline = Instant::now() + limit;
    loop {
        // Before it is looked for: it may run and end in between.
        let ended = started.has_ended();
        match Vm::find(&device, &launch.name) {
            Ok(Vm {
                state: "live",
                pid: Some(pid),
                ..
            }) => return Ok(pid),
            _ if ended => return Err(format!("it has ended: see {}", started.output)),
            _ if Instant::now() > deadline => {
                return Err(format!(
                    "it does not run after {} s: see {}",
                    limit.as_secs(),
                    started.output
                ));
            }
            _ => thread::sleep(LOOK),
        }
    }
}

/// A VMM that is being started.
struct Started {
    child: Option<Child>,
    unit: String,
    /// When one looks at the unit next: that costs more than to look at the VM.
    look: Instant,
    /// Where its output is.
    output: String,
}

impl Started {
    fn as_service(launch: &Launch) -> Result<Self, String> {
        let unit = format!("nvhv-vm-{}.service", launch.name);
        let mut command = Command::new("systemd-run");
        command
            .args([
                "--quiet",
                "--collect",
                "--service-type=exec",
                "--no-ask-password",
            ])
            .arg(format!("--unit={unit}"))
            .arg(format!("--description=Virtual machine {}", launch.name))
            .arg("--property=KillMode=mixed");
        if is_root() {
            // When the host goes down all are sealed before any is stopped, and each is stopped before what it uses. A VMM
            // whose VM stands still does not end in order, and would not write to its disks what it has for them.
            let this = this_program()?;
            command
                .arg(format!("--slice={}", slice(launch)))
                .arg(format!("--property=ExecStop=-{this} thaw {}", launch.name))
                .arg("--property=Before=nvhv-seal.service")
                .arg("--property=After=nvhv.service network.target remote-fs.target");
            if launch.uid != 0 {
                let directory = format!("user-runtime-dir@{}.service", launch.uid);
                command
                    .arg(format!("--property=Wants={directory}"))
                    .arg(format!("--property=After={directory}"));
            }
        } else {
            command.arg("--user");
        }
        command.arg("--").args(again(launch)?);
        let output = command
            .output()
            .map_err(|error| format!("systemd-run: {error}"))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("systemd-run: {}", why.trim()));
        }
        let whose = if is_root() { "" } else { "--user " };
        let journal = format!("'journalctl {whose}-u {unit}'");
        Ok(Started {
            child: None,
            unit,
            look: Instant::now(),
            output: journal,
        })
    }

    fn in_background(launch: &Launch) -> Result<Self, String> {
        let directory = logs();
        let output = directory.join(format!("{}.log", launch.name));
        let open = || {
            fs::create_dir_all(&directory)?;
            let log = OpenOptions::new().create(true).append(true).open(&output)?;
            Ok((log.try_clone()?, log))
        };
        let failed = |error: io::Error| format!("{}: {error}", output.display());
        let (out, err) = open().map_err(failed)?;
        // A session of its own: what is typed at a terminal is not for it.
        let child = Command::new("setsid")
            .args(again(launch)?)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| format!("setsid: {error}"))?;
        Ok(Started {
            child: Some(child),
            unit: String::new(),
            look: Instant::now(),
            output: output.display().to_string(),
        })
    }

    fn has_ended(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            return matches!(child.try_wait(), Ok(Some(_)));
        }
        if Instant::now() < self.look {
            return false;
        }
        self.look = Instant::now() + Duration::from_secs(1);
        let mut systemctl = Command::new("systemctl");
        if !is_root() {
            systemctl.arg("--user");
        }
        let state = systemctl
            .args(["is-active", "--quiet", &self.unit])
            .status();
        state.is_ok_and(|status| !status.success())
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Where what is started without systemd writes to.
fn logs() -> PathBuf {
    let of_user = || {
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))
    };
    match of_user() {
        Some(state) if !is_root() => state.join("nvhv"),
        _ => "/var/log/nvhv".into(),
    }
}

/// This command, to become the VMM.
fn again(launch: &Launch) -> Result<[String; 4], String> {
    let this = this_program()?;
    Ok([
        this,
        "resume".into(),
        "--foreground".into(),
        launch.name.clone(),
    ])
}

fn this_program() -> Result<String, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let text = this.into_os_string().into_string();
    text.map_err(|_| "its own path is not UTF-8".into())
}

/// Becomes `nvhv run` as it was called. Returns only if that failed.
fn become_vmm(launch: &Launch) -> Result<(), Failure> {
    let not_run = |why: String| Failure::NotRun(format!("{}: {why}", launch.name));
    let Some(("run", arguments)) = launch
        .arguments
        .split_first()
        .map(|(verb, rest)| (verb.as_str(), rest))
    else {
        return Err(not_run("its record is of something else than 'run'".into()));
    };
    let in_service = std::env::var_os("INVOCATION_ID").is_some();
    let this = std::env::current_exe().map_err(|error| not_run(error.to_string()))?;
    for warning in take_place(launch, in_service).map_err(not_run)? {
        eprintln!("nvhv: {}: {warning}", launch.name);
    }
    for path in clear_leftovers(arguments) {
        eprintln!(
            "nvhv: {}: removed {path}, left behind by the VMM that died",
            launch.name
        );
    }
    let error = Command::new(this)
        .args(["run", "--no-record"])
        .args(arguments)
        .env_clear()
        .envs(&launch.environment)
        .exec();
    Err(not_run(error.to_string()))
}
