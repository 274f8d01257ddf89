// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tools and library for famfs pools.
pub mod view;
