// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The thread that asks the front-end to map the window.
//!
//! QEMU answers a map only after the message it is waiting on has been replied to, so the
//! callbacks must never wait for that answer; they post an order here.

use std::io;
use std::sync::Weak;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{Backend, VhostUserFrontendReqHandler};

use crate::device::Device;
use crate::lifecycle::Generation;
use crate::pmem::SHMEM_REGION_ID;
use crate::pool::Pool;
use crate::window::Window;

/// One map to send.
pub struct Order {
    /// The start that it belongs to.
    pub generation: Generation,
    /// The channel to the front-end.
    pub channel: Backend,
}

/// Starts the thread; it ends when the sender is dropped.
pub fn spawn(device: Weak<Device>) -> io::Result<Sender<Order>> {
    let (sender, orders) = channel();
    thread::Builder::new().name("mapper".to_owned()).spawn(move || run(&device, &orders))?;
    Ok(sender)
}

fn run(device: &Weak<Device>, orders: &Receiver<Order>) {
    while let Ok(order) = orders.recv() {
        let Some(device) = device.upgrade() else { return };
        if device.wants_map(order.generation) {
            let result = send(&order.channel, device.pool(), device.window());
            device.on_map_answer(order.generation, result);
        }
    }
}

/// Sends SHMEM_MAP for the window and waits for the answer; returns how long that took.
fn send(channel: &Backend, pool: &Pool, window: Window) -> (Duration, io::Result<()>) {
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
