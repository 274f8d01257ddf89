// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What differs between two descriptions of a VM, in the words of the cluster file.

use std::fmt::Display;
use std::path::Path;

use famfs::text::units::Bytes;

use super::spec::{Access, Restart, VmSpec};
use crate::host::processors::Processors;
use crate::vm::{Forward, Limits, Root};

/// What is asked for in `new` that was not in `old`; empty if nothing changes.
#[must_use]
pub fn between(old: &VmSpec, new: &VmSpec) -> Vec<String> {
    // Without `..`, so that no key is forgotten.
    let VmSpec {
        name: _,
        access,
        transport,
        memory,
        cpus,
        cpus_allowed,
        limits: Limits { cpu_weight, memory_max },
        numa,
        image,
        root,
        overlay,
        kernel,
        initrd,
        append,
        firmware,
        mount,
        noexec,
        shell,
        confine,
        restart,
        // Only the next start is different.
        depends_on: _,
        // What runs does not notice.
        health: _,
        network,
        ports,
        args,
    } = new;
    let mut found = Vec::new();
    let mut compare = |key: &str, old: String, new: String| {
        if old != new {
            found.push(format!("{key} {old} -> {new}"));
        }
    };
    compare("access", access_of(old.access), access_of(*access));
    compare("transport", or_default(old.transport), or_default(*transport));
    compare("memory", or_default(old.memory.map(Bytes)), or_default(memory.map(Bytes)));
    compare("cpus", old.cpus.to_string(), cpus.to_string());
    let processors = |allowed: &Option<Processors>| or_default(allowed.as_ref());
    compare("cpus-allowed", processors(&old.cpus_allowed), processors(cpus_allowed));
    compare("cpu-weight", or_default(old.limits.cpu_weight), or_default(*cpu_weight));
    let bytes = |bytes: Option<u64>| or_default(bytes.map(Bytes));
    compare("memory-max", bytes(old.limits.memory_max), bytes(*memory_max));
    compare("numa", or_default(old.numa), or_default(*numa));
    compare("image", path_of(old.image.as_deref()), path_of(image.as_deref()));
    compare("root", or_default(old.root.map(Root::name)), or_default(root.map(Root::name)));
    compare("overlay", path_of(old.overlay.as_deref()), path_of(overlay.as_deref()));
    compare("kernel", path_of(old.kernel.as_deref()), path_of(kernel.as_deref()));
    compare("initrd", path_of(old.initrd.as_deref()), path_of(initrd.as_deref()));
    compare("append", or_default(old.append.as_ref()), or_default(append.as_ref()));
    compare("firmware", path_of(old.firmware.as_deref()), path_of(firmware.as_deref()));
    compare("mount", or_default(old.mount), or_default(*mount));
    compare("noexec", old.noexec.to_string(), noexec.to_string());
    compare("shell", old.shell.to_string(), shell.to_string());
    compare("confine", old.confine.to_string(), confine.to_string());
    compare("restart", restart_of(old.restart).into(), restart_of(*restart).into());
    compare("network", old.network.name().into(), network.name().into());
    compare("ports", ports_of(&old.ports), ports_of(ports));
    compare("args", format!("{:?}", old.args), format!("{args:?}"));
    found
}

fn or_default(value: Option<impl Display>) -> String {
    value.map_or_else(|| "the default".to_owned(), |value| value.to_string())
}

fn path_of(path: Option<&Path>) -> String {
    or_default(path.map(Path::display))
}

fn access_of(access: Access) -> String {
    match access {
        Access::Slice { offset, length } => {
            format!("slice of {} from {}", Bytes(length), Bytes(offset))
        }
        whole => whole.name().to_owned(),
    }
}

fn ports_of(ports: &[Forward]) -> String {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    if ports.is_empty() { "none".to_owned() } else { ports.join(" ") }
}

fn restart_of(restart: Restart) -> &'static str {
    match restart {
        Restart::No => "no",
        Restart::OnFailure => "on-failure",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::spec::{Network, Transport};

    #[test]
    fn every_change_is_told_and_nothing_else() {
        let old = VmSpec::new("vm1");
        assert_eq!(between(&old, &old.clone()), [""; 0]);
        type Change = fn(&mut VmSpec);
        let table: [(Change, &str); 23] = [
            (|vm| vm.access = Access::ReadOnly, "access rw -> ro"),
            (
                |vm| vm.access = Access::Slice { offset: 2 << 20, length: 1 << 30 },
                "access rw -> slice of 1 GiB from 2 MiB",
            ),
            (|vm| vm.transport = Some(Transport::Pmem), "transport the default -> pmem"),
            (|vm| vm.memory = Some(2 << 30), "memory the default -> 2 GiB"),
            (|vm| vm.cpus = 4, "cpus 2 -> 4"),
            (|vm| vm.cpus_allowed = "0-1".parse().ok(), "cpus-allowed the default -> 0-1"),
            (|vm| vm.limits.cpu_weight = Some(50), "cpu-weight the default -> 50"),
            (|vm| vm.limits.memory_max = Some(2 << 30), "memory-max the default -> 2 GiB"),
            (|vm| vm.numa = Some(1), "numa the default -> 1"),
            (|vm| vm.image = Some("/image".into()), "image the default -> /image"),
            (|vm| vm.root = Some(Root::Disk), "root the default -> disk"),
            (|vm| vm.overlay = Some("/o".into()), "overlay the default -> /o"),
            (|vm| vm.kernel = Some("/vmlinux".into()), "kernel the default -> /vmlinux"),
            (|vm| vm.initrd = Some("/initrd".into()), "initrd the default -> /initrd"),
            (|vm| vm.append = Some("quiet".into()), "append the default -> quiet"),
            (|vm| vm.firmware = Some("/fd".into()), "firmware the default -> /fd"),
            (|vm| vm.mount = Some(false), "mount the default -> false"),
            (|vm| vm.noexec = true, "noexec false -> true"),
            (|vm| vm.shell = true, "shell false -> true"),
            (|vm| vm.restart = Restart::OnFailure, "restart no -> on-failure"),
            (|vm| vm.network = Network::User, "network none -> user"),
            (|vm| vm.ports.extend("80:81".parse::<Forward>()), "ports none -> 127.0.0.1:80:81/tcp"),
            (|vm| vm.args.push("-x".into()), "args [] -> [\"-x\"]"),
        ];
        for (change, expected) in table {
            let mut new = old.clone();
            change(&mut new);
            assert_eq!(between(&old, &new), [expected]);
        }
    }
}
