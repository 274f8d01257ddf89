// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's famfs ioctls: the mirror of `kmod/uapi/famfs_ioctl.h`, in both generations.
//!
//! Generation 42 holds a map in the structure itself, generation 43 points to it. A kernel may
//! have only the older one; [`map_create`] and [`map_get`] try the newer one first. Pieces
//! ([`map_pieces`], [`get_pieces`]) are of our module only: files with holes, and empty ones.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use rustix::io::{self, Errno};
use rustix::ioctl::{NoArg, Opcode, Setter, Updater, ioctl, opcode};

use crate::format::map::{Extent, FileMap};

/// Highest number of extents in generation 42's structure.
const V42_EXTENTS: usize = 2;
/// Highest number of extents and strips in generation 43.
const V43_EXTENTS: usize = 16;

/// `FAMFS_FILE_*`: the kernel's type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FileType {
    /// A file of the log.
    Regular = 0,
    /// The superblock; the only file that may start at device offset 0.
    Superblock = 1,
    /// The log.
    Log = 2,
}

/// `FAMFS_EXTENT_SIMPLE`.
pub const EXTENT_SIMPLE: u32 = 0;
/// `FAMFS_EXTENT_INTERLEAVED`.
pub const EXTENT_INTERLEAVED: u32 = 1;

/// `struct famfs_extent`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ExtentV42 {
    /// Offset on the device in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// `struct famfs_ioc_map`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MapV42 {
    /// `FAMFS_EXTENT_*`.
    pub extent_type: u32,
    /// [`FileType`].
    pub file_type: u32,
    /// Bytes of the file.
    pub file_size: u64,
    /// Extents in use.
    pub ext_list_count: u64,
    /// The extents.
    pub ext_list: [ExtentV42; V42_EXTENTS],
}

/// `struct famfs_ioc_simple_extent`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SimpleExtent {
    /// Device of the file system, 0.
    pub devindex: u64,
    /// Offset on the device in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// `struct famfs_ioc_interleaved_extent`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct InterleavedExtent {
    /// Number of strips.
    pub nstrips: u64,
    /// Bytes per chunk.
    pub chunk_size: u64,
    /// Bytes of the file.
    pub nbytes: u64,
    /// Address of the strips, [`SimpleExtent`]s.
    pub strips: u64,
}

/// `struct famfs_ioc_fmap`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Fmap {
    /// Bytes of the file.
    pub file_size: u64,
    /// [`FileType`].
    pub file_type: u32,
    /// `FAMFS_EXTENT_*`.
    pub ext_type: u32,
    /// Number of extents in the list.
    pub nextents: u32,
    /// Zero.
    pub reserved: u32,
    /// Address of the list.
    pub extents: u64,
}

/// The interleaved arm of [`GetFmap`]'s union.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct GetInterleaved {
    /// The interleaved extent.
    pub interleaved: InterleavedExtent,
    /// Its strips.
    pub strips: [SimpleExtent; V43_EXTENTS],
}

/// The union of [`GetFmap`], by `ext_type`.
#[derive(Clone, Copy)]
#[repr(C)]
pub union GetExtents {
    /// Simple extents.
    pub simple: [SimpleExtent; V43_EXTENTS],
    /// One interleaved extent.
    pub interleaved: GetInterleaved,
}

/// `struct famfs_ioc_get_fmap`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct GetFmap {
    /// The map without its list.
    pub fmap: Fmap,
    /// The list.
    pub extents: GetExtents,
}

/// `FAMFS_PAGE`: the unit of simple extents and pieces.
pub const PAGE: u64 = 4096;
/// `FAMFS_MAX_PIECES`: most pieces of a file.
pub const MAX_PIECES: usize = 65_536;

