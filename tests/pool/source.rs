// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A tree of files with known contents, on a disk that guests read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command as HostCommand;

use anyhow::{Context, Result, ensure};
use famfs::write::prng::SeededBytes;
use vhost_famfs::vm::Disk;
use vm_tests::{Artifacts, Node, Pool, mount_disk, pack_disk};

/// Where guests mount the tree.
pub const MOUNT_POINT: &str = "/run/source";
/// The serial number of the disk.
const SERIAL: &str = "source";

/// The size of a tree.
#[derive(Clone, Copy)]
pub struct Tree {
    /// Number of directories, `d0` and so on.
    pub directories: u32,
    /// Number of files in each, `f0` and so on.
    pub files: u32,
    /// Maximum size of a file in bytes.
    pub largest: u32,
}

impl Tree {
    /// The seed of a file's contents, which `famfs verify` uses.
    pub fn seed(&self, directory: u32, file: u32) -> u32 {
        1 + directory * self.files + file
    }
}

/// A tree as a disk, and its checksums.
pub struct Source {
    /// The disk.
    pub disk: Disk,
    /// SHA-256 by the path in the tree.
    sums: BTreeMap<String, String>,
}

impl Source {
    /// Creates the tree and the disk in a directory.
    pub fn make(artifacts: &Artifacts, dir: &Path, tree: Tree) -> Result<Self> {
        let root = dir.join("tree");
        let mut random = SeededBytes::new(1);
        for directory in 0..tree.directories {
            let path = root.join(format!("d{directory}"));
            fs::create_dir_all(&path).context("cannot make the source")?;
            for file in 0..tree.files {
                let size = usize::try_from(number(&mut random) % tree.largest)?;
                let mut bytes = vec![0; 1 + size];
                SeededBytes::new(tree.seed(directory, file)).fill(&mut bytes);
                fs::write(path.join(format!("f{file}")), bytes)
                    .context("cannot make the source")?;
            }
        }
        let disk = pack_disk(artifacts, &root, dir.join("source.erofs"), SERIAL)?;
        let list =
            output(HostCommand::new(artifacts.programs.join("famfs")).arg("sum").arg(&root))?;
        let sums: BTreeMap<String, String> = list
            .lines()
            .filter_map(|line| line.split_once("  "))
            .map(|(sum, path)| (path.to_owned(), sum.to_owned()))
            .collect();
        let files = usize::try_from(tree.directories * tree.files)?;
        ensure!(sums.len() == files, "sum lists {} files, not {files}", sums.len());
        Ok(Self { disk, sums })
    }

    /// Mounts the disk in a guest that has it.
    pub fn mount(&self, node: &Node) -> Result<()> {
        mount_disk(node, SERIAL, MOUNT_POINT)
    }

    /// The names of the directories.
    pub fn directories(&self) -> BTreeSet<String> {
        self.sums.keys().filter_map(|path| Some(path.split_once('/')?.0.to_owned())).collect()
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.sums.len()
    }

    /// The checksums, as `famfs sum --check` reads them.
    pub fn list(&self) -> String {
        self.sums.iter().map(|(path, sum)| format!("{sum}  {path}\n")).collect()
    }

    /// Checks on the host that all files below a directory of a pool are correct, and that no file
    /// of the complete directories is missing. Returns the number of files found.
    pub fn verify(&self, pool: &Pool, below: &str, complete: &BTreeSet<String>) -> Result<usize> {
        let sums = String::from_utf8(pool.famfs(["sum"])?)?;
        let prefix = format!("{below}/");
        let mut found = BTreeSet::new();
        for (sum, path) in sums.lines().filter_map(|line| line.split_once("  ")) {
            let Some(path) = path.strip_prefix(&prefix) else { continue };
            let expected = self.sums.get(path).with_context(|| format!("{path} has no source"))?;
            ensure!(expected == sum, "{path}: SHA-256 {sum}, expected {expected}");
            found.insert(path);
        }
        println!("# {} files, {} directories reported complete", found.len(), complete.len());
        for path in self.sums.keys() {
            let reported = path.split_once('/').is_some_and(|(dir, _)| complete.contains(dir));
            ensure!(!reported || found.contains(path.as_str()), "{path} was complete, and is lost");
        }
        Ok(found.len())
    }
}

/// The next number of a stream.
pub fn number(random: &mut SeededBytes) -> u32 {
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

fn output(command: &mut HostCommand) -> Result<String> {
    let program = command.get_program().to_owned();
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {}: {stderr}", program.display(), output.status);
    Ok(String::from_utf8(output.stdout)?)
}
