// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The raw fields of superblock, log header and log entries, byte for byte, for people who examine
//! damaged media. Nothing is trusted and nothing refused: a field shows its value, and the expected
//! value if only one is right.

use std::fmt::Write;
use std::mem::offset_of;

use serde::Serialize;
use uuid::Uuid;
use zerocopy::{IntoBytes, transmute};

use crate::format::extension::NO_ENTRY;
use crate::format::{
    ALLOC_UNIT, DaxdevBody, DeleteBody, EXT_INTERLEAVED, EXT_SIMPLE, Entry, EntryKind, FileBody,
    InterleavedMap, LEASE_MAGIC, LOG_MAGIC, LOG_OFFSET, Lease, LogHeader, MAX_EXTENTS, MkdirBody,
    OMF_MAJOR, RawExtent, SUPERBLOCK_MAGIC, SUPERBLOCK_VERSION, SimpleMap, Superblock, is_zero,
    slots,
};
use crate::text::terminal::escape_name as escape;

/// A field of the media.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Offset of its first byte in the device or pool.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// Its name in [`crate::format`].
    pub name: String,
    /// The bytes in media order, as hexadecimal digits; left out if all are zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The meaning of the bytes.
    pub value: String,
    /// The right value, if there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}

impl Field {
    /// Whether the value differs from the only right one.
    pub fn is_wrong(&self) -> bool {
        self.expected.as_ref().is_some_and(|expected| *expected != self.value)
    }
}

/// How to read the bytes of a field.
#[derive(Clone, Copy)]
enum Kind {
    /// A little-endian integer, in hexadecimal digits.
    Hex,
    /// A little-endian integer.
    Number,
    /// Permission bits.
    Mode,
    /// 16 bytes in RFC 4122 order.
    Uuid,
    /// Text up to its first NUL.
    Text,
    /// Text that ends with the field.
    Target,
    /// Type of a log entry.
    EntryType,
    /// Type of a file's map.
    MapType,
    /// Slot of another entry.
    Slot,
    /// A signed little-endian integer.
    Signed,
    /// Kind of what an extension entry names.
    Made,
    /// Where the rest of an extension entry is.
    Place,
    /// Bytes that are zero on media of this version.
    Zero,
    /// Bytes without meaning, of any value.
    Any,
    /// Bytes that are fields themselves.
    Nested,
}

/// Lists the fields of a structure of the format with their names, offsets and kinds. A field that
/// is missing from the list is a compile error.
macro_rules! layout {
    ($type:ident { $($name:ident: $kind:ident),+ $(,)? }) => {{
        // An exhaustive pattern, only to find a missing field.
        let _ = |all: &$type| { let $type { $($name: _),+ } = all; };
        [$((stringify!($name), offset_of!($type, $name), Kind::$kind)),+]
    }};
}

// Behind the macro, which it uses.
mod extension;

/// The fields of one structure, collected from its bytes.
struct Fields<'b> {
    bytes: &'b [u8],
    /// Offset of the structure in the device or pool.
    offset: u64,
    list: Vec<Field>,
}

impl<'b> Fields<'b> {
    fn new(bytes: &'b [u8], offset: u64) -> Self {
        Self { bytes, offset, list: Vec::new() }
    }

    /// Adds the fields of a structure that starts at byte `start` and is `len` bytes long.
    fn add(&mut self, start: usize, len: usize, prefix: &str, layout: &[(&str, usize, Kind)]) {
        for (index, (name, at, kind)) in layout.iter().enumerate() {
            let end = layout.get(index + 1).map_or(len, |(_, next, _)| *next);
            let bytes = &self.bytes[start + at..start + end];
            if !matches!(kind, Kind::Nested) {
                self.push(start + at, format!("{prefix}{name}"), bytes, *kind);
            }
        }
    }

    fn push(&mut self, start: usize, name: String, bytes: &[u8], kind: Kind) {
        let is_zero = is_zero(bytes);
        let expected = matches!(kind, Kind::Zero).then(|| "zero".to_owned());
        self.list.push(Field {
            offset: self.offset + start as u64,
            bytes: bytes.len() as u64,
            name,
            raw: (!is_zero).then(|| hex(bytes)),
            value: value(bytes, kind),
            expected,
        });
    }

    /// Sets the right value of a field.
    fn expect(&mut self, name: &str, expected: String) {
        for field in self.list.iter_mut().filter(|field| field.name == name) {
            field.expected = Some(expected.clone());
        }
    }
}