/// `struct famfs_ioc_piece`: bytes of a file and where they are, in whole pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Piece {
    /// Offset in the file in bytes.
    pub file_offset: u64,
    /// Offset on the device in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// `struct famfs_ioc_pieces`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Pieces {
    /// Bytes of the file.
    pub file_size: u64,
    /// Number of pieces in the list.
    pub count: u32,
    /// Zero.
    pub reserved: u32,
    /// Address of the list.
    pub pieces: u64,
}

/// `FAMFSIOC_MAP_CREATE`.
pub const MAP_CREATE_V42: Opcode = opcode::write::<MapV42>(b'u', 0x50);
/// `FAMFSIOC_MAP_GET`.
pub const MAP_GET_V42: Opcode = opcode::read::<MapV42>(b'u', 0x51);
/// `FAMFSIOC_NOP`.
pub const NOP: Opcode = opcode::none(b'u', 0x53);
/// `FAMFSIOC_MAP_CREATE_V2`.
pub const MAP_CREATE_V43: Opcode = opcode::write::<Fmap>(b'u', 0x54);
/// `FAMFSIOC_MAP_GET_V2`.
pub const MAP_GET_V43: Opcode = opcode::read::<GetFmap>(b'u', 0x55);
/// `FAMFSIOC_EDIT`.
pub const EDIT: Opcode = opcode::none(b'u', 0x56);
/// `FAMFSIOC_MAP_PIECES`.
pub const MAP_PIECES: Opcode = opcode::write::<Pieces>(b'u', 0x57);
/// `FAMFSIOC_GET_PIECES`.
pub const GET_PIECES: Opcode = opcode::read_write::<Pieces>(b'u', 0x58);

/// Checks that a file is on a famfs: `ENOTTY` if not.
pub fn nop(file: impl AsFd) -> io::Result<()> {
    // SAFETY: `NOP` takes no argument.
    let request = unsafe { NoArg::<NOP>::new() };
    // SAFETY: the request touches no memory of ours.
    unsafe { ioctl(file, request) }
}

/// Lets this process change names and attributes of a strict mount until `dir`, an open directory
/// of it, is closed: `ENOTTY` if it is not on a famfs, or on one that has no strict mounts.
pub fn edit(dir: impl AsFd) -> io::Result<()> {
    // SAFETY: `EDIT` takes no argument.
    let request = unsafe { NoArg::<EDIT>::new() };
    // SAFETY: the request touches no memory of ours.
    unsafe { ioctl(dir, request) }
}

/// Gives an empty file its memory.
pub fn map_create(file: impl AsFd, kind: FileType, size: u64, map: &FileMap) -> io::Result<()> {
    match map_create_v43(file.as_fd(), kind, size, map) {
        Err(Errno::NOTTY) => map_create_v42(file.as_fd(), kind, size, map),
        result => result,
    }
}

/// [`map_create`] with the older interface: at most two simple extents.
pub fn map_create_v42(file: impl AsFd, kind: FileType, size: u64, map: &FileMap) -> io::Result<()> {
    let extents = match map {
        FileMap::Simple(extents) if extents.len() <= V42_EXTENTS => extents,
        _ => return Err(Errno::OPNOTSUPP),
    };
    let mut arg = MapV42 { file_type: kind as u32, file_size: size, ..MapV42::default() };
    for (slot, extent) in arg.ext_list.iter_mut().zip(extents) {
        *slot = ExtentV42 { offset: extent.offset, len: extent.len };
        arg.ext_list_count += 1;
    }
    // SAFETY: the opcode encodes a `MapV42` that the kernel reads.
    let request = unsafe { Setter::<MAP_CREATE_V42, _>::new(arg) };
    // SAFETY: the argument is complete and holds no pointer.
    unsafe { ioctl(file, request) }
}

