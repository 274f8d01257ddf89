// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Arguments for other programs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Collects arguments.
pub(super) struct CommandLine(pub(super) Vec<OsString>);

impl CommandLine {
    pub(super) fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    pub(super) fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.extend([name.into(), value.into()]);
    }
}

/// Quotes a value for an option list of QEMU: commas are doubled.
pub(super) fn quote(value: &OsStr) -> OsString {
    let mut quoted = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        quoted.extend(std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }));
    }
    OsString::from_vec(quoted)
}

/// Joins the parts into one argument.
pub(super) fn join<const N: usize>(parts: [&OsStr; N]) -> OsString {
    let mut joined = OsString::new();
    parts.into_iter().for_each(|part| joined.push(part));
    joined
}

/// A command line as text that a shell parses back into the same arguments.
#[must_use]
pub fn shell_quoted(argv: &[OsString]) -> String {
    let words = argv.iter().map(|word| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,.:/@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        let argv = ["a", "", "it's", "two words", "$HOME"].map(OsString::from);
        let script = format!("printf '<%s>' {}", shell_quoted(&argv));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(output.stdout, b"<a><><it's><two words><$HOME>");
    }
}
