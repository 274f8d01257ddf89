// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starting virtual machines that share a pool: command lines, processes, the guest agent.
