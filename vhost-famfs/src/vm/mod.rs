// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One virtual machine and its back-end.
//!
//! ```text
//!  VmConfig --command_line()--> argv --Vm::start()--> QEMU process
//!      |                                               |  console log, QMP socket
//!      | pools: the Backend's socket, or a file        |  agent socket <-> agent in the guest
//!      '-- System: Image (kernel, initrd, root), Root   '-- residency::of_process(pid)
//!                  or OwnGuest (disk, firmware or kernel)
//! ```
//!
//! Principles: a command line is a pure function of its configuration (except that starting a VM
//! adds one kernel parameter, the frequency of the host's counter). Every wait has a deadline. A
//! process started here ends with its owner ([`Vm`], [`Backend`]) and with the program that started
//! it, however that ends. Errors name the VM and show the last messages of QEMU and the console.
//!
//! This is a library: it prints nothing and keeps no state on disk after a VM has ended.

mod accelerator;
pub mod address_bits;
mod agent;
mod arguments;
mod ask;
mod backend;
mod channel;
mod clock;
pub mod cloud_hypervisor;
mod command;
mod config;
mod confine;
mod connection;
mod deadline;
mod disk_format;
mod exec_error;
mod forward;
mod guest;
mod image;
mod limits;
mod log_keeper;
mod machine;
mod paths;
mod process;
mod qemu;
mod qmp;
mod root_device;
mod select;
mod shutdown;
mod socket;
mod stream;
mod system;
mod version;
mod vsock;
mod wait;

pub use accelerator::{Accelerator, AcceleratorError};
pub use arguments::shell_quoted;
pub use backend::{Backend, BackendConfig, BackendError};
pub use channel::Channel;
pub use command::{Command, Output};
pub use config::{ConfigError, Console, Disk, PoolDevice, VmConfig};
pub(crate) use config::{EMULATED_WORDS, ROOT_SERIAL};
pub use confine::{Confinement, has_filter};
pub use disk_format::{DiskError, DiskFormat};
pub use exec_error::ExecError;
pub use forward::{Forward, Protocol};
pub use guest::Guest;
pub use image::{Image, ImageError, Root};
pub use limits::{DEFAULT_WEIGHT, Limits, LimitsError, MAX_WEIGHT};
pub use log_keeper::{KeptPool, LogKeeper};
pub use machine::{Ready, Vm, VmError};
pub use paths::VmPaths;
pub use process::Lifetime;
pub(crate) use process::tied;
pub use protocol::attach::Attach;
pub use protocol::exec::{Size, Status};
pub use qmp::{Qmp, QmpError};
pub use root_device::{RootDevice, RootDeviceConfig, RootDeviceError};
pub use select::{Origin, Qemu, SelectError, find_in_path};
pub use shutdown::{Ending, Shutdown, end_vm, quit_by_qmp};
pub use stream::{Begin, Streams};
pub use system::{OwnGuest, Start, System};
pub use version::{QemuVersion, VersionError};