/// The fields of a superblock found at `offset`.
pub fn superblock(raw: &Superblock, offset: u64) -> Vec<Field> {
    let mut fields = Fields::new(raw.as_bytes(), offset);
    let layout = layout!(Superblock {
        magic: Hex,
        version: Number,
        log_offset: Hex,
        log_len: Number,
        alloc_unit: Number,
        omf_major: Number,
        omf_minor: Number,
        fs_uuid: Uuid,
        dev_uuid: Uuid,
        system_uuid: Uuid,
        crc: Hex,
        flags: Any,
        pad: Any,
        dev_size: Number,
        dd_uuid: Any,
        dev_name: Text,
    });
    fields.add(0, size_of::<Superblock>(), "", &layout);
    fields.expect("magic", format!("{SUPERBLOCK_MAGIC:#x}"));
    fields.expect("version", SUPERBLOCK_VERSION.to_string());
    fields.expect("log_offset", format!("{LOG_OFFSET:#x}"));
    fields.expect("alloc_unit", ALLOC_UNIT.to_string());
    fields.expect("omf_major", OMF_MAJOR.to_string());
    fields.expect("crc", format!("{:#x}", raw.checksum()));
    fields.list
}

/// The fields of a lease found at `offset`.
pub fn lease(raw: &Lease, offset: u64) -> Vec<Field> {
    let mut fields = Fields::new(raw.as_bytes(), offset);
    let layout = layout!(Lease {
        magic: Hex,
        pad: Zero,
        fs_uuid: Uuid,
        system_uuid: Uuid,
        machine_uuid: Uuid,
        boot_id: Uuid,
        crc: Hex,
        rest: Zero,
        heartbeat: Number,
    });
    fields.add(0, size_of::<Lease>(), "", &layout);
    fields.expect("magic", format!("{LEASE_MAGIC:#x}"));
    fields.expect("crc", format!("{:#x}", raw.checksum()));
    fields.list
}

pub use extension::mark;

/// The fields of the header, found at `offset`, of a log of `log_len` bytes.
pub fn log_header(raw: &LogHeader, offset: u64, log_len: u64) -> Vec<Field> {
    let mut fields = Fields::new(raw.as_bytes(), offset);
    let layout = layout!(LogHeader {
        magic: Hex,
        len: Number,
        last_index: Number,
        crc: Hex,
        next_seqnum: Number,
        next_index: Number,
    });
    fields.add(0, size_of::<LogHeader>(), "", &layout);
    fields.expect("magic", format!("{LOG_MAGIC:#x}"));
    fields.expect("len", log_len.to_string());
    fields.expect("last_index", slots(log_len).saturating_sub(1).to_string());
    fields.expect("crc", format!("{:#x}", raw.checksum()));
    // An interrupted append leaves it ahead of the index.
    fields.expect("next_seqnum", raw.next_index.get().to_string());
    fields.list
}

/// The fields of the entry in log slot `slot`, found at `offset`.
pub fn entry(raw: &Entry, offset: u64, slot: u64) -> Vec<Field> {
    let mut fields = Fields::new(raw.as_bytes(), offset);
    let layout =
        layout!(Entry { seqnum: Number, kind: EntryType, pad: Zero, body: Nested, crc: Hex });
    let (body, crc) = (offset_of!(Entry, body), offset_of!(Entry, crc));
    fields.add(0, size_of::<Entry>(), "", &layout[..4]);
    let kind = EntryKind::of(raw);
    if kind == Some(EntryKind::Void) {
        // It compensates for the change of the type in the checksum.
        fields.list.iter_mut().filter(|field| field.name == "pad").for_each(|field| {
            field.expected = None;
        });
    }
    match kind {
        Some(EntryKind::File) => file(&mut fields, body, &transmute!(raw.body)),
        Some(EntryKind::Mkdir) => {
            let layout =
                layout!(MkdirBody { uid: Number, gid: Number, mode: Mode, path: Text, rest: Zero });
            fields.add(body, size_of::<MkdirBody>(), "", &layout);
        }
        Some(EntryKind::Delete) => {
            let layout = layout!(DeleteBody { slot: Number, path: Text, rest: Zero });
            fields.add(body, size_of::<DeleteBody>(), "", &layout);
        }
        Some(EntryKind::Daxdev) => {
            let layout = layout!(DaxdevBody {
                size: Number,
                uuid: Uuid,
                index: Number,
                pad: Zero,
                rest: Zero,
            });
            fields.add(body, size_of::<DaxdevBody>(), "", &layout);
        }
        Some(
            kind @ (EntryKind::Name
            | EntryKind::Link
            | EntryKind::Attr
            | EntryKind::Move
            | EntryKind::Remove
            | EntryKind::Group
            | EntryKind::List),
        ) => extension::body(&mut fields, body, kind, &raw.body),
        Some(EntryKind::Void) | None => fields.push(body, "body".to_owned(), &raw.body, Kind::Any),
    }
    fields.push(crc, "crc".to_owned(), &raw.crc.to_bytes(), Kind::Hex);
    fields.expect("seqnum", slot.to_string());
    fields.expect("crc", format!("{:#x}", raw.checksum()));
    fields.list
}

