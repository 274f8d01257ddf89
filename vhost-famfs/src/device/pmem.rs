// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-pmem according to its specification (virtio 1.2, section 5.19; `linux/virtio_pmem.h`):
//! constants, request and reply. Pure: accesses neither memory nor a queue.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, GuestAddress};

/// Device id of virtio-pmem.
pub const DEVICE_ID: u32 = virtio_bindings::virtio_ids::VIRTIO_ID_PMEM;
/// Number of virtqueues: the request queue.
pub const QUEUES: usize = 1;
/// Feature bit `VIRTIO_PMEM_F_SHMEM_REGION`: the memory is shared memory region
/// [`SHMEM_REGION_ID`], not at the address in the configuration space.
pub const F_SHMEM_REGION: u64 = 0;
/// `VIRTIO_PMEM_SHMEM_REGION_ID`.
pub const SHMEM_REGION_ID: u8 = 0;
/// `VIRTIO_PMEM_REQ_TYPE_FLUSH`, the only request type.
pub const REQ_TYPE_FLUSH: u32 = 0;
/// Size of `struct virtio_pmem_req` (le32 type) and of `struct virtio_pmem_resp` (le32 ret).
pub const MESSAGE_LEN: usize = 4;
/// The number of bytes that a reply writes, for the used ring.
pub const REPLY_LEN: u32 = 4;
const _: () = assert!(REPLY_LEN as usize == MESSAGE_LEN);

/// Longest descriptor chain that is accepted. A request needs two descriptors, and at most eight if
/// a driver splits each message into single bytes.
pub const MAX_CHAIN: usize = 8;

/// Why a descriptor chain is not a virtio-pmem request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The chain loops, leaves the table, is unreadable or is longer than [`MAX_CHAIN`].
    #[error("the descriptor chain does not end within {MAX_CHAIN} descriptors of its table")]
    Endless,
    /// A device-readable descriptor follows a device-writable one.
    #[error("a device-readable descriptor follows a device-writable one")]
    Order,
    /// Too few bytes for the request.
    #[error("{0} device-readable bytes, but a request needs {MESSAGE_LEN}")]
    ShortRequest(u64),
    /// Too few bytes for the reply.
    #[error("{0} device-writable bytes, but a reply needs {MESSAGE_LEN}")]
    ShortReply(u64),
    /// An address beyond 64 bits.
    #[error("the buffer at {0:#x} wraps around the end of the address space")]
    Wraps(u64),
    /// An address where the guest has no memory.
    #[error("the buffer at {0:#x} is not in guest memory")]
    NotMemory(u64),
    /// An indirect descriptor, which was not negotiated.
    #[error("an indirect descriptor, but VIRTIO_F_INDIRECT_DESC was not negotiated")]
    Indirect,
}

/// Guest addresses of the four bytes of a message, which may be split across descriptors.
pub type MessageBytes = [GuestAddress; MESSAGE_LEN];

/// Where a request is in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The request's bytes, device-readable.
    pub request: MessageBytes,
    /// The reply's bytes, device-writable.
    pub reply: MessageBytes,
}

impl Layout {
    /// Finds the messages in a chain of descriptors; the descriptors were copied from the table
    /// once.
    pub fn parse(chain: impl Iterator<Item = Descriptor>) -> Result<Self, ChainError> {
        let (mut readable, mut writable) = (Bytes::default(), Bytes::default());
        let mut complete = false;
        for descriptor in chain.take(MAX_CHAIN) {
            if descriptor.refers_to_indirect_table() {
                return Err(ChainError::Indirect);
            }
            if descriptor.is_write_only() {
                writable.add(&descriptor)?;
            } else if writable.descriptors > 0 {
                return Err(ChainError::Order);
            } else {
                readable.add(&descriptor)?;
            }
            complete = !descriptor.has_next();
        }
        if !complete {
            return Err(ChainError::Endless);
        }
        let request = readable.message().ok_or(ChainError::ShortRequest(readable.total))?;
        let reply = writable.message().ok_or(ChainError::ShortReply(writable.total))?;
        Ok(Self { request, reply })
    }
}

/// The first bytes of several descriptors in a row.
#[derive(Default)]
struct Bytes {
    descriptors: usize,
    total: u64,
    first: Vec<GuestAddress>,
}