/// [`map_create`] with the newer interface.
pub fn map_create_v43(file: impl AsFd, kind: FileType, size: u64, map: &FileMap) -> io::Result<()> {
    let list: Vec<SimpleExtent> = map
        .extents()
        .iter()
        .map(|extent| SimpleExtent { devindex: 0, offset: extent.offset, len: extent.len })
        .collect();
    let mut arg = Fmap { file_size: size, file_type: kind as u32, ..Fmap::default() };
    let mut interleaved = InterleavedExtent::default();
    match map {
        FileMap::Simple(_) => {
            arg.ext_type = EXTENT_SIMPLE;
            arg.nextents = u32::try_from(list.len()).map_err(|_| Errno::TOOBIG)?;
            arg.extents = list.as_ptr().addr() as u64;
        }
        FileMap::Interleaved { chunk_size, .. } => {
            interleaved.nstrips = list.len() as u64;
            interleaved.chunk_size = *chunk_size;
            interleaved.nbytes = size;
            interleaved.strips = list.as_ptr().addr() as u64;
            arg.ext_type = EXTENT_INTERLEAVED;
            arg.nextents = 1;
            arg.extents = (&raw const interleaved).addr() as u64;
        }
    }
    // SAFETY: the opcode encodes an `Fmap` that the kernel reads.
    let request = unsafe { Setter::<MAP_CREATE_V43, _>::new(arg) };
    // SAFETY: `list` and `interleaved`, which the argument points to, live past this call.
    unsafe { ioctl(file, request) }
}

/// Gets a file's size and map; `ENODATA` if it has no map, `ENOTTY` if it is not on a famfs.
pub fn map_get(file: impl AsFd) -> io::Result<(u64, FileMap)> {
    match map_get_v43(file.as_fd()) {
        Err(Errno::NOTTY) => map_get_v42(file.as_fd()),
        result => result,
    }
}

/// [`map_get`] with the older interface: at most two simple extents.
pub fn map_get_v42(file: impl AsFd) -> io::Result<(u64, FileMap)> {
    let mut arg = MapV42::default();
    // SAFETY: the opcode encodes a `MapV42` that the kernel fills.
    let request = unsafe { Updater::<MAP_GET_V42, _>::new(&mut arg) };
    // SAFETY: `arg` is exclusively borrowed for the call.
    unsafe { ioctl(file, request) }?;
    let count = usize::try_from(arg.ext_list_count).map_err(|_| Errno::OVERFLOW)?;
    if arg.extent_type != EXTENT_SIMPLE || count > V42_EXTENTS {
        return Err(Errno::OPNOTSUPP);
    }
    let extent = |raw: &ExtentV42| Extent { offset: raw.offset, len: raw.len };
    Ok((arg.file_size, FileMap::Simple(arg.ext_list[..count].iter().map(extent).collect())))
}

/// [`map_get`] with the newer interface.
pub fn map_get_v43(file: impl AsFd) -> io::Result<(u64, FileMap)> {
    let mut arg = GetFmap {
        fmap: Fmap::default(),
        extents: GetExtents { interleaved: GetInterleaved::default() },
    };
    // SAFETY: the opcode encodes a `GetFmap` that the kernel fills.
    let request = unsafe { Updater::<MAP_GET_V43, _>::new(&mut arg) };
    // SAFETY: `arg` is exclusively borrowed for the call.
    unsafe { ioctl(file, request) }?;
    let extent = |raw: &SimpleExtent| Extent { offset: raw.offset, len: raw.len };
    let map = if arg.fmap.ext_type == EXTENT_INTERLEAVED {
        // SAFETY: both arms are plain integers, valid whatever the bytes.
        let GetInterleaved { interleaved, strips } = unsafe { arg.extents.interleaved };
        let count = usize::try_from(interleaved.nstrips).map_err(|_| Errno::OVERFLOW)?;
        let strips = strips.get(..count).ok_or(Errno::OVERFLOW)?;
        FileMap::Interleaved {
            chunk_size: interleaved.chunk_size,
            strips: strips.iter().map(extent).collect(),
        }
    } else {
        // SAFETY: both arms are plain integers, valid whatever the bytes.
        let simple = unsafe { arg.extents.simple };
        let count = usize::try_from(arg.fmap.nextents).map_err(|_| Errno::OVERFLOW)?;
        let extents = simple.get(..count).ok_or(Errno::OVERFLOW)?;
        FileMap::Simple(extents.iter().map(extent).collect())
    };
    Ok((arg.fmap.file_size, map))
}

