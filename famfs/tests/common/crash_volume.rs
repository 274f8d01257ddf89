// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files of the crash model's device, made durable as a mount makes them, or as a pool file.

use std::io;
use std::ops::Range;

use famfs::format::map::Memory;
use famfs::format::path::RelPath;
use famfs::media::Media;
use famfs::replay::Attributes;
use famfs::replay::tree::Tree;
use famfs::replay::tree::change::Change;
use famfs::sys::dax::Access;
use famfs::write::volume::{FileBytes, Volume};

use super::crash::{Device, Kind};

/// A file system on the device.
pub struct DeviceVolume<'d>(pub &'d Device);

struct DeviceFile<'d> {
    device: &'d Device,
    size: u64,
    memory: Memory,
}

impl Volume for DeviceVolume<'_> {
    fn media(&self) -> &dyn Media {
        self.0
    }

    fn lease_media(&self) -> io::Result<Box<dyn Media>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn make_dir(&self, _path: &RelPath, _attributes: &Attributes) -> io::Result<()> {
        Ok(())
    }

    fn make_file(
        &self,
        path: &RelPath,
        _attributes: &Attributes,
        size: u64,
        memory: &Memory,
    ) -> io::Result<Box<dyn FileBytes + '_>> {
        self.open_file(path, size, memory, Access::Write)
    }

    fn open_file(
        &self,
        _path: &RelPath,
        size: u64,
        memory: &Memory,
        _access: Access,
    ) -> io::Result<Box<dyn FileBytes + '_>> {
        Ok(Box::new(DeviceFile { device: self.0, size, memory: memory.clone() }))
    }

    fn remove(&self, _path: &RelPath, _is_dir: bool) -> io::Result<()> {
        Ok(())
    }

    fn carry_out(&self, _tree: &Tree, _change: &Change) -> io::Result<()> {
        Ok(())
    }

    fn note_played(&self, _: &Tree, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn device(&self) -> Option<&dyn Media> {
        match self.0.kind {
            Kind::Mapped => None,
            Kind::PoolFile => Some(self.0),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.0.kind {
            Kind::Mapped => Ok(()),
            Kind::PoolFile => self.0.persist(0, self.0.len()).map_err(io::Error::other),
        }
    }
}

impl DeviceFile<'_> {
    /// Where the parts of a range are: device offset, or none in a hole, and bounds in the range.
    fn parts(&self, offset: u64, len: usize) -> Vec<(Option<u64>, Range<usize>)> {
        let (mut parts, mut done) = (Vec::new(), 0);
        while done < len {
            let (at, part) = self.memory.part(offset + done as u64).unwrap();
            let part = usize::try_from(part).unwrap().min(len - done);
            parts.push((at, done..done + part));
            done += part;
        }
        parts
    }
}

impl FileBytes for DeviceFile<'_> {
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        for (at, part) in self.parts(offset, buf.len()) {
            match at {
                Some(at) => self.device.read_at(at, &mut buf[part]).map_err(io::Error::other)?,
                None => buf[part].fill(0),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.parts(offset, buf.len()).into_iter().try_for_each(|(at, part)| {
            self.device.write_at(at.unwrap(), &buf[part]).map_err(io::Error::other)
        })
    }

    fn write_back(&self, offset: u64, len: usize) -> io::Result<()> {
        if let Kind::PoolFile = self.device.kind {
            return Ok(());
        }
        let parts = self.parts(offset, len).into_iter();
        parts
            .filter_map(|(at, part)| at.map(|at| (at, part.len() as u64)))
            .try_for_each(|(at, len)| self.device.persist(at, len).map_err(io::Error::other))
    }

    fn refresh(&self, _offset: u64, _len: usize) -> io::Result<()> {
        Ok(())
    }

    fn clear_tail(&self) -> io::Result<()> {
        let Memory::Pieces(pieces) = &self.memory else { return Ok(()) };
        match pieces.last() {
            Some((at, extent)) if at + extent.len > self.size => {
                let tail = at + extent.len - self.size;
                let zeros = vec![0; usize::try_from(tail).unwrap()];
                let end = extent.offset + extent.len;
                self.device.write_at(end - tail, &zeros).map_err(io::Error::other)?;
                match self.device.kind {
                    Kind::Mapped => self.device.persist(end - tail, tail).map_err(io::Error::other),
                    Kind::PoolFile => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn finish(&self) -> io::Result<()> {
        self.clear_tail()?;
        let whole = self.size.next_multiple_of(4096);
        match &self.memory {
            Memory::Map(_) => self.write_back(0, usize::try_from(self.size).unwrap()),
            Memory::Pieces(_) => self.write_back(0, usize::try_from(whole).unwrap()),
        }
    }
}
