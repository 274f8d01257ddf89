// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `up`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use famfs::text::number::{number, parse_size};

use super::ArgsError;
use crate::cluster::cluster_file::Scale;
use crate::cluster::spec::{MAX_VMS, Master, check_name};

/// Start a cluster: a pool, its contents, and the VMs that share it
///
/// Creates the pool if it does not exist, copies files into it, starts the VMs and their back-ends,
/// waits until every VM has mounted the pool, and prints a table. The VMs keep running after the
/// command ends; stop them with `down`. If anything fails, or at Ctrl-C, everything that was
/// started or created is removed again.
///
/// If the cluster runs already, `up` changes it to what the file now says: it stops VMs that are no
/// longer there, restarts VMs with other settings, and starts new VMs and those that do not run.
/// All others keep running. The pool stays, and imports are not repeated. --dry-run shows what
/// would be done. A cluster that was started from another file is not touched.
///
/// Examples:
///
///   vhost-famfs up --vms 3 --share /srv/models
///
///   vhost-famfs up --vms 3 --share /srv/models --master host
///
///   vhost-famfs up cluster.toml
///
///   vhost-famfs up cluster.toml --dry-run
///
///   vhost-famfs up cluster.toml --scale reader=5
///
///   vhost-famfs up cluster.toml --dry-run --emit systemd --output units
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct UpArgs {
    /// Cluster file (TOML), see docs/reference/cluster-file.md.
    #[arg(value_name = "FILE", conflicts_with_all = ["vms", "share", "pool", "size"])]
    file: Option<PathBuf>,
    /// Make so many VMs of the table [[vm]] with this name, instead of its count (repeatable).
    #[arg(long, value_name = "NAME=N", value_parser = scale, requires = "file")]
    scale: Vec<Scale>,
    /// Without a cluster file: number of VMs. They are called vm1, vm2 and so on.
    #[arg(long, value_name = "N", value_parser = number::<u32>(1..=MAX_VMS as u32))]
    vms: Option<u32>,
    /// Without a cluster file: copy the contents of this directory or tar archive into the pool
    /// (repeatable).
    #[arg(long, value_name = "DIR", requires = "vms")]
    share: Vec<PathBuf>,
    /// Without a cluster file: path of the pool. It is created if it does not exist, and `down`
    /// keeps it [default: a pool in memory for this cluster only]
    #[arg(long, value_name = "PATH", requires = "vms")]
    pool: Option<PathBuf>,
    /// Without a cluster file: size of a new pool [default: what the shares need, plus 256M]
    #[arg(long, value_name = "SIZE", requires = "vms", value_parser = parse_size)]
    size: Option<u64>,
    /// Who may change names in the pool: the VM of this name, or `host` for nobody but `famfs
    /// --pool` on the host [default: the one in the cluster file, else the first VM that can write]
    #[arg(long, value_name = "VM", value_parser = name)]
    master: Option<String>,
    /// Accept a pool that another user owns or can change, or whose name is a link.
    #[arg(long)]
    foreign_pool: bool,
    /// Name of the cluster [default: the one in the cluster file, else the file's name, else
    /// "default"]
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// QEMU program; VMs with a back-end need 11.1 or newer [default: $VHOST_FAMFS_QEMU, else the
    /// one in PATH if it is 11.1 or newer, else that of `cargo xtask setup`, else an older one in
    /// PATH]
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// Directory of the appliance image, or a disk image with a guest of your own [default:
    /// $VHOST_FAMFS_IMAGE, else share/vhost-famfs/image beside the program's directory, else the
    /// one built by `cargo xtask image`, else /usr/share/vhost-famfs/image]
    #[arg(long, value_name = "PATH")]
    image: Option<PathBuf>,
    /// Seconds that a VM has to mount the pool.
    #[arg(long, value_name = "SECONDS", default_value_t = 240,
        value_parser = number::<u64>(0..=MAX_SECONDS))]
    timeout: u64,
    /// Seconds that guests have to shut down, if a running cluster is changed.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = number::<u64>(0..=MAX_SECONDS))]
    stop_timeout: u64,
    /// Skip what famfs cannot store of the shares and imports (sockets, devices, files that may not
    /// be read and so on), and print how much was skipped.
    #[arg(long)]
    skip_unsupported: bool,
    /// List everything that is not copied, or not copied exactly.
    #[arg(short, long)]
    verbose: bool,
    /// Start even if the VMs and the pool could need more memory than the host has.
    #[arg(long)]
    overcommit: bool,
    /// Do not confine QEMU: no system call filter, and all privileges if you are root. Use it for
    /// QEMU arguments that need more, such as a helper program. For one VM, set `confine = false`
    /// in the cluster file.
    #[arg(long)]
    unconfined: bool,
    /// Keep the VMs from running programs that lie in the pool. For one VM, set `noexec = true` in
    /// the cluster file.
    #[arg(long)]
    noexec: bool,
    /// Print what would be done, without doing it.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: print it in the format of another program.
    #[arg(long, value_enum, value_name = "FORM", requires = "dry_run")]
    emit: Option<Emit>,
    /// With --emit: write the output to files in this directory. Existing files are not
    /// overwritten.
    #[arg(long, value_name = "DIR", requires = "emit")]
    output: Option<PathBuf>,
    /// Print the result as JSON; with --dry-run, what would be done with each VM.
    #[arg(long, conflicts_with = "emit")]
    json: bool,
}

