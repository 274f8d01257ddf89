// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device: a window of a pool behind a vhost-user connection.
//!
//! Three threads call these functions: the connection's (front-end messages), the queue's (kicks)
//! and the mapper. Every lock is held briefly, and never during a system call that can wait. The
//! front-end's messages are always answered at once, because QEMU holds its big lock meanwhile.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use famfs::system::throttle::Throttle;
use rustix::fs::FileType;
use tracing::{debug, error, info, warn};
use vhost::vhost_user::Backend;
use vhost::vhost_user::message::{
    VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserVirtioFeatures,
};
use vhost_user_backend::{VhostUserBackend, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::QueueT;
use vm_memory::{
    GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use super::durability::Durability;
use super::lifecycle::{Generation, Lifecycle, OnAck, OnFlush, OnTable, Phase, StartError};
use super::mapper::{self, Order};
use super::pmem::{F_SHMEM_REGION, QUEUES, Reply};
use super::queue::{self, Batch};
use super::ring::Ring;
use crate::host::sys;
use crate::pool::{Identity, Pool, Window};

/// Largest queue that a front-end may configure; QEMU's default is 64.
const MAX_QUEUE_SIZE: usize = 256;

/// Guest memory as the vhost-user library shares it.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// One guest's access to a pool.
pub struct Device {
    pool: Pool,
    window: Window,
    memory: Memory,
    orders: Sender<Order>,
    state: Mutex<State>,
    /// One for each line that a guest can cause, so that no line hides another.
    limits: Mutex<HashMap<&'static str, Throttle>>,
}

/// The state that messages, kicks and answers change. Lock it after a ring, never before one.
#[derive(Default)]
struct State {
    life: Lifecycle,
    /// The channel to the front-end.
    channel: Option<Backend>,
    /// The start during which the queue broke.
    broken: Option<Generation>,
    durability: Durability,
    /// The descriptor that ends the queue's thread; the library releases it without closing it.
    exit: Option<RawFd>,
    /// Why this front-end cannot show the pool to its guest.
    unfit: Option<StartError>,
    /// Closed when that is known; somebody waits for it at the other end.
    fit: Option<UnixStream>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The state is plain data, and every holder of the lock leaves it consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// A device for one connection. It closes `fit` if the front-end cannot show the pool to its
    /// guest.
    pub fn new(
        pool: Pool,
        window: Window,
        memory: Memory,
        fit: UnixStream,
    ) -> io::Result<Arc<Self>> {
        let (orders, received) = channel();
        let state = Mutex::new(State { fit: Some(fit), ..State::default() });
        let limits = Mutex::default();
        let device = Arc::new(Self { pool, window, memory, orders, state, limits });
        // The mapper ends with the device, so it must not keep the device alive.
        let mapped = Arc::downgrade(&device);
        mapper::spawn(received, move |order| {
            if let Some(device) = mapped.upgrade() {
                device.map(&order);
            }
        })?;
        Ok(device)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether the guest may be using the window.
    pub fn is_started(&self) -> bool {
        matches!(self.state().life.phase(), Phase::Starting | Phase::Mapped | Phase::Failed)
    }

    /// Why this front-end cannot show the pool to its guest, if that is known.
    pub fn unfit(&self) -> Option<StartError> {
        self.state().unfit
    }

    /// The descriptor that the library left open when the connection ended. It has no owner.
    pub fn take_exit_descriptor(&self) -> Option<RawFd> {
        self.state().exit.take()
    }

    /// Sends a map in the mapper's thread, unless the device has been stopped meanwhile.
    fn map(&self, order: &Order) {
        let wanted = self.state().life.wants_map(order.generation);
        if wanted {
            let answer = mapper::send(&order.channel, &self.pool, self.window);
            self.on_map_answer(order.generation, answer);
            // The VM has its window; code that was needed only for that is not needed until the
            // next start.
            sys::release_code();
        }
    }

    /// The front-end answered the map of `generation`, or the channel broke.
    fn on_map_answer(&self, generation: Generation, (took, result): (Duration, io::Result<()>)) {
        let outcome = self.state().life.on_ack(generation, result.is_ok());
        let (offset, len) = (self.window.offset(), self.window.len());
        // JSON logs have no number as wide as the result of `as_micros`.
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        match (outcome, result) {
            (OnAck::Mapped, _) => self.limited("mapped", |suppressed| {
                info!(offset, len, ack = 0, us, suppressed, "window mapped");
            }),
            (OnAck::Stale, _) => self.limited("stale", |suppressed| {
                info!(
                    offset,
                    len,
                    us,
                    suppressed,
                    "the front-end answered the map after the \
                                                    device stopped"
                );
            }),
            (OnAck::AlreadyMapped, _) => self.limited("already mapped", |suppressed| {
                info!(offset, len, us, suppressed, "map refused, but the window is already mapped");
            }),
            (OnAck::Failed, result) => self.limited("refused", |suppressed| {
                let cause = result.err().map(|e| e.to_string()).unwrap_or_default();
                error!(
                    offset,
                    len,
                    us,
                    cause,
                    suppressed,
                    "map refused: the guest does not see the pool, and its flushes fail; see the \
                     VMM's messages for the reason"
                );
            }),
        }
    }

    fn holds_window(&self, memory: &GuestMemoryMmap) -> bool {
        memory.iter().any(|region| {
            region.file_offset().is_some_and(|at| {
                at.start() == self.window.offset()
                    && region.len() == self.window.len()
                    && Identity::of(at.file()).is_ok_and(|id| id == self.pool.identity())
            })
        })
    }

    fn post_map(&self, generation: Generation) {
        let Some(channel) = self.state().channel.clone() else { return };
        if self.orders.send(Order { generation, channel }).is_err() {
            self.on_map_answer(generation, (Duration::ZERO, Err(io::Error::other("no mapper"))));
        }
    }

    /// Answers the requests that are available now. A driver that adds more meanwhile kicks
    /// again, so there is no loop that a hostile ring could keep busy.
    fn serve(&self, ring: &Ring) {
        let (flush, generation, batch) = {
            let mut ring = ring.get_mut();
            if !ring.is_enabled() || !ring.get_queue().ready() {
                return;
            }
            // Held while reading the ring: whether the window is mapped must be checked for the
            // moment at which the requests were there.
            let state = self.state();
            let (flush, generation) = (state.life.on_flush(), state.life.generation());
            if flush == OnFlush::Wait || state.broken == Some(generation) {
                return;
            }
            (flush, generation, queue::peek(&mut ring, &self.memory.memory()))
        };
        let done = batch.and_then(|batch| {
            self.report_malformed(&batch);
            let reply = if batch.has_flush() { self.flush(flush) } else { Reply::Failed };
            let mut ring = ring.get_mut();
            // Stopped while the pool was being synced: the requests stay in the ring.
            let stopped = !ring.get_queue().ready() || self.state().life.generation() != generation;
            if stopped || batch.pending.is_empty() {
                return Ok(());
            }
            queue::answer(&mut ring, &self.memory.memory(), &batch, reply)?;
            if batch.has_flush() {
                self.state().durability.delivered(reply);
            }
            debug!(requests = batch.pending.len(), ?reply, "answered");
            // A full descriptor already has notifications pending.
            if let Err(err) = ring.signal_used_queue()
                && err.kind() != io::ErrorKind::WouldBlock
            {
                self.limited("notify", |suppressed| {
                    warn!(%err, suppressed, "cannot notify the guest");
                });
            }
            Ok(())
        });
        if let Err(err) = done {
            self.state().broken = Some(generation);
            self.limited("broken", |suppressed| {
                error!(%err, suppressed, "the queue is broken, and ignored until the guest resets \
                                          it");
            });
        }
    }

    fn flush(&self, how: OnFlush) -> Reply {
        let result = match how {
            OnFlush::Sync => self.pool.sync(),
            _ => Err(io::Error::other("the window is not mapped")),
        };
        let reply = match how {
            OnFlush::Sync => self.state().durability.record(result.is_ok()),
            _ => Reply::Failed,
        };
        if let Err(err) = result {
            self.limited("flush", |suppressed| error!(%err, suppressed, "flush failed"));
        }
        reply
    }

    fn report_malformed(&self, batch: &Batch) {
        for err in batch.pending.iter().filter_map(|p| p.request.err()) {
            self.limited("malformed", |suppressed| {
                warn!(%err, suppressed, "malformed request from the guest");
            });
        }
    }

    /// Logs a line, unless it was logged within the last second. Passes on the number of lines that
    /// were suppressed, if any.
    fn limited(&self, line: &'static str, log: impl FnOnce(Option<u64>)) {
        let admitted = lock(&self.limits).entry(line).or_default().admit(Instant::now());
        if let Some(suppressed) = admitted {
            log((suppressed > 0).then_some(suppressed));
        }
    }
}

/// Refuses memory that exceeds its file: accessing it would end the process with SIGBUS.
fn check_backing(memory: &GuestMemoryMmap) -> io::Result<()> {
    for region in memory.iter() {
        let Some(at) = region.file_offset() else { continue };
        // Not `metadata`: the sandbox has no system call that finds files by name.
        let stat = rustix::fs::fstat(at.file())?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let end = at.start().checked_add(region.len());
        if is_file && end.is_none_or(|end| end > size) {
            return Err(io::Error::other(format!(
                "memory table: {} bytes at offset {} of a file of {size} bytes",
                region.len(),
                at.start()
            )));
        }
    }
    Ok(())
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << F_SHMEM_REGION
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    /// Without CONFIGURE_MEM_SLOTS: QEMU 11.1 crashes on the next start if it was negotiated and a
    /// window is mapped. Without CONFIG: the configuration space only tells where the memory is if
    /// it is not in a shared memory region, and QEMU warns about an unused one.
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::BACKEND_SEND_FD
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::SHMEM
            | VhostUserProtocolFeatures::MQ
    }

    fn acked_features(&self, features: u64) {
        let has_region = features & 1 << F_SHMEM_REGION != 0;
        let started = self.state().life.on_start();
        let features = format_args!("{features:#x}");
        if !has_region {
            self.limited("old driver", |suppressed| {
                warn!(
                    features,
                    suppressed,
                    "the guest's driver does not use VIRTIO_PMEM_F_SHMEM_REGION: it does not find \
                     the pool; its kernel is too old, or the VMM does not offer it the feature"
                );
            });
        }
        match started {
            Ok(_) => self.limited("started", |suppressed| {
                info!(features, suppressed, "started by the guest");
            }),
            Err(err) => {
                let mut state = self.state();
                state.unfit = Some(err);
                state.fit = None;
            }
        }
    }

    fn set_event_idx(&self, _enabled: bool) {
        // VIRTIO_F_EVENT_IDX is not offered.
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        check_backing(&memory.memory())?;
        let holds_window = self.holds_window(&memory.memory());
        debug!(regions = memory.memory().num_regions(), holds_window, "memory table");
        let action = self.state().life.on_table(holds_window);
        match action {
            OnTable::Nothing => {}
            OnTable::Send(generation) => self.post_map(generation),
            OnTable::Kept => self.limited("kept", |suppressed| {
                info!(suppressed, "window is still mapped");
            }),
        }
        Ok(())
    }

    fn set_backend_req_fd(&self, backend: Backend) {
        // Without REPLY_ACK, the front-end promises no answers, and the library would report every
        // map as done. But the front-end must answer this one, or the window counts as not mapped.
        backend.set_reply_ack_flag(true);
        let mut state = self.state();
        state.channel = Some(backend);
        state.life.on_channel();
    }

    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        self.state().life.on_regions();
        let regions = self.window.regions();
        // A window has one or two regions.
        let count = u32::try_from(regions.len()).map_err(io::Error::other)?;
        Ok(VhostUserShMemConfig::new(count, &regions))
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        let (consumer, notifier) =
            new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()?;
        self.state().exit = Some(consumer.as_raw_fd());
        Some((consumer, notifier))
    }

    fn stop_vring(&self, _queue: u32) -> io::Result<()> {
        self.state().life.on_stop();
        self.limited("stopped", |suppressed| info!(suppressed, "stopped"));
        Ok(())
    }

    /// Never fails: an error would silently end the queue's thread.
    fn handle_event(
        &self,
        _event: u16,
        _events: EventSet,
        rings: &[Ring],
        _thread: usize,
    ) -> io::Result<()> {
        rings.iter().for_each(|ring| self.serve(ring));
        Ok(())
    }
}
