// SPDX-License-Identifier: GPL-2.0
//! A VMM that does to KVM what no ordinary one would: one corner case per run.
//!
//! `tiny-vmm CASE [--die WORD:N | --stop WORD:N] [--irqchip none|split|kernel] ...` prints a line for
//! everything its guest does. Started again after its death, it is to see the guest go on.

mod bench;
mod files;
mod guest;
mod io;
mod machine;
mod script;
mod slots;
mod vcpus;
mod virtio;

use machine::Machine;

fn main() {
    let case = std::env::args().nth(1).unwrap_or_default();
    match case.as_str() {
        "count" => Machine::new(guest::count()).run(),
        "mmio-write" => Machine::new(guest::mmio_write()).run(),
        "mmio-split" => machine::across_pages(guest::mmio_write()).run(),
        "mmio-read" => Machine::new(guest::mmio_read()).run(),
        "port-in" => Machine::new(guest::port_in()).run(),
        "string-out" => Machine::new(guest::outs()).run(),
        "hlt" => Machine::new(guest::hlt()).run(),
        "triple-fault" => Machine::new(guest::triple_fault()).run(),
        "many-slots" => slots::many(),
        "delete-slots" => slots::delete(),
        "rom" => slots::rom(),
        "late-ram" => slots::late(),
        "map-over" => slots::over(),
        "swap-ram" => slots::swap(),
        "vcpus-apart" => vcpus::apart(),
        "vcpus-interrupted" => vcpus::interrupted(),
        "interrupts" => vcpus::many_interrupts(),
        "unmapped" => vcpus::unmapped(),
        "without-vm" => vcpus::without_vm(),
        "passed" => files::passed(),
        "forked" => files::forked(),
        "two-vms" => files::two_vms(),
        "two-processes" => files::two_processes(),
        "direct-io" => io::direct(),
        "spliced" => io::spliced(),
        "watch-ram" => io::watch(),
        "requests" => virtio::requests(),
        "bench" => bench::bench(),
        "unkept" => files::unkept(),
        "late-device" => files::passed_through_late(),
        "rubbish" => files::rubbish(),
        _ => {
            eprintln!("no such case: '{case}'");
            std::process::exit(2);
        }
    }
}
