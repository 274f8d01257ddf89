// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that make, mount and play file systems.

use std::path::PathBuf;

use clap::{Args, Parser};
use uuid::Uuid;

use super::MountedOnly;
use famfs::text::number::{number, parse_size};

/// Choice between the reference's implementations, of which there is only one here. FAMFS_MODE=fuse
/// is refused, unless --nofuse is given.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ModeArgs {
    /// Use the kernel module, as always; needed if the environment has FAMFS_MODE=fuse
    #[arg(short = 'F', long)]
    pub nofuse: bool,
    /// Refused: there is no FUSE mode
    #[arg(long, hide = true)]
    pub fuse: bool,
    /// First bind a devdax device to the driver fsdev_dax
    #[arg(short = 'M', long)]
    pub set_daxmode: bool,
}

/// Options of `mkfs`.
#[derive(Args, Debug)]
#[command(after_help = "\
The new file system has extensions: long names, empty and small files, symbolic and hard links, \
times. The reference's tools can read it, but skip what uses the extensions. With --reference the \
file system has none, and is byte for byte what the reference's mkfs makes. Use that if a VM or a \
host has only the reference's tools, or older versions of these. `famfs upgrade` turns extensions on \
later.

Each file, directory or link needs an entry in the log, and so does each later change of its name or \
attributes. The log's length is fixed.

Examples:
  famfs --pool /dev/shm/pool mkfs            a file system in a pool file
  famfs mkfs --entries 100000 /dev/dax0.0    on a device, with room for 100000 files
  famfs mkfs --force --kill /dev/dax0.0      wipe the superblock only

Exit codes: 0 success; 2 any failure.")]
pub struct Mkfs {
    /// Device (/dev/dax0.0 or /dev/pmem0); not with --pool
    #[arg(value_name = "DEV")]
    pub device: Option<PathBuf>,
    /// Destroy an existing file system or other data
    #[arg(short, long)]
    pub force: bool,
    /// Only wipe the superblock, so that the device counts as unformatted (needs --force)
    #[arg(short, long, requires = "force")]
    pub kill: bool,
    /// Length of the log, a power of two from 2 MiB [default: 1/64 of the device, rounded down to a
    /// power of two, from 8m to 1g, less below 128 MiB; with --reference 8m, less below 128 MiB]
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub loglen: Option<u64>,
    /// Make the log just long enough for this many entries
    #[arg(long, value_name = "N", conflicts_with = "loglen", value_parser = number::<u32>(1..=u32::MAX))]
    pub entries: Option<u32>,
    /// Without extensions, for tools that know only the reference's format
    #[arg(long)]
    pub reference: bool,
    /// Use only this many bytes from the start of the device, a multiple of 2 MiB; the rest, such
    /// as the slices of VMs, is never allocated [default: all, or with --force as many as the file
    /// system before had]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub size: Option<u64>,
    /// UUID of the system that will be the master; for a VM its SMBIOS UUID [default: this
    /// system's]
    #[arg(long, value_name = "UUID")]
    pub system_uuid: Option<Uuid>,
    /// UUID of the file system [default: random]
    #[arg(long, value_name = "UUID")]
    pub fs_uuid: Option<Uuid>,
    /// UUID of the device [default: random]
    #[arg(long, value_name = "UUID")]
    pub dev_uuid: Option<Uuid>,
    /// Check everything and print what would be made
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Accepted: the result is always printed
    #[arg(short, long, hide = true, overrides_with = "verbose")]
    pub verbose: bool,
    /// Accepted: there is only one way to access the memory
    #[arg(short = 'D', long, hide = true)]
    pub nodax: bool,
    /// Which implementation.
    #[command(flatten)]
    pub mode: ModeArgs,
}

/// Options of `mount`.
#[derive(Args, Debug)]
#[command(after_help = "\
The log is played before the file system is attached, so all files appear at once. If some log \
entries cannot be played, the file system is mounted without them, and the exit code is 1.

