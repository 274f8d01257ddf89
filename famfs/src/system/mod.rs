// SPDX-License-Identifier: Apache-2.0 OR MIT
//! This machine: its mounts, its processes, its locks and files.

pub mod faults;
pub mod generation;
pub mod holders;
pub mod lock;
pub mod long_path;
pub mod mounts;
pub mod neighbours;
pub mod output_file;
pub mod ownership;
pub mod parent;
pub mod port;
pub mod process;
pub mod runtime;
pub mod seccomp;
pub mod throttle;
pub mod wake;
pub mod watcher;
