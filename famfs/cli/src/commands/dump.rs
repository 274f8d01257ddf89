// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs dump`

use std::cell::Cell;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Result, bail};
use famfs::format::fields::Field;
use famfs::kernel::mount::Mounted;
use famfs::kernel::volume::MountedVolume;
use famfs::media::{Media, MetaFiles, PoolFile};
use famfs::replay::dump::{Area, AreaKind, Counts, Dump, LengthFrom};
use famfs::sys::dax::Access;
use famfs::text::error_report::one_line;
use famfs::write::volume::Volume;
use famfs_cli::args;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use crate::output::{FAILED, OK, Outcome, notice, print_json, to_stdout};
use crate::place::locate;

/// Longest field whose bytes are shown beside its value.
const INLINE: u64 = 16;
/// Bytes of longer fields that a line shows.
const LINE: usize = 32;

/// The report. The areas are written while they are read: a log may have millions of them.
#[derive(Serialize)]
struct DumpReport<'d> {
    version: u32,
    /// Offset of the device's first byte in the pool.
    origin: u64,
    device_bytes: u64,
    log_bytes: u64,
    log_length_from: LengthFrom,
    areas: Areas<'d>,
    /// Known only after the areas were read.
    #[serde(serialize_with = "counted")]
    counts: &'d Cell<Counts>,
}

struct Areas<'d> {
    dump: &'d Dump<'d>,
    counts: &'d Cell<Counts>,
}

impl Serialize for Areas<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        self.counts.set(self.dump.walk(|area| list.serialize_element(&area))?);
        list.end()
    }
}

fn counted<S: Serializer>(counts: &&Cell<Counts>, serializer: S) -> Result<S::Ok, S::Error> {
    counts.get().serialize(serializer)
}

/// Superblock and log, as far as they can be reached.
enum Source {
    Pool(PoolFile),
    Mounted(Box<MountedVolume>),
    /// Of a mounted famfs whose superblock does not record where its log is.
    SuperblockOnly(MetaFiles),
}

impl Source {
    fn open(pool: Option<&Path>, path: Option<&Path>) -> Result<Self> {
        let path = match (pool, path) {
            (Some(pool), None) => return Ok(Self::Pool(PoolFile::open(pool, Access::Read)?)),
            (None, Some(path)) => path,
            _ => bail!("name either a path in a mounted famfs, or --pool FILE"),
        };
        let mount = locate(path)?.mount;
        let mounted = || Mounted::at(&mount.mount_point, &mount.source);
        match mounted()?.open(Access::Read, None) {
            Ok(volume) => Ok(Self::Mounted(Box::new(volume))),
            Err(err) => {
                notice!("the log cannot be reached: {}", one_line(&err));
                Ok(Self::SuperblockOnly(mounted()?.superblock_media()?))
            }
        }
    }

    fn media(&self) -> &dyn Media {
        match self {
            Self::Pool(pool) => pool,
            Self::Mounted(volume) => volume.media(),
            Self::SuperblockOnly(meta) => meta,
        }
    }
}

pub fn run(pool: Option<&Path>, args: &args::Dump) -> Outcome {
    let source = Source::open(pool, args.path.as_deref())?;
    let media = source.media();
    let dump = Dump::new(media);
    let counts = Cell::new(Counts::default());
    if args.json {
        print_json(&DumpReport {
            version: 1,
            origin: media.origin(),
            device_bytes: media.len(),
            log_bytes: dump.log_len(),
            log_length_from: dump.length_from(),
            areas: Areas { dump: &dump, counts: &counts },
            counts: &counts,
        })?;
    } else {
        to_stdout(|out| {
            print_head(out, media, &dump)?;
            counts.set(dump.walk(|area| print_area(out, &area))?);
            print_counts(out, &counts.get())
        })?;
    }
    Ok(if counts.get().unreadable_bytes == 0 { OK } else { FAILED })
}

