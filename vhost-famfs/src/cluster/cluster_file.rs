// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Cluster files: TOML, described in docs/reference/cluster-file.md. Errors name file, line and
//! column.

mod conflicts;
mod dependencies;
mod text;

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use famfs::format::path::RelPath;
use famfs::format::view::View;
use famfs::text::number::parse_size;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::spec::{
    Access, ImportSpec, MAX_VMS, Network, PoolKind, PoolSpec, Restart, Spec, Subject, Transport,
    VmSpec, check_name, check_vm_name,
};
use crate::bounded_log::MIN_LIMIT;
use crate::host::processors::Processors;
use crate::vm::{DEFAULT_WEIGHT, Forward, Limits, MAX_WEIGHT, Root};
use conflicts::{check_overlays, check_ports};
use dependencies::Dependencies;
pub use text::Place;
use text::{Fault, check_tables, place, range_of};

/// Largest cluster file that is read; enough for a thousand VMs.
const MAX_FILE: u64 = 1 << 20;

/// Longest health command in bytes: a message to a guest is not much longer.
const MAX_HEALTH: usize = 4096;

/// Why a cluster file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the cluster file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is far too large, or not text.
    #[error("{}: {what}, expected a cluster file (TOML)", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Something in it is invalid.
    #[error("{}:{place}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong.
        place: Box<Place>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    name: Option<Name>,
    master: Option<Name>,
    #[serde(rename = "log-limit")]
    log_limit: Option<Spanned<Size>>,
    #[serde(default)]
    restart: Restart,
    #[serde(default)]
    pool: PoolTable,
    #[serde(default)]
    import: Vec<ImportTable>,
    #[serde(default)]
    vm: Vec<Spanned<VmTable>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct PoolTable {
    path: Option<PathBuf>,
    kind: Option<Spanned<PoolKind>>,
    size: Option<Size>,
    view: Option<ViewWord>,
    numa: Option<u32>,
    #[serde(default)]
    prefault: bool,
    #[serde(default)]
    foreign: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ViewWord {
    Devdax,
    Raw,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportTable {
    from: PathBuf,
    to: Option<GuestDir>,
    #[serde(default, rename = "skip-unsupported")]
    skip_unsupported: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VmTable {
    name: Option<Name>,
    count: Option<Spanned<u32>>,
    access: Option<Spanned<AccessWord>>,
    offset: Option<Spanned<Size>>,
    length: Option<Spanned<Size>>,
    transport: Option<Spanned<Transport>>,
    memory: Option<Size>,
    cpus: Option<Spanned<u32>>,
    #[serde(rename = "cpus-allowed")]
    cpus_allowed: Option<Processors>,
    #[serde(rename = "cpu-weight")]
    cpu_weight: Option<Spanned<u32>>,
    #[serde(rename = "memory-max")]
    memory_max: Option<Size>,
    numa: Option<u32>,
    image: Option<PathBuf>,
    root: Option<RootWord>,
    overlay: Option<Spanned<PathBuf>>,
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    append: Option<String>,
    firmware: Option<PathBuf>,
    mount: Option<bool>,
    #[serde(default)]
    noexec: bool,
    #[serde(default)]
    shell: bool,
    confine: Option<bool>,
    restart: Option<Restart>,
    #[serde(default, rename = "depends-on")]
    depends_on: Vec<Spanned<String>>,
    health: Option<Spanned<String>>,
    network: Option<Spanned<Network>>,
    #[serde(default)]
    ports: Vec<Spanned<Forward>>,
    #[serde(default)]
    args: Vec<String>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum AccessWord {
    Rw,
    Ro,
    Slice,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum RootWord {
    Memory,
    Disk,
    Ublk,
}

/// A number of bytes, written as text with a binary unit, such as "512M".
#[derive(Clone, Copy)]
struct Size(u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size as text, such as \"512M\" or \"2G\" (powers of 1024)")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                parse_size(text).map(Size).map_err(|why| E::custom(format!("size {text:?}: {why}")))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A checked name.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        check_name(&name).map_err(D::Error::custom)?;
        Ok(Self(name))
    }
}

/// A directory of the pool's file system; `/` is its root.
struct GuestDir(Option<RelPath>);

impl<'de> Deserialize<'de> for GuestDir {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        guest_dir(&text).map(Self).map_err(D::Error::custom)
    }
}

/// Parses the path of a directory in the pool's file system. It may be absolute or relative, and
/// must stay below the root.
///
/// # Errors
/// Why the path is not valid.
pub fn guest_dir(text: &str) -> Result<Option<RelPath>, String> {
    let inside = text.trim_start_matches('/');
    if inside.is_empty() {
        return Ok(None);
    }
    RelPath::new(inside.as_bytes()).map(Some).map_err(|error| error.to_string())
}

/// A cluster file that was read.
#[derive(Debug)]
pub struct ClusterFile {
    /// What it asks for.
    pub spec: Spec,
    path: PathBuf,
    text: String,
    /// For each VM, the index of its table.
    tables: Vec<usize>,
}

impl ClusterFile {
    /// Adds the position in the file to an error that was found while planning the cluster, if it
    /// is about something in the file.
    #[must_use]
    pub fn locate(&self, subject: &Subject, error: &dyn std::error::Error) -> Option<FileError> {
        let range = match subject {
            Subject::Master => range_of(&self.text, "master", 0, ""),
            Subject::Pool(key) => range_of(&self.text, "pool", 0, key),
            Subject::Vm(name, key) => {
                let vm = self.spec.vms.iter().position(|vm| vm.name == *name);
                // An image that the file does not name comes from the host or the command line.
                let vm = vm.filter(|vm| *key != "image" || self.spec.vms[*vm].image.is_some());
                vm.and_then(|vm| range_of(&self.text, "vm", self.tables[vm], key))
            }
            Subject::Import(from) => {
                let imports = &mut self.spec.imports.iter();
                let import = imports.position(|import| from.starts_with(&import.from));
                import.and_then(|import| range_of(&self.text, "import", import, "from"))
            }
        };
        let causes = std::iter::successors(Some(error), |error| error.source());
        let message = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let fault = Fault { at: range?, message, hint: None };
        let place = Box::new(place(&self.text, fault));
        Some(FileError::Wrong { path: self.path.clone(), place })
    }
}

/// How many VMs to make of a table, instead of its `count`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// The table's name.
    pub name: String,
    /// The number.
    pub count: u32,
}

/// Reads a cluster file.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read(path: &Path) -> Result<ClusterFile, FileError> {
    read_scaled(path, &[])
}

