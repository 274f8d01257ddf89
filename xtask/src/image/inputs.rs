// SPDX-License-Identifier: Apache-2.0 OR MIT
//! target/mkosi: the files that mkosi.conf includes but that are not in the repository.
//!
//! ```text
//! mkosi.conf               package sources, caches, our programs
//! mkosi.conf.d/KERNEL.conf for a profile: kernel packages, famfs.ko, where the image goes
//! extra/, KERNEL/          trees to be copied into the root
//! sandbox/etc/apt/         package sources and locked versions
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Job, Lock, lock};
use crate::args::Profile;
use crate::tools::Tools;
use crate::{exec, packages, paths};

/// The default profile (in [`Kernel`] and in mkosi): the newest stock kernel.
pub const STOCK: &str = "stock";

/// The profile with the long-term kernel.
pub const LTS: &str = "lts";

/// The profile with the oldest kernel that serves devdax devices.
pub const OLDEST: &str = "oldest";

/// The profile with the kernel of `cargo xtask debug-kernel`.
pub const DEBUG_KERNEL: &str = "debug-kernel";

/// The program names that mount(8), umount(8), fsck(8) and mkfs(8) search for; they are links to
/// famfs.
const HELPERS: [&str; 4] = ["mkfs", "fsck", "mount", "umount"];

/// The kernel of an image.
pub struct Kernel {
    /// famfs.ko, which determines the kernel's release.
    pub module: PathBuf,
    profile: &'static str,
    release: String,
    /// A directory like /lib/modules that contains the kernel; `None` to use packages.
    modules: Option<PathBuf>,
}

impl Kernel {
    /// The distribution's kernel that the module was built for.
    pub fn packaged(tools: &Tools, module: PathBuf, profile: &'static str) -> Result<Self> {
        let release = release(tools, &module)?;
        Ok(Self { module, profile, release, modules: None })
    }

    /// Our own kernel; `modules` is like /lib/modules, with `vmlinuz` in it.
    pub fn ours(tools: &Tools, module: PathBuf, modules: PathBuf) -> Result<Self> {
        let release = release(tools, &module)?;
        Ok(Self { module, profile: DEBUG_KERNEL, release, modules: Some(modules) })
    }

    /// Identifies the kernel in the key of an image.
    pub fn identity(&self) -> String {
        let modules = self.modules.as_ref().map(|dir| dir.display().to_string());
        format!("{} {}", self.release, modules.unwrap_or_default())
    }

    /// The packages with kernel and modules. Before Linux 7, Debian has both in one package, which
    /// pulls in an initramfs generator.
    fn packages(&self) -> Vec<String> {
        let release = &self.release;
        match &self.modules {
            Some(_) => Vec::new(),
            None if release.starts_with("6.") => vec![format!("linux-image-{release}")],
            None => vec![format!("linux-modules-{release}"), format!("linux-binary-{release}")],
        }
    }

    /// The condition under which mkosi uses this kernel's file.
    fn conditions(&self) -> String {
        match self.profile {
            STOCK => {
                [LTS, OLDEST, DEBUG_KERNEL].map(|profile| format!("Profiles=!{profile}\n")).concat()
            }
            profile => format!("Profiles={profile}\n"),
        }
    }
}

