// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask debug-kernel`: builds a kernel with debug checks, for `cargo xtask test
//! --debug-kernel`.
//!
//! It is built from the distribution's kernel source package with `kmod/debug.config`. The cache
//! keeps its image, its modules, and the headers to build famfs.ko against (`kernel-KEY/`). They
//! appear in one step at the end: an interrupted build leaves `kernel-KEY.part/`, and the next one
//! continues there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use vm_tests::interrupt;

use crate::cache::Held;
use crate::hash::Key;
use crate::tools::{KernelHeaders, Tools};
use crate::{cache, exec, paths, setup};

/// Must change when this file builds something else from the same inputs.
const RECIPE: &str = "debug kernel 1";

/// Maximum size of the unpacked source, the objects and the result together.
const BYTES: u64 = 3 << 30;

/// Approximate number of files to compile, for the progress display.
const FILES: u64 = 1420;

/// The compiler, the same as for the distribution's own kernel.
const COMPILER: [&str; 2] = ["CC=gcc-14", "HOSTCC=gcc-14"];

/// Replaces the time, user and host of the build, so that the same input gives the same bytes.
const IDENTITY: [(&str, &str); 3] = [
    ("KBUILD_BUILD_TIMESTAMP", "@1767225600"),
    ("KBUILD_BUILD_USER", "vhost-famfs"),
    ("KBUILD_BUILD_HOST", "xtask"),
];

/// A debug kernel in the cache.
#[derive(Debug)]
pub struct DebugKernel {
    dir: PathBuf,
    /// Keeps the directory from being removed while it is in use.
    _held: Option<Held>,
}

impl DebugKernel {
    /// The directory for building external modules: their `KDIR`.
    pub fn headers(&self) -> Result<KernelHeaders> {
        let modules = self.modules();
        let release = fs::read_dir(&modules)
            .with_context(|| format!("cannot list {}", modules.display()))?
            .find_map(|entry| entry.ok()?.file_name().into_string().ok())
            .with_context(|| format!("no kernel in {}", modules.display()))?;
        KernelHeaders::at(self.dir.join("headers"), &release)
            .with_context(|| format!("{}: no kernel release: {release}", modules.display()))
    }

    /// A directory like `/lib/modules`, with the kernel next to its modules.
    pub fn modules(&self) -> PathBuf {
        self.dir.join("modules")
    }
}

/// Builds the kernel if needed, and prints its path.
pub fn run() -> Result<()> {
    let tools = setup::run()?;
    let kernel = build(&tools).inspect_err(|_| {
        if interrupt::seen_after_failure() {
            eprintln!("debug-kernel: the next run continues from here");
        }
    })?;
    eprintln!("Debug kernel: {}", kernel.dir.display());
    eprintln!("Next: cargo xtask test --debug-kernel");
    Ok(())
}

/// The kernel; built if it is not in the cache.
pub fn build(tools: &Tools) -> Result<DebugKernel> {
    let source = tools.kernel_source()?;
    let config = paths::root().join("kmod/debug.config");
    let source_size = fs::metadata(&source)
        .with_context(|| format!("cannot examine {}", source.display()))?
        .len();
    let key = Key::default()
        .text(RECIPE)
        .text(&tools.key())
        .text(&source.to_string_lossy())
        .text(&source_size.to_string())
        .text(&options(&read(&config)?))
        .finish();
    let cache = paths::cache()?;
    let dir = cache.join(format!("kernel-{key}"));
    if let Some(held) = cache::hold(&dir)? {
        return Ok(DebugKernel { dir, _held: Some(held) });
    }

    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let _lock = cache::lock(&cache, "kernel.lock")?;
    if let Some(held) = cache::hold(&dir)? {
        return Ok(DebugKernel { dir, _held: Some(held) });
    }
    let part = dir.with_extension("part");
    cache::remove_others(&cache, "kernel-", &[&part])?;
    let builder = Builder { tools, config, part };
    builder.unpack(&source, &cache)?;
    builder.configure()?;
    builder.compile()?;
    let result = builder.install()?;
    fs::rename(&result, &dir)
        .with_context(|| format!("cannot move the kernel to {}", dir.display()))?;
    fs::remove_dir_all(&builder.part)
        .with_context(|| format!("cannot remove {}", builder.part.display()))?;
    let held = cache::hold(&dir)?;
    Ok(DebugKernel { dir, _held: held })
}

/// A build in its scratch directory.
struct Builder<'a> {
    tools: &'a Tools,
    config: PathBuf,
    part: PathBuf,
}

