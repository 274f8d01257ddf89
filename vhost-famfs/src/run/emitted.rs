// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `emitted`.

use anyhow::Result;

use super::notice;
use vhost_famfs::args::EmittedConfig;
use vhost_famfs::cluster::emitted;

pub(super) fn run(config: &EmittedConfig) -> Result<()> {
    match config {
        EmittedConfig::Start { base, state } => Ok(emitted::start(base, state)?),
        EmittedConfig::Stop { base, name, instance, limit } => {
            if let Some(logs) = emitted::stop(base, name, *instance, *limit)? {
                notice(format_args!(
                    "the logs are in {} until the next start of {name}",
                    logs.display()
                ));
            }
            Ok(())
        }
    }
}
