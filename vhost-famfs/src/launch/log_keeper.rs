// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process that keeps the logs of a VM within their limit: one for each VM of a cluster.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;

use super::process::Lifetime;
use crate::bounded_log::make_pipe;

/// `vhost-famfs keep-logs` for one VM. It ends when nobody can write to the logs any more.
#[derive(Debug)]
pub struct LogKeeper {
    child: Child,
    /// While these are open, QEMU and the back-end find a reader, however late the keeper is.
    _pipes: Vec<File>,
}

impl LogKeeper {
    /// Starts one.
    ///
    /// # Errors
    /// A pipe cannot be made, or it cannot be started.
    pub fn spawn(
        program: &Path,
        logs: &[PathBuf],
        limit: u64,
        lifetime: Lifetime,
    ) -> io::Result<Self> {
        let pipes = logs.iter().map(|log| make_pipe(log)).collect::<io::Result<_>>()?;
        let mut argv: Vec<OsString> = vec![program.into(), "keep-logs".into(), "--limit".into()];
        argv.push(limit.to_string().into());
        argv.extend(logs.iter().map(Into::into));
        let null = File::options().write(true).open("/dev/null")?;
        Ok(Self { child: lifetime.start(&argv, null)?, _pipes: pipes })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}
