// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Directory trees as people have them, for tests of what goes into a pool and comes out of it.
//!
//! ```text
//! TREES (name -> function) -> Plant (makes a tree in a directory)
//! directory -> Tree (its manifest) -> compare -> Differences
//! ```
//!
//! A tree is made without network, and the same on every host, except for what Python and Git
//! write, and for one directory whose times are now. Owners other than the user are set where the
//! user is root.
//!
//! A [`Tree`] is written and read as text, so that the manifest that the program `trees` prints in
//! a virtual machine is compared with the directory on the host.

mod compare;
mod contents;
mod edges;
mod many;
mod oci;
mod packages;
mod plant;
mod python;
mod sparse;
mod system;
mod text;
mod tree;

use std::path::Path;

use anyhow::Result;

pub use compare::{Differences, Rules, compare, compare_directories};
pub use many::plant_many;
pub use oci::{plant_oci_image, plant_oci_result};
pub use plant::{Plant, remove_all};
pub use tree::{Contents, Entry, Kind, Time, Tree};

/// Makes a tree in an empty directory.
pub type Planter = fn(&Plant) -> Result<()>;

/// The trees, by name. [`plant_many`] and [`plant_oci_image`] are apart: the first is slow, the
/// second is an image and not a tree to be compared.
pub const TREES: [(&str, Planter); 12] = [
    ("huggingface", packages::huggingface),
    ("venv", python::venv),
    ("node_modules", packages::node_modules),
    ("maven", packages::maven),
    ("debian", system::debian),
    ("git", system::git),
    ("names", edges::names),
    ("deep", edges::deep),
    ("links", edges::links),
    ("sizes", edges::sizes),
    ("sparse", sparse::sparse),
    ("times", edges::times),
];

/// Makes the tree of this name in a directory that is empty or missing.
pub fn plant(name: &str, dir: &Path) -> Result<()> {
    let tree = TREES.iter().find(|(known, _)| *known == name);
    let Some((_, planter)) = tree else {
        let known: Vec<_> = TREES.iter().map(|(name, _)| *name).collect();
        anyhow::bail!("no tree {name:?}: expected one of {}", known.join(", "));
    };
    let plant = Plant::create(dir)?;
    planter(&plant)?;
    plant.finish()
}

/// Makes all trees of [`TREES`], each in a directory of its name.
pub fn plant_all(dir: &Path) -> Result<()> {
    TREES.iter().try_for_each(|(name, _)| plant(name, &dir.join(name)))
}
