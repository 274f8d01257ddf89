// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The request queue, with a driver that may be hostile and a ring that another VM may write.
//!
//! Each value is read from guest memory once; what follows uses the copy. A request is *peeked*
//! and stays in the available ring until it is answered: a device that is stopped in between
//! simply does not answer, and the request is there at the next start.

use vhost_user_backend::VringState;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::pmem::{ChainError, Layout, MESSAGE_LEN, MessageBytes, REPLY_LEN, Reply, Request};

/// Why the queue cannot be used until the device is started again.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// A ring lies outside the guest's memory.
    #[error("request queue: rings are not in guest memory")]
    Rings,
    /// The available index or the used ring is unusable.
    #[error("request queue: {action}: {reason}")]
    Broken {
        /// What was tried.
        action: &'static str,
        /// What the queue library found.
        reason: String,
    },
}

/// A request, copied out of guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    head: u16,
    /// What is asked for and where the reply goes, or why the chain is malformed.
    pub request: Result<(Request, MessageBytes), ChainError>,
}

/// The requests that were available at one moment, oldest first.
#[derive(Debug)]
pub struct Batch {
    first: u16,
    /// At most as many as the queue has entries.
    pub pending: Vec<Pending>,
}

impl Batch {
    /// Whether any request needs the pool synced.
    pub fn has_flush(&self) -> bool {
        self.pending.iter().any(|p| matches!(p.request, Ok((Request::Flush, _))))
    }
}

/// Copies what is available and leaves it in the ring.
pub fn peek(ring: &mut VringState, memory: &GuestMemoryMmap) -> Result<Batch, QueueError> {
    let queue = ring.get_queue_mut();
    if !queue.is_valid(memory) {
        return Err(QueueError::Rings);
    }
    let (table, size, first) = (GuestAddress(queue.desc_table()), queue.size(), queue.next_avail());
    let heads: Vec<u16> =
        queue.iter(memory).map_err(broken("available index"))?.map(|c| c.head_index()).collect();
    queue.set_next_avail(first);
    let pending = heads
        .into_iter()
        .map(|head| Pending { head, request: read_request(memory, table, size, head) })
        .collect();
    Ok(Batch { first, pending })
}

/// Answers a batch in order: `flush` to every flush, an error to every other request. A
/// malformed chain is given back with length 0.
pub fn answer(
    ring: &mut VringState,
    memory: &GuestMemoryMmap,
    batch: &Batch,
    flush: Reply,
) -> Result<(), QueueError> {
    let mut next_avail = batch.first;
    for pending in &batch.pending {
        let len = match pending.request {
            Ok((Request::Flush, to)) => write_reply(memory, to, flush),
            Ok((Request::Unknown(_), to)) => write_reply(memory, to, Reply::Failed),
            Err(_) => 0,
        };
        let queue = ring.get_queue_mut();
        queue.add_used(memory, pending.head, len).map_err(broken("used ring"))?;
        next_avail = next_avail.wrapping_add(1);
        queue.set_next_avail(next_avail);
    }
    Ok(())
}

fn broken(action: &'static str) -> impl Fn(virtio_queue::Error) -> QueueError {
    move |error| QueueError::Broken { action, reason: error.to_string() }
}

fn read_request(
    memory: &GuestMemoryMmap,
    table: GuestAddress,
    size: u16,
    head: u16,
) -> Result<(Request, MessageBytes), ChainError> {
    let layout = Layout::parse(chain(memory, table, size, head))?;
    let mut bytes = [0; MESSAGE_LEN];
    for (byte, from) in bytes.iter_mut().zip(layout.request) {
        *byte = memory.read_obj(from).map_err(|_| ChainError::NotMemory(from.raw_value()))?;
    }
    if let Some(to) = layout.reply.into_iter().find(|to| !memory.address_in_range(*to)) {
        return Err(ChainError::NotMemory(to.raw_value()));
    }
    Ok((Request::from_bytes(bytes), layout.reply))
}

/// The descriptors of a chain; ends early where the table does. The queue library's own
/// iterator would follow indirect descriptors that were not negotiated.
fn chain(
    memory: &GuestMemoryMmap,
    table: GuestAddress,
    size: u16,
    head: u16,
) -> impl Iterator<Item = Descriptor> {
    let mut next = Some(head);
    std::iter::from_fn(move || {
        let index = next.filter(|index| *index < size)?;
        let at = table.checked_add(u64::from(index) * size_of::<Descriptor>() as u64)?;
        let descriptor: Descriptor = memory.read_obj(at).ok()?;
        next = descriptor.has_next().then(|| descriptor.next());
        Some(descriptor)
    })
}

/// Writes the reply and returns its length, or 0 if the memory went away meanwhile.
fn write_reply(memory: &GuestMemoryMmap, to: MessageBytes, reply: Reply) -> u32 {
    let written =
        reply.to_bytes().into_iter().zip(to).all(|(b, to)| memory.write_obj(b, to).is_ok());
    if written { REPLY_LEN } else { 0 }
}
