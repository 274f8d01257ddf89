// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `keep-logs`.

use anyhow::{Context, Result, anyhow};

use crate::args::KeepLogsConfig;
use crate::bounded_log::Keeper;
use crate::{privileges, signals};

pub(super) fn run(config: &KeepLogsConfig) -> Result<()> {
    let stop = signals::stop_requests().context("cannot handle signals")?;
    let keeper = Keeper::open(&config.logs, config.limit)?;
    // It reads what guests wrote, and does nothing with it but to write it down.
    privileges::drop_all().map_err(|(action, errno)| anyhow!("cannot {action}: {errno}"))?;
    keeper.run(stop).context("cannot wait for the pipes")
}
