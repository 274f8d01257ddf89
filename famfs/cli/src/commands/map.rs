// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs map`

mod svg;
mod text;

use std::path::Path;

use anyhow::{Context, Result, bail};
use famfs::replay::Contents;
use famfs::replay::picture::{Cell, Picture};
use famfs::sys::dax::Access;
use famfs::system::output_file::{self, is_stdout};
use famfs_cli::args::Map;

use super::warn_of_damage;
use crate::output::{FAILED, OK, OrExit, Outcome, USAGE, print_json, say, to_stdout};
use crate::place::Place;

pub fn run(pool: Option<&Path>, args: &Map) -> Outcome {
    if let Some(path) = &args.output {
        check_name(path, args.json).or_exit(USAGE)?;
    }
    let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
    let media = place.volume.media();
    let Contents { superblock, log, plan } = Contents::read(media)?;
    let damaged = warn_of_damage(&plan);
    let cells = match args.output {
        None if !args.json => text::cells(),
        _ => svg::CELLS,
    };
    let picture = Picture::of(&superblock, &log, &plan, media.len(), cells);
    let name = match pool {
        Some(pool) => pool.display().to_string(),
        None => args.path.as_ref().map_or("famfs".to_owned(), |path| path.display().to_string()),
    };
    if let Some(path) = &args.output {
        let text = svg::draw(&picture, &name);
        match is_stdout(path) {
            // A reader that stops early is no error there.
            true => to_stdout(|out| out.write_all(text.as_bytes()))?,
            false => {
                place.check_output(path)?;
                output_file::write(path, text.as_bytes())
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
    }
    if args.json {
        print_json(&picture)?;
    } else if let Some(path) = &args.output {
        if !is_stdout(path) {
            say!("{}: {} files, {} cells", path.display(), picture.files, picture.cells.len())?;
        }
    } else {
        text::print(&picture, &name)?;
    }
    Ok(if damaged { FAILED } else { OK })
}

/// Refuses names that suggest another kind of picture, before anything is read.
fn check_name(path: &Path, json: bool) -> Result<()> {
    if is_stdout(path) {
        if json {
            bail!("--json and --output - both write to standard output: leave one out");
        }
        return Ok(());
    }
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("svg") => Ok(()),
        _ => bail!("{}: expected a name that ends in .svg, or -", path.display()),
    }
}

/// What a cell shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Not taken.
    Free,
    /// Partly taken.
    Partly,
    /// One of the largest files, by its rank.
    Named(usize),
    /// One other file.
    One,
    /// Several files.
    Several,
    /// Files that share units.
    Small,
    /// Taken by no file.
    Held,
}

impl Look {
    fn of(cell: &Cell) -> Self {
        match cell {
            Cell { largest: Some(rank), .. } => Self::Named(*rank),
            cell if cell.held() * 2 > cell.len => Self::Held,
            Cell { free, len, .. } if free == len => Self::Free,
            Cell { small, len, .. } if small * 2 > *len => Self::Small,
            Cell { free, .. } if *free > 0 => Self::Partly,
            Cell { pieces: 1, .. } => Self::One,
            _ => Self::Several,
        }
    }
}

/// A number of things: "1 run", "2 runs".
fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// How many files and directories there are.
fn contents(picture: &Picture) -> String {
    let Picture { files, directories, symlinks, .. } = picture;
    let directories = match directories {
        1 => "1 directory".to_owned(),
        number => format!("{number} directories"),
    };
    let links = match symlinks {
        0 => String::new(),
        links => format!(", {}", count(*links, "symbolic link")),
    };
    format!("{}, {directories}{links}", count(*files, "file"))
}

/// How much is free, and how scattered it is.
fn free_space(picture: &Picture) -> String {
    let space = &picture.space;
    let free = crate::output::human(space.free);
    match space.free_runs {
        0 => "none".to_owned(),
        1 => format!("{free} in one run"),
        runs => format!(
            "{free} in {runs} runs, the longest {}; {:.1} % elsewhere",
            crate::output::human(space.largest_free),
            space.fragmentation
        ),
    }
}