/// Gives an empty file its memory, piece by piece in file order; the rest of its `size` bytes is
/// holes. Without pieces it is one hole, or an empty file.
pub fn map_pieces(file: impl AsFd, size: u64, pieces: &[Piece]) -> io::Result<()> {
    let arg = Pieces {
        file_size: size,
        count: u32::try_from(pieces.len()).map_err(|_| Errno::TOOBIG)?,
        reserved: 0,
        pieces: pieces.as_ptr().addr() as u64,
    };
    // SAFETY: the opcode encodes a `Pieces` that the kernel reads.
    let request = unsafe { Setter::<MAP_PIECES, _>::new(arg) };
    // SAFETY: `pieces`, which the argument points to, is borrowed past this call, and is only read.
    unsafe { ioctl(file, request) }
}

/// Asks for a file's size and pieces: `ENODATA` if it has no map, `EOPNOTSUPP` if that is an
/// interleaved one, `ENOTTY` if the file is not on a famfs, or the module is an older one.
pub fn get_pieces(file: impl AsFd) -> io::Result<(u64, Vec<Piece>)> {
    // A map never changes, so the second answer is as long as the first one says.
    let mut list = Vec::new();
    let arg = get_pieces_into(file.as_fd(), &mut list)?;
    let count = usize::try_from(arg.count).map_err(|_| Errno::OVERFLOW)?;
    if count > MAX_PIECES {
        return Err(Errno::OVERFLOW);
    }
    list.resize(count, Piece::default());
    get_pieces_into(file, &mut list)?;
    Ok((arg.file_size, list))
}

/// Asks for as many pieces as there is room for.
fn get_pieces_into(file: impl AsFd, list: &mut [Piece]) -> io::Result<Pieces> {
    let mut arg = Pieces {
        count: u32::try_from(list.len()).map_err(|_| Errno::TOOBIG)?,
        pieces: list.as_mut_ptr().addr() as u64,
        ..Pieces::default()
    };
    // SAFETY: the opcode encodes a `Pieces` that the kernel reads and fills.
    let request = unsafe { Updater::<GET_PIECES, _>::new(&mut arg) };
    // SAFETY: `list`, whose address and length the argument holds, is borrowed for the call; the
    // kernel writes no more pieces than that, which are plain integers.
    unsafe { ioctl(file, request) }?;
    Ok(arg)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that the reference's user space was observed to use.
    #[test]
    fn opcodes_are_those_of_the_reference() {
        assert_eq!(MAP_CREATE_V42, 0x4038_7550);
        assert_eq!(MAP_GET_V42, 0x8038_7551);
        assert_eq!(NOP, 0x7553);
        assert_eq!(MAP_CREATE_V43, 0x4020_7554);
        assert_eq!(MAP_GET_V43, 0x81c0_7555);
        assert_eq!(EDIT, 0x7556);
        assert_eq!(MAP_PIECES, 0x4018_7557);
        assert_eq!(GET_PIECES, 0xc018_7558);
    }

    #[test]
    fn other_files_are_told_apart() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(nop(&file), Err(Errno::NOTTY));
        assert_eq!(edit(&file), Err(Errno::NOTTY));
        assert_eq!(map_get(&file), Err(Errno::NOTTY));
        let map = FileMap::Simple(Extent { offset: 2 << 20, len: 2 << 20 }.into());
        assert_eq!(map_create(&file, FileType::Regular, 1, &map), Err(Errno::NOTTY));
        assert_eq!(map_pieces(&file, 0, &[]), Err(Errno::NOTTY));
        assert_eq!(get_pieces(&file), Err(Errno::NOTTY));
    }
}