As mount.famfs, the program serves mount(8) and fstab(5), and accepts their generic options. `ro` \
mounts read-only; logplay still makes new files appear. Programs run from the mount unless it is \
`noexec`; a remount leaves that as it is unless `exec` or `noexec` is given. famfs is always nosuid \
and nodev.

Examples:
  famfs mount /dev/dax0.0 /mnt/famfs         mount, and make the files of the log appear
  famfs mount -o ro /dev/dax0.0 /mnt/famfs   the same, read-only
  famfs mount -o noexec /dev/dax0.0 /mnt/famfs
  famfs mount --dry-run /dev/dax0.0 /mnt/famfs
  mount -t famfs /dev/dax0.0 /mnt/famfs      through mount(8)

Exit codes: 0 success; 1 failure; 2 wrong usage; 19 not a device that famfs can use.")]
pub struct Mount {
    /// Device (/dev/dax0.0 or /dev/pmem0)
    #[arg(value_name = "DEV")]
    pub device: PathBuf,
    /// Directory to mount on
    #[arg(value_name = "MPT")]
    pub mount_point: PathBuf,
    /// Change the flags of an existing mount, and play its log
    #[arg(short = 'R', long)]
    pub remount: bool,
    /// Load the kernel module first
    #[arg(short = 'L', long)]
    pub load_module: bool,
    /// Print the name of every file and directory that appears
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
    /// Mount options, separated by commas: `remount`, `ro`, `rw`, `noexec`, `exec`. `suid` and
    /// `dev` are refused; other options of mount(8) have no effect
    #[arg(short, value_name = "OPTIONS", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Ignore unknown options
    #[arg(long, hide = true)]
    pub sloppy: bool,
    /// Check everything and print what would appear
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Which implementation.
    #[command(flatten)]
    pub mode: ModeArgs,
    /// Options of FUSE.
    #[command(flatten)]
    pub fuse_options: FuseArgs,
    /// Options without effect.
    #[command(flatten)]
    pub compat: LogplayCompat,
    /// No pool file.
    #[command(flatten)]
    pub mounted: MountedOnly,
}

/// Options of the reference's FUSE mode, which does not exist here.
#[derive(Args, Debug, Default)]
pub struct FuseArgs {
    /// Refused: as --fuse
    #[arg(short = 'f', hide = true)]
    pub fuse_mode: bool,
    /// Refused: where FUSE finds the shadow files
    #[arg(short = 'S', long, hide = true)]
    pub shadow: Option<PathBuf>,
    /// Only for FUSE: ignored
    #[arg(short = 't', long, hide = true)]
    pub timeout: Option<String>,
    /// Only for FUSE: ignored
    #[arg(short = 'c', long, hide = true)]
    pub cache: Option<String>,
    /// Only for FUSE: ignored
    #[arg(short, long, hide = true)]
    pub debug: bool,
    /// Only for FUSE: ignored
    #[arg(short = 'u', long, hide = true)]
    pub nouseraccess: bool,
    /// Only for FUSE: ignored
    #[arg(short = 'p', long, hide = true)]
    pub nodefaultperm: bool,
    /// Only for FUSE: ignored
    #[arg(short, long, hide = true)]
    pub bouncedax: bool,
    /// Accepted: a mount needs no temporary mount point
    #[arg(short = 'D', long, hide = true)]
    pub dummy: bool,
}

/// Options that the reference's scripts pass and that change nothing here.
#[derive(Args, Debug, Default)]
pub struct LogplayCompat {
    /// Accepted: the log is always read through mmap
    #[arg(short = 'm', long, hide = true)]
    pub mmap: bool,
    /// Accepted: the log is always read through mmap
    #[arg(short = 'r', long, hide = true)]
    pub read: bool,
}

