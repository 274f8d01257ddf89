// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The root devices of VMs: block devices of the host, each with the writes of one VM over an image
//! that all share. A process serves each (`vhost-famfs ublk add`), from before the start of its VM
//! until it is told to end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::deadline::Deadline;
use super::process::{self, Lifetime};
use crate::bounded_log::{open_for_writing, settle};

/// How long a device may take to appear. The image of an overlay is read as a whole before.
const START_LIMIT: Duration = Duration::from_secs(1800);

/// How long it may take until it is known how a process ended that has closed its output.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How long udev may take to give a device to its user.
const NODE_LIMIT: Duration = Duration::from_secs(10);

/// Longest name of a device that is read.
const MAX_NAME: usize = 128;

/// How to make a root device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootDeviceConfig {
    /// The `vhost-famfs` program, or one that takes the same arguments and makes devices with
    /// another driver.
    pub program: PathBuf,
    /// The image, which is only read.
    pub image: PathBuf,
    /// The file that keeps the writes; `None` to discard them.
    pub overlay: Option<PathBuf>,
    /// File for its messages, and the owner of the device.
    pub log: PathBuf,
    /// Whether it writes to the pipe of the log, which already has a reader.
    #[serde(default)]
    pub piped: bool,
}

impl RootDeviceConfig {
    /// Program and arguments.
    #[must_use]
    pub fn command_line(&self) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec![self.program.clone().into()];
        argv.extend(["ublk", "add", "--image"].map(Into::into));
        argv.push(self.image.clone().into());
        match &self.overlay {
            Some(overlay) => argv.extend(["--overlay".into(), overlay.clone().into()]),
            None => argv.push("--ephemeral".into()),
        }
        argv.extend([Self::OWNER.into(), self.log.clone().into()]);
        argv
    }

    /// The option that names the owner of a device.
    pub const OWNER: &str = "--owner";
}

/// Why there is no root device.
#[derive(Debug, thiserror::Error)]
pub enum RootDeviceError {
    /// The log cannot be written.
    #[error("cannot write the log {}", log.display())]
    Log {
        /// The file.
        log: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The process that serves it cannot be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The process has ended.
    #[error("no root device of {}; `{} ublk add` said:\n{output}", image.display(), program.display())]
    Ended {
        /// The image.
        image: PathBuf,
        /// The program.
        program: PathBuf,
        /// Its last messages.
        output: String,
    },
    /// The process runs, but has no device.
    #[error(
        "no root device of {} after {START_LIMIT:?}; `{} ublk add` said:\n{output}",
        image.display(), program.display()
    )]
    None {
        /// The image.
        image: PathBuf,
        /// The program.
        program: PathBuf,
        /// Its last messages.
        output: String,
    },
    /// The device cannot be opened.
    #[error(
        "cannot open {} for reading and writing: a udev rule must give the devices of a user to \
         that user, see \"Without root\" in docs/using/block-devices.md", device.display()
    )]
    Node {
        /// The device.
        device: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The process names something else.
    #[error("{} ublk add: printed {found:?}, expected the name of a block device", program.display())]
    NoDevice {
        /// The program.
        program: PathBuf,
        /// What it printed.
        found: String,
    },
}

/// The process that serves a root device. It keeps running when this value is dropped.
#[derive(Debug)]
pub struct RootDevice {
    config: RootDeviceConfig,
    child: Child,
    stdout: Option<ChildStdout>,
}

impl RootDevice {
    /// Starts to make a device, without waiting for it.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn spawn(config: RootDeviceConfig, lifetime: Lifetime) -> Result<Self, RootDeviceError> {
        let log = open_for_writing(&config.log, config.piped)
            .map_err(|source| RootDeviceError::Log { log: config.log.clone(), source })?;
        let program = config.program.clone();
        let mut child = lifetime
            .start_to_read(&config.command_line(), log)
            .map_err(|source| RootDeviceError::Spawn { program, source })?;
        let stdout = child.stdout.take();
        Ok(Self { config, child, stdout })
    }

    /// Waits until there is a device, and returns its name.
    ///
    /// # Errors
    /// What keeps it from appearing, with the messages of the process.
    pub fn wait(&mut self) -> Result<PathBuf, RootDeviceError> {
        let (image, program) = (self.config.image.clone(), self.config.program.clone());
        let output = || process::tail(&self.config.log);
        let Some(said) = self.stdout.take().and_then(|stdout| line(stdout, START_LIMIT)) else {
            return Err(RootDeviceError::None { image, program, output: output() });
        };
        if said.is_empty() {
            // What it said last is in the log by then.
            let _ = Deadline::after(END_LIMIT).poll(|| self.child.try_wait());
            if self.config.piped {
                settle(&self.config.log);
            }
            let output = process::tail(&self.config.log);
            return Err(RootDeviceError::Ended { image, program, output });
        }
        let found = String::from_utf8_lossy(&said).trim_end().to_owned();
        let device = PathBuf::from(&found);
        if !is_block_device(&device) {
            return Err(RootDeviceError::NoDevice { program, found });
        }
        // A user's device is root's until udev has given it to the user.
        let opened = || match File::options().read(true).write(true).open(&device) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            opened => opened.map(Some),
        };
        match Deadline::after(NODE_LIMIT).poll(opened) {
            Ok(Some(_)) => Ok(device),
            Ok(None) => {
                let source = io::ErrorKind::PermissionDenied.into();
                Err(RootDeviceError::Node { device, source })
            }
            Err(source) => Err(RootDeviceError::Node { device, source }),
        }
    }
}

fn is_block_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// The first line of what a process prints; less if it ends before, and `None` if it takes longer.
fn line(mut stdout: ChildStdout, limit: Duration) -> Option<Vec<u8>> {
    let deadline = Deadline::after(limit);
    let mut said = Vec::new();
    while !said.contains(&b'\n') && said.len() < MAX_NAME {
        let left = Timespec::try_from(deadline.left()?).ok()?;
        if poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&left)).unwrap_or(0) == 0 {
            continue;
        }
        let mut part = [0; MAX_NAME];
        match stdout.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => said.extend_from_slice(&part[..count]),
        }
    }
    Some(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn config(dir: &Path, script: &str) -> RootDeviceConfig {
        let program = dir.join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        RootDeviceConfig {
            program,
            image: "/disk".into(),
            overlay: None,
            log: dir.join("vm1.ublk"),
            piped: false,
        }
    }

    fn error(script: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), script);
        let mut device = RootDevice::spawn(config, Lifetime::Tied).unwrap();
        let said = device.wait().unwrap_err().to_string();
        let _ = device.child.kill();
        device.child.wait().unwrap();
        said
    }

    #[test]
    fn writes_have_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), "");
        let words = |config: &RootDeviceConfig| {
            let words = config.command_line();
            words[1..].iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let log = config.log.display().to_string();
        let ephemeral = ["ublk", "add", "--image", "/disk", "--ephemeral", "--owner", &log];
        assert_eq!(words(&config), ephemeral);
        config.overlay = Some("/vm1.overlay".into());
        let kept =
            ["ublk", "add", "--image", "/disk", "--overlay", "/vm1.overlay", "--owner", &log];
        assert_eq!(words(&config), kept);
    }

    #[test]
    fn a_process_without_a_device_is_quoted() {
        let said = error("echo no driver >&2; exit 1");
        assert!(said.contains("no root device of /disk") && said.ends_with("no driver"), "{said}");
        let said = error("echo /dev/null; exec sleep 60");
        assert!(said.ends_with("\"/dev/null\", expected the name of a block device"), "{said}");
    }
}
