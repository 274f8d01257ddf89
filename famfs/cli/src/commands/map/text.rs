// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The map as text, with colour on a terminal that wants it.

use std::io::Write;

use anstream::AutoStream;
use anstyle::{Ansi256Color, AnsiColor, Color, Style};
use anyhow::Result;
use famfs::replay::picture::{Cell, NAMED_FILES, Picture};
use famfs::text::terminal::escape_name as escape;

use super::{Look, contents, count, free_space};
use crate::output::{human, styled_to_stdout};

/// Width of the offset in front of a row.
const LABEL: usize = 11;
/// Rows of the data area.
const ROWS: usize = 16;
/// Possible widths of rows.
const COLUMNS: std::ops::RangeInclusive<usize> = 24..=128;
/// Width without a terminal.
const DEFAULT_WIDTH: usize = 80;
/// Colours of the largest files, from the 256-colour palette: distinct in hue and in lightness.
const COLOURS: [u8; NAMED_FILES] = [33, 208, 35, 170, 220, 80, 160, 141];

/// Number of cells that fit.
pub fn cells() -> usize {
    columns() * ROWS
}

fn columns() -> usize {
    let width = terminal_size::terminal_size().map_or(DEFAULT_WIDTH, |(width, _)| width.0.into());
    width.saturating_sub(LABEL + 1).clamp(*COLUMNS.start(), *COLUMNS.end())
}

/// Prints the map on standard output.
pub fn print(picture: &Picture, name: &str) -> Result<()> {
    let choice = AutoStream::choice(&std::io::stdout());
    let mut bytes = Vec::new();
    write(&mut AutoStream::new(&mut bytes, choice), picture, name, columns())?;
    styled_to_stdout(&bytes)
}

/// Writes the map; `out` removes the styles where they are not wanted.
fn write(
    out: &mut impl Write,
    picture: &Picture,
    name: &str,
    columns: usize,
) -> std::io::Result<()> {
    let Picture { log, space, .. } = picture;
    let bold = Style::new().bold();
    writeln!(
        out,
        "{bold}{}{bold:#}  {}, {}",
        escape(name.as_bytes()),
        human(picture.device_bytes),
        contents(picture)
    )?;
    gauge(out, "log", log.used, log.slots, columns)?;
    writeln!(out, " {} of {} slots", log.used, log.slots)?;
    gauge(out, "space", space.used + space.held, space.capacity, columns)?;
    writeln!(out, " {} of {}", human(space.used + space.held), human(space.capacity))?;
    writeln!(out, "{:<LABEL$}{}", "free", free_space(picture))?;
    let fragmented = count(picture.fragmented_files as u64, "file");
    writeln!(out, "{:<LABEL$}{fragmented} in several pieces\n", "fragments")?;
    meta(out, picture, columns)?;
    for row in picture.cells.chunks(columns) {
        write!(out, "{:>9}  ", short(row[0].offset))?;
        for cell in row {
            let (style, glyph) = paint(Look::of(cell));
            write!(out, "{style}{glyph}{style:#}")?;
        }
        writeln!(out)?;
    }
    legend(out, picture)
}

/// A bar of the used share.
fn gauge(
    out: &mut impl Write,
    name: &str,
    used: u64,
    all: u64,
    columns: usize,
) -> std::io::Result<()> {
    let width = (columns / 2).min(32);
    let share = u128::from(used) * width as u128 / u128::from(all.max(1));
    let mut full = usize::try_from(share).unwrap_or(width).min(width);
    if used > 0 {
        full = full.max(1);
    }
    let style = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
    let (bar, rest) = ("█".repeat(full), "·".repeat(width - full));
    write!(out, "{name:<LABEL$}{style}{bar}{style:#}{rest}")
}

/// Superblock and log, in cells like those of the data area.
fn meta(out: &mut impl Write, picture: &Picture, columns: usize) -> std::io::Result<()> {
    let Some(Cell { len, .. }) = picture.cells.first() else { return Ok(()) };
    let cells = usize::try_from(picture.log.bytes.div_ceil(*len)).unwrap_or(columns);
    let style = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
    let log = "L".repeat(cells.min(columns - 1));
    writeln!(out, "{:>9}  {style}S{log}{style:#}  superblock, log", short(0))
}

/// What a cell looks like.
fn paint(look: Look) -> (Style, char) {
    let colour = |code: u8| Style::new().fg_color(Some(Color::Ansi256(Ansi256Color(code))));
    match look {
        Look::Free => (colour(240), '·'),
        Look::Partly => (colour(245), '░'),
        Look::Named(rank) => {
            let letter = u8::try_from(rank).ok().map_or('?', |rank| char::from(b'A' + rank));
            (colour(COLOURS[rank % COLOURS.len()]), letter)
        }
        Look::One => (colour(250), '█'),
        Look::Several => (colour(247), '▓'),
        Look::Small => (colour(247), '▒'),
        Look::Held => (Style::new().fg_color(Some(AnsiColor::Red.into())), 'x'),
    }
}