/// Reads a cluster file, with other numbers of VMs.
///
/// # Errors
/// What is wrong with it, and where, or that no table with a count has such a name.
pub fn read_scaled(path: &Path, scales: &[Scale]) -> Result<ClusterFile, FileError> {
    let cannot = |source| FileError::Read { path: path.into(), source };
    let not_text = |what| FileError::NotText { path: path.into(), what };
    let metadata = fs::metadata(path).map_err(cannot)?;
    if metadata.is_dir() {
        return Err(not_text("it is a directory"));
    }
    if metadata.len() > MAX_FILE {
        return Err(not_text("it is larger than 1 MiB"));
    }
    let bytes = fs::read(path).map_err(cannot)?;
    let text = String::from_utf8(bytes).map_err(|_| not_text("it is not UTF-8 text"))?;
    match parse(&text, path, scales) {
        Ok((spec, tables)) => Ok(ClusterFile { spec, path: path.into(), text, tables }),
        Err(fault) => {
            let place = Box::new(place(&text, fault));
            Err(FileError::Wrong { path: path.into(), place })
        }
    }
}

/// Parses the text of a cluster file. Returns the cluster, and for each VM the index of its table.
/// `path` gives the default name and the base of relative paths.
fn parse(text: &str, path: &Path, scales: &[Scale]) -> Result<(Spec, Vec<usize>), Fault> {
    check_tables(text)?;
    let table: FileTable = toml::from_str(text).map_err(|error| Fault {
        at: error.span().unwrap_or(0..0),
        message: in_words_of_toml(error.message()),
        hint: None,
    })?;
    let name = match table.name {
        Some(Name(name)) => name,
        None => {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let hint = "set a name for the cluster: name = \"demo\"";
            check_name(&stem)
                .map_err(|why| Fault::new(&(0..0), format!("file name: {why}"), hint))?;
            stem
        }
    };
    let base = path.parent().unwrap_or(Path::new(""));
    let log_limit = table.log_limit.as_ref().map(|limit| limit.get_ref().0);
    if let Some(given) = &table.log_limit
        && given.get_ref().0 < MIN_LIMIT
    {
        let hint = "set it to at least \"64K\", or omit it for 16 MiB";
        return Err(Fault::new(&given.span(), "too small for a log", hint));
    }
    let imports = table.import.into_iter().map(|import| ImportSpec {
        from: base.join(import.from),
        to: import.to.and_then(|GuestDir(to)| to),
        skip_unsupported: import.skip_unsupported,
    });
    let imports = imports.collect();
    let pool = pool(table.pool, base)?;
    let (vms, tables) = vms(table.vm, base, table.restart, scales)?;
    let master = table.master.map(|Name(name)| name.into());
    let file = Some(path.to_owned());
    Ok((Spec { name, file, pool, imports, master, log_limit, vms }, tables))
}

