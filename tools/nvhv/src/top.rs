// SPDX-License-Identifier: GPL-2.0

//! `nvhv top`: the VMs that are here, and images at rest, looked at again and again.

use crate::cli::Top;
use crate::device::Device;
use crate::failure::Failure;
use crate::terminal::{Terminal, Wish};
use crate::usage::Usages;
use crate::vm::Vm;
use crate::{table, text};
use nvhv_pure::abi::{persistence, pool_state, Info};
use std::cmp::Reverse;
use std::io::{self, Write};
use std::thread;

const HEAD: [&str; 9] = [
    "NAME", "STATE", "VCPUS", "RAM", "POOL", "CPU%", "SEAL", "RESUMES", "REFUSED",
];

/// Shows them until somebody has seen enough.
pub fn top(args: &Top) -> Result<(), Failure> {
    let device = Device::open()?;
    let mut usages = Usages::new();
    let looks = args.iterations.map(|n| n.get());
    let looks = if args.once { Some(1) } else { looks };
    let failed = |error: io::Error| Failure::Refused(format!("the terminal: {error}"));
    let terminal = if args.batch || args.once {
        None
    } else {
        let terminal = Terminal::take().map_err(failed)?;
        let none = || Failure::Refused("this is no terminal: say -b".into());
        Some(terminal.ok_or_else(none)?)
    };
    let mut done = 0;
    loop {
        let page = look(&device, &mut usages)?;
        done += 1;
        let is_last = looks == Some(done);
        match &terminal {
            Some(terminal) => {
                terminal.show(&cut(page, terminal.size())).map_err(failed)?;
                // The last page stays as long as any.
                if terminal.wait(args.delay).map_err(failed)? == Wish::Quit || is_last {
                    return Ok(());
                }
            }
            None => {
                let gap = if is_last { "\n" } else { "\n\n" };
                let mut out = io::stdout().lock();
                let said = write!(out, "{}{gap}", page.join("\n")).and_then(|()| out.flush());
                if said.is_err() || is_last {
                    // Nobody listens any more, or nothing is left to say.
                    return Ok(());
                }
                thread::sleep(args.delay);
            }
        }
    }
}

fn look(device: &Device, usages: &mut Usages) -> Result<Vec<String>, Failure> {
    let info = device.info()?;
    let vms: Vec<Vm> = device.vms()?.iter().map(Vm::from).collect();
    let shares = usages.look(vms.iter().filter_map(|vm| vm.pid));
    let vms = vms.into_iter().map(|vm| {
        let share = vm.pid.and_then(|pid| shares.get(&pid).copied());
        (vm, share)
    });
    Ok(page(&info, vms.collect()))
}

/// A page: the pool, then the VMs with their shares of the processors. Those that are here come first, the busiest first of all.
fn page(info: &Info, mut vms: Vec<(Vm, Option<f64>)>) -> Vec<String> {
    // In tenths, as they are shown: what looks the same stays in its order.
    let tenths = |share: Option<f64>| share.map(|share| (share * 10.0).round() as u64);
    vms.sort_by_key(|(vm, share)| {
        let here = vm.pid.is_some();
        (Reverse((here, tenths(*share))), vm.handle(), vm.slot)
    });
    let here = vms.iter().filter(|(vm, _)| vm.pid.is_some()).count();
    let rows: Vec<_> = vms.iter().map(|(vm, share)| row(vm, *share)).collect();
    let mut page = vec![
        pool(info),
        format!("{here} VMs here, {} at rest", vms.len() - here),
        String::new(),
    ];
    page.extend(table::lines(&HEAD, &rows));
    page
}

fn pool(info: &Info) -> String {
    let version = text::field(&info.module_version);
    if info.pool_state == pool_state::NONE {
        return format!("nvhv {version}, no pool: {}", text::field(&info.text));
    }
    let domain = match info.persistence {
        persistence::CPU_CACHE => "CPU caches included",
        persistence::MEMORY_CONTROLLER => "from the memory controller on",
        _ => "unknown",
    };
    let used = info.pool_bytes - info.free_bytes.min(info.pool_bytes);
    let mut line = format!(
        "nvhv {version}, pool on {}: {} of {} in use ({}%), persistence domain: {domain}",
        text::field(&info.device),
        text::bytes(used),
        text::bytes(info.pool_bytes),
        100 * u128::from(used) / u128::from(info.pool_bytes.max(1)),
    );
    if info.pool_state != pool_state::GOOD {
        line += &format!("; {}", text::field(&info.text));
    }
    line
}

