// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line. The doc comments here are the text of `--help`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Build, test and demonstrate vhost-famfs
///
/// The tools tree and the packages, which take long to make, are cached in
/// $XDG_CACHE_HOME/vhost-famfs; everything else stays under target/.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install the host packages and the tools tree (needs root and apt)
    Setup,
    /// Build the host programs, the guest programs and famfs.ko
    Build,
    /// Build the appliance image in target/image, and list its files with their sizes
    Image(ImageArgs),
    /// Make Debian packages, and an archive for other distributions, in target/package
    ///
    /// The packages are vhost-famfs, famfs-tools, famfs-dkms, vhost-famfs-image and
    /// vhost-famfs-guest. Install those of a host with:
    /// apt install ./target/package/{vhost-famfs,famfs-tools,vhost-famfs-image}_*.deb
    Package,
    /// Share a directory between several VMs through one pool, check every file, and print the cost
    Demo(DemoArgs),
    /// Run the tests; the last line is "N passed, N failed, N skipped"
    Test(TestArgs),
    /// Run benchmarks; prints tables and writes target/bench/NAME.json
    Bench(BenchArgs),
    /// Build a kernel with debug checks (KASAN, lockdep, fault injection) for test --debug-kernel
    ///
    /// Builds the distribution's kernel source package with kmod/debug.config. Takes 20 minutes or
    /// more on 2 processors and 3 GB while it runs; keeps 80 MB in the cache. An interrupted build
    /// continues where it stopped.
    DebugKernel,
    /// Start one appliance VM with a pool and attach this terminal to its console
    Vm(VmArgs),
    /// Remove build results
    Clean(CleanArgs),
}

/// Options of `image`.
#[derive(Debug, ClapArgs)]
pub struct ImageArgs {
    /// Profile of the image to build (repeatable) [default: default, dax, diskless and verity]
    ///
    /// The default profiles are packed from one tree. debug and lts each have their own tree, and
    /// are built in target/image-debug and target/image-lts.
    #[arg(long, value_name = "PROFILE")]
    pub profile: Vec<Profile>,

    /// Add a Debian package and what it needs (repeatable); the image goes to target/image-with
    ///
    /// The roots of the profiles default and dax, with programs and libraries of more packages.
    /// Start VMs from it with 'vhost-famfs up --image target/image-with'. The appliance's own
    /// packages are those of image/lock where the mirror has them; added ones are the mirror's
    /// current versions. Services of added packages do not start.
    #[arg(long, value_name = "PACKAGE", value_parser = package, conflicts_with_all = ["profile", "update", "prepare"])]
    pub with: Vec<String>,

    /// Use the mirror's current package versions, and write them to the lock file
    ///
    /// Without this option, a package version that differs from image/lock is an error.
    #[arg(long)]
    pub update: bool,

    /// Only write mkosi's inputs to target/mkosi, so that you can run 'mkosi build'
    #[arg(long, conflicts_with_all = ["update", "sign_key"])]
    pub prepare: bool,

    /// Sign the UKIs for UEFI Secure Boot with this private key (PEM)
    #[arg(long, value_name = "FILE", requires = "sign_certificate")]
    pub sign_key: Option<PathBuf>,

    /// Certificate for --sign-key (PEM)
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    pub sign_certificate: Option<PathBuf>,
}

/// A package's name (Debian Policy, 5.6.7): it becomes part of mkosi's configuration.
fn package(name: &str) -> Result<String, String> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = name.len() >= 2
        && name.bytes().next().is_some_and(is_name)
        && name.bytes().all(|byte| is_name(byte) || b"+-.".contains(&byte));
    match fits {
        true => Ok(name.to_owned()),
        false => {
            Err("expected a Debian package's name: lower-case letters, digits, '+', '-' and '.'"
                .to_owned())
        }
    }
}

/// A mkosi profile of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// A compressed root on disk
    Default,
    /// A root in memory, shared by all VMs
    Dax,
    /// Everything in the initrd, no systemd
    Diskless,
    /// The default root with a hash tree that detects changes
    Verity,
    /// The default with a shell, gdb, strace, fio
    Debug,
    /// The default with Linux 6.12
    Lts,
}

