// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A port of the host that leads to a port of a guest.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What goes through a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// Its name in cluster files and in QEMU's options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of the host that leads to a port of a guest. Written as
/// `[ADDRESS:]HOST-PORT:GUEST-PORT[/udp]`; without an address, only programs of the host reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Forward {
    /// What goes through it.
    pub protocol: Protocol,
    /// Where the host listens.
    pub host: SocketAddrV4,
    /// The guest's port.
    pub guest: u16,
}

impl Forward {
    /// QEMU's option for it (`hostfwd` of `-netdev user`).
    #[must_use]
    pub fn option(&self) -> String {
        format!("hostfwd={}:{}-:{}", self.protocol.name(), self.host, self.guest)
    }

    /// Whether the host cannot have both.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        let (one, two) = (self.host.ip(), other.host.ip());
        self.protocol == other.protocol
            && self.host.port() == other.host.port()
            && (one == two || one.is_unspecified() || two.is_unspecified())
    }

    /// Whether the port is free at this moment.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn try_listen(&self) -> io::Result<()> {
        match self.protocol {
            Protocol::Tcp => TcpListener::bind(self.host).map(drop),
            Protocol::Udp => UdpSocket::bind(self.host).map(drop),
        }
    }
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a port to forward: write HOST-PORT:GUEST-PORT, such as \
                 \"8080:80\", with an address of the host in front (\"0.0.0.0:8080:80\" for all) \
                 and \"/udp\" behind if needed"
            )
        };
        let (ports, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(wrong()),
        };
        let port = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|port: &u16| digits && *port != 0).ok_or_else(wrong)
        };
        let (host, guest) = ports.rsplit_once(':').ok_or_else(wrong)?;
        let (address, host) = match host.rsplit_once(':') {
            Some((address, host)) => (address.parse().map_err(|_| wrong())?, host),
            None => (Ipv4Addr::LOCALHOST, host),
        };
        let host = SocketAddrV4::new(address, port(host)?);
        Ok(Self { protocol, host, guest: port(guest)? })
    }
}

impl TryFrom<String> for Forward {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Forward> for String {
    fn from(forward: Forward) -> Self {
        forward.to_string()
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.guest, self.protocol.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(text: &str) -> Forward {
        text.parse().unwrap()
    }

    #[test]
    fn a_port_is_of_this_host_only_unless_an_address_says_otherwise() {
        for (text, written) in [
            ("8080:80", "127.0.0.1:8080:80/tcp"),
            ("0.0.0.0:8080:80/tcp", "0.0.0.0:8080:80/tcp"),
            ("10.0.0.7:53:5353/udp", "10.0.0.7:53:5353/udp"),
        ] {
            assert_eq!(forward(text).to_string(), written);
            assert_eq!(forward(written), forward(text), "what is written is read");
        }
        assert_eq!(forward("8080:80").option(), "hostfwd=tcp:127.0.0.1:8080-:80");
    }

    #[test]
    fn all_else_is_refused() {
        for text in [
            "",
            "80",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "65536:80",
            "+80:80",
            "80:80/sctp",
            "80:80/",
            "host:80:80",
            "::1:80:80",
            "[::1]:80:80",
            "1.2.3:80:80",
            "80,90:80",
        ] {
            let said = text.parse::<Forward>().unwrap_err();
            assert!(said.starts_with(&format!("{text:?} is not a port to forward")), "{said}");
        }
    }

    #[test]
    fn two_conflict_if_one_could_get_the_others_packets() {
        let conflict = |one, two| forward(one).conflicts(&forward(two));
        assert!(conflict("8080:80", "8080:81"));
        assert!(conflict("0.0.0.0:8080:80", "8080:80") && conflict("8080:80", "0.0.0.0:8080:80"));
        assert!(!conflict("8080:80", "8081:80") && !conflict("8080:80", "8080:80/udp"));
        assert!(!conflict("127.0.0.1:8080:80", "127.0.0.2:8080:80"));
    }

    #[test]
    fn a_port_in_use_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let forward = forward(&format!("{port}:80"));
        assert_eq!(forward.try_listen().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
