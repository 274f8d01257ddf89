// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line. The doc comments here are the text of `--help`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Build, test and demonstrate vhost-famfs
///
/// Slow things (the tools tree, packages) are kept in $XDG_CACHE_HOME/vhost-famfs; everything
/// else stays under target/.
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
    /// Install what the project needs: host packages and the tools tree (needs root, apt)
    Setup,
    /// Build the host programs, the guest programs and famfs.ko
    Build,
    /// Build the appliance image into target/image, and print its files with their sizes
    Image(ImageArgs),
    /// Share a directory between several VMs through one pool, check every file, print what it cost
    Demo(DemoArgs),
    /// Run the tests; closes with the line "N passed, N failed, N skipped"
    Test(TestArgs),
    /// Run benchmarks; prints tables and writes target/bench/NAME.json
    Bench(BenchArgs),
    /// Build a kernel with checkers (KASAN, lockdep, fault injection) for test --debug-kernel
    ///
    /// It is built from the distribution's kernel source package with kmod/debug.config: 20
    /// minutes or more on 2 processors, 3 GB while it runs, 80 MB kept in the cache. A build that
    /// is interrupted goes on the next time.
    DebugKernel,
    /// Start one appliance VM with a pool and give its console to this terminal
    Vm(VmArgs),
    /// Remove what was built
    Clean(CleanArgs),
}

/// Options of `image`.
#[derive(Debug, ClapArgs)]
pub struct ImageArgs {
    /// Form of the image to build; more than once [default: default, dax, diskless and verity]
    ///
    /// These four are packed from one tree. debug and lts have a tree of their own, and go into
    /// target/image-debug and target/image-lts.
    #[arg(long, value_name = "PROFILE")]
    pub profile: Vec<Profile>,

    /// Take the package versions that the mirror has now, and write them to the lock file
    ///
    /// Without this, packages of other versions than those in image/lock are an error.
    #[arg(long)]
    pub update: bool,

    /// Only write what mkosi needs to target/mkosi, so that 'mkosi build' works
    #[arg(long, conflicts_with_all = ["update", "sign_key"])]
    pub prepare: bool,

    /// Sign the UKIs for UEFI Secure Boot with this private key (PEM)
    #[arg(long, value_name = "FILE", requires = "sign_certificate")]
    pub sign_key: Option<PathBuf>,

    /// The certificate of --sign-key (PEM)
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    pub sign_certificate: Option<PathBuf>,
}

/// A form of the image: a mkosi profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// A compressed root on a disk
    Default,
    /// A root in memory that VMs share
    Dax,
    /// Everything in the initrd, no systemd
    Diskless,
    /// The default root with hashes, so that a change in it is found out
    Verity,
    /// The default with a shell, gdb, strace, fio
    Debug,
    /// The default with Linux 6.12
    Lts,
}

impl Profile {
    /// Its name on the command line and for mkosi.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it has other packages than the others.
    pub fn has_own_tree(self) -> bool {
        matches!(self, Self::Debug | Self::Lts)
    }
}

/// Options of `demo`.
#[derive(Debug, ClapArgs)]
pub struct DemoArgs {
    /// Directory to put into the pool [default: the Rust toolchain's own library directory]
    #[arg(long, value_name = "DIR")]
    pub share: Option<PathBuf>,

    /// Number of VMs: one master, the others read-only clients
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub vms: u32,

    /// Memory of each VM in MiB
    #[arg(long, value_name = "MIB", default_value_t = 768, value_parser = clap::value_parser!(u64).range(256..))]
    pub memory: u64,

    /// Size of the pool in MiB [default: what the directory needs]
    #[arg(long, value_name = "MIB")]
    pub pool_size: Option<u64>,

    /// Also print the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Seconds a VM may take to boot and mount
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    pub deadline: u64,
}

/// Options of `test`.
#[derive(Debug, ClapArgs)]
pub struct TestArgs {
    /// Suites to run [default: all]
    #[arg(value_name = "SUITE")]
    pub suites: Vec<Suite>,

    /// Also run what takes longer than continuous integration allows
    #[arg(long)]
    pub all: bool,

    /// Run famfs.ko's test programs on the debug kernel, the storm for 10 minutes
    ///
    /// Builds that kernel if it is not there, see 'debug-kernel'. Takes about an hour. All other
    /// tests are left out.
    #[arg(long, conflicts_with = "suites")]
    pub debug_kernel: bool,

    /// With --debug-kernel: only this part of it, as 'devdax' or 'pmem/storm'; more than once
    #[arg(long, value_name = "PART", requires = "debug_kernel")]
    pub only: Vec<String>,
}

/// A test suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Lints, house rules, unit and property tests: no privileges
    Unit,
    /// The back-end against an in-process vhost-user front-end
    Protocol,
    /// The famfs tools on pool files, media vectors, damaged images
    Tools,
    /// Fuzz targets, each for a fixed time from a kept corpus
    Fuzz,
    /// famfs.ko: warnings, ABI, and its test programs in a VM
    Kmod,
    /// The back-end under a real QEMU
    Device,
    /// What the appliance image holds and how it boots
    Image,
    /// Several VMs on one pool, from host to guest and back
    Guest,
    /// Block devices of images and pools (ublk), in a VM
    Ublk,
    /// The famfs tools in VMs: a reader that follows, a master that is killed
    Pool,
    /// `vhost-famfs up`, `ps`, `exec`, `down`, and what is killed in between
    Cluster,
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
    /// The famfs tools against plain file tools
    Tools,
    /// famfs.ko against raw access to the window
    Kmod,
    /// The back-end: connect to mapped window, memory, wake-ups, flush
    Device,
    /// Block devices of images and overlays against loop and qemu-nbd
    Ublk,
    /// A new file of the master to its being visible in another VM
    Watch,
    /// `vhost-famfs up` against the same command lines by hand
    Up,
}

/// Options of `vm`.
#[derive(Debug, ClapArgs)]
pub struct VmArgs {
    /// Use this pool file instead of a new, empty one that is removed afterwards
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
