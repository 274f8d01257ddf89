// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs du`

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use famfs::replay::tree::list::{Entry, Listed};
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::tree::resolve::LastLink;
use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs_cli::args::Du;
use serde::Serialize;

use super::warn_of_damage;
use crate::output::{FAILED, OK, Outcome, human, print_json, to_stdout};
use crate::place::Place;

#[derive(Serialize)]
struct DuReport {
    version: u32,
    entries: Vec<Item>,
}

/// What the files at or below a path take together; sizes in bytes.
#[derive(Serialize)]
struct Item {
    #[serde(flatten)]
    path: Name,
    files: u64,
    bytes: u64,
    allocated: u64,
}

pub fn run(pool: Option<&Path>, args: &Du) -> Outcome {
    let place = Place::open_link(pool, args.path.as_deref(), Access::Read)?;
    let plan = place.plan()?;
    let damaged = warn_of_damage(&plan);
    let top = place.resolve(&plan, LastLink::Keep)?;
    let top = top.as_ref().map_or(Path::new(""), |path| path.as_path());
    // Paths are ordered by their parts, so that a directory comes before its contents.
    let mut sums: BTreeMap<PathBuf, Item> = BTreeMap::new();
    sums.insert(top.to_owned(), Item::new(top));
    // What has several names is counted once, as in du(1).
    let mut counted = HashSet::new();
    for Entry { path, listed: Listed { name, object, .. } } in
        place.entries(&plan, LastLink::Keep)?
    {
        let path = path.as_path();
        match &object.kind {
            ObjectKind::Symlink { .. } => {}
            ObjectKind::Dir { .. } => {
                sums.entry(path.to_owned()).or_insert_with(|| Item::new(path));
            }
            ObjectKind::File { size, bytes } => {
                if object.links > 1 && !counted.insert(name.object) {
                    continue;
                }
                for above in path.ancestors() {
                    if let Some(sum) = sums.get_mut(above) {
                        sum.files += 1;
                        sum.bytes = sum.bytes.saturating_add(*size);
                        sum.allocated += plan.tree().allocated(bytes);
                    }
                }
            }
        }
    }
    let entries: Vec<Item> = match args.summarize {
        true => sums.into_values().take(1).collect(),
        false => sums.into_values().collect(),
    };
    if args.json {
        print_json(&DuReport { version: 1, entries })?;
    } else {
        let size = |bytes: u64| if args.human { human(bytes) } else { bytes.to_string() };
        to_stdout(|out| {
            entries.iter().try_for_each(|Item { path, bytes, allocated, .. }| {
                let path = escape_name(path.as_bytes());
                writeln!(out, "{:>14} {:>14}  {path}", size(*allocated), size(*bytes))
            })
        })?;
    }
    Ok(if damaged { FAILED } else { OK })
}

impl Item {
    /// A sum without files yet; the empty path is the root.
    fn new(path: &Path) -> Self {
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        Self { path: Name::of_path("path", path), files: 0, bytes: 0, allocated: 0 }
    }
}
