// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The seed of random tests.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// The variable with the seed; if it is not set, one is taken from the clock.
const VARIABLE: &str = "VHOST_FAMFS_SEED";

/// A seed, and the name of the variable that gives it again.
pub fn seed() -> Result<(u32, &'static str)> {
    let seed = match env::var(VARIABLE) {
        Ok(text) => {
            text.parse().with_context(|| format!("{VARIABLE}={text} is no 32-bit number"))?
        }
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos(),
    };
    Ok((seed, VARIABLE))
}
