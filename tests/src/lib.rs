// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clusters of appliance VMs on one pool: shared by the tests that boot virtual machines, the
//! benchmarks and the demo.
//!
//! ```text
//! Artifacts (what was built) -> Pool (host memory) -> Cluster of Nodes (VM, back-end)
//! ```

mod artifacts;
mod cluster;
mod disk;
pub mod health;
pub mod interrupt;
mod kernel_log;
mod latency;
mod manifest;
mod memory_dir;
mod pool;
mod relay;
mod root_cache;
mod seed;
mod session;
mod waiting;

pub use artifacts::Artifacts;
pub use cluster::{BOOT, Cluster, Member, Node, Transport};
pub use disk::{mount_disk, pack_disk};
pub use latency::{Idle, processor_time, watch_latency};
pub use manifest::{read_tree, send_trees};
pub use memory_dir::memory_dir;
pub use pool::{Pool, View};
pub use relay::RunningRelay;
pub use root_cache::{cached, read_root};
pub use seed::seed;
pub use session::Session;
