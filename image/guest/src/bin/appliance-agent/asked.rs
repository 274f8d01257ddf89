// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host requests of this machine: where and how to mount the pool, and which pool it must
//! be.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use famfs::store::role::Role;
use guest::given;
use protocol::credentials::{
    self, ACCESS, DEFAULT_MOUNT_POINT, MOUNT_POINT, NOEXEC, READ_ONLY, ROLE, VIEW,
};

/// The machine's credentials, checked.
pub struct Asked {
    credentials: BTreeMap<String, String>,
}

impl Asked {
    /// Reads and checks the credentials; the error lists everything that is wrong with them.
    pub fn read() -> Result<Self> {
        let credentials = given::credentials();
        let wrong = mistakes(&credentials);
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(Self { credentials })
    }

    /// Where the pool is mounted.
    pub fn mount_point(&self) -> &str {
        self.get(MOUNT_POINT).unwrap_or(DEFAULT_MOUNT_POINT)
    }

    /// Whether programs may only read the pool's files.
    pub fn is_read_only(&self) -> bool {
        self.get(ACCESS) == Some(READ_ONLY)
    }

    /// Whether programs in the pool cannot be run.
    pub fn is_noexec(&self) -> bool {
        self.get(NOEXEC).is_some()
    }

    /// Refuses a pool other than the one that the host means.
    pub fn compare(&self, device: &Path, role: Role) -> Result<()> {
        if let Some(wanted) = self.get(ROLE) {
            ensure!(
                role.name() == wanted,
                "this VM is {} of the pool, but {ROLE} says {wanted}; the master is the VM whose \
                 UUID was used to format the pool",
                role.name()
            );
        }
        if let Some(view) = self.get(VIEW) {
            let found = view_of(device)?;
            ensure!(found == view, "the pool's view is {found}, but {VIEW} says {view}");
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.credentials.get(name).map(String::as_str)
    }
}

/// What is wrong with the credentials, one entry per problem.
pub fn mistakes(credentials: &BTreeMap<String, String>) -> Vec<String> {
    let errors =
        credentials.iter().filter_map(|(name, value)| credentials::check(name, value).err());
    errors.map(|error| error.to_string()).collect()
}

fn view_of(device: &Path) -> Result<&'static str> {
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    match (name.starts_with("dax"), name.starts_with("pmem")) {
        (true, _) => Ok("devdax"),
        (_, true) => Ok("raw"),
        _ => Err(anyhow!(std::io::Error::from(ErrorKind::InvalidData)))
            .with_context(|| format!("neither a dax nor a pmem device: {}", device.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(credentials: &[(&str, &str)]) -> Asked {
        let credentials =
            credentials.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Asked { credentials: credentials.collect() }
    }

    #[test]
    fn the_pool_is_compared_with_what_the_host_asks_for() {
        let client = |device: &str, credentials: &[(&str, &str)]| {
            asked(credentials).compare(Path::new(device), Role::Client)
        };
        let dax = "/dev/dax1.0";
        client(dax, &[]).unwrap();
        client(dax, &[(ROLE, "client")]).unwrap();
        client(dax, &[(VIEW, "devdax")]).unwrap();
        client("/dev/pmem0", &[(VIEW, "raw")]).unwrap();
        let error = client(dax, &[(ROLE, "master")]).unwrap_err().to_string();
        assert!(
            error.starts_with("this VM is client of the pool, but famfs.role says master"),
            "{error}"
        );
        let error = client(dax, &[(VIEW, "raw")]).unwrap_err().to_string();
        assert_eq!(error, "the pool's view is devdax, but famfs.view says raw");
        assert!(client("/dev/sda", &[(VIEW, "raw")]).is_err());
    }

    #[test]
    fn the_pool_goes_where_the_host_says() {
        assert_eq!(asked(&[]).mount_point(), "/mnt/famfs");
        assert_eq!(asked(&[(MOUNT_POINT, "/run/a")]).mount_point(), "/run/a");
        assert!(asked(&[(ACCESS, READ_ONLY)]).is_read_only());
        assert!(!asked(&[(ACCESS, "read-write")]).is_read_only());
        assert!(asked(&[(NOEXEC, "1")]).is_noexec() && !asked(&[]).is_noexec());
    }
}
