// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Operations that need `unsafe`: mapping a file, and the device mapper's ioctls (a mirror of the
//! parts of the kernel's `include/uapi/linux/dm-ioctl.h` that are needed).
#![allow(unsafe_code)]

use std::fs::File;
use std::ptr;

use rustix::io;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The interface's version since Linux 3.
const VERSION: [u32; 3] = [4, 0, 0];

/// `DM_READONLY_FLAG`.
const READ_ONLY: u32 = 1;

/// Maximum length of a target's parameters.
const MAX_PARAMETERS: usize = 600;

/// `struct dm_ioctl`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Head {
    version: [u32; 3],
    /// Size of the whole [`Request`] in bytes.
    data_size: u32,
    /// Offset of the target.
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// `struct dm_target_spec`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Target {
    sector_start: u64,
    length: u64,
    status: i32,
    /// Offset of the next target; there is none.
    next: u32,
    target_type: [u8; 16],
}

/// A request with one target.
#[derive(Clone, Copy)]
#[repr(C)]
struct Request {
    head: Head,
    target: Target,
    parameters: [u8; MAX_PARAMETERS],
}

const _: () = {
    assert!(size_of::<Head>() == 312);
    assert!(size_of::<Target>() == 40);
    assert!(size_of::<Request>() == 312 + 40 + MAX_PARAMETERS);
};

/// `DM_DEV_CREATE`, `DM_TABLE_LOAD`, `DM_DEV_SUSPEND` (which resumes as well).
const CREATE: Opcode = opcode::read_write::<Head>(0xfd, 3);
const SUSPEND: Opcode = opcode::read_write::<Head>(0xfd, 6);
const LOAD: Opcode = opcode::read_write::<Head>(0xfd, 9);

/// Makes the kernel map the first `size` bytes of a file, as reading each page would, then unmaps
/// them. The kernel chooses an address that allows huge pages.
pub fn populate(file: &File, size: usize) -> io::Result<()> {
    let flags = MapFlags::SHARED | MapFlags::POPULATE;
    // SAFETY: no address is asked for, so nothing that is mapped is replaced.
    let base = unsafe { mmap(ptr::null_mut(), size, ProtFlags::READ, flags, file, 0)? };
    // SAFETY: the mapping above, of `size` bytes, which nothing else knows of.
    unsafe { munmap(base, size) }
}

/// Creates a read-only device with one target and returns its number (`/dev/dm-NUMBER`).
///
/// # Errors
/// `E2BIG` if the name, type or parameters are too long; otherwise the kernel's answer.
pub fn make_device(
    control: &File,
    name: &str,
    sectors: u64,
    kind: &str,
    parameters: &str,
) -> io::Result<u32> {
    let mut request = Request {
        head: Head {
            version: VERSION,
            data_size: u32::try_from(size_of::<Request>()).unwrap_or(u32::MAX),
            data_start: u32::try_from(size_of::<Head>()).unwrap_or(u32::MAX),
            target_count: 1,
            open_count: 0,
            flags: READ_ONLY,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name: text(name)?,
            uuid: [0; 129],
            data: [0; 7],
        },
        target: Target {
            sector_start: 0,
            length: sectors,
            status: 0,
            next: 0,
            target_type: text(kind)?,
        },
        parameters: text(parameters)?,
    };
    let template = request;
    call::<CREATE>(control, &mut request)?;
    let device = request.head.dev;
    request = template;
    call::<LOAD>(control, &mut request)?;
    request = template;
    call::<SUSPEND>(control, &mut request)?;
    Ok(rustix::fs::minor(device))
}

/// Sends a request; the kernel overwrites it with its answer.
fn call<const OPCODE: Opcode>(control: &File, request: &mut Request) -> io::Result<()> {
    // SAFETY: all opcodes of this file take a `Head` and what follows it, `data_size` bytes in all:
    // a `Request`.
    let call = unsafe { Updater::<OPCODE, Request>::new(request) };
    // SAFETY: the kernel writes within these `data_size` bytes, which are plain numbers.
    unsafe { ioctl(control, call) }
}

/// A text padded with NULs, at least one.
fn text<const N: usize>(text: &str) -> io::Result<[u8; N]> {
    let mut field = [0; N];
    if text.len() >= N {
        return Err(io::Errno::TOOBIG);
    }
    field[..text.len()].copy_from_slice(text.as_bytes());
    Ok(field)
}
