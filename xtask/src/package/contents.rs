// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each package installs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::tree::Tree;
use crate::image::Imaged;
use crate::{exec, paths};

/// A package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// The host's program.
    Host,
    /// famfs and its helpers.
    Tools,
    /// The module as source.
    Dkms,
    /// The appliance.
    Image,
    /// The agent for other guests.
    Guest,
}

/// Where units are.
const UNITS: &str = "usr/lib/systemd/system";

/// Where the image is; `vhost-famfs` looks there (cluster/host.rs).
const IMAGE: &str = "usr/share/vhost-famfs/image";

/// What of an image VMs boot, and what says what is in it. The other forms (the verity root, UKIs)
/// are for those who build images.
const IMAGE_FILES: [&str; 8] = [
    "appliance.cyclonedx.json",
    "appliance.spdx.json",
    "initrd-diskless.cpio",
    "initrd.cpio",
    "manifest.json",
    "root-dax.erofs",
    "root.erofs",
    "vmlinux",
];

/// The names by which mkfs(8), fsck(8), mount(8) and umount(8) call famfs. Its own commands have
/// the same names.
const HELPERS: [&str; 4] = ["mkfs", "fsck", "mount", "umount"];

impl Package {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Host, Self::Tools, Self::Dkms, Self::Image, Self::Guest];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "vhost-famfs",
            Self::Tools => "famfs-tools",
            Self::Dkms => "famfs-dkms",
            Self::Image => "vhost-famfs-image",
            Self::Guest => "vhost-famfs-guest",
        }
    }

    /// What it is, in a few words.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Host => "virtual machines that share files in memory",
            Self::Tools => "tools for famfs, a file system in shared memory",
            Self::Dkms => "kernel module for famfs, as source for DKMS",
            Self::Image => "image that the VMs of vhost-famfs boot",
            Self::Guest => "mount a pool of vhost-famfs in a virtual machine",
        }
    }
}

/// Fills a tree with a package.
pub fn install(package: Package, tree: &Tree, imaged: &Imaged) -> Result<()> {
    let built = &imaged.built;
    match package {
        Package::Host => host(tree, &built.host)?,
        Package::Tools => tools(tree, &built.host)?,
        Package::Dkms => dkms(tree)?,
        Package::Image => image(tree, &imaged.dir)?,
        Package::Guest => guest(tree, &built.guest)?,
    }
    let given = paths::root().join("packaging");
    let doc = format!("usr/share/doc/{}", package.name());
    tree.copy(&given.join("copyright"), &format!("{doc}/copyright"), 0o644)?;
    let overrides = given.join(package.name()).join("lintian-overrides");
    if overrides.exists() {
        let to = format!("usr/share/lintian/overrides/{}", package.name());
        tree.copy(&overrides, &to, 0o644)?;
    }
    Ok(())
}

fn host(tree: &Tree, programs: &Path) -> Result<()> {
    let root = paths::root();
    let source = root.join("vhost-famfs");
    program(tree, &programs.join("vhost-famfs"), "usr/bin/vhost-famfs")?;
    let registry = "share/qemu/vhost-user/50-vhost-famfs.json";
    tree.copy(&source.join(registry), &format!("usr/{registry}"), 0o644)?;
    // The binary that the registry's file names.
    tree.link("../bin/vhost-famfs", "usr/libexec/vhost-user-famfs")?;
    for unit in files(&source.join("units"))? {
        tree.copy(&unit, &format!("{UNITS}/{}", name_of(&unit)), 0o644)?;
    }
    manuals(tree, "vhost-famfs")?;
    completions(tree, "vhost-famfs")?;
    let doc = "usr/share/doc/vhost-famfs";
    for example in files(&root.join("packaging/examples"))? {
        tree.copy(&example, &format!("{doc}/examples/{}", name_of(&example)), 0o644)?;
    }
    let news = root.join("NEWS.md");
    tree.compress(&format!("{doc}/NEWS.md"), &read(&news)?)?;
    for part in ["using", "reference"] {
        for page in files(&root.join("docs").join(part))? {
            let name = name_of(&page);
            if name.ends_with(".md") {
                tree.copy(&page, &format!("{doc}/{part}/{name}"), 0o644)?;
            } else if name.ends_with(".schema.json") {
                tree.copy(&page, &format!("usr/share/vhost-famfs/{name}"), 0o644)?;
            }
        }
    }
    Ok(())
}

