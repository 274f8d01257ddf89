// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The thread that asks the front-end to map the window.
//!
//! QEMU answers a map only after it has got the reply to its own pending message. The callbacks
//! that send this reply must therefore never wait for the answer; they post an order here.

use std::io;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{Backend, VhostUserFrontendReqHandler};

use super::lifecycle::Generation;
use super::pmem::SHMEM_REGION_ID;
use crate::pool::{Pool, Window};

/// A map to send.
pub struct Order {
    /// The start for which it is sent.
    pub generation: Generation,
    /// The channel to the front-end.
    pub channel: Backend,
}

/// Starts the thread. It carries out orders one by one and ends when the sender is dropped.
pub fn spawn(
    orders: Receiver<Order>,
    carry_out: impl Fn(Order) + Send + 'static,
) -> io::Result<()> {
    let mapper = thread::Builder::new().name("mapper".to_owned());
    mapper.spawn(move || orders.into_iter().for_each(carry_out)).map(drop)
}

/// Sends SHMEM_MAP for the window, waits for the answer, and returns how long that took.
pub fn send(channel: &Backend, pool: &Pool, window: Window) -> (Duration, io::Result<()>) {
    let request = VhostUserMMap {
        shmid: SHMEM_REGION_ID,
        fd_offset: window.offset(),
        shm_offset: 0,
        len: window.len(),
        flags: VhostUserMMapFlags::WRITABLE.bits(),
        ..VhostUserMMap::default()
    };
    let begin = Instant::now();
    let result = channel.shmem_map(&request, pool.file()).map(|_| ());
    (begin.elapsed(), result)
}
