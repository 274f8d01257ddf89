// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the two programs of the appliance, `appliance-init` and `appliance-agent`, share: the files
//! in which one leaves something for the other.
//!
//! What they share with the host is the crate `protocol`.

pub mod given;
pub mod report;
