// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs watch`

mod master;
mod member;
mod wake;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use famfs::kernel::apply::Appeared;
use famfs::kernel::backoff::Backoff;
use famfs::kernel::follow::{FollowError, Follower, Pace, Step};
use famfs::kernel::mount::Mounted;
use famfs::kernel::player::PlayerError;
use famfs::replay::tree::object::ObjectKind;
use famfs::sys::dax::Access;
use famfs::sys::signal::ignore_poison_notices;
use famfs::system::mounts::{self, Presence};
use famfs::system::watcher::Watcher;
use famfs::text::error_report::one_line;
use famfs::text::json_name::Name;
use famfs_cli::args::Watch;
use sd_notify::NotifyState;
use serde::Serialize;

use self::master::Lease;
use self::member::Membership;
use self::wake::Wake;
use super::play::system_or_client;
use crate::output::{FAILED, OK, Outcome, notice, print_json_line, say, stop_flag, stopped};

/// Exit code if the mounted file system is no longer the one in the memory.
const REMADE: u8 = 3;
/// How long a log that cannot be followed is polled as often as usual: a writer is done by then.
/// After that it is polled with a [`Backoff`].
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two polls of a log that cannot be followed from the start.
const START_PAUSE: Duration = Duration::from_millis(100);
/// Number of different messages that are reported. Another system that keeps changing the memory
/// can cause any number of them; after this many, nothing is reported for [`TELL_PAUSE`].
const MOST_MESSAGES: usize = 100;
const TELL_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause of a watch that is told when others publish: whoever publishes may be unable to
/// tell it.
const TOLD_PAUSE: Duration = Duration::from_millis(500);

