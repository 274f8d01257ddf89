// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tools: QEMU, kernel headers with their compiler, mkosi, mkfs.erofs.
//!
//! They come from the host if all of them are recent enough there. Otherwise they come from the
//! *tools tree*, a Debian root in the cache directory. Each program then runs in its own mount
//! namespace, in which the tree's `/usr` replaces the host's. Everything outside `/usr` is the
//! host's, so paths, sockets and devices are the same inside and outside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Held;
use crate::hash::Key;
use crate::packages::{self, SUITE};
use crate::{cache, exec, paths};

/// Packages from the stable suite.
const STABLE: &[&str] = &[
    "bc",
    "bison",
    "busybox-static",
    "ca-certificates",
    "cpio",
    "cryptsetup-bin",
    "debian-archive-keyring",
    "dosfstools",
    "e2fsprogs",
    "erofs-utils",
    "fio",
    "flex",
    "gcc-14",
    "gcc-14-multilib",
    "kmod",
    "libc6-dev",
    "libc6-dev-i386",
    "libelf-dev",
    "libssl-dev",
    "linux-headers-cloud-amd64",
    "make",
    "mkosi",
    "mmdebstrap",
    "mtools",
    "ndctl",
    "ovmf",
    "perl",
    "python3",
    "qemu-utils",
    "sbsigntool",
    "sparse",
    "systemd-boot-efi",
    "systemd-repart",
    "systemd-ukify",
    "xfsprogs",
    "xz-utils",
    "zstd",
];

/// Packages from backports: QEMU with `vhost-user-test-device` and SHMEM_MAP, and the headers of a
/// kernel version with fsdev_dax. The headers of the stable suite's kernel, and those of
/// [`MORE_HEADERS`], are installed next to them.
const BACKPORTS: &[&str] =
    &["linux-headers-cloud-amd64", "linux-libc-dev", "linux-source", "qemu-system-x86"];

/// The directory in the tree for the kernel's checking scripts, unpacked from the source package.
const SCRIPTS: &str = "usr/src/linux-scripts";

/// The checking scripts, the word lists that they read, and the library that they import.
const SCRIPT_FILES: [&str; 5] = [
    "scripts/checkpatch.pl",
    "scripts/const_structs.checkpatch",
    "scripts/spelling.txt",
    "tools/docs/kernel-doc",
    "tools/lib/python/kdoc",
];

/// Unpacks the headers of all other kernels in the archive into the tree, because the module is
/// compiled for them. They are not installed, because some depend on their kernel.
const MORE_HEADERS: &str = r#"
set -e
cd "$(mktemp -d)"
for name in $(apt-cache search --names-only "^linux-headers-[0-9].*-cloud-amd64$" | cut -d " " -f 1); do
    release=${name#linux-headers-}
    release=${release%-cloud-amd64}
    [ -e "/usr/src/$name" ] ||
        apt-get download "$name" "linux-headers-$release-common" "linux-kbuild-$release"
done
for package in *.deb; do
    [ ! -e "$package" ] || dpkg-deb --extract "$package" /
done
rm -r "$PWD""#;

/// How much space the tree needs while it is being built, with its packages.
const TREE_BYTES: u64 = 5 << 29;

/// Must be increased when the way the tree is built changes.
const RECIPE: &str = "3";

/// Programs that must all be on the host, with their minimum versions, to do without the tree.
const ON_HOST: &[(&str, &str, (u32, u32))] = &[
    ("qemu-system-x86_64", "--version", (11, 1)),
    ("mkosi", "--version", (25, 3)),
    ("mkfs.erofs", "-V", (1, 8)),
    ("gcc-14", "-dumpfullversion", (14, 0)),
];

/// The oldest kernel whose headers can be used: the first with fsdev_dax.
const KERNEL: (u32, u32) = (7, 2);

/// The long-term kernel that is also tested, with pmem only.
const LTS: (u32, u32) = (6, 12);

/// An installed set of kernel headers.
#[derive(Clone, Debug)]
pub struct KernelHeaders {
    /// The directory, as seen by the tools.
    pub dir: PathBuf,
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
    version: (u32, u32),
    /// The third number, which stable releases have.
    patch: u32,
}

impl KernelHeaders {
    /// The headers of that release; `None` if it does not begin with a version.
    fn new(release: &str) -> Option<Self> {
        Self::at(PathBuf::from(format!("/usr/src/linux-headers-{release}")), release)
    }

    /// The headers of that release, in another directory.
    pub fn at(dir: PathBuf, release: &str) -> Option<Self> {
        let version = version(release)?;
        let digits = |part: &str| part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let patch = release.split('.').nth(2).and_then(|part| part[..digits(part)].parse().ok());
        Some(Self { dir, release: release.to_owned(), version, patch: patch.unwrap_or(0) })
    }

    /// Whether the module supports this kernel (kmod/compat.h).
    fn is_supported(&self) -> bool {
        self.version == LTS || self.version >= KERNEL
    }
}

/// Where the tools are.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The tools tree, or `None` for the host itself.
    tree: Option<PathBuf>,
    /// Keeps the tree from being removed while it is in use.
    _held: Option<Held>,
}

