// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes trees, prints their manifests and compares them: on the host, and in virtual machines.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use trees::{Rules, TREES, Tree};

const USAGE: &str = "\
usage: trees plant NAME|all|oci-image|oci-result DIR
       trees plant-many FILES DIR
       trees manifest DIR [--without PATH]...
       trees compare [--zeros-for-holes] [--any-owner] [--any-root] SOURCE COPY
SOURCE and COPY are directories, or files with what `manifest` printed.";

fn main() -> ExitCode {
    match run(&env::args_os().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trees: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[OsString]) -> Result<()> {
    let (command, rest) = args.split_first().context(USAGE)?;
    match (command.to_str(), rest) {
        (Some("plant"), [name, dir]) => plant(&name.to_string_lossy(), Path::new(dir)),
        (Some("plant-many"), [files, dir]) => {
            trees::plant_many(Path::new(dir), files.to_string_lossy().parse()?).map(drop)
        }
        (Some("manifest"), [dir, options @ ..]) => {
            let mut tree = Tree::read(Path::new(dir))?;
            for option in options.chunks(2) {
                match option {
                    [name, path] if name == "--without" => tree.remove(path.as_bytes()),
                    _ => bail!(USAGE),
                }
            }
            print!("{tree}");
            Ok(())
        }
        (Some("compare"), [options @ .., source, copy]) => {
            let mut rules = Rules::default();
            for option in options {
                match option.to_str() {
                    Some("--zeros-for-holes") => rules.zeros_for_holes = true,
                    Some("--any-owner") => rules.any_owner = true,
                    Some("--any-root") => rules.any_root = true,
                    _ => bail!(USAGE),
                }
            }
            trees::compare(&tree(Path::new(source))?, &tree(Path::new(copy))?, rules).none()
        }
        _ => bail!(USAGE),
    }
}

fn plant(name: &str, dir: &Path) -> Result<()> {
    match name {
        "all" => trees::plant_all(dir),
        "oci-image" => trees::plant_oci_image(dir),
        "oci-result" => trees::plant_oci_result(dir),
        name => {
            let known = TREES.iter().any(|(tree, _)| *tree == name);
            anyhow::ensure!(known, "no tree {name:?}\n{USAGE}");
            trees::plant(name, dir)
        }
    }
}

fn tree(path: &Path) -> Result<Tree> {
    if path.is_dir() {
        return Tree::read(path);
    }
    let about = || format!("cannot read {}", path.display());
    fs::read_to_string(path).with_context(about)?.parse().with_context(about)
}