fn legend(out: &mut impl Write, picture: &Picture) -> std::io::Result<()> {
    writeln!(out)?;
    let shown: Vec<Look> = picture.cells.iter().map(Look::of).collect();
    for (rank, file) in picture.largest.iter().enumerate() {
        let (style, glyph) = paint(Look::Named(rank));
        // A file much smaller than a cell is in the list, but has no cells of its own.
        let glyph = if shown.contains(&Look::Named(rank)) { glyph } else { ' ' };
        let (size, path) = (human(file.size), escape(file.path.as_bytes()));
        writeln!(
            out,
            "  {style}{glyph}{style:#} {size:>11}  {:<10} {path}",
            count(file.pieces as u64, "piece")
        )?;
    }
    for (look, text) in [
        (Look::One, "one other file"),
        (Look::Several, "several files"),
        (Look::Small, "small files"),
        (Look::Partly, "partly free"),
        (Look::Free, "free"),
        (Look::Held, "held by deleted or damaged entries"),
    ] {
        if shown.contains(&look) {
            let (style, glyph) = paint(look);
            writeln!(out, "  {style}{glyph}{style:#} {text}")?;
        }
    }
    match picture.cells.first() {
        Some(Cell { len, .. }) => writeln!(out, "Each cell is {}.", human(*len)),
        None => Ok(()),
    }
}

/// An offset in at most nine characters: without its fraction if it would be longer.
fn short(bytes: u64) -> String {
    let text = human(bytes).replace(".00 ", " ");
    match (text.find('.'), text.find(' ')) {
        (Some(point), Some(unit)) if text.len() > 9 => text[..point].to_owned() + &text[unit..],
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use famfs::replay::picture::{LogPicture, SpacePicture};

    use super::*;

    const UNIT: u64 = 2 << 20;

    fn picture(cells: Vec<Cell>) -> Picture {
        Picture {
            version: 1,
            device_bytes: 64 * UNIT,
            fs_uuid: String::new(),
            superblock_bytes: UNIT,
            log: LogPicture { offset: UNIT, bytes: 8 << 20, slots: 15420, used: 3 },
            files: 2,
            directories: 1,
            symlinks: 2,
            fragmented_files: 0,
            space: SpacePicture {
                start: 5 * UNIT,
                capacity: 59 * UNIT,
                used: 2 * UNIT,
                held: 0,
                free: 57 * UNIT,
                free_runs: 1,
                largest_free: 57 * UNIT,
                fragmentation: 0.0,
                histogram: Vec::new(),
            },
            largest: Vec::new(),
            cells,
        }
    }

    #[test]
    fn every_kind_of_cell_is_told_apart_without_colour() {
        let cell = |used: u64, free: u64, pieces: u64, largest: Option<usize>| Cell {
            offset: 5 * UNIT,
            len: 2 * UNIT,
            used: used * UNIT,
            free: free * UNIT,
            small: 0,
            pieces,
            slot: None,
            largest,
        };
        let cells = vec![
            cell(2, 0, 1, Some(0)),
            cell(2, 0, 1, None),
            cell(2, 0, 2, None),
            cell(1, 1, 1, None),
            cell(0, 2, 0, None),
            cell(0, 0, 0, None),
            Cell { small: 3 * UNIT / 2, ..cell(2, 0, 9, None) },
        ];
        let mut bytes = Vec::new();
        let mut out = AutoStream::never(&mut bytes);
        write(&mut out, &picture(cells), "a\u{1b}pool", 30).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("A█▓░·x▒\n"), "{text}");
        assert!(
            text.starts_with("a\\u001bpool  128.00 MiB, 2 files, 1 directory, 2 symbolic links"),
            "{text}"
        );
        assert!(text.contains("\nlog        █·············· 3 of 15420 slots\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn offsets_fit_in_front_of_their_rows() {
        let offsets = [0, 514 << 20, 24 << 29, 256_000_000_000, (1 << 40) - 1, 1_700_000_000_000];
        let texts = offsets.map(short);
        assert_eq!(texts, ["0 B", "514 MiB", "12 GiB", "238 GiB", "1024 GiB", "1.55 TiB"]);
        assert!(texts.iter().all(|text| text.len() <= 9), "{texts:?}");
    }

    #[test]
    fn colours_are_written_where_they_are_wanted() {
        let mut bytes = Vec::new();
        let mut out = AutoStream::always_ansi(&mut bytes);
        write(&mut out, &picture(Vec::new()), "pool", 30).unwrap();
        assert!(bytes.contains(&0x1b));
    }
}