/// A line of the JSON output.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    /// The log is played; from now on it is followed.
    Ready { version: u32, mount_point: &'a Path, role: &'static str, files: u64, directories: u64 },
    /// A directory was made.
    Directory {
        #[serde(flatten)]
        path: Name,
        slot: u64,
    },
    /// A file was made.
    File {
        #[serde(flatten)]
        path: Name,
        slot: u64,
        size: u64,
    },
    /// A symbolic link was made.
    Symlink {
        #[serde(flatten)]
        path: Name,
        slot: u64,
        #[serde(flatten)]
        target: Name,
    },
    /// Something went wrong.
    Error { message: &'a str },
    /// Something that went wrong before works again.
    Recovered { message: &'a str },
    /// This system is no longer the one that began to follow the log.
    Resumed { message: &'a str },
    /// The log is no longer followed.
    End { reason: &'static str },
}

pub fn run(args: &Watch) -> Outcome {
    let stop = stop_flag()?;
    // Poisoned memory is reported when it is read.
    ignore_poison_notices().context("cannot ignore SIGBUS")?;
    let found = mounts::locate(&args.mount_point)?;
    let mount_point = found.mount.mount_point;
    let watcher = Watcher::begin(&mount_point)?;
    let mut wake = Wake::listen(&watcher, &mount_point);
    let table = Presence::of(&mount_point)?;
    // A system that may not write is not the master.
    let read_only = Mounted::at(&mount_point, &found.mount.source)?.is_read_only()?;
    let client = args.client || read_only;
    let system = if client { None } else { system_or_client() };
    let mut reporter = Reporter::new(args);
    let start = Instant::now();
    let (mut follower, step) = loop {
        let mounted = Mounted::for_play(&mount_point, &found.mount.source)?;
        let volume = mounted.open(Access::Read, system)?;
        match Follower::start(volume, system, |new| reporter.made(new)) {
            Err(err) if err.may_pass() && start.elapsed() < PATIENCE && !stopped(&stop) => {
                reporter.error(&one_line(&err));
                table.wait(START_PAUSE);
            }
            started => break started?,
        }
    };
    reporter.step(&step);
    reporter.ready(&mount_point, &follower);
    let mut shared = Shared { lease: Lease::new(system), member: Membership::new(!read_only) };
    let waits = Waits { table: &table, wake: &mut wake };
    let end = follow(args, &mut follower, &mut shared, waits, &mut reporter, &stop);
    // Whoever started this may be gone, and there is nobody else to report to.
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    if let Some(failure) = reporter.failure {
        return Err(failure.into());
    }
    match end {
        Ok(reason) => {
            reporter.end(reason)?;
            Ok(OK)
        }
        Err(err) => {
            reporter.end("error")?;
            let code = match err {
                FollowError::Remade { .. }
                | FollowError::Rewritten { .. }
                | FollowError::Player(PlayerError::Rewritten { .. }) => REMADE,
                _ => FAILED,
            };
            Err(crate::output::Failure { code, error: err.into() })
        }
    }
}

/// What this system tells others in the memory.
struct Shared {
    lease: Lease,
    member: Membership,
}

impl Shared {
    /// Keeps it up to date; returns what to report.
    fn tend(&mut self, follower: &Follower) -> impl Iterator<Item = String> + use<> {
        [self.lease.tend(follower), self.member.tend(follower)].into_iter().flatten()
    }

    /// Somebody may wait for an answer.
    fn hurry(&mut self) {
        self.lease.hurry();
        self.member.hurry();
    }

    /// Time until it has to be brought up to date.
    fn left(&self) -> Duration {
        self.lease.left().min(self.member.left())
    }
}

/// What ends a pause.
struct Waits<'w> {
    table: &'w Presence,
    wake: &'w mut Wake,
}

/// Polls and plays until it has to stop; returns the reason.
fn follow(
    args: &Watch,
    follower: &mut Follower,
    shared: &mut Shared,
    Waits { table, wake }: Waits<'_>,
    reporter: &mut Reporter<'_>,
    stop: &AtomicBool,
) -> Result<&'static str, FollowError> {
    let interval = Duration::from_millis(args.interval);
    let mut pace = Pace::new(interval);
    // When to retry what could not be made or removed.
    let mut retry = Backoff::new();
    let mut trouble: Option<Trouble> = None;
    while !stopped(stop) && reporter.failure.is_none() {
        let told = wake.is_told();
        let pause = match told {
            // After a change it looks often: changes come in groups, and a wake-up takes longer.
            true if !pace.is_quick() => TOLD_PAUSE.max(interval).min(shared.left()),
            _ => pace.pause(),
        };
        let trouble_pause = trouble.as_ref().map_or(Duration::ZERO, Trouble::pause);
        let waited = wake.wait(table, shared.lease.taken(), pause.max(trouble_pause));
        if !waited.mounted {
            return Ok("unmounted");
        }
        if waited.woken {
            shared.hurry();
        }
        shared.member.rest(told);
        // First: if the memory is gone, this is an error, and what follows would be a signal.
        let changed = follower.look()?;
        let again = follower.has_failed() && retry.left().is_zero();
        let is_due = changed || again || trouble.is_some();
        let failed_before = follower.has_failed();
        match is_due.then(|| follower.advance(|new| reporter.made(new))).transpose() {
            Ok(None) => pace.relax(),
            Ok(Some(step)) => {
                reporter.step(&step);
                match (failed_before, follower.has_failed()) {
                    (true, true) if again => retry.failed(),
                    (false, true) => retry = Backoff::new(),
                    (true, false) => {
                        reporter.recovered("everything that could not be made or removed now is")
                    }
                    _ => {}
                }
                if let Some(trouble) = trouble.take() {
                    reporter.status(&following(follower, table.mount_point()));
                    if !trouble.is_new() {
                        reporter.recovered("the log can be followed again");
                    }
                }
                pace.hurry();
            }
            // A file system that was formatted again stays so; one that only looks like it for a
            // moment does not.
            Err(err) if err.may_pass() || is_remade(&err) && is_new(trouble.as_ref()) => {
                let text = one_line(&err);
                reporter.error(&text);
                reporter.status(&format!("cannot follow the log: {text}"));
                match &mut trouble {
                    Some(trouble) => trouble.goes_on(),
                    None => trouble = Some(Trouble::new()),
                }
                pace.relax();
            }
            Err(err) => return Err(err),
        }
        // Only now: somebody may wait for what was published, and others see at once how far this
        // system is.
        for problem in shared.tend(follower) {
            reporter.error(&problem);
        }
        if let Some(problem) = shared.member.tell_host(follower, |report| wake.report(report)) {
            reporter.error(&problem);
        }
        if shared.member.take_resumed() {
            reporter.resumed();
        }
    }
    Ok("stopped")
}

fn is_remade(err: &FollowError) -> bool {
    matches!(err, FollowError::Remade { .. })
}

fn is_new(trouble: Option<&Trouble>) -> bool {
    trouble.is_none_or(Trouble::is_new)
}

/// A log that cannot be followed at the moment.
struct Trouble {
    since: Instant,
    backoff: Backoff,
}

impl Trouble {
    fn new() -> Self {
        Self { since: Instant::now(), backoff: Backoff::new() }
    }

    fn is_new(&self) -> bool {
        self.since.elapsed() < PATIENCE
    }

    fn pause(&self) -> Duration {
        if self.is_new() { Duration::ZERO } else { self.backoff.left() }
    }

    fn goes_on(&mut self) {
        if !self.is_new() {
            self.backoff.failed();
        }
    }
}

/// What a watch does, in words.
fn following(follower: &Follower, mount_point: &Path) -> String {
    format!("{}, following the log of {}", follower.role().name(), mount_point.display())
}

/// Reports what happens; every message once.
struct Reporter<'a> {
    args: &'a Watch,
    told: HashSet<String>,
    /// When the last message was reported.
    last: Instant,
    /// The status that was last sent to the service manager.
    status: String,
    /// Why nothing can be reported any more.
    failure: Option<anyhow::Error>,
}