fn print_head(out: &mut dyn Write, media: &dyn Media, dump: &Dump<'_>) -> io::Result<()> {
    writeln!(out, "device: {} bytes from offset {:#x}", media.len(), media.origin())?;
    let from = match dump.length_from() {
        LengthFrom::Superblock => "as in the superblock",
        LengthFrom::LogHeader => "as in the log's header; the superblock has no possible length",
        LengthFrom::Default => "mkfs's default; neither superblock nor log have a length",
    };
    writeln!(out, "log: {} bytes, {from}", dump.log_len())
}

fn print_area(out: &mut dyn Write, area: &Area) -> io::Result<()> {
    let Area { offset, bytes, kind } = area;
    let state = |published: bool| if published { "published" } else { "not published" };
    let fields = match kind {
        AreaKind::Superblock { fields } => {
            writeln!(out, "\nsuperblock at {offset:#x}, {bytes} bytes")?;
            fields
        }
        AreaKind::Lease { fields } => {
            writeln!(out, "\nmaster's lease at {offset:#x}, {bytes} bytes")?;
            fields
        }
        AreaKind::Extensions { fields } => {
            writeln!(out, "\nmark of extensions at {offset:#x}, {bytes} bytes")?;
            fields
        }
        AreaKind::LogHeader { fields } => {
            writeln!(out, "\nlog header at {offset:#x}, {bytes} bytes")?;
            fields
        }
        AreaKind::LogSlot { slot, published, fields } => {
            let state = state(*published);
            writeln!(out, "\nlog slot {slot} at {offset:#x}, {bytes} bytes, {state}")?;
            fields
        }
        AreaKind::ZeroSlots { slot, slots, published } => {
            let (last, state) = (slot + slots - 1, state(*published));
            return writeln!(
                out,
                "\nlog slots {slot} to {last} at {offset:#x}, {bytes} bytes, {state}: zero"
            );
        }
        AreaKind::Unused { not_zero, first, last } => {
            write!(out, "\nunused at {offset:#x}, {bytes} bytes: ")?;
            return match (first, last) {
                (Some(first), Some(last)) => {
                    writeln!(out, "{not_zero} are not zero, from {first:#x} to {last:#x}")
                }
                _ => writeln!(out, "zero"),
            };
        }
        AreaKind::Unreadable { error } => {
            return writeln!(out, "\nUNREADABLE at {offset:#x}, {bytes} bytes: {error}");
        }
    };
    fields.iter().try_for_each(|field| print_field(out, field))
}

fn print_field(out: &mut dyn Write, field: &Field) -> io::Result<()> {
    let Field { offset, bytes, name, value, .. } = field;
    write!(out, "  {offset:#010x} {bytes:>4}  {name:<24} {value}")?;
    if let Some(expected) = field.expected.as_ref().filter(|_| field.is_wrong()) {
        write!(out, "  WRONG, expected {expected}")?;
    }
    match &field.raw {
        Some(raw) if *bytes <= INLINE => writeln!(out, "  [{raw}]"),
        Some(raw) => {
            writeln!(out)?;
            let mut lines = raw.as_bytes().chunks(2 * LINE).zip((*offset..).step_by(LINE));
            lines.try_for_each(|(digits, at)| match digits.iter().all(|&digit| digit == b'0') {
                true => Ok(()),
                false => writeln!(out, "    {at:#010x}  [{}]", String::from_utf8_lossy(digits)),
            })
        }
        None => writeln!(out),
    }
}

fn print_counts(out: &mut dyn Write, counts: &Counts) -> io::Result<()> {
    let Counts { slots, published, unpublished, zero, wrong_fields, unreadable_bytes } = counts;
    writeln!(
        out,
        "\n{slots} slots: {published} published, {unpublished} not published, {zero} zero"
    )?;
    write!(out, "{wrong_fields} fields are wrong")?;
    match unreadable_bytes {
        0 => writeln!(out),
        bytes => writeln!(out, ", {bytes} bytes cannot be read"),
    }
}