fn row(vm: &Vm, share: Option<f64>) -> Vec<String> {
    let none = || String::from("-");
    let seal = vm.timings.seal_ns;
    let seal = match vm.timings.budget_ms {
        _ if seal == 0 => none(),
        None => text::duration(seal),
        Some(budget) => {
            let late = if seal > budget * 1_000_000 {
                ", LATE"
            } else {
                ""
            };
            format!("{} of {budget} ms{late}", text::duration(seal))
        }
    };
    vec![
        vm.handle(),
        vm.state_text(),
        vm.vcpus.to_string(),
        text::bytes(vm.ram_bytes),
        text::bytes(vm.pool_bytes),
        share.map_or_else(none, |share| format!("{share:.1}")),
        seal,
        vm.resumes.to_string(),
        vm.refusal.as_ref().map_or_else(none, |r| r.text.clone()),
    ]
}

/// As much of a page as there is room for; a reason may name what somebody else has named, and is not to rule the terminal.
fn cut(page: Vec<String>, (width, height): (usize, usize)) -> Vec<String> {
    let harmless = |c: char| if c.is_control() { '?' } else { c };
    let short = |line: String| line.chars().map(harmless).take(width).collect();
    page.into_iter().take(height).map(short).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::samples;
    use nvhv_pure::abi;

    fn info() -> Info {
        let mut info = Info {
            pool_state: pool_state::GOOD,
            persistence: persistence::CPU_CACHE,
            pool_bytes: 4 << 30,
            free_bytes: 3 << 30,
            ..Info::ZERO
        };
        info.module_version[..5].copy_from_slice(b"0.1.0");
        info.device[..6].copy_from_slice(b"dax0.0");
        info
    }

    fn named(name: &[u8], pid: i32) -> Vm {
        let mut vm = abi::Vm {
            pid,
            state: abi::vm_state::LIVE,
            ..abi::Vm::ZERO
        };
        vm.name[..name.len()].copy_from_slice(name);
        Vm::from(&vm)
    }

    #[test]
    fn tells_of_pool_and_vms() {
        let page = page(&info(), vec![(Vm::from(&samples::full()), Some(12.34))]);
        let expected = [
            "nvhv 0.1.0, pool on dax0.0: 1 GiB of 4 GiB in use (25%), persistence domain: CPU caches included",
            "1 VMs here, 0 at rest",
            "",
            "NAME  STATE          VCPUS  RAM      POOL     CPU%  SEAL             RESUMES  REFUSED",
            "a-b   frozen,unkept  2      320 MiB  328 MiB  12.3  9.7 ms of 20 ms  4        for it.",
        ];
        assert_eq!(page, expected);
    }

    #[test]
    fn tells_what_is_wrong() {
        let mut vm = samples::full();
        vm.timings.budget_ms = 9;
        let late = page(&info(), vec![(Vm::from(&vm), None)]);
        assert!(late[4].contains(" -     9.7 ms of 9 ms, LATE "), "{late:?}");
        vm.timings.budget_ms = 0;
        let other = page(&info(), vec![(Vm::from(&vm), None)]);
        assert!(other[4].contains("  9.7 ms  "), "{other:?}");
        let mut info = info();
        info.text[..3].copy_from_slice(b"why");
        info.pool_state = pool_state::SUSPECT;
        assert!(page(&info, vec![])[0].ends_with("included; why"));
        info.pool_state = pool_state::NONE;
        assert_eq!(page(&info, vec![])[0], "nvhv 0.1.0, no pool: why");
    }

    #[test]
    fn the_busiest_are_first() {
        let vms = vec![
            (named(b"rests", 0), None),
            (named(b"idle", 1), Some(0.0)),
            (named(b"same", 2), Some(9.01)),
            (named(b"busy", 3), Some(180.0)),
            (named(b"even", 4), Some(9.02)),
            (named(b"gone", 5), None),
        ];
        let page = page(&info(), vms);
        let names: Vec<_> = page[4..]
            .iter()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(names, ["busy", "even", "same", "idle", "gone", "rests"]);
        assert_eq!(page[1], "5 VMs here, 1 at rest");
    }

    #[test]
    fn is_no_larger_than_its_terminal() {
        let page = page(&info(), vec![(Vm::from(&samples::full()), None)]);
        assert_eq!(cut(page, (7, 4)), ["nvhv 0.", "1 VMs h", "", "NAME  S"]);
        assert_eq!(cut(vec!["a\x1b[31m\n".into()], (80, 24)), ["a?[31m?"]);
    }
}