impl<'a> Reporter<'a> {
    fn new(args: &'a Watch) -> Self {
        let (told, last, status) = (HashSet::new(), Instant::now(), String::new());
        Self { args, told, last, status, failure: None }
    }

    fn ready(&mut self, mount_point: &Path, follower: &Follower) {
        let counts = follower.plan().tree().counts();
        let (files, directories) = (counts.files, counts.directories);
        let role = follower.role().name();
        let status = following(follower, mount_point);
        // Without a service manager there is nobody to notify.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        self.status(&status);
        if self.args.json {
            self.event(&Event::Ready { version: 1, mount_point, role, files, directories });
        } else if self.args.verbose {
            self.line(&format!("{status}: {files} files, {directories} directories"));
        }
    }

    fn made(&mut self, Appeared { slot, path, object }: Appeared<'_>) {
        if self.args.json {
            let path = Name::new("path", path.as_bytes());
            self.event(&match &object.kind {
                ObjectKind::Dir { .. } => Event::Directory { path, slot },
                ObjectKind::File { size, .. } => Event::File { path, slot, size: *size },
                ObjectKind::Symlink { target, .. } => {
                    Event::Symlink { path, slot, target: Name::new("target", target) }
                }
            });
        } else if self.args.verbose {
            self.line(&path.to_string());
        }
    }

    fn step(&mut self, step: &Step) {
        for problem in &step.problems {
            self.error(problem);
        }
        for error in &step.applied.errors {
            self.error(&one_line(error));
        }
    }

    fn error(&mut self, message: &str) {
        if self.told.len() >= MOST_MESSAGES && self.last.elapsed() >= TELL_PAUSE {
            self.told.clear();
        }
        let room = self.told.len() < MOST_MESSAGES;
        if room && self.told.insert(message.to_owned()) {
            self.last = Instant::now();
            notice!("{message}");
            if self.args.json {
                self.event(&Event::Error { message });
            }
        }
    }

    /// Reports that errors are over. Later errors are reported again.
    fn recovered(&mut self, message: &str) {
        self.told.clear();
        notice!("{message}");
        if self.args.json {
            self.event(&Event::Recovered { message });
        }
    }

    /// Reports that this system was resumed from a snapshot. Errors are reported again: those
    /// before were another system's.
    fn resumed(&mut self) {
        let message = "this VM was resumed from a snapshot: it leaves lease and place among the \
                       members to the VM that was saved, and takes new ones";
        self.told.clear();
        notice!("{message}");
        if self.args.json {
            self.event(&Event::Resumed { message });
        }
    }

    /// Sends the status to the service manager, if there is one.
    fn status(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            let _ = sd_notify::notify(&[NotifyState::Status(status)]);
        }
    }

    fn end(&self, reason: &'static str) -> Result<()> {
        if self.args.json { print_json_line(&Event::End { reason }) } else { Ok(()) }
    }

    fn event(&mut self, event: &Event<'_>) {
        self.failure = self.failure.take().or_else(|| print_json_line(event).err());
    }

    fn line(&mut self, text: &str) {
        self.failure = self.failure.take().or_else(|| say!("{text}").err());
    }
}
