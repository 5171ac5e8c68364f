// SPDX-License-Identifier: GPL-2.0
//! Connections between a guest and its host by virtio-vsock, beside TCP: what is read and written, and
//! how a connection ends, is the same for both.

use std::io::{Error, Result};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The port of `vsock:PORT`.
pub fn port_of(address: &str) -> Option<u32> {
    address.strip_prefix("vsock:")?.parse().ok()
}

/// Connects to a port of the host.
pub fn connect(port: u32) -> Result<TcpStream> {
    let socket = socket()?;
    with_address(libc::VMADDR_CID_HOST, port, |address, len| {
        // SAFETY: The address lives until the call returns, and `len` is its length.
        unsafe { libc::connect(socket.as_raw_fd(), address, len) }
    })?;
    Ok(socket.into())
}

/// Waits at a port for whoever connects.
pub fn listen(port: u32) -> Result<TcpListener> {
    let socket = socket()?;
    with_address(libc::VMADDR_CID_ANY, port, |address, len| {
        // SAFETY: The address lives until the call returns, and `len` is its length.
        unsafe { libc::bind(socket.as_raw_fd(), address, len) }
    })?;
    // SAFETY: The socket is open.
    done(unsafe { libc::listen(socket.as_raw_fd(), 8) })?;
    Ok(socket.into())
}

/// The next who connects to either kind of port; the standard library's own knows the Internet's addresses only.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let (none, len) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: The socket is open, and no address is asked for.
    let stream = unsafe { libc::accept4(listener.as_raw_fd(), none, len, libc::SOCK_CLOEXEC) };
    done(stream)?;
    // SAFETY: The new descriptor is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(stream) }.into())
}

fn socket() -> Result<OwnedFd> {
    // SAFETY: Nothing but numbers.
    let socket = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    done(socket)?;
    // SAFETY: The new descriptor is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn with_address(
    cid: u32,
    port: u32,
    call: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> libc::c_int,
) -> Result<()> {
    // SAFETY: All zeroes are a valid `sockaddr_vm`.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as _;
    address.svm_cid = cid;
    address.svm_port = port;
    done(call(
        (&raw const address).cast(),
        size_of_val(&address) as _,
    ))
}

fn done(result: libc::c_int) -> Result<()> {
    if result < 0 {
        return Err(Error::last_os_error());
    }
    Ok(())
}