impl Builder<'_> {
    fn tree(&self) -> PathBuf {
        self.part.join("linux")
    }

    fn make(&self) -> Command {
        let mut make = self.tools.command("make");
        make.arg("-C").arg(self.tree()).args(COMPILER).envs(IDENTITY);
        make
    }

    fn step(&self, name: &str, what: &str, command: &mut Command) -> Result<()> {
        exec::step(&format!("debug-kernel-{name}"), what, command)
    }

    /// Unpacks the source, which gets its final name once it is complete.
    fn unpack(&self, source: &Path, cache: &Path) -> Result<()> {
        if self.tree().is_dir() {
            return Ok(());
        }
        cache::check_space(cache, "the debug kernel", BYTES)?;
        let unpacked = self.part.join("unpack");
        fs::create_dir_all(&unpacked)
            .with_context(|| format!("cannot create {}", unpacked.display()))?;
        let mut tar = self.tools.command("tar");
        tar.arg("-C").arg(&unpacked).args(["--strip-components=1", "-xf"]).arg(source);
        self.step("unpack", "Unpacking the kernel source", &mut tar)?;
        fs::rename(&unpacked, self.tree())
            .with_context(|| format!("cannot rename {}", unpacked.display()))
    }

    /// Configures only the requested options and what they need; each option must end up as
    /// requested.
    fn configure(&self) -> Result<()> {
        let mut make = self.make();
        make.env("KCONFIG_ALLCONFIG", &self.config).arg("allnoconfig");
        self.step("config", "Configuring the debug kernel", &mut make)?;
        let lost = lost_lines(&read(&self.config)?, &read(&self.tree().join(".config"))?);
        ensure!(
            lost.is_empty(),
            "{}: this kernel does not accept these lines, because options that they depend on are \
             missing, or because they no longer exist: {}",
            self.config.display(),
            lost.join(", ")
        );
        Ok(())
    }

    /// Compiles the kernel, which takes most of the time.
    fn compile(&self) -> Result<()> {
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let mut make = self.make();
        make.arg(format!("-j{jobs}")).args(["bzImage", "modules"]);
        exec::counted_step(
            "debug-kernel",
            "Building the debug kernel (20 minutes or more on 2 processors, kept in the cache)",
            &mut make,
            FILES,
            |line| line.starts_with("  CC ") || line.starts_with("  AS "),
        )
    }

    /// Collects the needed files, stripped.
    fn install(&self) -> Result<PathBuf> {
        let result = self.part.join("result");
        if result.is_dir() {
            fs::remove_dir_all(&result)
                .with_context(|| format!("cannot remove {}", result.display()))?;
        }
        let mut modules = self.make();
        modules.args(["modules_install", "INSTALL_MOD_STRIP=1", "DEPMOD=true"]);
        modules.arg(format!("INSTALL_MOD_PATH={}", result.display()));
        self.step("modules", "Installing its modules", &mut modules)?;
        let mut headers = self.make();
        headers.args([
            "run-command",
            "KBUILD_RUN_COMMAND=$(srctree)/scripts/package/install-extmod-build $(HEADERS)",
        ]);
        headers.arg(format!("HEADERS={}", result.join("headers").display()));
        self.step("headers", "Installing its headers", &mut headers)?;

        let modules = result.join("modules");
        fs::rename(result.join("lib/modules"), &modules)
            .with_context(|| format!("no modules in {}", result.display()))?;
        let release = self.release()?;
        let own = modules.join(&release);
        // Links to the source tree, which is removed.
        for link in ["build", "source"] {
            let link = own.join(link);
            if link.is_symlink() {
                fs::remove_file(&link)
                    .with_context(|| format!("cannot remove {}", link.display()))?;
            }
        }
        let image = self.tree().join("arch/x86/boot/bzImage");
        fs::copy(&image, own.join("vmlinuz"))
            .with_context(|| format!("cannot copy {}", image.display()))?;
        Ok(result)
    }

    fn release(&self) -> Result<String> {
        let path = self.tree().join("include/config/kernel.release");
        let text = read(&path)?;
        let release = text.trim();
        if release.is_empty() {
            bail!("{} is empty", path.display());
        }
        Ok(release.to_owned())
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The lines of a configuration that set options: a change of comments must not cause a new build.
fn options(config: &str) -> String {
    let says = |line: &&str| line.starts_with("CONFIG_") || line.ends_with(" is not set");
    config.lines().filter(says).map(|line| format!("{line}\n")).collect()
}

/// The lines of `wanted` that are missing from the kernel's configuration.
fn lost_lines(wanted: &str, config: &str) -> Vec<String> {
    let has = |line: &str| config.lines().any(|other| other == line);
    wanted
        .lines()
        .filter(|line| match line.strip_prefix("# ") {
            // An option whose menu is disabled is also off.
            Some(comment) => comment
                .strip_suffix(" is not set")
                .is_some_and(|name| has(&format!("{name}=y")) || has(&format!("{name}=m"))),
            None => line.starts_with("CONFIG_") && !has(line),
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{lost_lines, options};

    #[test]
    fn lines_that_the_kernel_dropped_are_named() {
        let wanted =
            "# why\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n# CONFIG_D is not set\n";
        let config = "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_C is not set\nCONFIG_D=y\n";
        assert_eq!(lost_lines(wanted, config), ["CONFIG_B=m", "# CONFIG_D is not set"]);
        assert_eq!(
            options(wanted),
            "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n# CONFIG_D is not set\n"
        );
        assert!(lost_lines(wanted, "CONFIG_A=y\nCONFIG_B=m\n").is_empty());
    }
}
