// SPDX-License-Identifier: GPL-2.0
//! A real Redis inside the guest, a writer beside it, and the proof that nothing was lost.
//!
//! `data=load` (the default) fills an empty server with `keys=N` keys; `data=rdb` and `data=aof` start
//! it on a dump that lies in the initramfs, as a plain cold boot would; `data=service` fills the one that
//! systemd runs, which then keeps an append-only file on its disk and listens to the outside. Then sequence numbers are
//! written, and one is reported only after the server acknowledged it:
//! - `ready MILLISECONDS` since the kernel started: the first GET was answered;
//! - `ack N`: all numbers up to N were acknowledged;
//! - `server pid=P start=T`: which process it is;
//! - `dataset keys=N bad=B digest=D` and `verify upto=N missing=M`: all of it read back and checked.
//!
//! With `address=IPV4` the server listens on `eth0`, too. The same program plays a client in the host,
//! which writes numbers of its own and checks those that were acknowledged (`nvhv-guest client
//! ADDRESS:PORT N`, N being how many were before).

use crate::report::{crc32_more, report};
use crate::{link, net, sys, Orders, Progress};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const BATCH: u64 = 1000;
const HERE: &str = "127.0.0.1:6379";

type Failure = Box<dyn std::error::Error>;

static ACKNOWLEDGED: AtomicU64 = AtomicU64::new(0);

/// As [`work`], beside other work.
pub fn start(orders: &Orders) -> Progress {
    let orders = orders.clone();
    std::thread::spawn(move || work(&orders));
    Box::new(|| ACKNOWLEDGED.load(Relaxed).to_string())
}

pub fn work(orders: &Orders) {
    if let Err(error) = serve(orders) {
        report(&format!("fail redis: {error}"));
    }
}

fn serve(orders: &Orders) -> Result<(), Failure> {
    let keys = orders.number("keys", 200_000);
    let data = orders.text("data").unwrap_or("load");
    link::raise("lo")?; // its address comes with it
    let outside = orders.text("address");
    if let Some(address) = outside {
        net::set_up(address)?;
    }
    let started = if data == "service" {
        None
    } else {
        Some(spawn(data, outside.is_some())?.id())
    };
    let mut redis = Client::connect(HERE)?;
    let server = match started {
        Some(server) => server,
        None => redis.open_up()?,
    };
    if data == "load" || data == "service" {
        for first in (0..keys).step_by(BATCH as usize) {
            redis.set_many((first..keys.min(first + BATCH)).map(|n| (key(n), value(n))))?;
        }
        report(&format!("loaded keys={keys}"));
    }
    redis.get_many(std::iter::once(key(keys - 1)))?;
    report(&format!("ready {}", sys::monotonic() / 1_000_000));
    let mut acknowledged = 0;
    for round in 0u64.. {
        if round % 200 == 0 {
            identify(server);
            check_dataset(&mut redis, keys)?;
            check_sequence(&mut redis, acknowledged)?;
        }
        let until = Instant::now() + Duration::from_millis(200);
        while Instant::now() < until {
            redis.set_many(
                (acknowledged + 1..=acknowledged + 20).map(|n| (format!("seq:{n}"), value(n))),
            )?;
            acknowledged += 20;
        }
        ACKNOWLEDGED.store(acknowledged, Relaxed);
        report(&format!("ack {acknowledged}"));
    }
    Ok(())
}

/// A client outside of the guest, for ever. It prints `ack N` once all numbers up to N are acknowledged,
/// and at each connection `verify upto=N missing=M`.
pub fn client(address: &str, acknowledged: u64) -> ! {
    let mut acknowledged = acknowledged;
    loop {
        if let Err(error) = write_numbers(address, &mut acknowledged) {
            println!("ended {error}");
        }
    }
}

fn write_numbers(address: &str, acknowledged: &mut u64) -> Result<(), Failure> {
    let mut redis = Client::connect(address)?;
    let mut missing = 0;
    for first in (1..=*acknowledged).step_by(BATCH as usize) {
        let numbers = first..=(*acknowledged).min(first + BATCH - 1);
        let found = redis.get_many(numbers.clone().map(|n| format!("out:{n}")))?;
        let wrong = |(n, found): &(u64, Option<String>)| found.as_deref() != Some(&value(*n));
        missing += numbers.zip(found).filter(wrong).count();
    }
    println!("verify upto={acknowledged} missing={missing}");
    loop {
        let next = *acknowledged + 1..=*acknowledged + 10;
        redis.set_many(next.map(|n| (format!("out:{n}"), value(n))))?;
        *acknowledged += 10;
        println!("ack {acknowledged}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn spawn(data: &str, outside: bool) -> Result<Child, Failure> {
    let mut command = Command::new("/usr/bin/redis-server");
    command.args([
        "--port",
        "6379",
        "--bind",
        if outside { "0.0.0.0" } else { "127.0.0.1" },
        "--dir",
        "/data",
        "--save",
        "",
        "--protected-mode",
        "no",
    ]);
    command.args([
        "--appendonly",
        if data == "aof" { "yes" } else { "no" },
        "--ignore-warnings",
        "ARM64-COW-BUG",
    ]);
    let _ = std::fs::create_dir_all("/data");
    let log = std::fs::File::create("/tmp/redis.log")?;
    Ok(command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?)
}

fn key(n: u64) -> String {
    format!("key:{n}")
}

/// Sixty-four characters that follow from the number.
fn value(n: u64) -> String {
    let mut random = sys::Random(n);
    (0..4).fold(String::new(), |text, _| {
        text + &format!("{:016x}", random.next())
    })
}

fn identify(pid: u32) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let start = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(19))
        .unwrap_or("gone")
        .to_owned();
    report(&format!("server pid={pid} start={start}"));
}

