// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The map as a picture in SVG 1.1, which every browser shows.

use std::fmt::Write;

use famfs::replay::picture::{Bar, Cell, NAMED_FILES, Picture};
use famfs::text::terminal::escape_name as escape;

use super::{Look, contents, count, free_space};
use crate::output::human;

/// Highest number of cells in the data area.
pub const CELLS: usize = 96 * 48;

/// Width of the picture and its margins, in pixels.
const WIDTH: usize = 1024;
const MARGIN: usize = 32;
/// Width of the offsets beside the grid.
const LABEL: usize = 72;
/// Width of the grid.
const GRID: usize = WIDTH - 2 * MARGIN - LABEL;
/// Characters of a path in the legend, and of the name above the picture.
const PATH_CHARS: usize = 36;
const NAME_CHARS: usize = 80;
/// The size of the name above the picture.
const HEADING: &str = "font-size=\"20\"";
/// Height of the gauges and of the longest bar of the histogram.
const GAUGE: usize = 16;
const BARS: usize = 64;
/// Colours of the largest files, which colour-blind people can tell apart too.
const COLOURS: [&str; NAMED_FILES] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b8a800", "#7a5195"];
const ONE: &str = "#8a949e";
const SEVERAL: &str = "#5b6570";
/// Between those of one and of several files.
const SMALL: &str = "#737d88";
const PARTLY: &str = "#c3cad1";
const FREE: &str = "#eef1f4";
const HELD: &str = "#b3261e";
const LOG: &str = "#cfe3f1";
const TAKEN: &str = "#0072b2";
const INK: &str = "#1c2329";
const PALE: &str = "#5b6570";

/// Draws a picture; `name` is what the user called the file system.
pub fn draw(picture: &Picture, name: &str) -> String {
    let mut drawing = Drawing { text: String::new(), y: MARGIN + 20 };
    drawing.head(picture, name);
    drawing.gauges(picture);
    drawing.grid(picture);
    drawing.legend(picture);
    drawing.histogram(&picture.space.histogram);
    let height = drawing.y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\" fill=\"{INK}\">\n<title>famfs map of {}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n{}</svg>\n",
        quote(name),
        drawing.text
    )
}

/// The drawing so far, and where it continues.
struct Drawing {
    text: String,
    y: usize,
}

impl Drawing {
    fn label(&mut self, x: usize, y: usize, attributes: &str, text: &str) {
        // Writing to a String cannot fail, here and below.
        let _ =
            writeln!(self.text, "<text x=\"{x}\" y=\"{y}\" {attributes}>{}</text>", quote(text));
    }

    /// One line of text that is not longer than `room` in any font: it is narrowed if it could be.
    fn line(&mut self, (x, y): (usize, usize), room: usize, attributes: &str, text: &str) {
        let size = if attributes.contains(HEADING) { 20 } else { 13 };
        // Wide for a font without serifs, whose letters are about half as wide as high.
        let fits = text.chars().count() * size * 3 / 5 <= room;
        let narrower =
            format!("{attributes} textLength=\"{room}\" lengthAdjust=\"spacingAndGlyphs\"");
        self.label(x, y, if fits { attributes } else { &narrower }, text);
    }