impl Tools {
    /// The host's own tools, if all of them are recent enough.
    pub fn on_host() -> Option<Self> {
        let recent = ON_HOST.iter().all(|(program, flag, minimum)| {
            exec::in_path(program)
                && exec::output(Command::new(program).arg(flag))
                    .ok()
                    .and_then(|text| version(&text))
                    .is_some_and(|found| found >= *minimum)
        });
        let host = Self { tree: None, _held: None };
        (recent && host.kernel_headers().is_ok()).then_some(host)
    }

    /// The tools tree, if it has already been built from the same list.
    pub fn cached() -> Result<Option<Self>> {
        let tree = tree_path()?;
        let held = cache::hold(&tree)?;
        Ok(held.map(|held| Self { tree: Some(tree), _held: Some(held) }))
    }

    /// Builds the tools tree, completely or not at all, and removes trees of older lists.
    pub fn build() -> Result<Self> {
        let tree = tree_path()?;
        let cache = paths::cache()?;
        fs::create_dir_all(&cache)
            .with_context(|| format!("cannot create the cache directory {}", cache.display()))?;
        let lock = cache::lock(&cache, "tools.lock")?;
        if let Some(tools) = Self::cached()? {
            return Ok(tools);
        }
        cache::remove_others(&cache, "tools-", &[])?;
        cache::check_space(&cache, "the tools tree", TREE_BYTES)?;
        let work = tree.with_extension("part");
        let sources = cache.join("tools.sources");
        fs::write(&sources, packages::sources()?)
            .with_context(|| format!("cannot write {}", sources.display()))?;
        let backports = format!(
            "chroot \"$1\" apt-get install --yes --no-install-recommends -t {SUITE}-backports {}",
            BACKPORTS.join(" ")
        );
        let scripts = format!(
            "tar -C \"$1/{SCRIPTS}\" --strip-components=1 --wildcards -xf \
             \"$1\"/usr/src/linux-source-*.tar.xz {}",
            SCRIPT_FILES.map(|name| format!("'linux-source-*/{name}'")).join(" ")
        );
        exec::step(
            "tools",
            "Building the tools tree (1 to 3 minutes, 2 GB, kept in the cache)",
            Command::new("mmdebstrap")
                .args(["--mode=root", "--variant=minbase", "--aptopt=Acquire::Languages \"none\""])
                .arg(format!("--include={}", STABLE.join(",")))
                .arg(format!("--customize-hook={backports}"))
                .arg(format!("--customize-hook=chroot \"$1\" sh -c '{MORE_HEADERS}'"))
                .arg(format!("--customize-hook=mkdir \"$1/{SCRIPTS}\" && {scripts}"))
                .args([SUITE.as_ref(), work.as_os_str(), sources.as_os_str()]),
        )?;
        fs::rename(&work, &tree)
            .with_context(|| format!("cannot move the tools tree to {}", tree.display()))?;
        let held = cache::hold(&tree)?;
        drop(lock);
        Ok(Self { tree: Some(tree), _held: held })
    }

    /// A command that runs `program` from these tools.
    pub fn command(&self, program: &str) -> Command {
        let Some(tree) = &self.tree else { return Command::new(program) };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", ENTER]);
        command.arg(tree).arg(program);
        command
    }

