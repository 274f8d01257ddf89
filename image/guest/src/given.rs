// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The credentials that the host gave to this machine. `appliance-init` collects them and stores
//! them where both programs of the appliance look for them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The directory in which `appliance-init` stores the machine's credentials, accessible to root
/// only. systemd has its own directory for them, but that exists later, and is not visible to units
/// with a mount namespace.
pub const DIR: &str = "/run/appliance/credentials";

/// The firmware tables' entries with strings for the guest (SMBIOS 3.7, 7.12: type 11).
const DMI_ENTRIES: &str = "/sys/firmware/dmi/entries";

/// The credentials of this machine; none if [`DIR`] does not exist.
#[must_use]
pub fn credentials() -> BTreeMap<String, String> {
    let entries = fs::read_dir(DIR).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let value = fs::read(entry.path()).ok()?;
            let value = String::from_utf8_lossy(&value).trim_end_matches('\n').to_owned();
            Some((entry.file_name().into_string().ok()?, value))
        })
        .collect()
}

/// Whether this machine has a credential.
#[must_use]
pub fn has(name: &str) -> bool {
    Path::new(DIR).join(name).exists()
}

/// The credentials on the kernel command line and in the firmware tables, for `appliance-init`,
/// which stores them in [`DIR`].
#[must_use]
pub fn by_host(command_line: &str) -> BTreeMap<String, String> {
    let mut found = from_command_line(command_line);
    let entries = fs::read_dir(DMI_ENTRIES).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("11-")) {
        let raw = fs::read(entry.path().join("raw")).unwrap_or_default();
        found.extend(from_smbios(&raw));
    }
    found
}

/// Credentials on the kernel command line. If a value contains spaces, the whole word is in double
/// quotes.
fn from_command_line(command_line: &str) -> BTreeMap<String, String> {
    words(command_line)
        .iter()
        .filter_map(|word| word.strip_prefix("systemd.set_credential="))
        .filter_map(|pair| pair.split_once(':'))
        .filter(|(name, _)| is_name(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Credentials in one raw SMBIOS structure of type 11: its header, then strings that each end with
/// a NUL.
fn from_smbios(raw: &[u8]) -> BTreeMap<String, String> {
    // The header's second byte is its length (SMBIOS 3.7, 6.1.2).
    let header = raw.get(1).copied().map_or(0, usize::from);
    let strings = raw.get(header..).unwrap_or_default();
    strings
        .split(|&byte| byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok()?.strip_prefix("io.systemd.credential:"))
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| is_name(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Whether a name can be a file name in [`DIR`].
fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !name.contains('/') && ![".", ".."].contains(&name)
}

/// The words of a kernel command line; double quotes keep spaces within a word.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.trim().chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' | '\n' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap_or(&mut String::new()).push(other),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use protocol::credentials::{ROLE, RUN};

    use super::*;

    #[test]
    fn the_kernel_command_line_carries_them() {
        let line = "ro systemd.set_credential=famfs.role:client \"systemd.set_credential=famfs.run:ls -l /\" \
                    systemd.set_credential=../x:1 systemd.set_credential=none\n";
        let expected = [(ROLE, "client"), (RUN, "ls -l /")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(from_command_line(line), BTreeMap::from(expected));
    }

    #[test]
    fn the_firmware_carries_them() {
        let mut raw = vec![11, 5, 0, 0, 3];
        raw.extend(b"io.systemd.credential:famfs.role=a=b\0other\0io.systemd.credential:/=1\0\0");
        let expected = BTreeMap::from([(ROLE.to_owned(), "a=b".to_owned())]);
        assert_eq!(from_smbios(&raw), expected);
        for cut in 0..raw.len() {
            assert!(from_smbios(&raw[..cut]).len() <= 1, "cut at {cut}");
        }
    }
}