fn tools(tree: &Tree, programs: &Path) -> Result<()> {
    program(tree, &programs.join("famfs"), "usr/bin/famfs")?;
    manuals(tree, "famfs")?;
    completions(tree, "famfs")?;
    for helper in HELPERS {
        tree.link("../bin/famfs", &format!("usr/sbin/{helper}.famfs"))?;
        let page = format!("usr/share/man/man8/{helper}.famfs.8.gz");
        tree.link(&format!("../man1/famfs-{helper}.1.gz"), &page)?;
    }
    Ok(())
}

/// The module without its tests.
fn dkms(tree: &Tree) -> Result<()> {
    let source = paths::root().join("kmod");
    let to = format!("usr/src/famfs-{}", env!("CARGO_PKG_VERSION"));
    for file in files(&source)?.into_iter().chain(files(&source.join("uapi"))?) {
        let name = file.strip_prefix(&source).context("a file of the module")?;
        if name != Path::new(".gitignore") {
            tree.copy(&file, &format!("{to}/{}", name.display()), 0o644)?;
        }
    }
    Ok(())
}

/// The image with checksums of what is in the package.
fn image(tree: &Tree, dir: &Path) -> Result<()> {
    let mut sums = String::new();
    for name in IMAGE_FILES {
        let from = dir.join(name);
        let bytes = read(&from)?;
        let sum: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        sums.push_str(&format!("{sum}  {name}\n"));
        tree.write(&format!("{IMAGE}/{name}"), 0o644, &bytes)?;
    }
    tree.write(&format!("{IMAGE}/SHA256SUMS"), 0o644, sums.as_bytes())
}

fn guest(tree: &Tree, programs: &Path) -> Result<()> {
    program(tree, &programs.join("appliance-agent"), "usr/bin/appliance-agent")?;
    let given = paths::root().join("packaging/vhost-famfs-guest");
    for unit in files(&given.join("units"))? {
        tree.copy(&unit, &format!("{UNITS}/{}", name_of(&unit)), 0o644)?;
    }
    for (from, to) in [
        ("tmpfiles.conf", "usr/lib/tmpfiles.d/vhost-famfs-guest.conf"),
        ("udev.rules", "usr/lib/udev/rules.d/60-vhost-famfs-guest.rules"),
    ] {
        tree.copy(&given.join(from), to, 0o644)?;
    }
    Ok(())
}

/// A program without the names of its symbols.
fn program(tree: &Tree, from: &Path, to: &str) -> Result<()> {
    let path = tree.place(to)?;
    let mut strip = std::process::Command::new("install");
    exec::output(strip.args(["-s", "-m", "755"]).arg(from).arg(path)).map(drop)
}

/// The pages of a program and its commands, and those of the same name in other sections.
fn manuals(tree: &Tree, program: &str) -> Result<()> {
    for page in files(&paths::target().join("man"))? {
        let name = name_of(&page);
        let Some((title, section)) = name.rsplit_once('.') else { continue };
        if title == program || title.starts_with(&format!("{program}-")) {
            tree.compress(&format!("usr/share/man/man{section}/{name}"), &read(&page)?)?;
        }
    }
    Ok(())
}

fn completions(tree: &Tree, program: &str) -> Result<()> {
    for (from, to) in [
        (format!("{program}.bash"), format!("bash-completion/completions/{program}")),
        (format!("_{program}"), format!("zsh/vendor-completions/_{program}")),
        (format!("{program}.fish"), format!("fish/vendor_completions.d/{program}.fish")),
    ] {
        let from = paths::target().join("completions").join(from);
        tree.copy(&from, &format!("usr/share/{to}"), 0o644)?;
    }
    Ok(())
}

/// The files in a directory, by name.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot list {}", dir.display()))?;
    let mut found: Vec<_> =
        entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    found.sort();
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
