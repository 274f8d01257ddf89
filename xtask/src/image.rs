// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask image`: the appliance image, from what `build` made.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vm_tests::Artifacts;

use crate::build::{self, Built};
use crate::hash::Key;
use crate::interrupt::Interrupt;
use crate::{debug_kernel, exec, packages, paths};

/// What was built, and the image made of it.
pub struct Imaged {
    /// The programs and the module.
    pub built: Built,
    /// The directory of the image.
    pub dir: PathBuf,
}

impl Imaged {
    /// What a cluster of VMs needs, with its logs in `logs`.
    pub fn artifacts(&self, logs: &Path) -> Result<Artifacts> {
        let Built { tools, host, module_tests, .. } = &self.built;
        Ok(Artifacts {
            qemu: tools.executable("qemu-system-x86_64")?,
            mkfs_erofs: tools.executable("mkfs.erofs")?,
            image: self.dir.clone(),
            programs: host.clone(),
            module_tests: module_tests.clone(),
            guest_programs: None,
            lts_image: None,
            logs: logs.to_owned(),
            runtime: paths::runtime(),
            all: false,
            debug_kernel: false,
        })
    }
}

/// Builds the image unless it is there, made of the same inputs.
pub fn run() -> Result<Imaged> {
    let built = build::run()?;
    let dir = paths::target().join("image");
    make(&built, &built.module, None, &dir)?;
    Ok(Imaged { built, dir })
}

/// Builds the same image with the long-term kernel, and returns its directory; `None` if the
/// tools have no headers of one.
pub fn run_lts(built: &Built) -> Result<Option<PathBuf>> {
    let Some(headers) = built.tools.lts_headers()? else { return Ok(None) };
    let module = build::module(&built.tools, &headers, &paths::target().join("kmod-lts"))?;
    let dir = paths::target().join("image-lts");
    make(built, &module, None, &dir)?;
    Ok(Some(dir))
}

/// The same image with the debug kernel.
pub fn run_debug(interrupt: &Interrupt) -> Result<Imaged> {
    let built = build::run()?;
    let kernel = debug_kernel::build(&built.tools, interrupt)?;
    let headers = kernel.headers()?;
    let module = build::module(&built.tools, &headers, &paths::target().join("kmod-debug"))?;
    let dir = paths::target().join("image-debug");
    make(&built, &module, Some(&kernel.modules()), &dir)?;
    Ok(Imaged { built, dir })
}

/// Builds an image with this module, which decides the kernel, in `dir`. The kernel comes from
/// the distribution's packages, or from `kernels`, a directory like /lib/modules.
fn make(built: &Built, module: &Path, kernels: Option<&Path>, dir: &Path) -> Result<()> {
    let stamp = dir.join("inputs");
    let root = paths::root();
    let key = Key::default()
        .text(&built.tools.key())
        .text(&kernels.map_or_else(String::new, |dir| dir.display().to_string()))
        .path(&root.join("mkosi.conf"))?
        .path(&root.join("image"))?
        .path(&built.guest.join("famfs"))?
        .path(&built.guest.join("appliance-init"))?
        .path(&built.guest.join("appliance-agent"))?
        .path(module)?
        .finish();
    if fs::read_to_string(&stamp).is_ok_and(|old| old == key) {
        return Ok(());
    }
    let cache = paths::cache()?.join("packages");
    fs::create_dir_all(dir)
        .and_then(|()| fs::create_dir_all(&cache))
        .with_context(|| format!("cannot create {} or {}", dir.display(), cache.display()))?;
    match fs::remove_file(&stamp) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", stamp.display()));
        }
        _ => {}
    }
    let sources = paths::target().join("mkosi.sources");
    fs::write(&sources, packages::sources()?)
        .with_context(|| format!("cannot write {}", sources.display()))?;
    // mkosi refuses to work inside of the tree that it builds from.
    let work = tempfile::Builder::new()
        .prefix("image-")
        .tempdir_in(paths::cache()?)
        .context("cannot make a scratch directory in the cache")?;
    let name = dir.file_name().unwrap_or_default().display();
    let mut command = built.tools.command("bash");
    command
        .arg(root.join("image/build.sh"))
        .arg("--output")
        .arg(dir)
        .arg("--work")
        .arg(work.path())
        .arg("--programs")
        .arg(&built.guest)
        .arg("--module")
        .arg(module)
        .arg("--sources")
        .arg(&sources)
        .arg("--package-cache")
        .arg(&cache);
    if let Some(kernels) = kernels {
        command.arg("--kernel").arg(kernels);
    }
    exec::step(&name.to_string(), &format!("Building the appliance {name}"), &mut command)?;
    fs::write(&stamp, key).with_context(|| format!("cannot write {}", stamp.display()))
}
