// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cp`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use famfs::text::number::number;

use super::ArgsError;
use super::complete::clusters;
use super::up::{MAX_SECONDS, name};

/// Copy files between the host and a VM
///
/// Copies SRC to DST: into DST if that is a directory, otherwise to the name DST. Either DST or all
/// SRC are in a VM and have the form VM:PATH; PATH begins at the VM's root directory. A word with a
/// `/` before its first `:`, as in ./a:b, is a path of the host. `-` is standard input or output,
/// for one file. No network is needed, and files may have any size.
///
/// Modes and modification times are kept, except set-user-ID and set-group-ID bits. The copies
/// belong to you on the host and to root in the VM. Symbolic links that you name are followed, and
/// those in directories are copied as links. A file gets its name when it is complete: what is
/// interrupted leaves no part of a file.
///
/// In a famfs only the famfs tools make files: to copy into a pool, use `famfs --pool POOL cp` on
/// the host, or copy to another directory of the VM and run `famfs cp` there.
///
/// The exit code is 1 if anything was not copied.
///
/// Examples:
///
///   vhost-famfs cp program data.csv vm1:/tmp
///
///   vhost-famfs cp -r --cluster lab vm2:/var/results .
///
///   vhost-famfs cp vm1:/mnt/famfs/log - | tail
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CpArgs {
    /// What to copy, and last, where to: a path of the host, VM:PATH, or `-`.
    #[arg(value_name = "SRC... DST", num_args = 2.., required = true,
        value_hint = ValueHint::AnyPath)]
    paths: Vec<OsString>,
    /// Copy directories with all that is in them.
    #[arg(short, long)]
    recursive: bool,
    /// The cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = name, add = clusters())]
    cluster: Option<String>,
    /// Seconds to wait for the guest to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = number::<u64>(0..=MAX_SECONDS))]
    timeout: u64,
}

/// What to copy, and where.
#[derive(Debug)]
pub struct CpConfig {
    /// The cluster, if named.
    pub cluster: Option<String>,
    /// The VM.
    pub vm: String,
    /// From where to where.
    pub route: Route,
    /// Whether directories are copied.
    pub recursive: bool,
    /// Time for the guest to answer.
    pub timeout: Duration,
}

/// The direction of a copy.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// Into the VM.
    ToVm {
        /// What to copy.
        sources: Vec<HostEnd>,
        /// An absolute path in the VM.
        target: String,
    },
    /// Out of the VM.
    FromVm {
        /// Absolute paths in the VM.
        sources: Vec<String>,
        /// Where to.
        target: HostEnd,
    },
}

/// An end of a copy on the host.
#[derive(Debug, PartialEq, Eq)]
pub enum HostEnd {
    /// A path.
    Path(PathBuf),
    /// Standard input or output.
    Stream,
}

impl HostEnd {
    /// The path, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Path(path) => Some(path),
            Self::Stream => None,
        }
    }
}

/// One word of the command line.
enum End {
    Host(HostEnd),
    Vm { vm: String, path: String },
}

/// Reads a word: `VM:PATH`, unless a `/` comes before the `:`.
fn end(word: OsString) -> Result<End, ArgsError> {
    let bytes = word.as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':').filter(|colon| *colon > 0);
    let Some(colon) = colon.filter(|colon| !bytes[..*colon].contains(&b'/')) else {
        return Ok(End::Host(match bytes {
            b"-" => HostEnd::Stream,
            _ => HostEnd::Path(word.into()),
        }));
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    match (text(&bytes[..colon]), text(&bytes[colon + 1..])) {
        (Some(vm), Some(path)) if !path.is_empty() => {
            let root = if path.starts_with('/') { "" } else { "/" };
            Ok(End::Vm { vm, path: format!("{root}{path}") })
        }
        _ => Err(ArgsError::VmPath(word)),
    }
}

/// Sorts the words into what to copy and where to.
fn route(mut words: Vec<OsString>) -> Result<(String, Route), ArgsError> {
    let target = words.pop().ok_or(ArgsError::NoVm)?;
    let (mut on_host, mut in_vm, mut of_vm) = (Vec::new(), Vec::new(), None);
    for word in words {
        match end(word)? {
            End::Host(host) => on_host.push(host),
            End::Vm { vm, path } => {
                if of_vm.get_or_insert_with(|| vm.clone()) != &vm {
                    return Err(ArgsError::TwoVms);
                }
                in_vm.push(path);
            }
        }
    }
    match (end(target)?, of_vm) {
        (End::Vm { .. }, Some(_)) => Err(ArgsError::TwoVms),
        (End::Host(_), None) => Err(ArgsError::NoVm),
        (End::Vm { vm, path }, None) => {
            if on_host.len() > 1 && on_host.contains(&HostEnd::Stream) {
                return Err(ArgsError::OneStream);
            }
            Ok((vm, Route::ToVm { sources: on_host, target: path }))
        }
        (End::Host(_), Some(_)) if !on_host.is_empty() => Err(ArgsError::Mixed),
        (End::Host(HostEnd::Stream), Some(_)) if in_vm.len() > 1 => Err(ArgsError::OneStream),
        (End::Host(target), Some(vm)) => Ok((vm, Route::FromVm { sources: in_vm, target })),
    }
}

impl TryFrom<CpArgs> for CpConfig {
    type Error = ArgsError;

    fn try_from(args: CpArgs) -> Result<Self, ArgsError> {
        let CpArgs { paths, recursive, cluster, timeout } = args;
        let (vm, route) = route(paths)?;
        Ok(Self { cluster, vm, route, recursive, timeout: Duration::from_secs(timeout) })
    }
}

/// A word as it is shown in an error.
pub(super) fn shown(word: &OsStr) -> String {
    famfs::text::terminal::escape_name(&word.to_owned().into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<(String, Route), ArgsError> {
        route(words.split(' ').map(OsString::from).collect())
    }

    fn host(path: &str) -> HostEnd {
        HostEnd::Path(path.into())
    }

    #[test]
    fn a_vm_is_before_the_first_colon() {
        let to_vm = |sources: Vec<HostEnd>, target: &str| {
            Ok(("vm1".to_owned(), Route::ToVm { sources, target: target.into() }))
        };
        let from_vm = |source: &str, target: HostEnd| {
            Ok(("vm1".to_owned(), Route::FromVm { sources: vec![source.into()], target }))
        };
        assert_eq!(read("a b vm1:/tmp"), to_vm(vec![host("a"), host("b")], "/tmp"));
        assert_eq!(read("./vm1:/a vm1:b:c"), to_vm(vec![host("./vm1:/a")], "/b:c"));
        assert_eq!(read("- vm1:/x"), to_vm(vec![HostEnd::Stream], "/x"));
        assert_eq!(read("vm1:x /a:b"), from_vm("/x", host("/a:b")));
        assert_eq!(read("vm1:/x -"), from_vm("/x", HostEnd::Stream));
        assert_eq!(read("vm1:/x :y"), from_vm("/x", host(":y")));
    }

    #[test]
    fn one_side_is_in_one_vm() {
        let table = [
            ("a b", ArgsError::NoVm),
            ("vm1:/a vm2:/b", ArgsError::TwoVms),
            ("vm1:/a vm2:/b .", ArgsError::TwoVms),
            ("a vm1:/b .", ArgsError::Mixed),
            ("a - vm1:/b", ArgsError::OneStream),
            ("vm1:/a vm1:/b -", ArgsError::OneStream),
            ("a vm1:", ArgsError::VmPath("vm1:".into())),
        ];
        for (words, expected) in table {
            assert_eq!(read(words), Err(expected), "{words}");
        }
    }
}
