// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process that limits the size of a VM's logs, records how the VM ends, wakes its guest when
//! something is published in the pool, and gives the memory of removed files back; each VM of a
//! cluster has one.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Child;

use famfs::system::neighbours::PoolId;
use uuid::Uuid;

use super::paths::VmPaths;
use super::process::Lifetime;
use crate::bounded_log::make_pipe;
use crate::pool::Owners;

/// The pool of a VM.
#[derive(Debug)]
pub struct KeptPool<'p> {
    /// Its file or device.
    pub path: &'p Path,
    /// Which one it is.
    pub id: PoolId,
    /// Whose it may be.
    pub owners: Owners,
    /// The machine UUID of the VM.
    pub machine: Uuid,
}

/// `vhost-famfs keep-logs` for one VM. It ends when no process can write to the logs any more and
/// all processes that it watches have ended.
#[derive(Debug)]
pub struct LogKeeper {
    child: Child,
    /// Tells it which processes to watch.
    ids: PipeWriter,
    /// While these are open, QEMU and the back-end have a reader, even if the keeper starts late.
    _pipes: Vec<File>,
}

impl LogKeeper {
    /// The subcommand of the program that is a keeper.
    pub const COMMAND: &str = "keep-logs";

    /// Starts the keeper of a VM that has the pool.
    ///
    /// # Errors
    /// A pipe cannot be created, or the keeper cannot be started.
    pub fn spawn(
        program: &Path,
        logs: &[PathBuf],
        paths: &VmPaths,
        pool: &KeptPool<'_>,
        limit: u64,
        lifetime: impl FnOnce(File) -> Lifetime,
    ) -> io::Result<Self> {
        let pipes = logs.iter().map(|log| make_pipe(log)).collect::<io::Result<_>>()?;
        let mut argv: Vec<OsString> = vec![program.into(), Self::COMMAND.into(), "--limit".into()];
        argv.extend([limit.to_string().into(), "--ends".into(), (&paths.ends).into()]);
        argv.extend(["--wake-pool".into(), pool.id.to_string().into()]);
        argv.extend(["--pool".into(), std::path::absolute(pool.path)?.into()]);
        argv.extend(["--machine".into(), pool.machine.to_string().into()]);
        if pool.owners == Owners::Any {
            argv.push("--foreign-pool".into());
        }
        argv.extend(["--wake-port".into(), (&paths.wake).into()]);
        argv.extend(logs.iter().map(Into::into));
        let null = File::options().write(true).open("/dev/null")?;
        let (input, ids) = io::pipe()?;
        let lifetime = lifetime(OwnedFd::from(input).into());
        Ok(Self { child: lifetime.start(&argv, null)?, ids, _pipes: pipes })
    }

    /// Makes it record how the process with that id ends, which must be a child of this program.
    ///
    /// # Errors
    /// The keeper has ended.
    pub fn watch(&self, pid: u32) -> io::Result<()> {
        (&self.ids).write_all(format!("{pid}\n").as_bytes())
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}
