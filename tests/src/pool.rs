// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A pool in host memory, created and filled with the host's programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use uuid::Uuid;
use vhost_famfs::host::residency;

use crate::{Artifacts, memory_dir};

/// Which device guests see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// /dev/dax0.0.
    Devdax,
    /// /dev/pmem0.
    Raw,
}

/// A pool; removed when dropped, unless it belongs to somebody else.
#[derive(Debug)]
pub struct Pool {
    path: PathBuf,
    size: u64,
    system: Uuid,
    programs: PathBuf,
    /// Keeps the directory of a pool that belongs to us.
    _dir: Option<TempDir>,
}

impl Pool {
    /// Creates a pool of `size` bytes. `content` is how many bytes of memory it will occupy in the
    /// end; the rest of the pool remains a hole and costs nothing.
    pub fn create(artifacts: &Artifacts, size: u64, content: u64, view: View) -> Result<Self> {
        let dir = memory_dir(content)?;
        let path = dir.path().join("pool");
        let mut create = Command::new(artifacts.programs.join("vhost-famfs"));
        create.args(["pool", "create"]).arg(&path).args(["--size", &size.to_string()]);
        create.args(["--view", if view == View::Raw { "raw" } else { "devdax" }]);
        run(&mut create)?;
        Ok(Self {
            path,
            size,
            system: Uuid::new_v4(),
            programs: artifacts.programs.clone(),
            _dir: Some(dir),
        })
    }

    /// Uses an existing pool, which is kept.
    pub fn existing(artifacts: &Artifacts, path: &Path) -> Result<Self> {
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot use the pool {}", path.display()))?;
        let size = path
            .metadata()
            .with_context(|| format!("cannot use the pool {}", path.display()))?
            .len();
        let system = Uuid::new_v4();
        Ok(Self { path, size, system, programs: artifacts.programs.clone(), _dir: None })
    }

    /// The pool file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size in bytes, including holes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes of host memory it occupies.
    pub fn allocated(&self) -> Result<u64> {
        Ok(residency::allocated(&self.path)?)
    }

    /// The system UUID of its master: the VM with this UUID may write to the log.
    pub fn system(&self) -> Uuid {
        self.system
    }

    /// Creates the file system; `options` are additional options of mkfs.
    pub fn mkfs(&self, options: &[&str]) -> Result<()> {
        let system = self.system.to_string();
        let mut arguments = vec!["mkfs", "--system-uuid", &system];
        arguments.extend(options);
        self.famfs(arguments).map(|_| ())
    }

    /// Runs `famfs --pool` with these arguments and returns its output.
    pub fn famfs<A: Into<OsString>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Vec<u8>> {
        run(&mut self.famfs_command(arguments))
    }

    /// The command `famfs --pool` with these arguments.
    pub fn famfs_command<A: Into<OsString>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(self.programs.join("famfs"));
        command.arg("--pool").arg(&self.path);
        command.args(arguments.into_iter().map(Into::into));
        command
    }
}

/// Runs a command and returns its standard output; if it fails, the error contains its messages.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_owned();
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        let arguments: Vec<_> =
            command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        bail!(
            "{} {}: {}: {}",
            program.display(),
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}