/// Mount a famfs for mount(8) and fstab(5)
///
/// mount(8) calls this program for file systems of type famfs. To mount by hand, use `famfs mount`.
#[derive(Debug, Parser)]
#[command(
    name = "mount.famfs",
    version,
    after_help = "\
Exit codes: those of `famfs mount`."
)]
pub struct MountHelper {
    /// Device
    #[arg(value_name = "DEV")]
    pub device: PathBuf,
    /// Directory to mount on
    #[arg(value_name = "MPT")]
    pub mount_point: PathBuf,
    /// Ignore unknown mount options
    #[arg(short)]
    pub sloppy: bool,
    /// Fake: do everything but mount
    #[arg(short)]
    pub fake: bool,
    /// Accepted: there is no /etc/mtab to write
    #[arg(short)]
    pub no_mtab: bool,
    /// Print the name of every file and directory that appears
    #[arg(short, overrides_with = "verbose")]
    pub verbose: bool,
    /// Accepted: mount(8) has already entered this mount namespace
    #[arg(short = 'N', value_name = "NAMESPACE")]
    pub namespace: Option<PathBuf>,
    /// Mount options, separated by commas
    #[arg(short, value_name = "OPTIONS", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Type of the file system; a subtype is ignored
    #[arg(short = 't', value_name = "TYPE")]
    pub fs_type: Option<String>,
}

impl From<MountHelper> for Mount {
    fn from(helper: MountHelper) -> Self {
        Self {
            device: helper.device,
            mount_point: helper.mount_point,
            remount: false,
            load_module: false,
            verbose: helper.verbose,
            options: helper.options,
            sloppy: helper.sloppy,
            dry_run: helper.fake,
            json: false,
            mode: ModeArgs::default(),
            fuse_options: FuseArgs::default(),
            compat: LogplayCompat::default(),
            mounted: MountedOnly::default(),
        }
    }
}

/// Options of `umount`.
#[derive(Args, Debug)]
#[command(after_help = "\
A `famfs watch` of the mount is stopped first. The famfs stays mounted if other processes use its \
files.

Examples:
  famfs umount /mnt/famfs
  umount /mnt/famfs            through umount(8), where umount.famfs is installed

Exit codes: 0 success; 1 failure; 2 wrong usage.")]
pub struct Umount {
    /// Mount point
    #[arg(value_name = "MPT")]
    pub mount_point: PathBuf,
    /// Detach it at once, and release the memory when its last user is gone
    #[arg(short, long)]
    pub lazy: bool,
    /// Check everything and print what would be unmounted
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// No pool file.
    #[command(flatten)]
    pub mounted: MountedOnly,
}

/// Unmount a famfs for umount(8)
///
/// umount(8) calls this program for file systems of type famfs. It stops a `famfs watch` first. To
/// unmount by hand, use `famfs umount`.
#[derive(Debug, Parser)]
#[command(
    name = "umount.famfs",
    version,
    after_help = "\
Exit codes: those of `famfs umount`."
)]
pub struct UmountHelper {
    /// Mount point
    #[arg(value_name = "MPT")]
    pub mount_point: PathBuf,
    /// Detach it at once, and release the memory when its last user is gone
    #[arg(short)]
    pub lazy: bool,
    /// Accepted: there is no server that could be unreachable
    #[arg(short)]
    pub force: bool,
    /// Accepted: there is no /etc/mtab to write
    #[arg(short)]
    pub no_mtab: bool,
    /// Accepted: a famfs that cannot be unmounted stays as it is
    #[arg(short)]
    pub read_only: bool,
    /// Accepted: there is nothing to print
    #[arg(short, overrides_with = "verbose")]
    pub verbose: bool,
    /// Accepted: umount(8) has already entered this mount namespace
    #[arg(short = 'N', value_name = "NAMESPACE")]
    pub namespace: Option<PathBuf>,
    /// Type of the file system; a subtype is ignored
    #[arg(short = 't', value_name = "TYPE")]
    pub fs_type: Option<String>,
}

impl From<UmountHelper> for Umount {
    fn from(helper: UmountHelper) -> Self {
        Self {
            mount_point: helper.mount_point,
            lazy: helper.lazy,
            dry_run: false,
            json: false,
            mounted: MountedOnly::default(),
        }
    }
}

