// SPDX-License-Identifier: Apache-2.0 OR MIT
//! This host and its kernel: memory, processes, privileges, signals. All other modules build on
//! this one.

pub mod memory;
pub mod numa;
pub mod privileges;
pub mod processors;
pub mod residency;
pub mod signals;
pub mod sys;
