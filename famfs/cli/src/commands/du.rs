// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs du`

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs_cli::args::Du;
use serde::Serialize;

use super::rows::{RowKind, rows_at};
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
    let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
    let plan = place.whole_plan()?;
    let damaged = warn_of_damage(&plan);
    let top = place.path.as_ref().map_or(Path::new(""), |path| path.as_path());
    // Paths are ordered by their parts, so that a directory comes before its contents.
    let mut sums: BTreeMap<PathBuf, Item> = BTreeMap::new();
    sums.insert(top.to_owned(), Item::new(top));
    // What has several names is counted once, as in du(1).
    let mut counted = HashSet::new();
    for row in rows_at(&place, &plan)? {
        let path = Path::new(OsStr::from_bytes(&row.path));
        match &row.kind {
            RowKind::Symlink(_) => {}
            RowKind::Dir => {
                sums.entry(path.to_owned()).or_insert_with(|| Item::new(path));
            }
            RowKind::File { size, allocated, .. } => {
                let more = row.links.filter(|(links, _)| *links > 1);
                if more.is_some_and(|(_, object)| !counted.insert(object)) {
                    continue;
                }
                for above in path.ancestors() {
                    if let Some(sum) = sums.get_mut(above) {
                        sum.files += 1;
                        sum.bytes += size;
                        sum.allocated += allocated;
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