/// Options of `logplay`.
#[derive(Args, Debug)]
#[command(after_help = "\
`famfs watch` does the same whenever the log grows.

Examples:
  famfs logplay /mnt/famfs                   make new files appear
  famfs logplay --dry-run -v /mnt/famfs      name what would appear
  famfs logplay --dry-run --daxdev /dev/dax0.0

Exit codes: 0 success; 1 failure, or some entries could not be played; 2 wrong usage.")]
pub struct Logplay {
    /// Mount point, or any path in the mounted famfs
    #[arg(value_name = "MPT", required_unless_present = "daxdev")]
    pub mount_point: Option<PathBuf>,
    /// Only count what would appear
    #[arg(short = 'n', long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Print the name of every file and directory that appears
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
    /// Play as a client, even on the master: only the report differs
    #[arg(short, long)]
    pub client: bool,
    /// Read the log of an unmounted device (with --dry-run)
    #[arg(short, long, value_name = "DEV", requires = "dry_run", conflicts_with = "mount_point")]
    pub daxdev: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Refused: only FUSE mode has shadow files
    #[arg(short = 'S', long, hide = true)]
    pub shadow: Option<PathBuf>,
    /// Refused: as --shadow
    #[arg(short = 's', long, hide = true)]
    pub shadowtest: bool,
    /// Which implementation.
    #[command(flatten)]
    pub mode: ModeArgs,
    /// Options without effect.
    #[command(flatten)]
    pub compat: LogplayCompat,
    /// No pool file.
    #[command(flatten)]
    pub mounted: MountedOnly,
}

/// Options of `mkmeta`.
#[derive(Args, Debug)]
#[command(after_help = "\
Needed only after a mount(2) that no famfs tool made: mount, logplay and attach do it themselves. \
Existing files stay as they are.

Examples:
  famfs mkmeta /dev/dax0.0

Exit codes: 0 success; 1 failure; 2 wrong usage.")]
pub struct Mkmeta {
    /// Mounted device
    #[arg(value_name = "DEV")]
    pub device: PathBuf,
    /// Print the name of everything that is made
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
    /// Print what would be done
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// No pool file.
    #[command(flatten)]
    pub mounted: MountedOnly,
}

/// Options of `attach`; also a parser of its own, so that they can be parsed without the other
/// commands.
#[derive(Debug, Parser)]
#[command(after_help = "\
Loads the modules, binds a virtio-pmem pool to the driver fsdev_dax, and mounts the one device \
that holds a famfs. If it is mounted already, its new files appear.

Examples:
  famfs attach
  famfs attach --dry-run                     print what would be loaded, bound and mounted
  famfs attach --read-only                   in a VM that must not write
  famfs attach --noexec                      in a VM that must not run programs of the pool
  famfs attach --mount-point /mnt/famfs --device /dev/dax0.0 --json

Exit codes: 0 success; 1 failure, or some entries could not be played; 2 wrong usage.")]
pub struct Attach {
    /// Directory to mount on, made if missing
    #[arg(long, value_name = "DIR", default_value = "/mnt/famfs")]
    pub mount_point: PathBuf,
    /// Device to use, if there are several [default: the one that holds a famfs]
    #[arg(long, value_name = "DEV")]
    pub device: Option<PathBuf>,
    /// Mount read-only: programs cannot write files, while files of the log still appear
    #[arg(long)]
    pub read_only: bool,
    /// Mount noexec: programs in the pool cannot be run
    #[arg(long)]
    pub noexec: bool,
    /// Leave out symbolic links that lead out of the mount, now and as the log goes on
    #[arg(long)]
    pub safe_links: bool,
    /// Seconds to wait for the device
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = number::<u64>(0..=u64::MAX))]
    pub timeout: u64,
    /// Look once and print what would be loaded, bound and mounted
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Print the steps and their times as JSON
    #[arg(long)]
    pub json: bool,
    /// No pool file.
    #[command(flatten)]
    pub mounted: MountedOnly,
}