fn file(fields: &mut Fields<'_>, start: usize, body: &FileBody) {
    let layout = layout!(FileBody {
        size: Number,
        flags: Hex,
        uid: Number,
        gid: Number,
        mode: Mode,
        path: Text,
        ext_type: MapType,
        pad: Zero,
        map: Nested,
    });
    fields.add(start, size_of::<FileBody>(), "", &layout);
    let map = start + offset_of!(FileBody, map);
    match body.ext_type.get() {
        EXT_SIMPLE => {
            let raw: SimpleMap = transmute!(body.map);
            let layout =
                layout!(SimpleMap { count: Number, pad: Zero, extents: Nested, rest: Zero });
            let len = size_of::<SimpleMap>();
            let (array, rest) = (offset_of!(SimpleMap, extents), offset_of!(SimpleMap, rest));
            fields.add(map, array, "map.", &layout[..2]);
            extents(fields, map + array, raw.count.get().into(), "map.extents", &raw.extents);
            fields.add(map, len, "map.", &[("rest", rest, Kind::Zero)]);
        }
        EXT_INTERLEAVED => {
            let raw: InterleavedMap = transmute!(body.map);
            let layout = layout!(InterleavedMap {
                count: Number,
                pad: Zero,
                nstrips: Number,
                chunk_size: Number,
                strips: Nested,
            });
            fields.add(map, size_of::<InterleavedMap>(), "map.", &layout);
            let array = map + offset_of!(InterleavedMap, strips);
            extents(fields, array, raw.nstrips.get(), "map.strips", &raw.strips);
        }
        _ => fields.push(map, "map".to_owned(), &body.map, Kind::Any),
    }
}

/// The elements of an array: the first `count`, which the media says are in use, one by one, and
/// the others as one field.
fn extents(fields: &mut Fields<'_>, at: usize, count: u64, name: &str, all: &[RawExtent]) {
    let len = size_of::<RawExtent>();
    let used = usize::try_from(count).unwrap_or(usize::MAX).min(all.len());
    let layout = layout!(RawExtent { devindex: Number, offset: Hex, len: Number });
    for index in 0..used {
        fields.add(at + index * len, len, &format!("{name}[{index}]."), &layout);
    }
    if used < all.len() {
        let unused = format!("{name}[{used}..{MAX_EXTENTS}]");
        fields.push(at + used * len, unused, all[used..].as_bytes(), Kind::Zero);
    }
}

fn value(bytes: &[u8], kind: Kind) -> String {
    let number = || bytes.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    let count = bytes.iter().filter(|byte| **byte != 0).count();
    match kind {
        Kind::Hex => format!("{:#x}", number()),
        Kind::Number => number().to_string(),
        Kind::Slot if number() == NO_ENTRY => "none".to_owned(),
        Kind::Slot => number().to_string(),
        Kind::Signed => number().cast_signed().to_string(),
        Kind::Made => named(number(), &extension::NAME_KINDS),
        Kind::Place => named(number(), &extension::PLACES),
        Kind::Mode => format!("{:04o}", number()),
        Kind::Uuid => Uuid::from_slice(bytes).map_or_else(|_| hex(bytes), |uuid| uuid.to_string()),
        Kind::Text => text(bytes),
        Kind::Target => format!("\"{}\"", escape(bytes)),
        Kind::EntryType => named(number(), &ENTRY_TYPES),
        Kind::MapType => named(number(), &MAP_TYPES),
        Kind::Zero | Kind::Any | Kind::Nested if count == 0 => "zero".to_owned(),
        Kind::Zero | Kind::Any | Kind::Nested => format!("{count} bytes not zero"),
    }
}

const ENTRY_TYPES: [(u32, &str); 12] = [
    (EntryKind::File as u32, "file"),
    (EntryKind::Mkdir as u32, "directory"),
    (EntryKind::Delete as u32, "deletion"),
    (EntryKind::Daxdev as u32, "further device"),
    (EntryKind::Void as u32, "void"),
    (EntryKind::Name as u32, "name"),
    (EntryKind::Link as u32, "hard link"),
    (EntryKind::Attr as u32, "attributes"),
    (EntryKind::Move as u32, "move"),
    (EntryKind::Remove as u32, "removal"),
    (EntryKind::Group as u32, "group"),
    (EntryKind::List as u32, "list"),
];
const MAP_TYPES: [(u32, &str); 2] = [(EXT_SIMPLE, "simple"), (EXT_INTERLEAVED, "interleaved")];

