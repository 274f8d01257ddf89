// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs creat`

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use famfs::format::path::RelPath;
use famfs::replay::tree::object::{Object, ObjectKind};
use famfs::replay::tree::resolve::LastLink;
use famfs::replay::{Owner, Plan};
use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::write::prng::SeededBytes;
use famfs::write::room::Room;
use famfs::write::transfer::How;
use famfs::write::volume::{COPY_STEP, FileBytes, steps};
use famfs::write::writer::Writer;
use famfs_cli::args::Creat;
use indicatif::ProgressBar;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::output::{FAILED, INTERRUPTED, OK, OrExit, Outcome};
use crate::output::{notice, print_json, progress_bar, say, stop_flag, stopped};
use crate::place::{Place, masked, names_dir, owner, paths_of_one, striping};

const DEFAULT_MODE: u32 = 0o644;
/// Total bytes of several files from which on starting threads to fill them pays off.
const WORTH_A_THREAD: u64 = 4 << 20;

#[derive(Serialize)]
struct CreatReport {
    version: u32,
    dry_run: bool,
    files: Vec<Job>,
}

/// A file to make, or one that exists.
#[derive(Clone, Serialize)]
struct Job {
    #[serde(serialize_with = "as_name", flatten)]
    path: RelPath,
    bytes: u64,
    seed: Option<u32>,
    /// "create" it, or "keep" the existing file.
    action: &'static str,
}

fn as_name<S: Serializer>(path: &RelPath, serializer: S) -> Result<S::Ok, S::Error> {
    Name::new("path", path.as_bytes()).serialize(serializer)
}

pub fn run(pool: Option<&Path>, args: &Creat) -> Outcome {
    let stop = stop_flag()?;
    let names: Vec<&Path> = match &args.path {
        Some(path) => vec![path],
        None => args.multi.iter().map(|file| file.path.as_path()).collect(),
    };
    let Some(first) = names.first() else { return Ok(OK) };
    if let Some(dir) = names.iter().find(|name| names_dir(name)) {
        let name = dir.display();
        return Err(anyhow!("{name} is the name of a directory, expected one of a file").into());
    }
    let place = Place::open(pool, Some(first), Access::Write)?;
    let mut writer = place.writer(args.change.dry_run)?;
    if let Some(striping) = striping(&args.interleave)? {
        writer.interleave(striping)?;
    }
    let jobs = jobs(args, paths_of_one(pool, &names)?, writer.plan())?;
    let new = jobs.iter().filter(|job| job.action == "create").count();
    writer.check_slots(new as u64)?;
    let mode = args.owner.mode.map_or(DEFAULT_MODE, masked);
    let owner = owner(args.owner.uid, args.owner.gid, mode);
    let threads = match args.threads {
        0 => How::default().threads,
        threads => threads.into(),
    };
    let filler = Filler { stop: &stop, bar: progress_bar(jobs.iter().map(|job| job.bytes).sum()) };
    let made = make(&mut writer, &jobs, owner, threads, &filler);
    filler.bar.finish_and_clear();
    // Complete files are kept, whatever became of the rest.
    let committed = writer.commit();
    made.or_exit(if stopped(&stop) { INTERRUPTED } else { FAILED })?;
    committed?;
    print_report(args, jobs)?;
    Ok(OK)
}

fn print_report(args: &Creat, jobs: Vec<Job>) -> Result<()> {
    let kept = jobs.iter().filter(|job| job.action == "keep");
    for Job { path, bytes, .. } in kept.filter(|job| job.seed.is_some()) {
        notice!("\"{path}\" exists with {bytes} bytes: kept as it is, not filled");
    }
    if args.change.json {
        return print_json(&CreatReport { version: 1, dry_run: args.change.dry_run, files: jobs });
    }
    if args.change.verbose || args.change.dry_run {
        for Job { path, bytes, seed, action } in jobs {
            let action = if args.change.dry_run { format!("{action} ") } else { String::new() };
            match seed {
                Some(seed) => say!("{action}{path}: {bytes} bytes of seed {seed}")?,
                None => say!("{action}{path}: {bytes} bytes")?,
            }
        }
    }
    Ok(())
}

