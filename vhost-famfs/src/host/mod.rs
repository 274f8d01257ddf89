// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is asked of this host and its kernel: memory, processes, privileges, signals. Everything else builds on it.

pub mod memory;
pub mod privileges;
pub mod residency;
pub mod signals;
pub mod sys;
