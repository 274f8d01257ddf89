// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest's network interface, as the credential
//! [`credentials::NETWORK`](super::credentials::NETWORK) describes it:
//! `ADDRESS/PREFIX[,GATEWAY[,NAME-SERVER]]`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// What is valid, for messages.
pub const EXPECTED: &str = "ADDRESS/PREFIX[,GATEWAY[,NAME-SERVER]], such as 10.0.2.15/24,10.0.2.2";

/// Addresses of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// How many bits of it are those of its network.
    pub prefix: u8,
    /// Where packets for other networks go.
    pub gateway: Option<Ipv4Addr>,
    /// Whom to ask for the addresses of names.
    pub name_server: Option<Ipv4Addr>,
}

impl Network {
    /// The network that QEMU makes in user mode (its documentation, "Using the user mode network
    /// stack"). It is the same in every VM, because none sees another's.
    pub const USER: Self = Self {
        address: Ipv4Addr::new(10, 0, 2, 15),
        prefix: 24,
        gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
        name_server: Some(Ipv4Addr::new(10, 0, 2, 3)),
    };
}

/// The text describes no network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {EXPECTED}")]
pub struct NetworkError;

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let mut parts = text.split(',');
        let (address, prefix) = parts.next().unwrap_or("").split_once('/').ok_or(NetworkError)?;
        let address = address.parse().map_err(|_| NetworkError)?;
        let prefix = prefix.parse().ok().filter(|bits| (1..=32).contains(bits));
        let mut next = || parts.next().map(str::parse).transpose().map_err(|_| NetworkError);
        let (gateway, name_server) = (next()?, next()?);
        match (prefix, parts.next()) {
            (Some(prefix), None) => Ok(Self { address, prefix, gateway, name_server }),
            _ => Err(NetworkError),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        let more = [self.gateway, self.name_server];
        more.into_iter().flatten().try_for_each(|address| write!(f, ",{address}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Network::USER.to_string(), "10.0.2.15/24,10.0.2.2,10.0.2.3");
        for text in ["10.0.2.15/24,10.0.2.2,10.0.2.3", "192.168.7.1/30,192.168.7.2", "10.1.1.1/32"]
        {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn all_else_is_refused() {
        let bad = [
            "",
            "user",
            "10.0.2.15",
            "10.0.2.15/0",
            "10.0.2.15/33",
            "10.0.2/24",
            "10.0.2.15/24,",
            "10.0.2.15/24,10.0.2.2,10.0.2.3,10.0.2.4",
            "fe80::1/64",
        ];
        for text in bad {
            assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
        }
    }
}
