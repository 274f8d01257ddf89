// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Manual pages and shell completions. The pages of the programs come from the same source as
//! `--help`, those of the file system from docs/reference.

mod page;

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{CommandFactory, ValueEnum};
use clap_complete::env::Shells;
use clap_complete::{Generator, Shell};
use vhost_famfs::args::complete;

use crate::paths;

/// Writes target/man/* and target/completions/*.
pub fn write() -> Result<()> {
    let man = paths::target().join("man");
    let completions = paths::target().join("completions");
    for dir in [&man, &completions] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        // A page of a command that is gone would get into the packages.
        clear(dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    let page = "famfs.5";
    fs::copy(paths::root().join("docs/reference").join(page), man.join(page))
        .with_context(|| format!("cannot copy {page} to {}", man.display()))?;
    for (name, command) in [
        ("famfs", famfs_cli::args::Cli::command()),
        ("vhost-famfs", vhost_famfs::args::Cli::command()),
    ] {
        page::write_all(&command, &man)
            .with_context(|| format!("cannot write the manual of {name}"))?;
    }
    for shell in Shell::value_variants() {
        let mut command = famfs_cli::args::Cli::command();
        clap_complete::generate_to(*shell, &mut command, "famfs", &completions).with_context(
            || format!("cannot write completions of famfs to {}", completions.display()),
        )?;
        ask_program(*shell, "vhost-famfs", &completions)?;
    }
    Ok(())
}

/// Removes all files in a directory.
fn clear(dir: &Path) -> io::Result<()> {
    fs::read_dir(dir)?.try_for_each(|entry| fs::remove_file(entry?.path()))
}

/// Writes completions that call the program from the search path, which knows the names of clusters
/// and VMs.
fn ask_program(shell: Shell, name: &str, completions: &Path) -> Result<()> {
    let path = completions.join(shell.file_name(name));
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string());
    let completer = completer.with_context(|| format!("no completions for {shell}"))?;
    let mut script = Vec::new();
    completer
        .write_registration(complete::VARIABLE, name, name, name, &mut script)
        .and_then(|()| fs::write(&path, script))
        .with_context(|| format!("cannot write {}", path.display()))
}
