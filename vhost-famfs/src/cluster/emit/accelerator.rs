// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How guests run: the host that starts them decides, which need not be the host that emits.

use std::ffi::OsString;

use super::prepare::Lines;
use crate::vm::{Accelerator, EMULATED_WORDS, VmConfig, shell_quoted};

/// What runs guests on hosts without KVM.
pub(super) const EMULATOR: Accelerator = Accelerator::Tcg;

/// Checks whether KVM works: the processor offers virtualization, and the device opens.
pub(super) const HAS_KVM: &str =
    "grep -Eq '^flags.* (vmx|svm)( |$)' /proc/cpuinfo && (: <> /dev/kvm) 2> /dev/null";

/// The shell command that decides, and sets the variables of [`command_line`].
pub(super) fn decide(lines: Lines) -> String {
    let (begin, next) = if lines == Lines::Many { ("\n", "\n    ") } else { (" ", " ") };
    let (accel, cpu) = (EMULATOR.name(), EMULATOR.cpu());
    let words = kernel_words();
    format!(
        "if {HAS_KVM}; then{next}accel=kvm cpu={} emulated= words=;{begin}else{next}accel={accel} \
         cpu={cpu} emulated=yes words='{words}';{begin}fi",
        Accelerator::Kvm.cpu()
    )
}

/// QEMU's command line, with variables for what depends on the host.
pub(super) fn command_line(config: &VmConfig, line: impl Fn(&VmConfig) -> Vec<OsString>) -> String {
    let with = |accelerator| line(&VmConfig { accelerator, ..config.clone() });
    let emulated = with(EMULATOR);
    let mut option = OsString::new();
    let mut words = Vec::new();
    for (by_kvm, emulated) in with(Accelerator::Kvm).iter().zip(emulated) {
        let same = *by_kvm == emulated;
        words.push(if same {
            shell_quoted(std::slice::from_ref(by_kvm))
        } else {
            variable(&option, &emulated.to_string_lossy())
        });
        option.clone_from(by_kvm);
    }
    words.join(" ")
}

/// The value of an option that differs on hosts without KVM.
fn variable(option: &OsString, emulated: &str) -> String {
    let quoted = |text: &str| match text {
        "" => String::new(),
        text => shell_quoted(&[text.into()]),
    };
    if option == "-append" {
        let (before, after) = emulated.split_once(&kernel_words()).unwrap_or((emulated, ""));
        format!("{}\"$words\"{}", quoted(before), quoted(after))
    } else if option == "-cpu" {
        match emulated.strip_prefix(EMULATOR.cpu()) {
            Some(more) if !more.is_empty() => format!("\"$cpu${{emulated:+{more}}}\""),
            _ => "\"$cpu\"".to_owned(),
        }
    } else {
        "\"$accel\"".to_owned()
    }
}

/// Kernel parameters for an emulated processor.
pub(super) fn kernel_words() -> String {
    EMULATED_WORDS.iter().map(|word| format!(" {word}")).collect()
}
