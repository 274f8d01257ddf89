// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A daemonless vhost-user back-end that exports a shared memory pool to a guest.

pub mod launch;
