// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What has to be there before the VMs: directories, the pool, its file system, what is in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::launch::plan::{Plan, PoolPlan, VmPlan};
use crate::launch::shell_quoted;

/// The commands, in order, each one line for a shell. Nothing that exists is made again.
pub(super) fn pool(plan: &Plan) -> Vec<String> {
    let PoolPlan { path, create, mkfs, imports, .. } = &plan.pool;
    let program = program(plan);
    let famfs = famfs_beside(&program);
    let mut commands = Vec::new();
    let line = |words: &[OsString]| shell_quoted(words);
    if let Some(options) = create {
        let mut words: Vec<OsString> = vec![program.into(), "pool".into(), "create".into()];
        words.push(path.clone().into());
        words.extend(["--size".into(), options.size.to_string().into()]);
        words.extend(["--view".into(), options.view.name().into()]);
        if let Some(node) = options.numa {
            words.extend(["--numa".into(), node.to_string().into()]);
        }
        if options.prefault {
            words.push("--prefault".into());
        }
        commands.push(line(&words));
    }
    let on_pool = |rest: &[OsString]| {
        let mut words: Vec<OsString> = vec![famfs.clone().into(), "--pool".into()];
        words.push(path.clone().into());
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
        let (first, last): (Vec<OsString>, OsString) = match import.from.is_dir() {
            true => (vec!["cp".into(), "-r".into()], import.from.join(".").into()),
            false => (vec!["import".into()], import.from.clone().into()),
        };
        let input = (!import.from.is_dir()).then(|| OsString::from("--input"));
        let words: Vec<OsString> =
            first.into_iter().chain(skip).chain(input).chain([last, to]).collect();
        commands.push(on_pool(&words));
    }
    commands
}

/// The directories that must exist: the cluster's, and one of each VM for its sockets.
pub(super) fn directories(plan: &Plan) -> Vec<PathBuf> {
    let vms = plan.vms.iter().map(|vm| vm.config.runtime_dir.clone());
    std::iter::once(plan.dir.clone()).chain(vms).collect()
}

/// Why a VM has the pool as it has, for a comment.
pub(super) fn remark(vm: &VmPlan) -> String {
    format!("VM {}: {}, transport {} ({})", vm.name(), vm.access, vm.transport, vm.reason)
}

/// `vhost-famfs`, as back-ends are started.
fn program(plan: &Plan) -> PathBuf {
    let backend = plan.vms.iter().find_map(|vm| vm.backend.as_ref());
    backend.map_or_else(|| PathBuf::from("vhost-famfs"), |backend| backend.program.clone())
}

/// `famfs` is installed where `vhost-famfs` is.
fn famfs_beside(program: &Path) -> PathBuf {
    program.with_file_name("famfs")
}