impl Profile {
    /// Its name on the command line and in mkosi.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether its packages differ from those of the other profiles.
    pub fn has_own_tree(self) -> bool {
        matches!(self, Self::Debug | Self::Lts)
    }
}

/// Options of `demo`.
#[derive(Debug, ClapArgs)]
pub struct DemoArgs {
    /// Directory to copy into the pool [default: the library directory of the Rust toolchain]
    #[arg(long, value_name = "DIR")]
    pub share: Option<PathBuf>,

    /// Number of VMs: one master, the others clients
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub vms: u32,

    /// Memory of each VM in MiB
    #[arg(long, value_name = "MIB", default_value_t = 768, value_parser = clap::value_parser!(u64).range(256..))]
    pub memory: u64,

    /// Size of the pool in MiB [default: what the directory needs]
    #[arg(long, value_name = "MIB")]
    pub pool_size: Option<u64>,

    /// Also write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Seconds that a VM has to boot and mount
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    pub deadline: u64,
}

/// Options of `test`.
#[derive(Debug, ClapArgs)]
pub struct TestArgs {
    /// Suites to run [default: all]
    #[arg(value_name = "SUITE")]
    pub suites: Vec<Suite>,

    /// Also run the tests that are too slow for continuous integration
    #[arg(long)]
    pub all: bool,

    /// Run famfs.ko's test programs on the debug kernel, with the storm test for 10 minutes
    ///
    /// Builds that kernel first if needed, see 'debug-kernel'. Takes about an hour. No other tests
    /// are run.
    #[arg(long, conflicts_with = "suites")]
    pub debug_kernel: bool,

    /// Run only this part of the suite, such as 'devdax' or 'pmem/storm' of kmod (repeatable)
    ///
    /// With --debug-kernel, or with one suite that boots VMs. Of that suite, the checks before the
    /// VMs are left out.
    #[arg(long, value_name = "PART")]
    pub only: Vec<String>,
}

/// A test suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Lints, house rules, unit and property tests; needs no privileges
    Unit,
    /// The back-end against an in-process vhost-user front-end
    Protocol,
    /// The famfs tools on pool files, media vectors and damaged images
    Tools,
    /// Fuzz targets, each for a fixed time, starting from a stored corpus
    Fuzz,
    /// famfs.ko: warnings, ABI, and its test programs in a VM
    Kmod,
    /// The back-end under a real QEMU
    Device,
    /// Contents and boot of the appliance image
    Image,
    /// Several VMs on one pool, from host to guest and back
    Guest,
    /// Block devices of images and pools (ublk), in a VM
    Ublk,
    /// The famfs tools in VMs: a reader that follows the log, a master that is killed
    Pool,
    /// `vhost-famfs up`, `ps`, `exec` and `down`, with kills in between
    Cluster,
    /// The packages: lintian, and install, use, upgrade, removal in systems of their own
    Package,
    /// Emitted domains under a real libvirt: define, start, shut down, destroy
    Libvirt,
}

/// Options of `bench`.
#[derive(Debug, ClapArgs)]
pub struct BenchArgs {
    /// Benchmarks to run [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<Benchmark>,
}

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Benchmark {
    /// Power-on to a mounted pool
    Boot,
    /// The famfs tools compared with ordinary file tools
    Tools,
    /// famfs.ko compared with raw access to the window
    Kmod,
    /// Trees of small files through famfs.ko compared with tmpfs
    Trees,
    /// The back-end: time from connect to mapped window, memory, wake-ups, flush
    Device,
    /// Block devices of images and overlays, compared with loop and qemu-nbd
    Ublk,
    /// Time until a new file of the master is visible in another VM
    Watch,
    /// A pool in use: copies of the host while VMs run, publishing to all, many idle VMs
    Live,
    /// `vhost-famfs up` compared with starting the same processes by hand
    Up,
}

/// Options of `vm`.
#[derive(Debug, ClapArgs)]
pub struct VmArgs {
    /// Use this pool file instead of a new, empty one that is removed at the end
    #[arg(long, value_name = "FILE")]
    pub pool: Option<PathBuf>,

    /// Memory of the VM in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(256..))]
    pub memory: u64,
}

/// Options of `clean`.
#[derive(Debug, ClapArgs)]
pub struct CleanArgs {
    /// Also remove the cache: the tools tree and the packages
    #[arg(long)]
    pub cache: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
