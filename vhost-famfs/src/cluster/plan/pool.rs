// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pool of a cluster: an existing one, or one to be created.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use famfs::format::view::View;
use famfs::media::PoolFile;
use famfs::store::mkfs;
use famfs::store::superblock::{MIN_DEVICE_LEN, Superblock, SuperblockError};
use famfs::sys::dax;
use famfs::text::units::Bytes;
use uuid::Uuid;

use super::{MkfsPlan, PlanError, PoolPlan};
use crate::cluster::host::Host;
use crate::cluster::sizing::Needs;
use crate::cluster::spec::{Access, PoolKind, PoolSpec, Spec};
use crate::pool::{self, CreateOptions, Form, Identity, Kind, Owners, PoolError};

/// The pool, and the system UUID of its master.
pub(super) fn plan(spec: &Spec, host: &Host, files: bool) -> Result<(PoolPlan, Uuid), PlanError> {
    let (mut needs, mut left_out) = (Needs::default(), Vec::new());
    for import in &spec.imports {
        let (more, items) = Needs::of(import)?;
        needs = needs.and(more);
        left_out.push(items);
    }
    let asked = &spec.pool;
    let path = match &asked.path {
        Some(path) => path.clone(),
        None => own_pool(&spec.name, asked, host)?,
    };
    let own = asked.path.is_none();
    let owners = Owners::foreign(asked.foreign && !own);
    if own {
        pool::check_own_directory(path.parent().unwrap_or(Path::new("/")))?;
    }
    let exists = path.symlink_metadata().is_ok();
    let mut identity = None;
    let (kind, size, view, create) = if exists {
        let form = existing(asked, &path, owners)?;
        identity = Some(form.identity);
        (form.kind, form.size, form.view, None)
    } else {
        let options = new_pool(asked, &path, needs, !spec.imports.is_empty())?;
        let kind = pool::kind_for(&path)?;
        if let Some(other) = asked.kind.map(PoolKind::as_kind).filter(|asked| *asked != kind) {
            let what = "the kind of a new file in its directory";
            let asked = other.name().to_owned();
            return Err(PlanError::OtherPool { path, what, found: kind.name().into(), asked });
        }
        (kind, options.size, options.view, Some(options))
    };
    if kind == Kind::Devdax && !spec.imports.is_empty() {
        return Err(PlanError::ImportDevdax(path));
    }
    let present = if exists && kind != Kind::Devdax { superblock(&path)? } else { None };
    let system = present.as_ref().map_or_else(Uuid::new_v4, |superblock| superblock.system_uuid);
    // A devdax device is formatted by a VM.
    let wanted = files && present.is_none() && kind != Kind::Devdax;
    let data_offset = view.data_offset();
    let slice = first_slice(spec).filter(|_| wanted);
    let limit = slice.map(|(offset, _)| offset);
    let device_len = limit.unwrap_or(size).saturating_sub(data_offset);
    let log_len = (!spec.imports.is_empty()).then(|| needs.room().log_len(device_len));
    let mkfs = wanted.then_some(MkfsPlan {
        log_len,
        size: limit.map(|limit| limit.saturating_sub(data_offset)),
        system,
    });
    // The file system must fit before the first slice; without slices, it takes the whole pool.
    if let Some((limit, name)) = slice
        && mkfs::log_len(log_len, device_len, true).is_err()
    {
        let (offset, least) = (Bytes(limit), Bytes(MIN_DEVICE_LEN + data_offset));
        return Err(PlanError::SliceInFront { name: name.to_owned(), offset, least });
    }
    let famfs_end = match (&present, limit) {
        (Some(superblock), _) => Some(data_offset + superblock.capacity(size - data_offset)),
        (None, Some(limit)) => Some(limit),
        (None, None) => wanted.then_some(size),
    };
    // A pool that already existed was kept or belongs to somebody: it is not removed with this
    // cluster.
    let (ours, imports) = (own && !exists, spec.imports.clone());
    let plan = PoolPlan {
        path,
        kind,
        size,
        view,
        create,
        owners,
        identity,
        ours,
        famfs_end,
        mkfs,
        imports,
        left_out,
        needs,
    };
    Ok((plan, system))
}

/// Where the first slice begins, and the name of its VM.
fn first_slice(spec: &Spec) -> Option<(u64, &str)> {
    let starts = spec.vms.iter().filter_map(|vm| match vm.access {
        Access::Slice { offset, .. } => Some((offset, vm.name.as_str())),
        _ => None,
    });
    starts.min()
}

