// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A request of the kernel, and how it is carried out with a buffer of ours.

use std::io;

use libublk::sys;

use crate::export::Export;

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// `UBLK_IO_OP_*`.
    pub operation: u32,
    /// `UBLK_IO_F_*`.
    pub flags: u32,
    /// Offset of the first byte in the device.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl Request {
    /// The request in a descriptor.
    pub fn of(descriptor: &sys::ublksrv_io_desc) -> Self {
        Self {
            operation: descriptor.op_flags & 0xff,
            flags: descriptor.op_flags & !0xff,
            offset: descriptor.start_sector.saturating_mul(512),
            len: u64::from(descriptor.nr_sectors) * 512,
        }
    }

    /// The part of a buffer for the request's data; `None` if the buffer is too short.
    pub fn part_of(self, buffer: &mut [u8]) -> Option<&mut [u8]> {
        usize::try_from(self.len).ok().and_then(|len| buffer.get_mut(..len))
    }

    /// Carries out the request and returns the number of bytes done, as the kernel expects it. Data
    /// that is read goes to the start of `buffer`; data to be written is there.
    pub fn carry_out(self, export: &Export, buffer: &mut [u8]) -> io::Result<i32> {
        let Self { operation, flags, offset, len } = self;
        let part = self.part_of(buffer).ok_or(io::ErrorKind::InvalidInput);
        match operation {
            sys::UBLK_IO_OP_READ => export.read(offset, part?)?,
            sys::UBLK_IO_OP_WRITE => export.write(offset, part?)?,
            sys::UBLK_IO_OP_FLUSH => export.flush()?,
            sys::UBLK_IO_OP_DISCARD => export.discard(offset, len)?,
            sys::UBLK_IO_OP_WRITE_ZEROES => {
                export.write_zeros(offset, len, flags & sys::UBLK_IO_F_NOUNMAP != 0)?;
            }
            _ => return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
        if flags & sys::UBLK_IO_F_FUA != 0 && operation != sys::UBLK_IO_OP_FLUSH {
            export.flush()?;
        }
        self.done()
    }

    /// The answer if everything was done: the number of bytes.
    pub fn done(self) -> io::Result<i32> {
        i32::try_from(self.len).map_err(|_| io::ErrorKind::InvalidInput.into())
    }
}