/// Another program that can start the VMs of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// Shell command lines for QEMU.
    Qemu,
    /// Command lines for cloud-hypervisor.
    CloudHypervisor,
    /// libvirt domains, and a script that prepares their starts.
    Libvirt,
    /// systemd units.
    Systemd,
}

/// Which cluster to start, and how.
#[derive(Debug)]
pub struct UpConfig {
    /// What describes the cluster.
    pub cluster: Described,
    /// The name of the cluster, if it overrides the file's.
    pub name: Option<String>,
    /// Who may change the file system, if it overrides the file's.
    pub master: Option<Master>,
    /// Accept a pool of another user.
    pub foreign_pool: bool,
    /// The QEMU program.
    pub qemu: Option<PathBuf>,
    /// The directory of the image.
    pub image: Option<PathBuf>,
    /// Numbers of VMs, instead of those in the file.
    pub scales: Vec<Scale>,
    /// Time for a VM to mount the pool.
    pub timeout: Duration,
    /// Time for guests to shut down.
    pub stop_timeout: Duration,
    /// Skip what famfs cannot store.
    pub skip_unsupported: bool,
    /// List everything that is not copied.
    pub verbose: bool,
    /// Allow VMs and pool to need more memory than the host has.
    pub overcommit: bool,
    /// Do not confine QEMU.
    pub unconfined: bool,
    /// Keep the VMs from running programs that lie in the pool.
    pub noexec: bool,
    /// Only print what would be done.
    pub dry_run: bool,
    /// Print in the format of this program.
    pub emit: Option<Emit>,
    /// The directory for the files; `None` for standard output.
    pub output: Option<PathBuf>,
    /// Print JSON.
    pub json: bool,
}

/// What describes a cluster.
#[derive(Debug, PartialEq, Eq)]
pub enum Described {
    /// A cluster file.
    File(PathBuf),
    /// The command line.
    Here {
        /// Number of VMs.
        vms: u32,
        /// Directories and archives to share.
        shares: Vec<PathBuf>,
        /// The pool.
        pool: Option<PathBuf>,
        /// Its size in bytes.
        size: Option<u64>,
    },
}

/// The longest wait for anything, a week: no clock overflows.
pub(super) const MAX_SECONDS: u64 = 7 * 24 * 3600;

/// A name of a cluster or VM.
pub(super) fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

/// A table of the cluster file and a number of VMs.
fn scale(text: &str) -> Result<Scale, String> {
    let (table, count) = text.split_once('=').ok_or("expected NAME=N, such as reader=3")?;
    let name = name(table)?;
    let count = number::<u64>(0..=MAX_VMS as u64)(count)?;
    Ok(Scale { name, count: u32::try_from(count).map_err(|error| error.to_string())? })
}

impl TryFrom<UpArgs> for UpConfig {
    type Error = ArgsError;

    fn try_from(args: UpArgs) -> Result<Self, ArgsError> {
        let cluster = match (args.file, args.vms) {
            (Some(file), _) => Described::File(file),
            (None, Some(vms)) => {
                let (shares, pool, size) = (args.share, args.pool, args.size);
                Described::Here { vms, shares, pool, size }
            }
            (None, None) => return Err(ArgsError::NoCluster),
        };
        Ok(Self {
            cluster,
            name: args.name,
            master: args.master.map(Master::from),
            foreign_pool: args.foreign_pool,
            qemu: args.qemu,
            image: args.image,
            scales: args.scale,
            timeout: Duration::from_secs(args.timeout),
            stop_timeout: Duration::from_secs(args.stop_timeout),
            skip_unsupported: args.skip_unsupported,
            verbose: args.verbose,
            overcommit: args.overcommit,
            unconfined: args.unconfined,
            noexec: args.noexec,
            dry_run: args.dry_run,
            emit: args.emit,
            output: args.output,
            json: args.json,
        })
    }
}