/// What to do for each file; refuses what is impossible before anything is made.
fn jobs(args: &Creat, paths: Vec<RelPath>, plan: &Plan) -> Result<Vec<Job>> {
    let sizes = match (args.size, args.path.is_some()) {
        (Some(size), true) => vec![(size, args.seed)],
        _ => args.multi.iter().map(|file| (file.size, file.seed)).collect(),
    };
    let mut seen = std::collections::HashSet::new();
    let mut jobs = Vec::new();
    for (path, (bytes, seed)) in paths.into_iter().zip(sizes) {
        let path = plan.tree().resolve(&path, LastLink::Follow)?;
        let path = path.context("a symbolic link leads to the root, expected a file")?;
        if !seen.insert(path.clone()) {
            bail!("\"{path}\" is named twice");
        }
        // Zero asks for a random seed, as with the reference.
        let seed = match seed {
            Some(0) => Some(random_seed()),
            None if args.randomize => Some(random_seed()),
            seed => seed,
        };
        let object = plan.tree().get(&path).map(|listed| listed.object);
        let action = match object.map(|object| &object.kind) {
            None => "create",
            Some(ObjectKind::File { size, .. }) if *size == bytes => "keep",
            Some(ObjectKind::File { size, .. }) => {
                bail!("\"{path}\" exists with {size} bytes, not {bytes}")
            }
            Some(_) => bail!("\"{path}\" is a {}", object.map_or("", Object::kind_name)),
        };
        jobs.push(Job { path, bytes, seed, action });
    }
    Ok(jobs)
}

fn random_seed() -> u32 {
    Uuid::new_v4().as_fields().0.max(1)
}

/// A new file to be filled, with its memory.
type Open<'j, 'v> = (&'j Job, Box<dyn FileBytes + 'v>, Room);

fn bytes_of(open: &[Open<'_, '_>]) -> u64 {
    open.iter().map(|(job, ..)| job.bytes).sum()
}

/// Makes and fills files, several at a time, and adds them to the log in their order.
fn make<'v>(
    writer: &mut Writer<'v>,
    jobs: &[Job],
    owner: Owner,
    threads: usize,
    filler: &Filler<'_>,
) -> Result<()> {
    for group in jobs.chunks(threads.max(1)) {
        let mut open: Vec<Open<'_, 'v>> = Vec::new();
        let mut result = Ok(());
        for job in group {
            match begin(writer, job, owner) {
                Ok(begun) => open.extend(begun),
                Err(err) => {
                    result = Err(err);
                    break;
                }
            }
        }
        let filled: Vec<Result<()>> = match (&result, &open[..]) {
            (Err(_), _) => Vec::new(),
            (Ok(()), all) if all.len() < 2 || bytes_of(all) < WORTH_A_THREAD => {
                all.iter().map(|(job, bytes, _)| filler.fill(job, &**bytes)).collect()
            }
            (Ok(()), all) => thread::scope(|scope| {
                let fill = |(job, bytes, _): &'_ Open<'_, 'v>| filler.fill(job, &**bytes);
                let running: Vec<_> =
                    all.iter().map(|one| scope.spawn(move || fill(one))).collect();
                let end = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
                    thread.join().unwrap_or_else(|_| bail!("a thread of creat panicked"))
                };
                running.into_iter().map(end).collect()
            }),
        };
        let mut filled = filled.into_iter();
        for (job, _, room) in open {
            let complete = filled.next().unwrap_or_else(|| bail!("not reached"));
            if result.is_ok() && complete.is_ok() {
                result = writer.publish(&job.path, owner, room).map_err(Into::into);
            } else {
                writer.abandon(&job.path, &room);
                result = result.and_then(|()| {
                    complete.with_context(|| format!("\"{}\" was not made", job.path))
                });
            }
        }
        result?;
    }
    Ok(())
}

/// Makes a file to be filled; nothing if the file is kept, or in a preview.
fn begin<'j, 'v>(
    writer: &mut Writer<'v>,
    job: &'j Job,
    owner: Owner,
) -> Result<Option<Open<'j, 'v>>> {
    let Job { path, bytes, action, .. } = job;
    if *action == "keep" {
        return Ok(None);
    }
    let room = writer.allocate(path, *bytes)?;
    if writer.is_preview() {
        writer.publish(path, owner, room)?;
        return Ok(None);
    }
    let begun = writer.begin(path, owner, &room);
    let open = begun.inspect_err(|_| writer.release(&room))?;
    Ok(Some((job, open, room)))
}

/// Shared by all threads.
struct Filler<'v> {
    stop: &'v AtomicBool,
    bar: ProgressBar,
}

impl Filler<'_> {
    /// Writes all bytes of a file, and writes their cache lines back.
    fn fill(&self, job: &Job, bytes: &dyn FileBytes) -> Result<()> {
        let mut stream = job.seed.map(SeededBytes::new);
        let mut buf = vec![0; usize::try_from(job.bytes).unwrap_or(COPY_STEP).min(COPY_STEP)];
        for (offset, len) in steps(job.bytes) {
            let buf = &mut buf[..len];
            if let Some(stream) = &mut stream {
                stream.fill(buf);
            }
            bytes.write(offset, buf).with_context(|| format!("cannot write at offset {offset}"))?;
            self.bar.inc(len as u64);
            if stopped(self.stop) {
                bail!("interrupted");
            }
        }
        bytes.finish().context("cannot write back")
    }
}
