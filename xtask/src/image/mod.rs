// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask image`: builds the appliance image from the results of `build`.
//!
//! ```text
//! built programs, famfs.ko --inputs--> target/mkosi --mkosi build--> target/image
//!                             ^  lock                      (mkosi.conf, image/mkosi.*)
//! ```

mod inputs;
mod lock;
pub mod sign;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vm_tests::Artifacts;

use crate::args::{ImageArgs, Profile};
use crate::build::{self, Built};
use crate::hash::Key;
use crate::{cache, debug_kernel, exec, paths};
use inputs::Kernel;

/// The file of an image that identifies its inputs.
const STAMP: &str = "inputs";

/// The end of the stamp if the packages are those of the lock file.
const LOCKED: &str = " locked";

/// The build results, and the image made from them.
pub struct Imaged {
    /// The programs and the module.
    pub built: Built,
    /// The directory of the image.
    pub dir: PathBuf,
}

impl Imaged {
    /// What a cluster of VMs needs; its logs go to `logs`.
    pub fn artifacts(&self, logs: &Path) -> Result<Artifacts> {
        let Built { tools, host, guest, module_tests, .. } = &self.built;
        Ok(Artifacts {
            qemu: tools.executable("qemu-system-x86_64")?,
            mkfs_erofs: tools.executable("mkfs.erofs")?,
            systemd_analyze: tools.executable("systemd-analyze")?,
            image: self.dir.clone(),
            programs: host.clone(),
            trees: guest.join("trees"),
            module_tests: module_tests.clone(),
            lts_image: None,
            oldest_image: None,
            guest_programs: None,
            own_guest: None,
            logs: logs.to_owned(),
            runtime: paths::runtime(),
            all: false,
            debug_kernel: false,
        })
    }
}

/// One run of mkosi.
struct Job<'a> {
    built: &'a Built,
    kernel: Kernel,
    /// If empty, mkosi's default profiles are used.
    profiles: Vec<String>,
    /// Packages beside the appliance's own.
    with: Vec<String>,
    /// Under target/.
    dir: PathBuf,
    /// How to use the lock file.
    lock: Lock,
}

/// How to use a lock file for an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// Refuse other packages: for an image to be shipped.
    Insist,
    /// Use its versions if the mirror still has them: for tests and demonstrations.
    Prefer,
    /// Write the mirror's current versions to the lock file.
    Update,
}

/// The command.
pub fn command(args: &ImageArgs) -> Result<()> {
    let built = build::run()?;
    if !args.with.is_empty() {
        return with(args, &built);
    }
    let own_tree = args.profile.iter().find(|profile| profile.has_own_tree());
    let variant = own_tree.copied();
    let kernel = match variant {
        Some(Profile::Lts) => {
            lts_kernel(&built)?.context("these tools do not include headers of Linux 6.12")?
        }
        _ => stock_kernel(&built)?,
    };
    let mut job = Job {
        built: &built,
        kernel,
        profiles: args.profile.iter().map(|profile| profile.name()).collect(),
        with: Vec::new(),
        dir: paths::target()
            .join(variant.map_or("image".into(), |variant| format!("image-{}", variant.name()))),
        lock: if args.update { Lock::Update } else { Lock::Insist },
    };
    if args.prepare {
        inputs::write(&job)?;
        let mkosi = built.tools.executable("mkosi")?;
        println!("target/mkosi is ready. To build the image into {}, run:", job.dir.display());
        println!("{} --force build", mkosi.display());
        return Ok(());
    }
    if variant == Some(Profile::Lts) {
        job.profiles.push(Profile::Default.name());
    }
    job.finish(args)
}

/// Builds the image with more packages, and says which those are.
fn with(args: &ImageArgs, built: &Built) -> Result<()> {
    let job = Job {
        built,
        kernel: stock_kernel(built)?,
        profiles: [Profile::Default, Profile::Dax].map(Profile::name).into(),
        with: args.with.clone(),
        dir: paths::target().join("image-with"),
        lock: Lock::Prefer,
    };
    job.finish(args)?;
    for line in lock::differences(&lock::path(None), &job.dir.join("manifest.json"))? {
        println!("{line}");
    }
    Ok(())
}

