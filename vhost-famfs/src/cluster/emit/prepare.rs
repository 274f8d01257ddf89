// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands that prepare a start: directories, the pool, its file system and contents.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{ROLE, Register};
use crate::cluster::plan::{ClusterPlan, PoolPlan, VmPlan};
use crate::pool::Owners;
use crate::vm::shell_quoted;

/// Whether a shell command may span lines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    Many,
    One,
}

/// The shell commands that prepare the pool, in order. An existing pool is not created again, and a
/// pool that cannot be filled is removed again. As in `up`, a pool that users other than this one
/// and root can change is refused.
pub(super) fn pool(plan: &ClusterPlan, lines: Lines) -> Vec<String> {
    let path = &plan.pool.path;
    let on_path = |words: &[&str]| {
        let words = std::iter::once(OsString::from(&plan.program))
            .chain(words.iter().map(Into::into))
            .chain([path.clone().into()]);
        shell_quoted(&words.collect::<Vec<_>>())
    };
    let mut commands = fill(plan);
    if let Some(create) = create(plan) {
        let (begin, next) =
            if lines == Lines::Many { ("\n    ", "\n        ") } else { (" ", " ") };
        let fill = match commands.is_empty() {
            true => String::new(),
            false => {
                let all = commands.join(&format!(" &&{next}"));
                let remove = on_path(&["pool", "rm", "--force"]);
                format!(" && {{{next}{all} ||{next}{{ {remove}; false; }}{begin}}}")
            }
        };
        let end = if lines == Lines::Many { "\n" } else { " " };
        let path = shell_quoted(&[path.into()]);
        commands = vec![format!("[ -e {path} ] || {{{begin}{create}{fill};{end}}}")];
    }
    if plan.pool.owners == Owners::Trusted {
        commands.push(format!("{} > /dev/null", on_path(&["pool", "inspect", "--trusted"])));
    }
    commands
}

/// The command that creates the pool, if it does not exist.
fn create(plan: &ClusterPlan) -> Option<String> {
    let options = plan.pool.create.as_ref()?;
    let mut words: Vec<OsString> =
        vec![plan.program.clone().into(), "pool".into(), "create".into()];
    words.push(plan.pool.path.clone().into());
    words.extend(["--size".into(), options.size.to_string().into()]);
    words.extend(["--view".into(), options.view.name().into()]);
    if let Some(node) = options.numa {
        words.extend(["--numa".into(), node.to_string().into()]);
    }
    if options.prefault {
        words.push("--prefault".into());
    }
    Some(shell_quoted(&words))
}

/// The commands that create a file system in it and copy files into it.
fn fill(plan: &ClusterPlan) -> Vec<String> {
    let PoolPlan { path, mkfs, imports, owners, .. } = &plan.pool;
    let famfs = famfs_beside(&plan.program);
    let mut commands = Vec::new();
    let on_pool = |rest: &[OsString]| {
        let mut words: Vec<OsString> = vec![famfs.clone().into(), "--pool".into()];
        words.push(path.clone().into());
        if *owners == Owners::Any {
            words.push("--foreign-pool".into());
        }
        words.extend(rest.iter().cloned());
        shell_quoted(&words)
    };
    if let Some(mkfs) = mkfs {
        let mut rest: Vec<OsString> = vec!["mkfs".into(), "--system-uuid".into()];
        rest.push(mkfs.system.to_string().into());
        if let Some(length) = mkfs.log_len {
            rest.extend(["--loglen".into(), length.to_string().into()]);
        }
        if let Some(size) = mkfs.size {
            rest.extend(["--size".into(), size.to_string().into()]);
        }
        commands.push(on_pool(&rest));
    }
    for import in imports {
        let to = import.to.as_ref().map(ToString::to_string).unwrap_or_default();
        let to: OsString = format!("/{to}").into();
        let skip = import.skip_unsupported.then(|| OsString::from("--skip-unsupported"));
        // The commands may run in another directory.
        let from = std::path::absolute(&import.from).unwrap_or_else(|_| import.from.clone());
        let (first, last): (Vec<OsString>, OsString) = match import.from.is_dir() {
            true => (vec!["cp".into(), "-r".into()], from.join(".").into()),
            false => (vec!["import".into()], from.into()),
        };
        let input = (!import.from.is_dir()).then(|| OsString::from("--input"));
        let words: Vec<OsString> =
            first.into_iter().chain(skip).chain(input).chain([last, to]).collect();
        commands.push(on_pool(&words));
    }
    commands
}

/// The command that creates the directories of a cluster, so that other commands find it.
pub(super) fn start(plan: &ClusterPlan, register: &Register) -> Vec<OsString> {
    let mut words = emitted(plan, "start");
    words.push(register.state.clone().into());
    words
}

/// The command that stops what remains of a cluster and removes its directory.
pub(super) fn stop(plan: &ClusterPlan) -> Vec<OsString> {
    let mut words = emitted(plan, "stop");
    words.extend([plan.name.clone().into(), plan.instance.to_string().into()]);
    words
}

fn emitted(plan: &ClusterPlan, what: &str) -> Vec<OsString> {
    let base = plan.dir.parent().unwrap_or(Path::new("/"));
    vec![plan.program.clone().into(), "emitted".into(), what.into(), base.into()]
}

/// The environment variables that identify a process of a cluster.
pub(super) fn environment(plan: &ClusterPlan, register: &Register, role: &str) -> [String; 2] {
    [format!("{}={}", register.mark, plan.instance), format!("{ROLE}={role}")]
}

/// The directories that must exist: the cluster's, and one per VM for its sockets.
fn directories(plan: &ClusterPlan) -> Vec<PathBuf> {
    let vms = plan.vms.iter().map(|vm| vm.config.paths.runtime_dir.clone());
    std::iter::once(plan.dir.clone()).chain(vms).collect()
}

/// The command that creates them.
pub(super) fn make_directories(plan: &ClusterPlan) -> String {
    let words = ["mkdir", "-p"].map(OsString::from);
    let directories = directories(plan).into_iter().map(OsString::from);
    shell_quoted(&words.into_iter().chain(directories).collect::<Vec<_>>())
}

/// Why a VM gets the pool this way, as a comment.
pub(super) fn remark(vm: &VmPlan) -> String {
    format!("VM {}: {}, transport {} ({})", vm.name(), vm.access, vm.transport, vm.reason)
}

/// `famfs` is installed next to `vhost-famfs`.
fn famfs_beside(program: &Path) -> PathBuf {
    program.with_file_name("famfs")
}