/// Translates a message of the parser from Rust's terms (fields and variants) into TOML's.
fn in_words_of_toml(message: &str) -> String {
    let line = message.lines().collect::<Vec<_>>().join("; ");
    let words = [("unknown field", "unknown key"), ("unknown variant", "unknown value")];
    words.iter().fold(line, |line, (from, to)| line.replacen(from, to, 1))
}

fn pool(table: PoolTable, base: &Path) -> Result<PoolSpec, Fault> {
    if let (Some(kind), None) = (&table.kind, &table.path)
        && matches!(kind.get_ref(), PoolKind::File | PoolKind::Devdax)
    {
        let hint = "add path = \"...\"; a pool without a path is in memory (tmpfs, hugetlbfs)";
        return Err(Fault::new(&kind.span(), "a pool of this kind needs a path", hint));
    }
    Ok(PoolSpec {
        path: table.path.map(|path| base.join(path)),
        kind: table.kind.map(Spanned::into_inner),
        size: table.size.map(|Size(size)| size),
        view: table.view.map(|view| match view {
            ViewWord::Devdax => View::Devdax,
            ViewWord::Raw => View::Raw,
        }),
        numa: table.numa,
        prefault: table.prefault,
        foreign: table.foreign,
    })
}

fn vms(
    tables: Vec<Spanned<VmTable>>,
    base: &Path,
    restart: Restart,
    scales: &[Scale],
) -> Result<(Vec<VmSpec>, Vec<usize>), Fault> {
    if tables.is_empty() {
        return Err(Fault::new(&(0..0), "this file has no VM", "add a table: [[vm]]"));
    }
    check_scales(&tables, scales)?;
    let dependencies = Dependencies::new(&tables);
    let (mut vms, mut numbers, mut names) = (Vec::new(), Vec::new(), HashSet::new());
    let ports: Vec<Spanned<Forward>> =
        tables.iter().flat_map(|table| table.get_ref().ports.clone()).collect();
    let overlays: Vec<_> =
        tables.iter().filter_map(|table| table.get_ref().overlay.clone()).collect();
    for (number_of_table, table) in tables.into_iter().enumerate() {
        let at = table.span();
        let table = table.into_inner();
        let count = table.count.as_ref().map_or(1, |count| *count.get_ref());
        let numbered = table.count.is_some();
        if let Some(given) = &table.count
            && !(1..=MAX_VMS).contains(&usize::try_from(count).unwrap_or(usize::MAX))
        {
            let hint = "one table can create 1 to 64 VMs";
            return Err(Fault::new(&given.span(), format!("count is {count}"), hint));
        }
        let name = table.name.as_ref().map_or("vm", |Name(name)| name.as_str()).to_owned();
        let scale = scales.iter().find(|scale| numbered && scale.name == name);
        let count = scale.map_or(count, |scale| scale.count);
        let restart = table.restart.unwrap_or(restart);
        let spec = VmSpec { restart, ..vm(table, base)? };
        for number in 1..=count {
            let name = if numbered { format!("{name}{number}") } else { name.clone() };
            check_vm_name(&name).map_err(|why| Fault::new(&at, why, "use another name"))?;
            if !names.insert(name.clone()) {
                let hint = "give each [[vm]] its own name; count = N appends a number to it";
                return Err(Fault::new(&at, format!("two VMs have the name {name:?}"), hint));
            }
            vms.push(VmSpec { name, ..spec.clone() });
            numbers.push(number_of_table);
        }
        if vms.len() > MAX_VMS {
            let message = format!("{} VMs, but a cluster can have at most {MAX_VMS}", vms.len());
            return Err(Fault::new(&at, message, "start several clusters that use the same pool"));
        }
    }
    if vms.is_empty() {
        return Err(Fault::new(&(0..0), "no VM is left", "scale one table to 1 or more"));
    }
    check_ports(&vms, &ports)?;
    check_overlays(&vms, base, &overlays)?;
    dependencies.resolve(&mut vms, &numbers)?;
    Ok((vms, numbers))
}

