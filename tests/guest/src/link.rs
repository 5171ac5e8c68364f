// SPDX-License-Identifier: GPL-2.0
//! Network interfaces: up, with an IPv4 address.

use std::io::{Error, Result};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Raises an interface.
pub fn raise(name: &str) -> Result<()> {
    let mut request = named(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    control(libc::SIOCSIFFLAGS as _, &mut request)
}

/// Gives an interface an address in a network of 24 bits, and raises it.
pub fn set_address(name: &str, address: Ipv4Addr) -> Result<()> {
    for (number, value) in [
        (libc::SIOCSIFADDR, address),
        (libc::SIOCSIFNETMASK, Ipv4Addr::new(255, 255, 255, 0)),
    ] {
        let mut request = named(name);
        // A `sockaddr_in` as a `sockaddr`: two bytes of port, four of address, the rest zero.
        let mut data = [0; 14];
        for (to, from) in data[2..].iter_mut().zip(value.octets()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_addr = libc::sockaddr {
            sa_family: libc::AF_INET as _,
            sa_data: data,
        };
        control(number as _, &mut request)?;
    }
    raise(name)
}

fn named(name: &str) -> libc::ifreq {
    // SAFETY: All zeroes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn control(number: libc::c_ulong, request: &mut libc::ifreq) -> Result<()> {
    // SAFETY: The new descriptor is nobody else's; `request` lives until the call returns.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        if libc::ioctl(socket.as_raw_fd(), number as _, request) < 0 {
            return Err(Error::last_os_error());
        }
    }
    Ok(())
}
