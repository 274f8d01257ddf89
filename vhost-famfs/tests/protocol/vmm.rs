// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A front-end in this process: sends what QEMU 11.1 sends, in the same order, and acts as the
//! guest's driver on a virtqueue in real shared memory.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::{
    VhostUserHeaderFlag, VhostUserMMap, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{ByteValued, Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::backend::{Backend, DEADLINE, TestPool};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const QUEUE_SIZE: u16 = 64;
pub const RAM_SIZE: usize = 1 << 20;
/// Guest address of the window once it is mapped.
pub const WINDOW_ADDR: u64 = 1 << 32;
/// Guest addresses in RAM.
pub const TABLE: u64 = 0x1000;
pub const AVAIL: u64 = 0x2000;
pub const USED: u64 = 0x3000;
pub const REQUEST: u64 = 0x4000;
pub const REPLY: u64 = 0x5000;

/// How long to wait before concluding that a message will not come.
const SILENCE: Duration = Duration::from_millis(150);

/// SHMEM_MAP's number in the vhost-user specification (back-end message types).
const SHMEM_MAP: u32 = 9;
const VERSION: u32 = 1;
const FLAG_REPLY: u32 = 4;
const FLAG_NEED_REPLY: u32 = 8;
const HEADER_LEN: usize = 12;

/// A map request as received.
pub struct Map {
    pub fd_offset: u64,
    pub shm_offset: u64,
    pub len: u64,
    pub flags: u64,
    pub file: File,
}

/// A descriptor: address, length, flags.
pub type Link = (u64, u32, u16);

/// An entry of the used ring.
#[derive(Debug, PartialEq, Eq)]
pub struct Used {
    pub head: u32,
    pub len: u32,
}

pub struct Vmm {
    pub frontend: Frontend,
    /// Our end of the back-end channel.
    channel: UnixStream,
    their_channel: Option<UnixStream>,
    pub ram: GuestMemoryMmap,
    window: Option<GuestMemoryMmap>,
    kick: EventFd,
    call: EventFd,
    avail: u16,
    used: u16,
    announced: u16,
    next_descriptor: u16,
}

/// A bare connection whose reads have a deadline.
pub fn connect(backend: &Backend) -> UnixStream {
    connect_to(&backend.socket)
}

fn connect_to(path: &Path) -> UnixStream {
    let socket = UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn memfd(len: usize) -> File {
    let fd = rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = File::from(fd);
    file.set_len(len as u64).unwrap();
    file
}

/// The memory of a VM, which exists before the VM connects.
pub fn guest_ram() -> GuestMemoryMmap {
    let ram = (GuestAddress(0), RAM_SIZE, Some(FileOffset::new(memfd(RAM_SIZE), 0)));
    GuestMemoryMmap::from_ranges_with_files([ram]).unwrap()
}

impl Vmm {
    /// Connects without sending anything yet.
    pub fn connect(backend: &Backend) -> Self {
        Self::connect_to(&backend.socket)
    }

    pub fn connect_to(path: &Path) -> Self {
        Self::connect_with(path, guest_ram())
    }

    pub fn connect_with(path: &Path, ram: GuestMemoryMmap) -> Self {
        let socket = connect_to(path);
        let (channel, their_channel) = UnixStream::pair().unwrap();
        channel.set_read_timeout(Some(DEADLINE)).unwrap();
        Self {
            frontend: Frontend::from_stream(socket, 1),
            channel,
            their_channel: Some(their_channel),
            ram,
            window: None,
            kick: EventFd::new(0).unwrap(),
            call: EventFd::new(libc_nonblock()).unwrap(),
            avail: 0,
            used: 0,
            announced: 0,
            next_descriptor: 0,
        }
    }

    /// Connects and sets up the device; returns the sizes of the shared memory regions.
    pub fn set_up(backend: &Backend) -> (Self, Vec<u64>) {
        let mut vmm = Self::connect(backend);
        let sizes = vmm.negotiate();
        (vmm, sizes)
    }

    /// What QEMU sends when it creates the device; returns the sizes of the shared memory regions.
    pub fn negotiate(&mut self) -> Vec<u64> {
        let features = self.frontend.get_features().unwrap();
        assert_eq!(features, expected_features());
        let protocol = self.frontend.get_protocol_features().unwrap();
        self.frontend.set_protocol_features(protocol).unwrap();
        self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(self.frontend.get_queue_num().unwrap(), 1);
        self.send_channel();
        self.without_reply(|vmm| vmm.frontend.set_owner().unwrap());
        assert_eq!(self.frontend.get_features().unwrap(), features);
        self.frontend.set_vring_call(0, &self.call).unwrap();
        self.frontend.set_vring_err(0, &EventFd::new(0).unwrap()).unwrap();
        let config = self.frontend.get_shmem_config().unwrap();
        let count = usize::try_from(config.nregions).unwrap();
        let sizes = config.memory_sizes[..count].to_vec();
        assert!(config.memory_sizes[count..].iter().all(|size| *size == 0));
        sizes
    }

    /// Sets up, starts and maps: the usual life of a VM.
    pub fn running(backend: &Backend) -> Self {
        let (mut vmm, _) = Self::set_up(backend);
        vmm.start();
        vmm.expect_map();
        vmm.acknowledge(0);
        backend.expect_log("window mapped");
        vmm
    }

    /// Adds the window to the memory table, as QEMU does once it is mapped.
    pub fn add_window(&mut self, pool: &TestPool) {
        self.add_file_as_window(pool.open(), pool.size);
    }

    pub fn add_file_as_window(&mut self, file: File, len: u64) {
        let len = usize::try_from(len).unwrap();
        let range = (GuestAddress(WINDOW_ADDR), len, Some(FileOffset::new(file, 0)));
        self.window = Some(GuestMemoryMmap::from_ranges_with_files([range]).unwrap());
    }

    pub fn remove_window(&mut self) {
        self.window = None;
    }

    pub fn window(&self) -> &GuestMemoryMmap {
        self.window.as_ref().unwrap()
    }

    /// What QEMU sends when the driver writes DRIVER_OK.
    pub fn start(&mut self) {
        self.start_from(0);
    }

    /// The same, for a queue that was stopped at `base`.
    pub fn start_from(&mut self, base: u16) {
        self.without_reply(Self::set_features);
        self.set_mem_table();
        self.start_queue(base);
    }

    /// Sends messages for which QEMU asks no reply, without waiting.
    fn without_reply(&self, send: impl FnOnce(&Self)) {
        self.frontend.set_hdr_flags(VhostUserHeaderFlag::empty());
        send(self);
        self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }

    pub fn set_features(&self) {
        self.frontend.set_features(expected_features()).unwrap();
    }

    pub fn set_mem_table(&self) {
        self.try_set_mem_table().unwrap();
    }

    pub fn try_set_mem_table(&self) -> vhost::Result<()> {
        let regions: Vec<_> = [Some(&self.ram), self.window.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(GuestMemoryBackend::iter)
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect();
        self.frontend.set_mem_table(&regions).map(|_| ())
    }

    pub fn start_queue(&mut self, base: u16) {
        self.start_queue_at(0, base);
    }

    fn start_queue_at(&mut self, rings: u64, base: u16) {
        self.without_reply(|vmm| {
            vmm.set_num();
            vmm.set_base(base);
            vmm.set_addresses(rings);
        });
        self.set_kick();
        self.set_call();
        self.enable(true);
        self.set_call();
    }

    pub fn set_num(&self) {
        self.frontend.set_vring_num(0, QUEUE_SIZE).unwrap();
    }

    pub fn set_base(&self, base: u16) {
        self.frontend.set_vring_base(0, base).unwrap();
    }

    /// Sends the positions of the rings: at their offsets from `rings`, in RAM or in the window.
    pub fn set_addresses(&self, rings: u64) {
        let memory = if rings < WINDOW_ADDR { &self.ram } else { self.window() };
        let address = |gpa| memory.get_host_address(GuestAddress(rings + gpa)).unwrap() as u64;
        let config = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: address(TABLE),
            used_ring_addr: address(USED),
            avail_ring_addr: address(AVAIL),
            log_addr: None,
        };
        self.frontend.set_vring_addr(0, &config).unwrap();
    }

    pub fn set_kick(&self) {
        self.kick.write(1).unwrap();
        self.frontend.set_vring_kick(0, &self.kick).unwrap();
    }

    pub fn set_call(&self) {
        self.frontend.set_vring_call(0, &self.call).unwrap();
    }

    pub fn enable(&mut self, enable: bool) {
        self.frontend.set_vring_enable(0, enable).unwrap();
    }

    /// Replaces the kick descriptor.
    pub fn kick_descriptor(&self) -> EventFd {
        self.kick.try_clone().unwrap()
    }

    /// Stops the device, and starts it with the rings in the window.
    pub fn use_rings_at(&mut self, rings: u64) {
        self.stop();
        self.start_with_rings_at(rings);
    }

    pub fn start_with_rings_at(&mut self, rings: u64) {
        self.set_features();
        self.set_mem_table();
        self.start_queue_at(rings, 0);
    }

    /// What QEMU sends on stop, reset and unbind; returns where the queue stopped.
    pub fn stop(&mut self) -> u16 {
        self.frontend.set_vring_enable(0, false).unwrap();
        u16::try_from(self.frontend.get_vring_base(0).unwrap()).unwrap()
    }

    /// A driver that starts with an empty queue after a reset.
    pub fn forget_queue(&mut self) {
        (self.avail, self.used, self.announced, self.next_descriptor) = (0, 0, 0, 0);
        self.ram.write_slice(&[0; 0x3000], GuestAddress(TABLE)).unwrap();
    }

    /// SET_BACKEND_REQ_FD.
    pub fn send_channel(&mut self) {
        let theirs = self.their_channel.take().expect("sent once");
        self.frontend.set_backend_request_fd(&theirs).unwrap();
    }

    /// Closes the back-end channel from this side.
    pub fn close_channel(&self) {
        self.channel.shutdown(std::net::Shutdown::Both).unwrap();
    }

    fn has_message(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(&self.channel, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).unwrap();
        poll(&mut fds, Some(&timeout)).unwrap() > 0
    }

    pub fn expect_no_map(&self) {
        assert!(!self.has_message(SILENCE), "a map came that must not come");
    }

    /// Waits for a map request, which must be the next message.
    pub fn expect_map(&mut self) -> Map {
        assert!(self.has_message(DEADLINE), "no map came");
        let mut header = [0; HEADER_LEN];
        let (len, file) = self.channel.recv_with_fd(&mut header).unwrap();
        assert_eq!(len, HEADER_LEN);
        let field = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!(field(0), SHMEM_MAP, "the only message a back-end may send");
        assert_eq!(field(4), VERSION | FLAG_NEED_REPLY);
        assert_eq!(field(8) as usize, size_of::<VhostUserMMap>());
        let mut body = VhostUserMMap::default();
        std::io::Read::read_exact(&mut self.channel, body.as_mut_slice()).unwrap();
        assert_eq!(body.shmid, 0);
        assert_eq!(body.padding, [0; 7]);
        Map {
            fd_offset: body.fd_offset,
            shm_offset: body.shm_offset,
            len: body.len,
            flags: body.flags,
            file: file.expect("a map comes with a descriptor"),
        }
    }

    /// Answers a map; any value but 0 refuses it.
    pub fn acknowledge(&mut self, value: u64) {
        let mut reply = Vec::new();
        for field in [SHMEM_MAP, VERSION | FLAG_REPLY, 8] {
            reply.extend(field.to_ne_bytes());
        }
        reply.extend(value.to_ne_bytes());
        self.channel.write_all(&reply).unwrap();
    }

    /// Puts a chain into the queue; returns its head.
    pub fn offer(&mut self, chain: &[Link]) -> u16 {
        let head = self.next_descriptor;
        for &(addr, len, flags) in chain {
            self.next_descriptor = (self.next_descriptor + 1) % QUEUE_SIZE;
            self.set_descriptor(
                (self.next_descriptor + QUEUE_SIZE - 1) % QUEUE_SIZE,
                Descriptor::new(addr, len, flags, self.next_descriptor),
            );
        }
        self.offer_head(head);
        head
    }

    pub fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        let at = TABLE + u64::from(index) * size_of::<Descriptor>() as u64;
        self.ram.write_obj(descriptor, GuestAddress(at)).unwrap();
    }

    pub fn offer_head(&mut self, head: u16) {
        self.set_avail_entry(self.avail % QUEUE_SIZE, head);
        self.set_avail_index(self.avail.wrapping_add(1));
    }

    pub fn set_avail_entry(&self, index: u16, head: u16) {
        let at = AVAIL + 4 + 2 * u64::from(index);
        self.ram.write_obj(head, GuestAddress(at)).unwrap();
    }

    pub fn set_avail_index(&mut self, index: u16) {
        self.avail = index;
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.ram.write_obj(index, GuestAddress(AVAIL + 2)).unwrap();
    }

    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    pub fn used_index(&self) -> u16 {
        self.ram.read_obj(GuestAddress(USED + 2)).unwrap()
    }

    /// Waits for the next used entry, and for the interrupt that announces it.
    pub fn expect_used(&mut self) -> Used {
        crate::backend::until("used entry", || (self.used_index() != self.used).then_some(()));
        let slot = USED + 4 + 8 * u64::from(self.used % QUEUE_SIZE);
        self.used = self.used.wrapping_add(1);
        let used = Used {
            head: self.ram.read_obj(GuestAddress(slot)).unwrap(),
            len: self.ram.read_obj(GuestAddress(slot + 4)).unwrap(),
        };
        crate::backend::until("interrupt", || self.is_announced());
        used
    }

    /// Waits for an interrupt, without the pauses of [`Self::expect_used`].
    pub fn wait_call(&mut self) {
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, self.call.as_raw_fd(), event).unwrap();
        let deadline = i32::try_from(DEADLINE.as_millis()).unwrap();
        assert_eq!(epoll.wait(deadline, &mut [EpollEvent::default()]).unwrap(), 1);
        self.call.read().unwrap();
        self.announced = self.used_index();
    }

    /// Takes an entry that exists and has been announced.
    pub fn take_used(&mut self) {
        assert_ne!(self.used_index(), self.used);
        self.used = self.used.wrapping_add(1);
    }

    /// Whether there was an interrupt after the last entry that was taken; one interrupt can
    /// announce several entries.
    fn is_announced(&mut self) -> Option<()> {
        if self.call.read().is_ok() {
            self.announced = self.used_index();
        }
        (self.announced.wrapping_sub(self.used) < QUEUE_SIZE).then_some(())
    }

    pub fn expect_nothing_used(&self) {
        std::thread::sleep(SILENCE);
        assert_eq!(self.used_index(), self.used, "a request was answered");
    }

    /// Offers the request that Linux sends; the reply's initial value shows that it has not been
    /// written yet.
    pub fn offer_flush(&mut self) -> u16 {
        self.ram.write_obj(0_u32, GuestAddress(REQUEST)).unwrap();
        self.ram.write_obj(0xffff_ffff_u32, GuestAddress(REPLY)).unwrap();
        self.offer(&[(REQUEST, 4, NEXT), (REPLY, 4, WRITE)])
    }

    /// Waits until a flush succeeds: the first one may overtake the answer to the map.
    pub fn expect_flush(&mut self) {
        crate::backend::until("flush that succeeds", || (self.flush() == 0).then_some(()));
    }

    /// Flushes and returns the reply's `ret`.
    pub fn flush(&mut self) -> u32 {
        let head = self.offer_flush();
        self.kick();
        assert_eq!(self.expect_used(), Used { head: head.into(), len: 4 });
        self.ram.read_obj(GuestAddress(REPLY)).unwrap()
    }
}

fn libc_nonblock() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap()
}

/// VIRTIO_F_VERSION_1, VIRTIO_PMEM_F_SHMEM_REGION and the protocol features' bit.
pub fn expected_features() -> u64 {
    1 << 32 | 1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
}

pub fn expected_protocol_features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::BACKEND_REQ
        | VhostUserProtocolFeatures::BACKEND_SEND_FD
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::SHMEM
        | VhostUserProtocolFeatures::MQ
}

/// Whether two open files are the same one.
pub fn same_file(one: &File, other: &File) -> bool {
    let id = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino())).unwrap();
    id(one) == id(other)
}
