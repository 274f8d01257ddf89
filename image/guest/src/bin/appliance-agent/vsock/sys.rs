// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Addresses of vsock(7), for which rustix has no type.
#![allow(unsafe_code)]

use libc::sockaddr_vm;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketAddrAny};

/// The size of the kernel's type, in bytes.
const SIZE: SocketAddrLen = 16;
const _: () = assert!(size_of::<sockaddr_vm>() == 16);

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The machine.
    pub cid: u32,
    /// The port.
    pub port: u32,
}

// SAFETY: `address` is a whole socket address of `SIZE` bytes, and lives until `f` returns.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let address = sockaddr_vm {
            svm_family: AddressFamily::VSOCK.as_raw(),
            svm_reserved1: 0,
            svm_port: self.port,
            svm_cid: self.cid,
            svm_zero: [0; 4],
        };
        f((&raw const address).cast(), SIZE)
    }
}

/// The address that the kernel reports; `None` if it is not one of vsock.
pub fn read(address: &SocketAddrAny) -> Option<Address> {
    if address.address_family() != AddressFamily::VSOCK || address.addr_len() < SIZE {
        return None;
    }
    // SAFETY: `addr_len` was compared above, so a whole address is there, of plain numbers.
    let address = unsafe { address.as_ptr().cast::<sockaddr_vm>().read() };
    Some(Address { cid: address.svm_cid, port: address.svm_port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn an_address_is_read_back_and_another_is_none() {
        let address = Address { cid: 2, port: 512 };
        assert_eq!(read(&address.as_any()), Some(address));
        let other: SocketAddr = "127.0.0.1:512".parse().unwrap();
        assert_eq!(read(&other.as_any()), None);
    }
}
