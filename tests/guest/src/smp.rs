// SPDX-License-Identifier: GPL-2.0
//! Work that needs processors to talk to each other: a futex ring, membarriers, TLB shootdowns, timers.

use crate::{report::report, sys, ticks, Orders};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

#[derive(Default)]
struct Shared {
    turn: Mutex<u64>,
    turned: Condvar,
    turns: AtomicU64,
    barriers: AtomicU64,
    shootdowns: AtomicU64,
    timers: AtomicU64,
}

pub fn work(orders: &Orders) -> ! {
    let shared = Arc::new(Shared::default());
    let threads = orders.threads();
    for thread in 0..threads {
        let (ring, ipi, timer) = (shared.clone(), shared.clone(), shared.clone());
        sys::pinned(thread, move || {
            pass_on(thread as u64, threads as u64, &ring)
        });
        sys::pinned(thread, move || shoot(thread, &ipi));
        sys::pinned(thread, move || time(thread, &timer));
    }
    ticks(|| {
        let count = |counter: &AtomicU64| counter.load(SeqCst);
        format!(
            "{},{},{},{}",
            count(&shared.turns),
            count(&shared.barriers),
            count(&shared.shootdowns),
            count(&shared.timers)
        )
    })
}

/// A token goes round all processors: each wake-up is an interrupt to another one.
fn pass_on(me: u64, threads: u64, shared: &Shared) {
    let mut turn = shared.turn.lock().unwrap();
    loop {
        while *turn % threads != me {
            turn = shared.turned.wait(turn).unwrap();
        }
        *turn += 1;
        let shown = shared.turns.fetch_add(1, SeqCst) + 1;
        if shown != *turn {
            return report(&format!(
                "fail smp ring {me}: {shown} shown, {} counted",
                *turn
            ));
        }
        shared.turned.notify_all();
    }
}

/// Changes mappings that other threads' processors may hold, and checks what it reads through them.
fn shoot(me: usize, shared: &Shared) {
    const REGISTER: libc::c_int = 1 << 4; // MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const LENGTH: usize = 64 << 10;
    // SAFETY: The mapping is this function's own; it is written only while it is writable.
    unsafe {
        libc::syscall(libc::SYS_membarrier, REGISTER, 0, 0);
        for round in 1u64.. {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(
                std::ptr::null_mut(),
                LENGTH,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            );
            if map == libc::MAP_FAILED {
                return report(&format!("fail smp {me}: mmap"));
            }
            let words = map.cast::<u64>();
            for at in (0..LENGTH / 8).step_by(512) {
                words.add(at).write_volatile(round ^ at as u64);
            }
            libc::mprotect(map, LENGTH, libc::PROT_READ);
            if libc::syscall(libc::SYS_membarrier, PRIVATE_EXPEDITED, 0, 0) == 0 {
                shared.barriers.fetch_add(1, SeqCst);
            }
            for at in (0..LENGTH / 8).step_by(512) {
                if words.add(at).read_volatile() != round ^ at as u64 {
                    return report(&format!("fail smp {me} round {round}: word {at} changed"));
                }
            }
            libc::munmap(map, LENGTH);
            shared.shootdowns.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A timer never comes early.
fn time(me: usize, shared: &Shared) {
    const NAP: Duration = Duration::from_millis(3);
    loop {
        let before = sys::monotonic();
        std::thread::sleep(NAP);
        let slept = sys::monotonic().wrapping_sub(before);
        if slept < NAP.as_nanos() as u64 {
            report(&format!(
                "fail smp {me}: a timer of {} ns came after {slept}",
                NAP.as_nanos()
            ));
        }
        shared.timers.fetch_add(1, SeqCst);
    }
}
