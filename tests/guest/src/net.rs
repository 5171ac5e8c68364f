// SPDX-License-Identifier: GPL-2.0
//! One TCP connection with a stream each way; each end checks every byte that arrives.
//!
//! The guest connects to `peer=ADDRESS:PORT` over `eth0` with `address=IPV4`, or to the host by
//! `peer=vsock:PORT`; the same program plays the peer in the host (`nvhv-guest peer ADDRESS:PORT`). A connection that ends is a failure, unless
//! `reconnect=yes` (the peer's host is to be lost): then each further one is reported as
//! `reconnect N`. The tick shows records sent, records received, and connections.

use crate::report::{crc32, report};
use crate::sys::Random;
use crate::watchdog::Waiter;
use crate::{link, sys, vsock, Orders, Progress};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const INTERFACE: &str = "eth0";
const RECORD: usize = 2048;
const BODY: usize = RECORD - 4;
const PACE: Duration = Duration::from_millis(10);

static SENT: AtomicU64 = AtomicU64::new(0);
static RECEIVED: AtomicU64 = AtomicU64::new(0);
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

pub fn start(orders: &Orders) -> Progress {
    let address = orders.text("address").unwrap_or_default().to_owned();
    let peer = orders.text("peer").unwrap_or_default().to_owned();
    let again = orders.text("reconnect") == Some("yes");
    std::thread::spawn(move || {
        if vsock::port_of(&peer).is_none() {
            if let Err(error) = set_up(&address) {
                return report(&format!("fail net: {error}"));
            }
        }
        loop {
            let error = match connect(&peer) {
                Ok(stream) => {
                    let number = CONNECTIONS.fetch_add(1, Relaxed);
                    if number > 0 {
                        report(&format!("reconnect {number}"));
                    }
                    converse(stream)
                }
                Err(error) => error,
            };
            if !again {
                return report(&format!("fail net: {error}"));
            }
            if error.kind() == ErrorKind::InvalidData {
                return report(&format!("fail net: {error}"));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    Box::new(|| {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        format!(
            "{},{},{}",
            count(&SENT),
            count(&RECEIVED),
            count(&CONNECTIONS)
        )
    })
}

fn connect(peer: &str) -> Result<TcpStream> {
    match vsock::port_of(peer) {
        Some(port) => vsock::connect(port),
        None => TcpStream::connect(peer),
    }
}

/// Waits for the interface and gives it its address.
pub fn set_up(address: &str) -> std::result::Result<(), Box<dyn std::error::Error>> {
    sys::wait_for(&format!("/sys/class/net/{INTERFACE}"));
    link::set_address(INTERFACE, address.parse()?)?;
    Ok(())
}

/// The host's end: serves whoever comes, for ever.
pub fn peer(address: &str) -> Result<()> {
    let listener = match vsock::port_of(address) {
        Some(port) => vsock::listen(port)?,
        None => TcpListener::bind(address)?,
    };
    loop {
        let stream = vsock::accept(&listener)?;
        std::thread::spawn(move || {
            let error = converse(stream);
            let word = if error.kind() == ErrorKind::InvalidData {
                "fail"
            } else {
                "ended"
            };
            println!(
                "{word} {error}; sent {}, received {}",
                SENT.load(Relaxed),
                RECEIVED.load(Relaxed)
            );
        });
    }
}

/// Sends and receives until either fails; why it ended.
fn converse(stream: TcpStream) -> Error {
    let other = match stream.try_clone() {
        Ok(other) => other,
        Err(error) => return error,
    };
    let sender = std::thread::spawn(move || send(other));
    let error = receive(&stream);
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let _ = sender.join();
    error
}

fn record(sequence: u64) -> [u8; RECORD] {
    let mut random = Random(sequence);
    let mut record = [0; RECORD];
    for chunk in record[..BODY].chunks_mut(8) {
        let word = random.next().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    record[..8].copy_from_slice(&sequence.to_le_bytes());
    let sum = crc32(&record[..BODY]);
    record[BODY..].copy_from_slice(&sum.to_le_bytes());
    record
}

fn send(mut stream: TcpStream) -> Result<()> {
    let waiter = Waiter::new("net send");
    for sequence in 0.. {
        let record = record(sequence);
        waiter.wait(|| stream.write_all(&record))?;
        SENT.fetch_add(1, Relaxed);
        std::thread::sleep(PACE);
    }
    Ok(())
}

fn receive(mut stream: &TcpStream) -> Error {
    let waiter = Waiter::new("net receive");
    let mut found = [0; RECORD];
    for sequence in 0.. {
        if let Err(error) = waiter.wait(|| stream.read_exact(&mut found)) {
            return error;
        }
        if found != record(sequence) {
            let text = format!(
                "record {sequence} is not as it was sent: {:02x?}",
                &found[..16]
            );
            return Error::new(ErrorKind::InvalidData, text);
        }
        RECEIVED.fetch_add(1, Relaxed);
    }
    Error::other("all numbers are used up")
}