impl Bytes {
    fn add(&mut self, descriptor: &Descriptor) -> Result<(), ChainError> {
        let (addr, len) = (descriptor.addr(), u64::from(descriptor.len()));
        if addr.checked_add(len).is_none() {
            return Err(ChainError::Wraps(addr.raw_value()));
        }
        self.descriptors += 1;
        self.total += len;
        let missing = MESSAGE_LEN - self.first.len();
        self.first.extend((0..len).take(missing).map(|at| addr.unchecked_add(at)));
        Ok(())
    }

    fn message(&self) -> Option<MessageBytes> {
        self.first.as_slice().try_into().ok()
    }
}

/// What the driver requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make all previous stores durable.
    Flush,
    /// A type that the specification does not define, with its number.
    Unknown(u32),
}

impl Request {
    /// Parses `struct virtio_pmem_req`.
    pub fn from_bytes(bytes: [u8; MESSAGE_LEN]) -> Self {
        match u32::from_le_bytes(bytes) {
            REQ_TYPE_FLUSH => Self::Flush,
            other => Self::Unknown(other),
        }
    }
}

/// `ret` of `struct virtio_pmem_resp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The data is as durable as the pool's kind makes it.
    Done,
    /// It is not; the guest's fsync returns EIO.
    Failed,
}

impl Reply {
    /// The bytes of the reply for the guest.
    pub fn to_bytes(self) -> [u8; MESSAGE_LEN] {
        match self {
            Self::Done => 0_u32,
            Self::Failed => 1_u32,
        }
        .to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;

    fn parse(chain: &[(u64, u32, u16)]) -> Result<Layout, ChainError> {
        Layout::parse(chain.iter().map(|&(addr, len, flags)| Descriptor::new(addr, len, flags, 0)))
    }

    #[test]
    fn finds_the_request_that_linux_sends() {
        let layout = parse(&[(0x1000, 4, NEXT), (0x2000, 4, WRITE)]).unwrap();
        assert_eq!(layout.request[0], GuestAddress(0x1000));
        assert_eq!(layout.request[3], GuestAddress(0x1003));
        assert_eq!(layout.reply[3], GuestAddress(0x2003));
    }

    #[test]
    fn messages_may_be_split_and_buffers_longer() {
        let layout = parse(&[
            (0x1000, 1, NEXT),
            (0x3000, 0, NEXT),
            (0x1800, 64, NEXT),
            (0x2000, 3, WRITE | NEXT),
            (0x2800, 64, WRITE),
        ])
        .unwrap();
        assert_eq!(layout.request.map(|a| a.0), [0x1000, 0x1800, 0x1801, 0x1802]);
        assert_eq!(layout.reply.map(|a| a.0), [0x2000, 0x2001, 0x2002, 0x2800]);
    }

    #[test]
    fn refuses_malformed_chains() {
        let endless = [(0x1000, 4, NEXT); MAX_CHAIN + 1];
        let max = u64::MAX;
        for (chain, error) in [
            (&[][..], ChainError::Endless),
            (&[(0x1000, 4, NEXT), (0x2000, 4, WRITE | NEXT)], ChainError::Endless),
            (&endless, ChainError::Endless),
            (&[(0x2000, 4, WRITE | NEXT), (0x1000, 4, 0)], ChainError::Order),
            (&[(0x1000, 3, NEXT), (0x2000, 4, WRITE)], ChainError::ShortRequest(3)),
            (&[(0x1000, 4, NEXT), (0x2000, 3, WRITE)], ChainError::ShortReply(3)),
            (&[(0x1000, 4, 0)], ChainError::ShortReply(0)),
            (&[(0x2000, 4, WRITE)], ChainError::ShortRequest(0)),
            (&[(max - 2, 4, NEXT), (0x2000, 4, WRITE)], ChainError::Wraps(max - 2)),
            (&[(0x1000, 32, INDIRECT)], ChainError::Indirect),
        ] {
            assert_eq!(parse(chain), Err(error), "{chain:x?}");
        }
    }

    #[test]
    fn numbers_of_the_specification() {
        assert_eq!(DEVICE_ID, 27);
        assert_eq!(Request::from_bytes([0; 4]), Request::Flush);
        assert_eq!(Request::from_bytes([1, 0, 0, 0]), Request::Unknown(1));
        assert_eq!(Reply::Done.to_bytes(), [0; 4]);
        assert_eq!(Reply::Failed.to_bytes(), [1, 0, 0, 0]);
    }
}