    fn rect(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), fill: &str) {
        let _ = writeln!(
            self.text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>"
        );
    }

    fn head(&mut self, picture: &Picture, name: &str) {
        let name = shorten(name, NAME_CHARS);
        self.line(
            (MARGIN, self.y),
            WIDTH - 2 * MARGIN,
            &format!("{HEADING} font-weight=\"600\""),
            &name,
        );
        let counts = format!(
            "{}, {}, file system {}",
            human(picture.device_bytes),
            contents(picture),
            picture.fs_uuid
        );
        self.y += 22;
        self.line((MARGIN, self.y), WIDTH - 2 * MARGIN, &format!("fill=\"{PALE}\""), &counts);
        self.y += 24;
    }

    fn gauges(&mut self, picture: &Picture) {
        let Picture { log, space, .. } = picture;
        let slots = format!(
            "{} of {} slots; {} after the superblock",
            log.used,
            log.slots,
            human(log.bytes)
        );
        self.gauge("log", &[(log.used, TAKEN)], log.slots, &slots);
        let used = human(space.used + space.held);
        let free = format!("{used} used; free: {}", free_space(picture));
        self.gauge("space", &[(space.used, TAKEN), (space.held, HELD)], space.capacity, &free);
        self.y += 8;
    }

    /// A bar with shares of a whole, and a text about them.
    fn gauge(&mut self, name: &str, shares: &[(u64, &str)], all: u64, text: &str) {
        let width = GRID * 2 / 5;
        let (left, y) = (MARGIN + LABEL, self.y);
        self.label(MARGIN, y + 13, "", name);
        self.rect((left, y), (width, GAUGE), FREE);
        let mut x = 0;
        for (share, fill) in shares {
            let part = (u128::from(*share) * width as u128).div_ceil(u128::from(all.max(1)));
            let part = usize::try_from(part).unwrap_or(width).min(width - x);
            if part > 0 {
                self.rect((left + x, y), (part, GAUGE), fill);
            }
            x += part;
        }
        let x = left + width + 12;
        self.line((x, y + 13), WIDTH - MARGIN - x, &format!("fill=\"{PALE}\""), text);
        self.y += GAUGE + 10;
    }

    /// The data area, row by row; neighbours that look the same become one rectangle.
    fn grid(&mut self, picture: &Picture) {
        let cells = &picture.cells;
        let (columns, rows) = shape(cells.len());
        let side = GRID / columns;
        let gap = usize::from(side >= 6);
        self.meta(picture, columns, side, gap);
        for (number, row) in cells.chunks(columns).enumerate() {
            let y = self.y + number * side;
            if number % rows.div_ceil(12) == 0 {
                let attributes = format!("text-anchor=\"end\" fill=\"{PALE}\" font-size=\"11\"");
                let at = human(row[0].offset).replace(".00 ", " ");
                self.label(MARGIN + LABEL - 8, y + side / 2 + 4, &attributes, &at);
            }
            let mut first = 0;
            while first < row.len() {
                let look = Look::of(&row[first]);
                // Files get rectangles of their own; cells with parts of several files do only
                // where the gaps show.
                let alone = gap > 0 && matches!(look, Look::Partly | Look::Several);
                let slot = row[first].slot.filter(|_| look == Look::One);
                let same = |cell: &&Cell| {
                    !alone && Look::of(cell) == look && (slot.is_none() || slot == cell.slot)
                };
                let run = 1 + row[first + 1..].iter().take_while(same).count();
                let at = (MARGIN + LABEL + first * side, y);
                self.rect(at, (run * side - gap, side - gap), fill(look));
                first += run;
            }
        }
        self.y += rows * side + 28;
    }

    /// Superblock and log, in cells like those of the data area, with the used part of the log.
    fn meta(&mut self, picture: &Picture, columns: usize, side: usize, gap: usize) {
        let Some(cell) = picture.cells.first() else { return };
        let log = &picture.log;
        let (left, y) = (MARGIN + LABEL, self.y);
        let height = side.clamp(10, 18);
        let cells = usize::try_from(log.bytes.div_ceil(cell.len)).unwrap_or(columns);
        let width = (cells.clamp(1, columns - 1) * side).max(4);
        let used = u128::from(log.used) * width as u128 / u128::from(log.slots.max(1));
        let used = usize::try_from(used).unwrap_or(width).clamp(usize::from(log.used > 0), width);
        let label = format!("text-anchor=\"end\" fill=\"{PALE}\" font-size=\"11\"");
        self.label(left - 8, y + height / 2 + 4, &label, "0 B");
        self.rect((left, y), (side - gap, height), INK);
        self.rect((left + side, y), (width - gap, height), LOG);
        self.rect((left + side, y), (used, height), TAKEN);
        // Beside it, or inside it if it is as wide as the grid.
        let behind = left + side + width + 8;
        let (x, fill) =
            if behind + 160 < WIDTH { (behind, PALE) } else { (left + side + used + 8, INK) };
        let attributes = format!("fill=\"{fill}\" font-size=\"11\"");
        self.label(x, y + height / 2 + 4, &attributes, "superblock, log and its entries");
        self.y += height + 6;
    }

    fn legend(&mut self, picture: &Picture) {
        let shown: Vec<Look> = picture.cells.iter().map(Look::of).collect();
        let files = picture.largest.iter().enumerate().map(|(rank, file)| {
            let size = human(file.size);
            let path = String::from_utf8_lossy(file.path.as_bytes());
            let pieces = count(file.pieces as u64, "piece");
            (Look::Named(rank), format!("{}: {size} in {pieces}", shorten(&path, PATH_CHARS)))
        });
        let kinds = [
            (Look::One, "one other file"),
            (Look::Several, "several files"),
            (Look::Small, "small files"),
            (Look::Partly, "partly free"),
            (Look::Free, "free"),
            (Look::Held, "held by deleted or damaged entries"),
        ];
        let kinds = kinds.map(|(look, text)| (look, text.to_owned()));
        let mut entries: Vec<(Look, String)> =
            files.chain(kinds).filter(|(look, _)| shown.contains(look)).collect();
        if let Some(cell) = picture.cells.first() {
            entries.push((Look::Free, format!("each cell is {}", human(cell.len))));
        }
        let half = entries.len().div_ceil(2);
        for (number, (look, text)) in entries.iter().enumerate() {
            let x = MARGIN + LABEL + number / half * (GRID / 2);
            let y = self.y + number % half * 20;
            let swatch = !text.starts_with("each cell");
            if swatch {
                self.rect((x, y - 11), (14, 14), fill(*look));
            }
            self.line((x + 22, y), GRID / 2 - 30, "", text);
        }
        self.y += half * 20 + 20;
    }

    /// Free runs by their length.
    fn histogram(&mut self, bars: &[Bar]) {
        if bars.is_empty() {
            return;
        }
        let (left, top) = (MARGIN + LABEL, self.y);
        self.label(left, top, "font-weight=\"600\"", "free space by length of run");
        let most = bars.iter().map(|bar| bar.bytes).max().unwrap_or(1).max(1);
        let width = (GRID / bars.len()).min(112);
        let base = top + 34 + BARS;
        let small = format!("font-size=\"11\" text-anchor=\"middle\" fill=\"{PALE}\"");
        for (number, bar) in bars.iter().enumerate() {
            let height = u128::from(bar.bytes) * BARS as u128 / u128::from(most);
            let height = usize::try_from(height).unwrap_or(BARS).max(1);
            let x = left + number * width;
            self.rect((x, base - height), (width.saturating_sub(8).max(1), height), PARTLY);
            let middle = x + width.saturating_sub(8) / 2;
            let runs = format!("{} × {}", bar.runs, human(bar.bytes / bar.runs.max(1)));
            if width >= 60 {
                self.label(middle, base - height - 5, &small, &runs);
            }
            let from = format!("≥ {}", human(bar.at_least).replace(".00 ", " "));
            self.label(middle, base + 15, &small, &from);
        }
        self.y = base + 20;
    }
}

