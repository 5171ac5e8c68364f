// SPDX-License-Identifier: GPL-2.0
//! The only program of a test guest, started by its kernel as `/init`.
//!
//! The kernel command line says what it does: `work=NAME`, with `threads=N`, `size=MIB` and so on
//! where a kind of work takes them. It works without end, checks itself all the time, and reports
//! over a device that keeps no state (see [`report`]), so that it can be watched across the death
//! of its VMM and of its host. A line `fail ...` is a wrong result; nothing else is.
//! Work with devices may be joined: `work=disk+net`.
//!
//! In the host it plays the other end of a device: `nvhv-guest peer ADDRESS` or `nvhv-guest echo SOCKET`.

mod balloon;
mod clock;
mod console;
mod counter;
mod disk;
mod ext4;
mod fpu;
mod kmsg;
mod link;
mod mem;
mod modules;
mod net;
mod power;
mod redis;
mod report;
mod rng;
mod root;
mod smp;
mod sys;
mod vsock;
mod watchdog;

use report::report;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// What the kernel command line asks for.
#[derive(Clone)]
pub struct Orders {
    words: Vec<(String, String)>,
}

impl Orders {
    fn read() -> Self {
        let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let words = line
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        Self {
            words: words
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.words
            .iter()
            .find(|(word, _)| word == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a word that may come more than once.
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.words.iter().filter(move |(word, _)| word == name);
        named.map(|(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.text(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(otherwise)
    }

    /// An I/O port, `0xPORT`.
    fn port(&self, name: &str) -> Option<u64> {
        let digits = self.text(name)?.trim_start_matches("0x");
        u64::from_str_radix(digits, 16).ok()
    }

    /// One thread for each processor unless told otherwise.
    pub fn threads(&self) -> usize {
        self.number("threads", sys::processors() as u64) as usize
    }
}

/// What a tick shows of some work: counters with commas between them.
pub type Progress = Box<dyn FnMut() -> String>;

type Start = fn(&Orders) -> Progress;

/// Work that may be joined, most of it with devices: each is started, and then runs by itself.
const DEVICES: [(&str, Start); 8] = [
    ("balloon", balloon::start),
    ("console", console::start),
    ("disk", disk::start),
    ("ext4", ext4::start),
    ("mem", mem::start),
    ("net", net::start),
    ("redis", redis::start),
    ("rng", rng::start),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["peer", address] => {
            if let Err(error) = net::peer(address) {
                println!("fail {error}");
            }
        }
        ["echo", socket] => console::echo(socket),
        ["client", address, acknowledged] => {
            let acknowledged = acknowledged.parse().expect("a number");
            redis::client(address, acknowledged)
        }
        _ => work(),
    }
}

fn work() -> ! {
    if std::process::id() == 1 {
        sys::mount_all();
    }
    std::panic::set_hook(Box::new(|info| report(&format!("fail panic: {info}"))));
    let orders = Orders::read();
    if let Some(port) = orders.port("report") {
        report::through(port);
    }
    if std::process::id() == 1 {
        modules::load(&orders);
        if let Some(device) = orders.text("root") {
            report(&format!("fail root {device}: {}", root::switch(device)));
        }
    }
    let work = orders.text("work").unwrap_or("idle").to_owned();
    report(&format!(
        "boot {} uptime={} cpus={} work={work}",
        sys::boot_id(),
        sys::uptime(),
        sys::processors()
    ));
    kmsg::watch();
    watchdog::start(&orders);
    poke(&orders);
    match work.as_str() {
        "counter" => counter::work(&orders),
        "smp" => smp::work(&orders),
        "fpu" => fpu::work(&orders),
        "clock" => clock::work(&orders),
        "redis" => redis::work(&orders),
        "poweroff" => power::off(&orders),
        "reset" => power::reset(&orders),
        "idle" => ticks(|| "idle".into()),
        other => match start_devices(other, &orders) {
            Some(progress) => ticks(progress),
            None => report(&format!("fail no such work: {other}")),
        },
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Writes a byte to the I/O port of `poke=0xPORT`.
fn poke(orders: &Orders) {
    let Some(port) = orders.port("poke") else {
        return;
    };
    match report::ports().write_all_at(&[0x5a], port) {
        Ok(()) => report(&format!("poked {port:#x}")),
        Err(error) => report(&format!("fail poke {port:#x}: {error}")),
    }
}

/// Starts work with devices, such as `disk+net`; None if there is no such work.
pub fn start_devices(names: &str, orders: &Orders) -> Option<Progress> {
    let starts = names
        .split('+')
        .map(|name| DEVICES.iter().find(|(known, _)| *known == name))
        .collect::<Option<Vec<_>>>()?;
    let mut all: Vec<Progress> = starts.iter().map(|(_, start)| start(orders)).collect();
    Some(Box::new(move || {
        let each: Vec<String> = all.iter_mut().map(|progress| progress()).collect();
        each.join(",")
    }))
}

/// Reports progress five times a second, for ever: `tick N t=MILLISECONDS TEXT`.
/// However busy the work keeps the processors, it is heard.
pub fn ticks(mut text: impl FnMut() -> String) -> ! {
    sys::hurry();
    for n in 1u64.. {
        std::thread::sleep(Duration::from_millis(200));
        report(&format!(
            "tick {n} t={} {}",
            sys::monotonic() / 1_000_000,
            text()
        ));
    }
    unreachable!()
}