/// Builds the image, unless it already exists with the same inputs.
pub fn run() -> Result<Imaged> {
    let built = build::run()?;
    let dir = paths::target().join("image");
    let kernel = stock_kernel(&built)?;
    Job::of(&built, kernel, Vec::new(), &dir).make()?;
    Ok(Imaged { built, dir })
}

/// How the packages of the image differ from those of the lock file, one entry per line.
pub fn unlocked(imaged: &Imaged) -> Result<Vec<String>> {
    lock::differences(&lock::path(None), &imaged.dir.join("manifest.json"))
}

/// Builds the image again from its packages, and returns the files that differ, as their lines in
/// the two lists of checksums.
pub fn differences(imaged: &Imaged) -> Result<Vec<String>> {
    let kernel = stock_kernel(&imaged.built)?;
    let dir = paths::target().join("image-again");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Job::of(&imaged.built, kernel, Vec::new(), &dir).make()?;
    let sums = |dir: &Path| {
        let path = dir.join("SHA256SUMS");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (first, second) = (sums(&imaged.dir)?, sums(&dir)?);
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    let missing = |from: &str, of: &str| -> Vec<String> {
        from.lines()
            .filter(|line| !of.lines().any(|other| other == *line))
            .map(str::to_owned)
            .collect()
    };
    Ok([missing(&first, &second), missing(&second, &first)].concat())
}

/// Builds the same image with the long-term kernel, and returns its directory; `None` if the tools
/// include no headers of such a kernel.
pub fn run_lts(built: &Built) -> Result<Option<PathBuf>> {
    let Some(kernel) = lts_kernel(built)? else { return Ok(None) };
    let dir = paths::target().join("image-lts");
    let profiles = [Profile::Lts, Profile::Default].map(Profile::name).into();
    Job::of(built, kernel, profiles, &dir).make()?;
    Ok(Some(dir))
}

/// Builds the same image with the oldest kernel that serves devdax devices; `None` if the tools
/// include headers of only one such kernel.
pub fn run_oldest(built: &Built) -> Result<Option<PathBuf>> {
    let Some(headers) = built.tools.oldest_headers()? else { return Ok(None) };
    let module = build::module(&built.tools, &headers, &paths::target().join("kmod-oldest"))?;
    let kernel = Kernel::packaged(&built.tools, module, inputs::OLDEST)?;
    let dir = paths::target().join("image-oldest");
    let profiles = vec![inputs::OLDEST.to_owned(), Profile::Default.name()];
    Job::of(built, kernel, profiles, &dir).make()?;
    Ok(Some(dir))
}

/// Builds the same image with the debug kernel.
pub fn run_debug() -> Result<Imaged> {
    let built = build::run()?;
    let kernel = debug_kernel::build(&built.tools)?;
    let headers = kernel.headers()?;
    let module = build::module(&built.tools, &headers, &paths::target().join("kmod-debug"))?;
    let dir = paths::target().join("image-debug-kernel");
    let kernel = Kernel::ours(&built.tools, module, kernel.modules())?;
    let profiles = vec![inputs::DEBUG_KERNEL.to_owned(), Profile::Default.name()];
    Job::of(&built, kernel, profiles, &dir).make()?;
    Ok(Imaged { built, dir })
}

fn stock_kernel(built: &Built) -> Result<Kernel> {
    Kernel::packaged(&built.tools, built.module.clone(), inputs::STOCK)
}

fn lts_kernel(built: &Built) -> Result<Option<Kernel>> {
    let Some(headers) = built.tools.lts_headers()? else { return Ok(None) };
    let module = build::module(&built.tools, &headers, &paths::target().join("kmod-lts"))?;
    Kernel::packaged(&built.tools, module, inputs::LTS).map(Some)
}

impl<'a> Job<'a> {
    /// The appliance's own packages, for tests and demonstrations.
    fn of(built: &'a Built, kernel: Kernel, profiles: Vec<String>, dir: &Path) -> Self {
        let (with, dir) = (Vec::new(), dir.to_owned());
        Self { built, kernel, profiles, with, dir, lock: Lock::Prefer }
    }
}

impl Job<'_> {
    /// Builds it, signs what is to be signed, and lists the files.
    fn finish(&self, args: &ImageArgs) -> Result<()> {
        self.make()?;
        if let Some(key) = &args.sign_key {
            let certificate = args.sign_certificate.as_deref().context("no certificate")?;
            // Signed files do not follow from the inputs alone, so the next build creates them
            // anew.
            let stamp = self.dir.join(STAMP);
            fs::remove_file(&stamp)
                .with_context(|| format!("cannot remove {}", stamp.display()))?;
            sign::sign(&self.built.tools, &self.dir, key, certificate)?;
        }
        for entry in sizes(&self.dir)? {
            println!("{entry}");
        }
        Ok(())
    }

    /// Runs mkosi, unless the image already exists with the same inputs.
    fn make(&self) -> Result<()> {
        let Self { built, dir, .. } = self;
        // Suites that run side by side, or two commands, want the same image.
        let _lock = cache::lock(&paths::target(), "build.lock")?;
        let stamp = dir.join(STAMP);
        let key = self.key()?;
        let locked = format!("{key}{LOCKED}");
        let there = fs::read_to_string(&stamp).unwrap_or_default();
        let fits = match self.lock {
            Lock::Insist => there == locked,
            Lock::Prefer => there == locked || there == key,
            Lock::Update => false,
        };
        if fits {
            return Ok(());
        }
        inputs::write(self)?;
        // All or nothing: until the build is complete, there is no image.
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let name = dir.file_name().unwrap_or_default().display().to_string();
        let mut command = built.tools.command("mkosi");
        command.arg("--directory").arg(paths::root());
        for profile in &self.profiles {
            command.args(["--profile", profile]);
        }
        if self.lock != Lock::Insist {
            command.args(["--environment", "LOCK=ignore"]);
        }
        if !self.with.is_empty() {
            command.args(["--environment", "WITH=more"]);
        }
        command.args(["--force", "build"]);
        exec::step(&name, &format!("Building the appliance {name}"), &mut command)?;
        let key = match self.lock {
            Lock::Insist => locked,
            Lock::Prefer => key,
            Lock::Update => {
                lock::write(
                    &lock::path(inputs::variant(&self.profiles)),
                    &dir.join("manifest.json"),
                )?;
                // The lock file is also an input, and now describes the image.
                format!("{}{LOCKED}", self.key()?)
            }
        };
        fs::write(&stamp, key).with_context(|| format!("cannot write {}", stamp.display()))
    }

    /// Identifies everything that the image is made from.
    fn key(&self) -> Result<String> {
        let root = paths::root();
        Ok(Key::default()
            .text(&self.built.tools.key())
            .text(&self.profiles.join(" "))
            .text(&self.with.join(" "))
            .path(&root.join("mkosi.conf"))?
            .path(&root.join("mkosi.profiles"))?
            .path(&root.join("image"))?
            .path(&self.built.guest.join("famfs"))?
            .path(&self.built.guest.join("appliance-init"))?
            .path(&self.built.guest.join("appliance-agent"))?
            .path(&self.kernel.module)?
            .text(&self.kernel.identity())
            .finish())
    }
}

/// The files of an image with their sizes, one per line.
fn sizes(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut lines = Vec::new();
    for entry in entries.flatten() {
        let metadata = entry.metadata().context("cannot examine a file of the image")?;
        if metadata.is_file() {
            lines.push(format!("{} {}", entry.path().display(), metadata.len()));
        }
    }
    lines.sort();
    Ok(lines)
}