/// Columns and rows of a grid: wide, and with large cells if there are few.
fn shape(cells: usize) -> (usize, usize) {
    let columns = [24, 48, 64, 96].into_iter().find(|columns| columns * columns / 2 >= cells);
    let columns = columns.unwrap_or(96);
    (columns, cells.div_ceil(columns))
}

/// The end of a path, which tells files apart, in at most `chars` characters.
fn shorten(path: &str, chars: usize) -> String {
    let count = path.chars().count();
    if count <= chars {
        return path.to_owned();
    }
    let end: String = path.chars().skip(count + 1 - chars).collect();
    format!("…{end}")
}

fn fill(look: Look) -> &'static str {
    match look {
        Look::Free => FREE,
        Look::Partly => PARTLY,
        Look::Named(rank) => COLOURS[rank % COLOURS.len()],
        Look::One => ONE,
        Look::Several => SEVERAL,
        Look::Small => SMALL,
        Look::Held => HELD,
    }
}

/// Text as XML can hold it: no control characters, no markup.
fn quote(text: &str) -> String {
    let text = escape(text.as_bytes());
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_not_markup() {
        assert_eq!(quote("a<b>&\u{1}"), "a&lt;b&gt;&amp;\\u0001");
    }

    #[test]
    fn long_paths_keep_their_ends() {
        assert_eq!(shorten("a/b", PATH_CHARS), "a/b");
        let long = shorten(&"é".repeat(79), PATH_CHARS);
        assert_eq!((long.chars().count(), long.starts_with("…é")), (PATH_CHARS, true));
    }

    #[test]
    fn no_line_is_cut_at_the_right_edge() {
        for (room, count) in [(960, 10), (960, 200), (400, 40), (400, 100), (90, 30)] {
            let mut drawing = Drawing { text: String::new(), y: 0 };
            drawing.line((WIDTH - room, 0), room, "", &"m".repeat(count));
            let narrowed = drawing.text.contains(&format!("textLength=\"{room}\""));
            assert_eq!(narrowed, count * 13 * 3 / 5 > room, "{room} {count}: {}", drawing.text);
        }
    }

    #[test]
    fn every_number_of_cells_has_a_shape() {
        for cells in [0, 1, 24, 288, 289, 4607, CELLS] {
            let (columns, rows) = shape(cells);
            assert!(columns * rows >= cells && rows <= 48, "{cells}: {columns} by {rows}");
        }
    }
}
