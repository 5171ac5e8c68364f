// SPDX-License-Identifier: GPL-2.0

//! `nvhv resume`: VMs are started as `nvhv run` recorded it, several at a time.
//!
//! With systemd each becomes a service of its own, `nvhv-vm-NAME.service`, whose output is in the journal, and which
//! is stopped after all VMs are sealed. Elsewhere it is a process in the background with a file for its output.

use crate::cli::Resume;
use crate::device::Device;
use crate::enable::unknown;
use crate::failure::Failure;
use crate::launch::{clear_leftovers, slice, take_place, Launch, Owned, Store};
use crate::vm::Vm;
use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Where what is started without systemd writes to.
const LOGS: &str = "/var/log/nvhv";
/// How often one looks whether a VM runs.
const LOOK: Duration = Duration::from_millis(50);

/// Starts VMs again.
pub fn resume(args: &Resume) -> Result<(), Failure> {
    let store = Store::open();
    match args.name.as_deref() {
        Some(name) => {
            let launch = store
                .load(name)
                .map_err(|error| unknown(name, &error))?
                .launch;
            if args.foreground {
                return become_vmm(&launch);
            }
            let vm = Vm::find(&Device::open()?, name)?;
            if let Some(why) = hindrance(&vm) {
                return Err(Failure::Refused(format!("{name}: {why}")));
            }
            start_all(vec![launch], args)
        }
        None => start_all(enabled(&store)?, args),
    }
}

/// Those that are enabled and can be resumed, in order. Says what is wrong with the others.
fn enabled(store: &Store) -> Result<Vec<Launch>, Failure> {
    let failed = |error: io::Error| Failure::Refused(format!("records of starts: {error}"));
    let (records, bad) = store.all().map_err(failed)?;
    for error in bad {
        eprintln!("nvhv: {error}");
    }
    let device = Device::open()?;
    let vms: Vec<Vm> = device.vms()?.iter().map(Vm::from).collect();
    let mut launches: Vec<Launch> = records
        .into_iter()
        .map(|Owned { launch, .. }| launch)
        .filter(|launch| launch.enabled)
        .collect();
    launches.sort_by(|a, b| {
        b.priority
            .cmp(&a.priority)
            .then_with(|| a.name.cmp(&b.name))
    });
    launches.retain(|launch| {
        let vm = vms.iter().find(|vm| vm.name == launch.name && !vm.aside);
        // Without an image it has ended in order, by its guest's or somebody's will.
        let hindrance = vm.map(|vm| hindrance(vm).filter(|_| vm.state != "live"));
        if let Some(Some(why)) = &hindrance {
            eprintln!("nvhv: {}: {why}", launch.name);
        }
        matches!(hindrance, Some(None)) && vm.is_some_and(|vm| vm.state != "live")
    });
    Ok(launches)
}

/// Why a VM cannot be resumed, if it cannot. The module has the last word.
fn hindrance(vm: &Vm) -> Option<String> {
    let cold = vm.policy.contains(&"torn=cold");
    match vm.state {
        "live" => Some("it runs".into()),
        "sealed" if !vm.unsaved || cold => None,
        "torn" if cold => None,
        _ => Some(format!(
            "it is {}: see 'nvhv show {}'",
            vm.state_text(),
            vm.handle()
        )),
    }
}

/// Starts all, `jobs` at a time, and waits until each runs.
fn start_all(launches: Vec<Launch>, args: &Resume) -> Result<(), Failure> {
    let total = launches.len();
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok());
    let jobs = jobs.map_or(1, usize::from).min(total);
    let waiting = Mutex::new(VecDeque::from(launches));
    let failed = Mutex::new(Vec::new());
    let next = || waiting.lock().expect("no thread panics").pop_front();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(launch) = next() {
                    let began = Instant::now();
                    match start(&launch, Duration::from_secs(args.timeout)) {
                        Ok(pid) => println!(
                            "{}: runs as process {pid}, after {:.1} s",
                            launch.name,
                            began.elapsed().as_secs_f64()
                        ),
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
            .arg(format!("--slice={}", slice(launch)))
            // When the host goes down all are sealed before any is stopped.
            .args([
                "--property=Before=nvhv-seal.service",
                "--property=KillMode=mixed",
            ]);
        if !nix::unistd::geteuid().is_root() {
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
        let journal = format!("'journalctl -u {unit}'");
        Ok(Started {
            child: None,
            unit,
            output: journal,
        })
    }

    fn in_background(launch: &Launch) -> Result<Self, String> {
        let output = format!("{LOGS}/{}.log", launch.name);
        let open = || {
            fs::create_dir_all(LOGS)?;
            let log = OpenOptions::new().create(true).append(true).open(&output)?;
            Ok((log.try_clone()?, log))
        };
        let (out, err) = open().map_err(|error: io::Error| format!("{output}: {error}"))?;
        let [program, arguments @ ..] = again(launch)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            // What is typed at a terminal is not for it.
            .process_group(0)
            .spawn()
            .map_err(|error| error.to_string())?;
        Ok(Started {
            child: Some(child),
            unit: String::new(),
            output,
        })
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(Some(_))),
            None => {
                let mut systemctl = Command::new("systemctl");
                if !nix::unistd::geteuid().is_root() {
                    systemctl.arg("--user");
                }
                let state = systemctl
                    .args(["is-active", "--quiet", &self.unit])
                    .status();
                state.is_ok_and(|status| !status.success())
            }
        }
    }
}

/// This command, to become the VMM.
fn again(launch: &Launch) -> Result<[String; 4], String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let this = this
        .into_os_string()
        .into_string()
        .map_err(|_| "its own path is not UTF-8")?;
    Ok([
        this,
        "resume".into(),
        "--foreground".into(),
        launch.name.clone(),
    ])
}

/// Becomes `nvhv run` as it was called. Returns only if that failed.
fn become_vmm(launch: &Launch) -> Result<(), Failure> {
    let not_run = |why: String| Failure::NotRun(format!("{}: {why}", launch.name));
    let in_service = std::env::var_os("INVOCATION_ID").is_some();
    let this = std::env::current_exe().map_err(|error| not_run(error.to_string()))?;
    for warning in take_place(launch, in_service).map_err(not_run)? {
        eprintln!("nvhv: {}: {warning}", launch.name);
    }
    for path in clear_leftovers(&launch.arguments) {
        eprintln!(
            "nvhv: {}: removed {path}, left behind by the VMM that died",
            launch.name
        );
    }
    let error = Command::new(this)
        .args(&launch.arguments)
        .env_clear()
        .envs(&launch.environment)
        .exec();
    Err(not_run(error.to_string()))
}