fn named(number: u64, names: &[(u32, &str)]) -> String {
    let name = names.iter().find(|(value, _)| u64::from(*value) == number);
    format!("{number} ({})", name.map_or("unknown", |(_, name)| name))
}

/// Text in quotes, with a note about what is odd in it.
fn text(bytes: &[u8]) -> String {
    let Some(len) = bytes.iter().position(|&byte| byte == 0) else {
        return format!("\"{}\", without a NUL", escape(bytes));
    };
    let behind = bytes[len..].iter().filter(|&&byte| byte != 0).count();
    let mut text = format!("\"{}\"", escape(&bytes[..len]));
    if behind > 0 {
        text.push_str(&format!(", {behind} bytes after the NUL not zero"));
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::FromBytes;

    use super::*;
    use crate::format::extension::Extensions;

    /// Fields follow each other without a gap and hold every byte of the structure.
    fn assert_tiles(fields: &[Field], offset: u64, bytes: &[u8]) {
        let mut raw = String::new();
        for field in fields {
            let len = usize::try_from(field.bytes).unwrap();
            assert_eq!(field.offset - offset, raw.len() as u64 / 2, "{}", field.name);
            raw += &field.raw.clone().unwrap_or_else(|| "00".repeat(len));
        }
        assert_eq!(raw, hex(bytes));
    }

    proptest! {
        /// Whatever the bytes are, none is left out.
        #[test]
        fn every_byte_is_in_a_field(
            bytes in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 544),
            kind in 0..EntryKind::ALL.len() + 1,
            ext_type in 0_u8..3,
            count in 0_u8..20,
            kind_and_place in (0_u8..5, 0_u8..3),
        ) {
            let header = LogHeader::read_from_bytes(&bytes[..48]).unwrap();
            assert_tiles(&log_header(&header, 7, 8 << 20), 7, &bytes[..48]);
            let lease_block = Lease::read_from_bytes(&bytes[..136]).unwrap();
            assert_tiles(&lease(&lease_block, 7), 7, &bytes[..136]);
            let block = Superblock::read_from_bytes(&bytes[..200]).unwrap();
            assert_tiles(&superblock(&block, 0), 0, &bytes[..200]);
            let extensions = Extensions::read_from_bytes(&bytes[..40]).unwrap();
            assert_tiles(&mark(&extensions, 7), 7, &bytes[..40]);
            let mut bytes = bytes;
            let number = EntryKind::ALL.get(kind).map_or(99, |kind| *kind as u32);
            bytes[8..12].copy_from_slice(&number.to_le_bytes());
            assert_tiles(&entry(&Entry::read_from_bytes(&bytes).unwrap(), 7, 0), 7, &bytes);
            bytes[8..12].copy_from_slice(&[0; 4]);
            bytes[120..124].copy_from_slice(&[ext_type, 0, 0, 0]);
            bytes[128..144].copy_from_slice(&[count, 0, 0, 0, 0, 0, 0, 0, count, 0, 0, 0, 0, 0, 0, 0]);
            assert_tiles(&entry(&Entry::read_from_bytes(&bytes).unwrap(), 7, 0), 7, &bytes);
            bytes[8..12].copy_from_slice(b"NAME");
            bytes[44] = kind_and_place.0;
            bytes[45..48].fill(0);
            bytes[60] = kind_and_place.1;
            bytes[61..64].fill(0);
            bytes[64..68].copy_from_slice(&[count * 12, 0, 0, 0]);
            assert_tiles(&entry(&Entry::read_from_bytes(&bytes).unwrap(), 7, 0), 7, &bytes);
        }
    }

    #[test]
    fn wrong_values_are_marked() {
        let mut raw = Entry::new(3, EntryKind::Mkdir as u32, [0; size_of::<crate::format::Body>()]);
        let wrong = |raw: &Entry| -> Vec<String> {
            entry(raw, 0, 3).into_iter().filter(Field::is_wrong).map(|field| field.name).collect()
        };
        assert_eq!(wrong(&raw), [""; 0]);
        raw.seqnum += 1;
        raw.pad += 1;
        assert_eq!(wrong(&raw), ["seqnum", "pad", "crc"]);
    }

    #[test]
    fn text_tells_what_is_odd() {
        assert_eq!(text(b"a\nb\0\0"), "\"a\\nb\"");
        assert_eq!(text(b"a\0b\0"), "\"a\", 1 bytes after the NUL not zero");
        assert_eq!(text(b"ab"), "\"ab\", without a NUL");
    }
}
