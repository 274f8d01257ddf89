// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sets up the network interface that the host has described (`famfs.network`). One interface with
//! fixed addresses needs no network manager, only three requests to the kernel (rtnetlink(7)).

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guest::report;
use protocol::network::Network;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// All interfaces; those of a device have a link to it.
const INTERFACES: &str = "/sys/class/net";
/// How long the interface may take to appear after its module is loaded, and how often to look.
const APPEARS: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);
/// What /etc/resolv.conf of the image is a link to, in the directory of reports.
const NAME_SERVERS: &str = "resolv.conf";

/// Bytes of a message's header (`struct nlmsghdr` of linux/netlink.h).
const HEADER: usize = 16;

/// Gives the interface its address, brings it up, and says where all other addresses are.
pub fn set_up(text: &str) -> Result<()> {
    let network: Network = text.parse().with_context(|| format!("famfs.network={text:?}"))?;
    let index = wait_for_interface()?;
    let kernel = Kernel::new()?;
    kernel.ask("set the address", libc::RTM_NEWADDR, &address(&network, index))?;
    kernel.ask("bring the interface up", libc::RTM_NEWLINK, &up(index))?;
    if let Some(gateway) = network.gateway {
        kernel.ask("set the gateway", libc::RTM_NEWROUTE, &route(gateway, index))?;
    }
    if let Some(server) = network.name_server {
        let path = Path::new(report::DIR).join(NAME_SERVERS);
        fs::write(&path, format!("nameserver {server}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The number of the first interface that belongs to a device.
fn wait_for_interface() -> Result<u32> {
    let end = Instant::now() + APPEARS;
    loop {
        if let Some(index) = interface(Path::new(INTERFACES)) {
            return Ok(index);
        }
        ensure!(Instant::now() < end, "there is no network interface after {APPEARS:?}");
        thread::sleep(PAUSE);
    }
}

fn interface(dir: &Path) -> Option<u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let path = paths.into_iter().find(|path| path.join("device").exists())?;
    fs::read_to_string(path.join("ifindex")).ok()?.trim().parse().ok()
}

/// A connection to the kernel.
struct Kernel(OwnedFd);

impl Kernel {
    fn new() -> Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map(Self)
            .context("cannot open a netlink socket")
    }

    /// Sends a request and waits for its answer.
    fn ask(&self, doing: &str, kind: u16, body: &[u8]) -> Result<()> {
        let request = message(kind, body)?;
        send(&self.0, &request, SendFlags::empty())
            .with_context(|| format!("cannot {doing}: the kernel takes no request"))?;
        let mut reply = [0; 1024];
        let (len, _) = recv(&self.0, &mut reply, RecvFlags::empty())
            .with_context(|| format!("cannot {doing}: the kernel does not answer"))?;
        let Some(errno) = answer(&reply[..len]) else {
            bail!("cannot {doing}: unexpected answer of {len} bytes from the kernel");
        };
        match errno {
            0 => Ok(()),
            errno => {
                Err(Errno::from_raw_os_error(errno)).with_context(|| format!("cannot {doing}"))
            }
        }
    }
}

/// A request that is answered.
fn message(kind: u16, body: &[u8]) -> Result<Vec<u8>> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE;
    let len = u32::try_from(HEADER + body.len()).context("the request is too long")?;
    let flags = u16::try_from(flags).context("the flags have 16 bits")?;
    let head = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]];
    Ok([&head.concat(), body].concat())
}

/// The error in an answer, 0 for success; `None` if it is none (`struct nlmsgerr`).
fn answer(reply: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(reply.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(reply.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (i32::from(kind) == libc::NLMSG_ERROR).then_some(error.checked_neg()?)
}

/// `struct ifaddrmsg` of linux/if_addr.h, with the address.
fn address(network: &Network, index: u32) -> Vec<u8> {
    let head = [FAMILY, network.prefix, 0, libc::RT_SCOPE_UNIVERSE];
    let address = network.address.octets();
    let attributes = [attribute(libc::IFA_LOCAL, address), attribute(libc::IFA_ADDRESS, address)];
    [&head[..], &index.to_ne_bytes(), &attributes.concat()].concat()
}

/// `struct ifinfomsg` of linux/rtnetlink.h, which sets the one flag.
fn up(index: u32) -> Vec<u8> {
    let flag = libc::IFF_UP.to_ne_bytes();
    // Of no address family, and of the type that it has.
    [&[0; 4][..], &index.to_ne_bytes(), &flag, &flag].concat()
}

/// `struct rtmsg` of linux/rtnetlink.h: all addresses, by this gateway.
fn route(gateway: Ipv4Addr, index: u32) -> Vec<u8> {
    let (table, scope) = (libc::RT_TABLE_MAIN, libc::RT_SCOPE_UNIVERSE);
    let head = [FAMILY, 0, 0, 0, table, libc::RTPROT_BOOT, scope, libc::RTN_UNICAST, 0, 0, 0, 0];
    let gateway = attribute(libc::RTA_GATEWAY, gateway.octets());
    [&head[..], &gateway, &attribute(libc::RTA_OIF, index.to_ne_bytes())].concat()
}

/// IPv4, in one byte.
const FAMILY: u8 = 2;

/// `struct rtattr` of linux/rtnetlink.h, with four bytes.
fn attribute(kind: u16, value: [u8; 4]) -> [u8; 8] {
    let [l0, l1] = 8_u16.to_ne_bytes();
    let [k0, k1] = kind.to_ne_bytes();
    let [a, b, c, d] = value;
    [l0, l1, k0, k1, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_interface_is_the_first_one_with_a_device() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(interface(dir.path()), None);
        for (name, index) in [("lo", 1), ("eth1", 7), ("eth0", 3)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("ifindex"), format!("{index}\n")).unwrap();
        }
        assert_eq!(interface(dir.path()), None, "lo has no device");
        for name in ["eth1", "eth0"] {
            symlink("/", dir.path().join(name).join("device")).unwrap();
        }
        assert_eq!(interface(dir.path()), Some(3));
    }

    #[test]
    fn messages_have_the_kernels_layout() {
        let request = message(libc::RTM_NEWADDR, &address(&Network::USER, 2)).unwrap();
        assert_eq!(request.len(), HEADER + 8 + 8 + 8);
        assert_eq!(request[..4], 40_u32.to_ne_bytes());
        assert_eq!(request[HEADER..HEADER + 8], [2, 24, 0, 0, 2, 0, 0, 0]);
        assert_eq!(request[HEADER + 12..HEADER + 16], [10, 0, 2, 15]);
        assert_eq!(up(2).len(), 16);
        assert_eq!(route(Ipv4Addr::LOCALHOST, 2).len(), 12 + 16);
    }

    #[test]
    fn answers_are_told_from_all_else() {
        let reply = |kind: i32, error: i32| {
            let kind = u16::try_from(kind).unwrap().to_ne_bytes();
            [&[0; 4][..], &kind, &[0; 10], &error.to_ne_bytes()].concat()
        };
        assert_eq!(answer(&reply(libc::NLMSG_ERROR, 0)), Some(0));
        assert_eq!(answer(&reply(libc::NLMSG_ERROR, -libc::EPERM)), Some(libc::EPERM));
        assert_eq!(answer(&reply(libc::NLMSG_DONE, 0)), None);
        assert_eq!(answer(&[0; 19]), None);
        assert_eq!(answer(&reply(libc::NLMSG_ERROR, i32::MIN)), None);
    }
}
