// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Manual pages and shell completions: of the programs from the same source as `--help`, of
//! the file system from docs/man.

mod page;

use std::fs;

use anyhow::{Context, Result};
use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::paths;

/// Writes target/man/* and target/completions/*.
pub fn write() -> Result<()> {
    let man = paths::target().join("man");
    let completions = paths::target().join("completions");
    for dir in [&man, &completions] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let page = "famfs.5";
    fs::copy(paths::root().join("docs/man").join(page), man.join(page))
        .with_context(|| format!("cannot copy {page} to {}", man.display()))?;
    for (name, command) in
        [("famfs", famfs::args::Cli::command()), ("vhost-famfs", vhost_famfs::args::Cli::command())]
    {
        page::write_all(&command, &man)
            .with_context(|| format!("cannot write the manual of {name}"))?;
        for shell in Shell::value_variants() {
            clap_complete::generate_to(*shell, &mut command.clone(), name, &completions)
                .with_context(|| {
                    format!("cannot write completions of {name} to {}", completions.display())
                })?;
        }
    }
    Ok(())
}