    /// The path of an executable for `program` of these tools: the program itself if it is on the
    /// host, else a script next to the tree that enters it.
    pub fn executable(&self, program: &str) -> Result<PathBuf> {
        let Some(tree) = &self.tree else { return Ok(PathBuf::from(program)) };
        let dir = tree.with_extension("bin");
        let path = dir.join(program);
        // By its whole name: this script may be what a search in PATH finds.
        let inside = ["usr/bin", "usr/sbin"].map(|dir| Path::new(dir).join(program));
        let is_there = |inside: &&PathBuf| tree.join(inside).symlink_metadata().is_ok();
        let inside = inside
            .iter()
            .find(is_there)
            .with_context(|| format!("the tools in {} have no {program}", tree.display()))?;
        let script = format!(
            "#!/bin/sh\nexec unshare --mount --propagation private sh -c '{ENTER}' \\\n\t'{}' \
             /{} \"$@\"\n",
            tree.display(),
            inside.display()
        );
        if fs::read_to_string(&path).is_ok_and(|old| old == script) {
            return Ok(path);
        }
        fs::create_dir_all(&dir)
            .and_then(|()| fs::write(&path, script))
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The headers to build the module with by default: the newest.
    pub fn kernel_headers(&self) -> Result<KernelHeaders> {
        self.all_kernel_headers()?.pop().filter(|newest| newest.version >= KERNEL).with_context(
            || {
                format!(
                    "no kernel headers of Linux {}.{} or newer (cloud-amd64) in /usr/src",
                    KERNEL.0, KERNEL.1
                )
            },
        )
    }

    /// The headers of the long-term kernel that the module also supports, if the tools include any.
    pub fn lts_headers(&self) -> Result<Option<KernelHeaders>> {
        Ok(self.all_kernel_headers()?.into_iter().rev().find(|headers| headers.version == LTS))
    }

    /// The headers of the oldest kernel with fsdev_dax, unless that is the newest.
    pub fn oldest_headers(&self) -> Result<Option<KernelHeaders>> {
        let mut recent = self.all_kernel_headers()?.into_iter().filter(|h| h.version >= KERNEL);
        let oldest = recent.next();
        Ok(recent.next().and(oldest))
    }

    /// The headers of all kernels that the module supports, the oldest first.
    pub fn all_kernel_headers(&self) -> Result<Vec<KernelHeaders>> {
        let base = self.tree.clone().unwrap_or_else(|| PathBuf::from("/"));
        let src = base.join("usr/src");
        let mut found: Vec<_> = fs::read_dir(&src)
            .with_context(|| format!("cannot list {}", src.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| {
                let release = name.strip_prefix("linux-headers-")?;
                release.ends_with("-cloud-amd64").then(|| KernelHeaders::new(release))?
            })
            .filter(KernelHeaders::is_supported)
            .collect();
        found.sort_by_key(|headers| (headers.version, headers.patch));
        Ok(found)
    }

    /// The directory with the kernel's checking scripts, if the tools include it.
    pub fn kernel_scripts(&self) -> Option<PathBuf> {
        let tree = self.tree.as_ref()?;
        Some(tree.join(SCRIPTS)).filter(|dir| dir.is_dir())
    }

    /// The archive of the distribution's kernel source package; the newest if there are several.
    pub fn kernel_source(&self) -> Result<PathBuf> {
        let src = self.tree.clone().unwrap_or_else(|| PathBuf::from("/")).join("usr/src");
        fs::read_dir(&src)
            .with_context(|| format!("cannot list {}", src.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("linux-source-") && name.ends_with(".tar.xz"))
            .filter_map(|name| Some((version(&name.replace(['-', '_'], " "))?, name)))
            .max()
            .map(|(_, name)| src.join(name))
            .with_context(|| {
                format!("no kernel source in {}: install the package linux-source", src.display())
            })
    }

    /// Identifies these tools in the key of a result made with them.
    pub fn key(&self) -> String {
        self.tree.as_ref().map_or_else(|| "host".to_owned(), |tree| tree.display().to_string())
    }
}

/// Replaces the host's `/usr` (and what it needs of `/etc`) by the tree's, then becomes the
/// program. `$0` is the tree, `$@` the program and its arguments.
const ENTER: &str = "mount --bind \"$0/usr\" /usr && \
     mount --bind \"$0/etc/alternatives\" /etc/alternatives && exec \"$@\"";

/// The path of the tree for the current list.
fn tree_path() -> Result<PathBuf> {
    let key = Key::default().text(RECIPE).text(SUITE).text(&STABLE.join(" "));
    let key = key.text(&BACKPORTS.join(" ")).finish();
    Ok(paths::cache()?.join(format!("tools-{key}")))
}

/// The first "major.minor" in a text.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| {
        let mut numbers = word.split('.').map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{KernelHeaders, Tools, version};

    #[test]
    fn a_script_names_its_program_by_the_path_in_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tools");
        fs::create_dir_all(tree.join("usr/sbin")).unwrap();
        fs::write(tree.join("usr/sbin/mkfs.x"), "").unwrap();
        let tools = Tools { tree: Some(tree), _held: None };
        let script = fs::read_to_string(tools.executable("mkfs.x").unwrap()).unwrap();
        assert!(script.ends_with(" /usr/sbin/mkfs.x \"$@\"\n"), "{script}");
        let error = tools.executable("mkfs.y").unwrap_err().to_string();
        assert!(error.ends_with("have no mkfs.y"), "{error}");
    }

    #[test]
    fn kernels_are_in_the_order_of_their_numbers() {
        let headers = |release| KernelHeaders::new(release).unwrap();
        let number = |release| {
            let headers = headers(release);
            (headers.version, headers.patch)
        };
        assert!(number("7.2.9+deb13-cloud-amd64") < number("7.2.12+deb13-cloud-amd64"));
        assert_eq!(number("7.3-rc1-cloud-amd64"), ((7, 3), 0));
        for (release, expected) in [
            ("6.12.107+deb13-cloud-amd64", true),
            ("6.16.3+deb13-cloud-amd64", false),
            ("7.1.4+deb13-cloud-amd64", false),
            ("7.2.6+deb13-cloud-amd64", true),
            ("8.0.1+deb14-cloud-amd64", true),
        ] {
            assert_eq!(headers(release).is_supported(), expected, "{release}");
        }
    }

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(version("QEMU emulator version 11.1.3 (Debian 1:11.1.3)"), Some((11, 1)));
        assert_eq!(version("mkfs.erofs (erofs-utils) 1.8.6"), Some((1, 8)));
        assert_eq!(version("7.3.4+deb13-cloud-amd64"), Some((7, 3)));
        assert_eq!(version("mkosi 25.3"), Some((25, 3)));
        assert_eq!(version("no version 7 here"), None);
    }
}