/// Refuses numbers for tables that do not exist, or have no count.
fn check_scales(tables: &[Spanned<VmTable>], scales: &[Scale]) -> Result<(), Fault> {
    let name = |table: &VmTable| table.name.as_ref().map_or("vm", |Name(name)| name).to_owned();
    let counted = tables.iter().map(Spanned::get_ref).filter(|table| table.count.is_some());
    let counted: Vec<_> = counted.map(name).collect();
    let Some(Scale { name: unknown, count }) =
        scales.iter().find(|scale| !counted.contains(&scale.name))
    else {
        return Ok(());
    };
    let message = format!("--scale {unknown}={count}: no [[vm]] with this name has a count");
    let hint = match counted.is_empty() {
        true => "add count = 1 to the table that should be scaled".to_owned(),
        false => format!("tables with a count: {}", counted.join(", ")),
    };
    let at = tables.iter().find(|table| name(table.get_ref()) == *unknown);
    Err(Fault { at: at.map_or(0..0, Spanned::span), message, hint: Some(hint) })
}

/// A VM of a table, before it has its final name.
fn vm(table: VmTable, base: &Path) -> Result<VmSpec, Fault> {
    if let Some(cpus) = &table.cpus
        && *cpus.get_ref() == 0
    {
        return Err(Fault::new(&cpus.span(), "cpus is 0", "use at least 1"));
    }
    let transport = table.transport.as_ref().map(|transport| *transport.get_ref());
    let access = access(&table)?;
    if let Some(given) = &table.transport {
        let conflict = match (access, given.get_ref()) {
            (Access::ReadOnly, Transport::Shmem) => Some(
                "QEMU maps the window of a back-end writable no matter what the back-end asks \
                      for",
            ),
            (Access::Slice { .. }, Transport::Pmem) => {
                Some("a VMM that maps the pool itself maps all of it")
            }
            _ => None,
        };
        if let Some(why) = conflict {
            let message = format!(
                "access {:?} is not possible with transport {:?}: {why}",
                access.name(),
                given.get_ref().name()
            );
            let hint = "omit transport: a suitable one is chosen";
            return Err(Fault::new(&given.span(), message, hint));
        }
    }
    if let Some(port) = table.ports.first()
        && table.network.as_ref().map(Spanned::get_ref) != Some(&Network::User)
    {
        let hint = "add network = \"user\"";
        return Err(Fault::new(&port.span(), "ports of a VM without a network", hint));
    }
    if let Some(weight) = &table.cpu_weight
        && !(1..=MAX_WEIGHT).contains(weight.get_ref())
    {
        let message = format!("cpu-weight is {}", weight.get_ref());
        let hint = format!("set 1 to {MAX_WEIGHT}; what has no weight has {DEFAULT_WEIGHT}");
        return Err(Fault::new(&weight.span(), message, &hint));
    }
    if let Some(overlay) = table.overlay.as_ref().filter(|_| table.root != Some(RootWord::Ublk)) {
        let hint = "add root = \"ublk\": only such a root has an overlay with a name";
        return Err(Fault::new(&overlay.span(), "an overlay of another root", hint));
    }
    if let Some(overlay) = &table.overlay
        && table.image.as_ref() == Some(overlay.get_ref())
    {
        let hint = "name another file: the image is never written";
        return Err(Fault::new(&overlay.span(), "overlay is the image", hint));
    }
    if let Some(health) = &table.health {
        let wrong = match health.get_ref().as_str() {
            text if text.trim().is_empty() => Some("health is empty".to_owned()),
            text if text.contains('\0') => Some("health has a NUL character".to_owned()),
            text if text.len() > MAX_HEALTH => {
                Some(format!("health has {} bytes, at most {MAX_HEALTH} fit", text.len()))
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            let hint = "set a command for the guest's shell, or omit health";
            return Err(Fault::new(&health.span(), wrong, hint));
        }
    }
    Ok(VmSpec {
        name: String::new(),
        access,
        transport,
        memory: table.memory.map(|Size(memory)| memory),
        cpus: table.cpus.map_or(2, Spanned::into_inner),
        cpus_allowed: table.cpus_allowed,
        limits: Limits {
            cpu_weight: table.cpu_weight.map(Spanned::into_inner),
            memory_max: table.memory_max.map(|Size(bytes)| bytes),
        },
        numa: table.numa,
        image: table.image.map(|path| base.join(path)),
        root: table.root.map(|root| match root {
            RootWord::Memory => Root::Memory,
            RootWord::Disk => Root::Disk,
            RootWord::Ublk => Root::Ublk,
        }),
        overlay: table.overlay.map(|path| base.join(path.into_inner())),
        kernel: table.kernel.map(|path| base.join(path)),
        initrd: table.initrd.map(|path| base.join(path)),
        append: table.append,
        firmware: table.firmware.map(|path| base.join(path)),
        mount: table.mount,
        noexec: table.noexec,
        shell: table.shell,
        confine: table.confine.unwrap_or(true),
        restart: Restart::No,
        depends_on: table.depends_on.into_iter().map(Spanned::into_inner).collect(),
        health: table.health.map(Spanned::into_inner),
        network: table.network.map(Spanned::into_inner).unwrap_or_default(),
        ports: table.ports.into_iter().map(Spanned::into_inner).collect(),
        args: table.args,
    })
}

fn access(table: &VmTable) -> Result<Access, Fault> {
    let word = table.access.as_ref().map_or(AccessWord::Rw, |word| *word.get_ref());
    match (word, &table.offset, &table.length) {
        (AccessWord::Slice, offset, Some(length)) => Ok(Access::Slice {
            offset: offset.as_ref().map_or(0, |offset| offset.get_ref().0),
            length: length.get_ref().0,
        }),
        (AccessWord::Slice, _, None) => {
            let at = table.access.as_ref().map_or(0..0, Spanned::span);
            let hint = "add length = \"1G\", and offset if the slice does not begin at 0";
            Err(Fault::new(&at, "access is \"slice\", but length is missing", hint))
        }
        (_, Some(given), _) | (_, None, Some(given)) => {
            let hint = "add access = \"slice\": all other kinds of access see the whole pool";
            Err(Fault::new(&given.span(), "offset and length are only for slices", hint))
        }
        (AccessWord::Rw, None, None) => Ok(Access::ReadWrite),
        (AccessWord::Ro, None, None) => Ok(Access::ReadOnly),
    }
}

#[cfg(test)]
#[path = "cluster_file_tests.rs"]
mod tests;