/// Writes all files for one job; those for other kernels are left alone.
pub fn write(job: &Job<'_>) -> Result<()> {
    let Job { built, kernel, dir, .. } = job;
    let base = paths::root().join("target/mkosi");
    let cache = paths::cache()?;
    let (downloads, workspace) = (cache.join("packages"), cache.join("mkosi"));
    let apt = base.join("sandbox/etc/apt");
    let bin = base.join("extra/usr/bin");
    let sbin = base.join("extra/usr/sbin");
    let conf = base.join("mkosi.conf.d");
    // mkosi calls a root tree by the name of its file, so no file of an earlier run may remain.
    for stale in ["sandbox", "extra", kernel.profile] {
        let stale = base.join(stale);
        if stale.exists() {
            fs::remove_dir_all(&stale)
                .with_context(|| format!("cannot remove {}", stale.display()))?;
        }
    }
    let made = [
        &downloads,
        &workspace,
        &apt.join("sources.list.d"),
        &apt.join("preferences.d"),
        &bin,
        &sbin,
    ]
    .into_iter()
    .chain([&conf, &base.join(kernel.profile)])
    .try_for_each(fs::create_dir_all);
    made.with_context(|| format!("cannot create directories in {}", base.display()))?;
    save(&apt.join("sources.list.d/mkosi.sources"), &packages::sources()?)?;
    let preferences = match job.lock {
        // Do not keep an old version that the mirror still has next to the new one.
        Lock::Update => String::new(),
        Lock::Insist | Lock::Prefer => lock::preferences(&lock::path(variant(&job.profiles)))?,
    };
    save(&apt.join("preferences.d/lock"), &preferences)?;
    for program in ["famfs", "appliance-agent", "appliance-init"] {
        install(
            &built.tools,
            &["-s", "-m", "755"],
            &built.guest.join(program),
            &bin.join(program),
        )?;
    }
    for helper in HELPERS {
        let link = sbin.join(format!("{helper}.famfs"));
        symlink("../bin/famfs", &link)
            .with_context(|| format!("cannot create {}", link.display()))?;
    }
    let module = format!("{}/usr/lib/modules/{}/extra/famfs.ko", kernel.profile, kernel.release);
    install(&built.tools, &["-D", "-m", "644"], &kernel.module, &base.join(module))?;
    let more = job.with.iter().map(|package| format!("Packages={package}\n"));
    save(
        &base.join("mkosi.conf"),
        &format!(
            "[Build]\nSandboxTrees={base}/sandbox\nPackageCacheDirectory={downloads}\n\
             WorkspaceDirectory={workspace}\n\n[Content]\nExtraTrees={base}/extra\n{more}",
            base = base.display(),
            downloads = downloads.display(),
            workspace = workspace.display(),
            more = more.collect::<String>(),
        ),
    )?;
    let mut text = format!(
        "[Match]\n{}\n[Output]\nOutputDirectory={}\n\n[Build]\nEnvironment=KVER={}\n",
        kernel.conditions(),
        dir.display(),
        kernel.release
    );
    if kernel.modules.is_some() {
        text.push_str("Environment=KERNEL_IS_OURS=1\n");
    }
    text.push_str(&format!("\n[Content]\nExtraTrees={}\n", base.join(kernel.profile).display()));
    if let Some(modules) = &kernel.modules {
        let from = modules.join(&kernel.release);
        text.push_str(&format!(
            "ExtraTrees={}:/usr/lib/modules/{}\n",
            from.display(),
            kernel.release
        ));
    }
    for package in kernel.packages() {
        text.push_str(&format!("Packages={package}\n"));
    }
    save(&conf.join(format!("{}.conf", kernel.profile)), &text)
}

/// The profile that determines the lock file.
pub fn variant(profiles: &[String]) -> Option<Profile> {
    [Profile::Debug, Profile::Lts].into_iter().find(|profile| profiles.contains(&profile.name()))
}

/// The kernel release of a module.
fn release(tools: &Tools, module: &Path) -> Result<String> {
    let vermagic = exec::output(tools.command("modinfo").args(["-F", "vermagic"]).arg(module))?;
    match vermagic.split_ascii_whitespace().next() {
        Some(release) => Ok(release.to_owned()),
        None => bail!("{} is not a kernel module: it names no kernel version", module.display()),
    }
}

fn install(tools: &Tools, options: &[&str], from: &Path, to: &Path) -> Result<()> {
    exec::output(tools.command("install").args(options).arg(from).arg(to)).map(|_| ())
}

fn save(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