fn check_dataset(redis: &mut Client, keys: u64) -> Result<(), Failure> {
    let (mut bad, mut digest) = (0, 0);
    for first in (0..keys).step_by(BATCH as usize) {
        let numbers = first..keys.min(first + BATCH);
        for (n, found) in numbers.clone().zip(redis.get_many(numbers.map(key))?) {
            digest = crc32_more(digest, found.as_deref().unwrap_or("").as_bytes());
            bad += u64::from(found.as_deref() != Some(&value(n)));
        }
    }
    report(&format!(
        "dataset keys={keys} bad={bad} digest={digest:08x}"
    ));
    Ok(())
}

fn check_sequence(redis: &mut Client, upto: u64) -> Result<(), Failure> {
    let mut missing = 0;
    for first in (1..=upto).step_by(BATCH as usize) {
        let numbers = first..=upto.min(first + BATCH - 1);
        let found = redis.get_many(numbers.clone().map(|n| format!("seq:{n}")))?;
        missing += numbers
            .zip(found)
            .filter(|(n, found)| found.as_deref() != Some(&value(*n)))
            .count();
    }
    report(&format!("verify upto={upto} missing={missing}"));
    Ok(())
}

/// As much of the Redis protocol as is needed here.
struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects, and waits until the server has loaded its data.
    fn connect(address: &str) -> Result<Self, Failure> {
        loop {
            if let Ok(stream) = TcpStream::connect(address) {
                let mut client = Self {
                    reader: BufReader::with_capacity(1 << 16, stream.try_clone()?),
                    stream,
                };
                client.stream.write_all(b"PING\r\n")?;
                if client.line()? == "+PONG" {
                    return Ok(client);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes a service durable and reachable from outside; its process ID.
    fn open_up(&mut self) -> Result<u32, Failure> {
        // The log is rewritten by a child, which would have the old sockets yet when the new ones are bound.
        for setting in ["bind *", "protected-mode no", "save \"\"", "appendonly yes"] {
            self.stream
                .write_all(format!("CONFIG SET {setting}\r\n").as_bytes())?;
            let answer = self.line()?;
            if answer != "+OK" {
                return Err(format!("CONFIG SET {setting} was answered {answer}").into());
            }
        }
        self.stream.write_all(b"INFO server\r\n")?;
        let length: usize = self.line()?.trim_start_matches('$').parse()?;
        let mut text = vec![0; length + 2];
        self.reader.read_exact(&mut text)?;
        let text = String::from_utf8(text)?;
        let pid = text
            .lines()
            .find_map(|line| line.strip_prefix("process_id:"));
        Ok(pid.ok_or("no process_id")?.trim().parse()?)
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        line.ends_with("\r\n")
            .then(|| line.trim_end().to_owned())
            .ok_or_else(|| "the server hung up".into())
    }

    /// Sets keys in one go; returns once each was acknowledged.
    fn set_many(&mut self, pairs: impl Iterator<Item = (String, String)>) -> Result<(), Failure> {
        let mut request = String::new();
        let mut count = 0;
        for (key, value) in pairs {
            let (k, v) = (key.len(), value.len());
            request += &format!("*3\r\n$3\r\nSET\r\n${k}\r\n{key}\r\n${v}\r\n{value}\r\n");
            count += 1;
        }
        self.stream.write_all(request.as_bytes())?;
        for _ in 0..count {
            let answer = self.line()?;
            if answer != "+OK" {
                return Err(format!("SET was answered {answer}").into());
            }
        }
        Ok(())
    }

    fn get_many(
        &mut self,
        keys: impl Iterator<Item = String>,
    ) -> Result<Vec<Option<String>>, Failure> {
        let keys: Vec<String> = keys.collect();
        let mut request = format!("*{}\r\n$4\r\nMGET\r\n", keys.len() + 1);
        for key in &keys {
            request += &format!("${}\r\n{key}\r\n", key.len());
        }
        self.stream.write_all(request.as_bytes())?;
        self.line()?;
        let mut values = Vec::with_capacity(keys.len());
        for _ in &keys {
            let header = self.line()?;
            let length: i64 = header.trim_start_matches('$').parse()?;
            values.push(if length < 0 {
                None
            } else {
                let mut text = vec![0; length as usize + 2];
                self.reader.read_exact(&mut text)?;
                text.truncate(length as usize);
                Some(String::from_utf8(text)?)
            });
        }
        Ok(values)
    }
}