/// The name of the pool that is made for a cluster. Cluster names are unique only within a runtime
/// directory, and a user may have several of those: the digest of the directory's path keeps their
/// pools apart.
fn file_name(runtime: &Path, name: &str) -> String {
    format!("{:08x}-{name}.pool", crc32fast::hash(runtime.as_os_str().as_bytes()))
}

/// Whether a path is one where a pool without a given path would be made for a cluster.
#[must_use]
pub fn is_own_pool(path: &Path, runtime: &Path, name: &str) -> bool {
    pool::is_in_own_directory(path)
        && path.file_name().is_some_and(|found| found == file_name(runtime, name).as_str())
}

/// The path for a pool without a given path.
fn own_pool(name: &str, asked: &PoolSpec, host: &Host) -> Result<PathBuf, PlanError> {
    let file = file_name(&host.runtime, name);
    if asked.kind == Some(PoolKind::Hugetlbfs) {
        let mounts = famfs::system::mounts::read().unwrap_or_default();
        let mount = mounts.into_iter().find(|mount| mount.fs_type == "hugetlbfs");
        let memory = mount.ok_or(PlanError::NoHugetlbfs)?.mount_point;
        return Ok(pool::own_directory(&memory).join(file));
    }
    Ok(pool::own_directory(&host.memory).join(file))
}

/// A pool that already exists.
struct Existing {
    kind: Kind,
    size: u64,
    view: View,
    identity: Identity,
}

/// Examines an existing pool, which must be as requested.
fn existing(asked: &PoolSpec, path: &Path, owners: Owners) -> Result<Existing, PlanError> {
    let Form { kind, size, view, identity, .. } = pool::form(path, owners)?;
    let view = view.map_err(|damage| PlanError::Damaged { path: path.into(), damage })?;
    let other = |what, found: String, asked: String| PlanError::OtherPool {
        path: path.into(),
        what,
        found,
        asked,
    };
    if let Some(asked) = asked.kind.map(PoolKind::as_kind).filter(|asked| *asked != kind) {
        return Err(other("its kind", kind.name().into(), asked.name().into()));
    }
    if let Some(asked) = asked.size.filter(|asked| *asked != size) {
        return Err(other("its size", Bytes(size).to_string(), Bytes(asked).to_string()));
    }
    if let Some(asked) = asked.view.filter(|asked| *asked != view) {
        return Err(other("its view", view.name().into(), asked.name().into()));
    }
    Ok(Existing { kind, size, view, identity })
}

fn new_pool(
    asked: &PoolSpec,
    path: &Path,
    needs: Needs,
    imports: bool,
) -> Result<CreateOptions, PlanError> {
    if asked.kind == Some(PoolKind::Devdax) {
        return Err(PoolError::Missing(path.into()).into());
    }
    let room = needs.room();
    let needed = room.pool_size();
    let size = match asked.size {
        Some(size) if imports && size < room.least_pool_size() => {
            let (path, needed) = (path.to_owned(), Bytes(room.least_pool_size()));
            return Err(PlanError::TooSmall { path, size: Bytes(size), needed });
        }
        Some(size) => size,
        // A file that the user names gets exactly the size that the user chose.
        None if !imports && asked.path.is_some() => return Err(PlanError::NoSize(path.into())),
        None => needed,
    };
    let view = asked.view.unwrap_or(View::Devdax);
    let (numa, prefault) = (asked.numa, asked.prefault);
    // Chosen now, to tell the pool that a start created from another pool with its name.
    let uuid = (view == View::Devdax).then(Uuid::new_v4);
    let own = asked.path.is_none();
    let options = CreateOptions::new(path.to_owned(), size, view);
    Ok(CreateOptions { uuid, numa, prefault, own, ..options })
}

/// The superblock of a pool; `None` if it contains no famfs.
fn superblock(path: &Path) -> Result<Option<Superblock>, PlanError> {
    let media = PoolFile::open(path, dax::Access::Read)
        .map_err(|source| PlanError::Media { path: path.into(), source })?;
    match Superblock::read(&media) {
        Ok(superblock) => Ok(Some(superblock)),
        Err(SuperblockError::Magic { .. }) => Ok(None),
        Err(source) => Err(PlanError::Superblock { path: path.into(), source }),
    }
}
