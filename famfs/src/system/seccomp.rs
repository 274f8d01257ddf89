// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System call filters for programs that read what other machines have written. Each program has
//! its own list.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// The system calls that a filter knows. A call without a rule matches with any arguments; the
/// others match if one of their rules does.
pub type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that match with any arguments.
#[must_use]
pub fn any_arguments(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// The filter that does `on_match` for calls that match a rule, and `otherwise` for all others.
///
/// # Errors
/// This processor is unknown, or the filter is too long.
pub fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    on_match: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, on_match, TargetArch::try_from(ARCH)?)?.try_into()
}

/// A filter that makes the C library start threads with `clone`, whose flags a filter can see,
/// instead of `clone3`, whose flags it cannot.
///
/// # Errors
/// As [`compile`].
pub fn without_clone3() -> Result<BpfProgram, BackendError> {
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    compile(any_arguments(&[libc::SYS_clone3]), SeccompAction::Allow, missing)
}

/// Flags or a number of the C library as a rule compares them.
#[must_use]
pub fn flags(bits: i32) -> u64 {
    u64::from(bits.cast_unsigned())
}

/// The argument is this number.
///
/// # Errors
/// There is no such argument.
pub fn equal(argument: u8, value: u64) -> Result<SeccompRule, BackendError> {
    rule(argument, SeccompCmpOp::Eq, value)
}

/// The argument has all these bits.
///
/// # Errors
/// There is no such argument.
pub fn with(argument: u8, bits: u64) -> Result<SeccompRule, BackendError> {
    rule(argument, SeccompCmpOp::MaskedEq(bits), bits)
}

/// The argument has none of these bits.
///
/// # Errors
/// There is no such argument.
pub fn without(argument: u8, bits: u64) -> Result<SeccompRule, BackendError> {
    rule(argument, SeccompCmpOp::MaskedEq(bits), 0)
}

/// A rule about an argument, of which the lower half counts.
fn rule(argument: u8, how: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value)?;
    SeccompRule::new(vec![condition])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_a_filter() {
        let mut rules = any_arguments(&[libc::SYS_read, libc::SYS_write]);
        rules.insert(libc::SYS_mmap, vec![without(2, flags(libc::PROT_EXEC)).unwrap()]);
        rules.insert(libc::SYS_clone, vec![with(0, flags(libc::CLONE_THREAD)).unwrap()]);
        rules.insert(libc::SYS_socket, vec![equal(0, flags(libc::AF_UNIX)).unwrap()]);
        let known = compile(rules, SeccompAction::KillProcess, SeccompAction::Allow).unwrap();
        assert!(known.len() > without_clone3().unwrap().len());
        assert!(equal(6, 0).is_err(), "a system call has six arguments");
    }
}
