// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vring of the vhost-user library, hardened against the front-end's event descriptors.
//!
//! The library's queue thread ends silently at the first error from the kick descriptor. On a
//! descriptor that blocks, it waits for ever with the ring locked. Both can happen with a
//! well-behaved front-end: a kick that was announced for one descriptor is read from the one that
//! replaced it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::OFlags;
use tracing::error;
use vhost_user_backend::{VringRwLock, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error as QueueError;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// A vring whose descriptors never block and whose thread survives a missing kick.
#[derive(Clone)]
pub struct Ring(VringRwLock);

impl<'a> VringStateGuard<'a, Memory> for Ring {
    type G = <VringRwLock as VringStateGuard<'a, Memory>>::G;
}

impl<'a> VringStateMutGuard<'a, Memory> for Ring {
    type G = <VringRwLock as VringStateMutGuard<'a, Memory>>::G;
}

/// Makes a descriptor of the front-end non-blocking. QEMU's already are. The flag belongs to the
/// open file, so a front-end that shares a blocking descriptor sees it change.
fn non_blocking(file: Option<File>) -> Option<File> {
    if let Some(file) = &file
        && let Err(err) = set_non_blocking(file)
    {
        error!(%err, "cannot make an event descriptor of the front-end non-blocking");
    }
    file
}

fn set_non_blocking(file: impl AsFd) -> rustix::io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK)
}

impl VringT<Memory> for Ring {
    fn new(memory: Memory, max_queue_size: u16) -> Result<Self, QueueError> {
        VringRwLock::new(memory, max_queue_size).map(Self)
    }

    /// Returns whether there is a kick. It is not an error if an announced kick is missing, but an
    /// invalid descriptor is: it ends the queue.
    fn read_kick(&self) -> io::Result<bool> {
        match self.0.read_kick() {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(err) => {
                error!(%err, "the front-end's kick descriptor is unusable: flushes hang from now on");
                Err(err)
            }
            enabled => enabled,
        }
    }

    fn set_kick(&self, file: Option<File>) {
        self.0.set_kick(non_blocking(file));
    }

    fn set_call(&self, file: Option<File>) {
        self.0.set_call(non_blocking(file));
    }

    fn set_err(&self, file: Option<File>) {
        self.0.set_err(file);
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, Memory>>::G {
        self.0.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, Memory>>::G {
        self.0.get_mut()
    }

    fn add_used(&self, head: u16, len: u32) -> Result<(), QueueError> {
        self.0.add_used(head, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.0.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.0.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.0.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.0.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.0.set_enabled(enabled);
    }

    fn set_queue_info(&self, table: u64, avail: u64, used: u64) -> Result<(), QueueError> {
        self.0.set_queue_info(table, avail, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.0.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.0.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.0.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.0.queue_used_idx()
    }

    fn set_queue_size(&self, entries: u16) {
        self.0.set_queue_size(entries);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.0.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.0.set_queue_ready(ready);
    }
}
