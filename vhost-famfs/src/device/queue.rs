// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The request queue. The driver may be hostile, and another VM may write to the ring.
//!
//! Each value is read from guest memory once; from then on the copy is used. Requests are *peeked*:
//! a request stays in the available ring until it is answered. If the device is stopped in between,
//! it does not answer, and the request is still there at the next start.

use vhost_user_backend::VringState;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::pmem::{ChainError, Layout, MESSAGE_LEN, MessageBytes, REPLY_LEN, Reply, Request};

/// Why the queue cannot be used until the next start of the device.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// A ring is outside the guest's memory.
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

/// A request that was copied from guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    head: u16,
    /// The request and where its reply goes, or why the chain is malformed.
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
    /// Whether a request needs the pool to be synced.
    pub fn has_flush(&self) -> bool {
        self.pending.iter().any(|p| matches!(p.request, Ok((Request::Flush, _))))
    }
}

/// Copies the available requests and leaves them in the ring.
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

/// Answers a batch in order: every flush with `flush`, every other request with an error. A
/// malformed chain is returned with length 0.
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

/// The descriptors of a chain; ends early if the table does. The queue library's own iterator would
/// follow indirect descriptors that were not negotiated.
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

/// Writes the reply and returns its length, or 0 if the memory has disappeared meanwhile.
fn write_reply(memory: &GuestMemoryMmap, to: MessageBytes, reply: Reply) -> u32 {
    let written =
        reply.to_bytes().into_iter().zip(to).all(|(b, to)| memory.write_obj(b, to).is_ok());
    if written { REPLY_LEN } else { 0 }
}
