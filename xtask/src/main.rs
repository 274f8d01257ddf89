// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Build, test and demonstrate vhost-famfs: `cargo xtask help`.

fn main() {}
