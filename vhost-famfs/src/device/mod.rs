// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A virtio-pmem device behind a vhost-user connection.
//!
//! ```text
//! listen -> server -> vhost_user (Device) -> lifecycle -> mapper: SHMEM_MAP to the VMM
//!                                         -> ring, queue -> pmem: requests and replies
//!                                         -> durability: what a flush may answer
//! ```
//!
//! The process confines itself in a [`sandbox`] before a guest can reach it.

pub mod durability;
pub mod lifecycle;
pub mod listen;
pub mod mapper;
pub mod pmem;
pub mod queue;
pub mod ring;
pub mod sandbox;
pub mod server;
pub mod vhost_user;
