// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shared by the two programs of the appliance, `appliance-init` and `appliance-agent`: the files
//! that one writes and the other reads.
//!
//! What they share with the host is in the crate `protocol`.

pub mod given;
pub mod report;
