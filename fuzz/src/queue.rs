// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Target: the back-end's request queue. Input: four bytes (queue size, next available index, next
//! used index, whether the rings lie where a driver puts them or overlap), then guest memory.
//!
//! Invariants:
//! * no panic, and the work is limited by the size of the queue;
//! * only the used ring and the replies to well-formed requests are written;
//! * answering a batch adds an entry to the used ring for each of its requests.

use std::collections::BTreeSet;

use vhost_famfs::device::pmem::Reply;
use vhost_famfs::device::queue::{answer, peek};
use vhost_user_backend::{VringRwLock, VringT};
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};

const MEMORY: usize = 16 << 10;
/// Where the rings are in guest memory, one after the other or on top of each other.
const RINGS: [[u64; 3]; 2] = [[0, 0x1000, 0x1800], [0, 0x20, 0x10]];

/// Runs the target.
///
/// # Panics
/// When an invariant does not hold, or the system has no memory.
pub fn run(data: &[u8]) {
    let (parameters, data) = data.split_at(data.len().min(4));
    let parameter = |at: usize| parameters.get(at).copied().unwrap_or(0);
    let ranges = [(GuestAddress(0), MEMORY)];
    let memory = GuestMemoryMmap::<()>::from_ranges(&ranges).expect("no memory for the guest");
    let len = data.len().min(MEMORY);
    memory.write_slice(&data[..len], GuestAddress(0)).expect("the slice fits");

    let shared = GuestMemoryAtomic::new(memory.clone());
    let ring = VringRwLock::new(shared, 256).expect("256 is a queue size");
    let size = 1_u16 << (parameter(0) % 9);
    let [table, avail, used] = RINGS[usize::from(parameter(3) % 2)];
    ring.set_queue_size(size);
    // Unaligned addresses are refused: the queue then keeps address 0.
    let _ = ring.set_queue_info(table, avail, used);
    ring.set_queue_next_avail(u16::from(parameter(1)));
    ring.set_queue_next_used(u16::from(parameter(2)));
    ring.set_queue_ready(true);

    let mut state = ring.get_mut();
    let Ok(batch) = peek(&mut state, &memory) else { return };
    assert!(batch.pending.len() <= usize::from(size), "more requests than the queue has entries");
    let before = contents(&memory);
    let next_used = state.get_queue().next_used();
    let used_ring = state.get_queue().used_ring();
    let result = answer(&mut state, &memory, &batch, Reply::Done);
    let changed = {
        let after = contents(&memory);
        (0..MEMORY).filter(move |at| before[*at] != after[*at]).map(|at| at as u64)
    };
    let replies: BTreeSet<u64> = batch
        .pending
        .iter()
        .filter_map(|pending| pending.request.ok())
        .flat_map(|(_, reply)| reply.map(|at| at.0))
        .collect();
    let used_ring = used_ring..used_ring + 6 + 8 * u64::from(size);
    for at in changed {
        assert!(used_ring.contains(&at) || replies.contains(&at), "byte {at:#x} was written");
    }
    if result.is_ok() {
        let answered = state.get_queue().next_used().wrapping_sub(next_used);
        assert_eq!(usize::from(answered), batch.pending.len());
    }
}

fn contents(memory: &GuestMemoryMmap) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY];
    memory.read_slice(&mut bytes, GuestAddress(0)).expect("the memory is there");
    bytes
}
