// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the program does once it knows what is asked.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::args::{Config, DeviceConfig, LogFormat, Source};
use crate::pool::{self, Pool, Report};
use crate::server::Server;
use crate::window::Window;
use crate::{signals, sys};

/// Runs one command to its end.
pub fn run(config: Config) -> Result<()> {
    match config {
        Config::Create { options, json } => print(&pool::create(&options)?, json),
        Config::Inspect { path, json } => print(&pool::inspect(&path)?, json),
        Config::Capabilities => say(json!({ "type": "pmem", "features": [] })),
        Config::Device(config) => device(config),
    }
}

fn print(report: &Report, json: bool) -> Result<()> {
    if json { say(serde_json::to_string(report)?) } else { say(report) }
}

/// Prints a result. A reader that has closed the pipe has read enough.
fn say(text: impl Display) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => {
            Err(err).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

fn device(config: DeviceConfig) -> Result<()> {
    // First of all, before the process opens anything: the numbers belong to the parent.
    let inherited = |source: &Source, option: &str| match source {
        Source::Path(_) => Ok(None),
        Source::Fd(number) => {
            sys::inherited_fd(*number).map(Some).with_context(|| format!("{option} {number}"))
        }
    };
    let pool_fd = inherited(&config.pool, "--pool-fd")?;
    let socket_fd = inherited(&config.socket, "--fd")?;
    start_log(config.log_format, config.verbose);
    let stop = signals::stop_requests().context("cannot handle signals")?;

    let pool = match (&config.pool, pool_fd) {
        (Source::Path(path), _) => Pool::open(path)?,
        (Source::Fd(_), Some(fd)) => Pool::from_fd(fd)?,
        (Source::Fd(number), None) => bail!("--pool-fd {number}: not open"),
    };
    let window = Window::new(pool.size(), config.offset, config.length)
        .with_context(|| format!("pool {}", pool.path().display()))?;
    if config.readonly {
        bail!(readonly_refused(&pool));
    }
    info!(
        path = %pool.path().display(),
        dev = pool.identity().dev,
        ino = pool.identity().ino,
        size = pool.size(),
        kind = pool.kind().name(),
        offset = window.offset(),
        len = window.len(),
        "pool open"
    );
    let server = match (&config.socket, socket_fd) {
        (Source::Path(path), _) => Server::bind(path)?,
        (Source::Fd(number), None) => bail!("--fd {number}: not open"),
        (Source::Fd(number), Some(fd)) => {
            Server::from_fd(fd).with_context(|| format!("--fd {number}"))?
        }
    };
    server.run(pool, window, stop)?;
    Ok(())
}

fn readonly_refused(pool: &Pool) -> String {
    format!(
        "--readonly: refused, because QEMU 11.1 maps the window writable whatever the back-end \
         asks for, and the guest could change the pool; let QEMU map the pool itself, without \
         this program:\n  \
         -m 1G,slots=1,maxmem={maxmem}M \\\n  \
         -object memory-backend-file,id=pool,share=on,readonly=on,mem-path={path},size={size},align=2M \\\n  \
         -device virtio-pmem-pci,memdev=pool",
        maxmem = (pool.size() >> 20) + 1024,
        path = pool.path().display(),
        size = pool.size(),
    )
}

fn start_log(format: LogFormat, verbose: bool) {
    // The queue library logs every error that a guest causes, without a limit; ours are limited.
    let level = if verbose { "debug" } else { "info" };
    let filter = EnvFilter::new(format!("warn,vhost_famfs={level},virtio_queue=off"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that nobody reads any more is no reason to panic in a thread that serves the VM.
        .log_internal_errors(false)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
