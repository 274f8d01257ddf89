// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `device`.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use famfs::text::terminal::Escaping;
use listenfd::ListenFd;
use rustix::io::fcntl_dupfd_cloexec;
use sd_notify::NotifyState;
use tracing::{info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use vhost_famfs::args::{DeviceConfig, LogFormat, Source};
use vhost_famfs::device::listen::Socket;
use vhost_famfs::device::sandbox::Sandbox;
use vhost_famfs::device::server;
use vhost_famfs::host::{signals, sys};
use vhost_famfs::pool::{Kind, Pool, Window};
use vhost_famfs::vm::shell_quoted;

/// The first descriptor that is not a standard stream.
const FIRST_FREE: i32 = 3;

pub(super) fn run(config: DeviceConfig) -> Result<()> {
    // Must come before the process opens anything: the descriptor numbers were chosen by the
    // parent.
    let inherited = |source: &Source, option: &str| match source {
        Source::Path(_) => Ok(None),
        Source::Fd(number) => {
            sys::inherited_fd(*number).map(Some).with_context(|| format!("{option} {number}"))
        }
        Source::Activation => activated().map(Some),
    };
    let pool_fd = match &config.pool {
        // Other code of this process also uses standard input, so it is copied, not taken.
        Source::Fd(0) => Some(
            fcntl_dupfd_cloexec(io::stdin(), FIRST_FREE).context("--pool-fd 0, standard input")?,
        ),
        pool => inherited(pool, "--pool-fd")?,
    };
    let socket_fd = inherited(&config.socket, "--fd")?;
    sys::share_one_heap();
    sys::find_code();
    start_log(config.log_format, config.verbose);
    let stop = signals::stop_requests().context("cannot handle signals")?;

    let pool = match (&config.pool, pool_fd) {
        (_, Some(fd)) => Pool::from_fd(fd)?,
        (Source::Path(path), None) => Pool::open(path, config.owners)?,
        (_, None) => bail!("--pool-fd: the descriptor is not open"),
    };
    let window = Window::new(pool.size(), pool.unit(), config.offset, config.length)
        .with_context(|| format!("pool {}", pool.path().display()))?;
    if config.readonly {
        bail!(readonly_refused(&pool));
    }
    pool.check_part(window.offset(), window.len())?;
    if pool.kind() == Kind::Devdax {
        bail!(devdax_refused(&pool));
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
    let sandbox = config.sandbox.map(Sandbox::prepare).transpose()?;
    let socket = match (&config.socket, socket_fd) {
        (_, Some(fd)) => Socket::from_fd(fd)?,
        (Source::Path(path), None) => Socket::bind(path)?,
        (_, None) => bail!("--fd: the descriptor is not open"),
    };
    notify(&[NotifyState::Ready, NotifyState::Status("waiting for the VM")]);
    let sandbox = sandbox.map(Sandbox::enter).transpose()?;
    let connecting = || notify(&[NotifyState::Status("serving the VM")]);
    server::serve(socket, pool, window, stop, sandbox.as_ref(), connecting)?;
    Ok(())
}

/// Returns the socket that systemd passes.
fn activated() -> Result<OwnedFd> {
    let mut passed = ListenFd::from_env();
    if passed.len() > 1 {
        bail!("systemd passes {} sockets, expected one: each back-end serves one VM", passed.len());
    }
    let listener = passed.take_unix_listener(0).context("the socket that systemd passes")?;
    let listener = listener.context(
        "LISTEN_FDS is set, but for another process (LISTEN_PID); use --socket-path or --fd",
    )?;
    Ok(listener.into())
}

/// Notifies the service manager, if there is one.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(err) = sd_notify::notify(state) {
        warn!(%err, "cannot notify the service manager");
    }
}

/// Command-line options for a QEMU that maps the pool itself.
fn without_backend(pool: &Pool, readonly: bool) -> String {
    let path = pool.path().display().to_string();
    let readonly = if readonly { "readonly=on," } else { "" };
    // In QEMU's option syntax, a comma ends a value; two commas stand for one.
    let backend = format!(
        "memory-backend-file,id=pool,share=on,{readonly}mem-path={},size={},align={}M",
        path.replace(',', ",,"),
        pool.size(),
        pool.unit() >> 20,
    );
    format!(
        "  -m 1G,slots=1,maxmem={maxmem}M \\\n  \
         -object {backend} \\\n  \
         -device virtio-pmem-pci,memdev=pool",
        maxmem = (pool.size() >> 20) + 1024,
        backend = shell_quoted(&[backend.into()]),
    )
}

fn readonly_refused(pool: &Pool) -> String {
    format!(
        "--readonly: not possible with this device: QEMU 11.1 maps the window writable no matter \
         what the back-end asks for, so the guest could change the pool; let QEMU map the pool \
         itself, without this program:\n{}",
        without_backend(pool, true)
    )
}

fn devdax_refused(pool: &Pool) -> String {
    format!(
        "pool {}: cannot be used by this device: QEMU 11.1 maps windows at addresses that are not \
         multiples of {} MiB, which a devdax device needs; let QEMU map the device itself, without \
         this program:\n{}",
        pool.path().display(),
        pool.unit() >> 20,
        without_backend(pool, false)
    )
}

pub(super) fn start_log(format: LogFormat, verbose: bool) {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
    // The queue library logs every error that a guest causes, without a limit. Ours has a limit.
    let levels = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("vhost_famfs", level)
        .with_target("virtio_queue", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer()
        // A thread that serves the VM must not panic because nobody reads the log.
        .log_internal_errors(false)
        // No colours: log lines quote the VM, and its control sequences must not pass.
        .with_writer(|| Escaping::new(io::stderr()))
        .with_ansi(false);
    let log = tracing_subscriber::registry().with(levels);
    match format {
        LogFormat::Text => log.with(lines).init(),
        LogFormat::Json => log.with(lines.json()).init(),
    }
}
