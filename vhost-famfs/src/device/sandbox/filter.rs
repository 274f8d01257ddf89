// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The system calls that are allowed: those that the connection, the queue and the log need, and
//! those that glibc and musl use for threads, memory and time.

use famfs::system::seccomp::{self, Rules, any_arguments, equal, flags, with, without};
use libc::c_long;
use seccompiler::{BackendError, BpfProgram, SeccompAction};

use super::{SandboxError, Violation};

/// System calls that are harmless with any arguments.
const ANY_ARGUMENTS: &[c_long] = &[
    // Open descriptors.
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_msync,
    // Existing sockets.
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads, signals and the end.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
];

/// What a back-end that waits for its VM needs in addition: to remove its socket and to notify the
/// service manager. `statx` and `newfstatat` find files by name regardless of their flags, because
/// a filter cannot see whether the name is empty; after this, descriptors still have `fstat`.
const WAITING: &[c_long] = &[
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
];

/// What is needed to accept the connection and to install the next filter. A front-end can send a
/// listening socket of its own, so `accept4` is not harmless once it may send messages.
const CONNECTING: &[c_long] = &[libc::SYS_accept4, libc::SYS_seccomp];

/// System calls that newer architectures no longer have.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[c_long] = &[libc::SYS_poll, libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[c_long] = &[];

/// `FIONBIO`: libraries use it to make a descriptor non-blocking.
const FIONBIO: u64 = 0x5421;

/// A filter that makes glibc start threads with `clone`.
pub(super) fn compatibility() -> Result<BpfProgram, SandboxError> {
    seccomp::without_clone3().map_err(|err| SandboxError::Build(err.into()))
}

/// The list for a back-end that waits for its VM.
pub(super) fn waiting(violation: Violation) -> Result<BpfProgram, SandboxError> {
    let rules = rules().map_err(|err| SandboxError::Build(err.into()))?;
    compile(rules, action(violation), SeccompAction::Allow)
}

/// The filter that removes what only waiting needs, once the VMM has connected. It is small,
/// because the kernel checks and translates it while the VM waits.
pub(super) fn connecting(violation: Violation) -> Result<BpfProgram, SandboxError> {
    compile(any_arguments(WAITING), SeccompAction::Allow, action(violation))
}

/// The filter that removes the rest once the connection is accepted.
pub(super) fn serving(violation: Violation) -> Result<BpfProgram, SandboxError> {
    let rules = connected().map_err(|err| SandboxError::Build(err.into()))?;
    compile(rules, SeccompAction::Allow, action(violation))
}

fn action(violation: Violation) -> SeccompAction {
    match violation {
        Violation::Kill => SeccompAction::KillProcess,
        Violation::Log => SeccompAction::Log,
    }
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    on_match: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    seccomp::compile(rules, otherwise, on_match).map_err(|err| SandboxError::Build(err.into()))
}

fn rules() -> Result<Rules, BackendError> {
    let mut rules = any_arguments(&[ANY_ARGUMENTS, LEGACY, WAITING, CONNECTING].concat());
    let executable = flags(libc::PROT_EXEC);
    // abort(3) sends the signal to its own process.
    let myself = u64::from(std::process::id());
    rules.extend([
        (libc::SYS_mmap, vec![without(2, executable)?]),
        (libc::SYS_mprotect, vec![without(2, executable)?]),
        // The other filter answers it with ENOSYS. Here the process would be killed, and killing
        // takes precedence.
        (libc::SYS_clone3, Vec::new()),
        // For threads only.
        (libc::SYS_clone, vec![with(0, flags(libc::CLONE_THREAD))?]),
        (libc::SYS_ioctl, vec![equal(1, FIONBIO)?]),
        (libc::SYS_tgkill, vec![equal(0, myself)?]),
        (
            libc::SYS_prctl,
            [libc::PR_SET_NAME, libc::PR_SET_VMA, libc::PR_SET_NO_NEW_PRIVS]
                .into_iter()
                .map(|option| equal(0, flags(option)))
                .collect::<Result<_, _>>()?,
        ),
        (
            libc::SYS_fcntl,
            [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD_CLOEXEC]
                .into_iter()
                .map(|command| equal(1, flags(command)))
                .collect::<Result<_, _>>()?,
        ),
    ]);
    Ok(rules)
}

/// The system calls of [`rules`] that a connected back-end no longer has.
fn connected() -> Result<Rules, BackendError> {
    let mut rules = any_arguments(CONNECTING);
    rules.insert(libc::SYS_prctl, vec![equal(0, flags(libc::PR_SET_NO_NEW_PRIVS))?]);
    Ok(rules)
}
