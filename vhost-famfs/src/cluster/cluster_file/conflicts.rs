// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What two VMs of a cluster cannot both have.

use std::path::{Path, PathBuf};

use toml::Spanned;

use super::text::Fault;
use crate::cluster::spec::VmSpec;
use crate::vm::Forward;

/// Refuses ports that two VMs, or one VM twice, would listen on; `given` is where they are.
pub(super) fn check_ports(vms: &[VmSpec], given: &[Spanned<Forward>]) -> Result<(), Fault> {
    let all: Vec<_> =
        vms.iter().flat_map(|vm| vm.ports.iter().map(move |port| (port, &vm.name))).collect();
    for (number, (port, name)) in all.iter().enumerate() {
        if let Some((_, other)) = all[..number].iter().find(|(other, _)| other.conflicts(port)) {
            let at = given.iter().rfind(|given| given.get_ref() == *port);
            let message =
                format!("port {} of the host is forwarded to {other} and {name}", port.host);
            let hint = "forward another port of the host; a table with ports has no count";
            return Err(Fault::new(&at.map_or(0..0, Spanned::span), message, hint));
        }
    }
    Ok(())
}

/// Refuses overlays that two VMs would write; `given` is where they are.
pub(super) fn check_overlays(
    vms: &[VmSpec],
    base: &Path,
    given: &[Spanned<PathBuf>],
) -> Result<(), Fault> {
    let all: Vec<_> = vms.iter().filter_map(|vm| Some((vm.overlay.as_ref()?, &vm.name))).collect();
    for (number, (path, name)) in all.iter().enumerate() {
        if let Some((_, other)) = all[..number].iter().find(|(other, _)| other == path) {
            let at = given.iter().rfind(|given| base.join(given.get_ref()) == **path);
            let message = format!("{} is the overlay of {other} and {name}", path.display());
            let hint = "name a file for each VM; a table with an overlay has no count above 1";
            return Err(Fault::new(&at.map_or(0..0, Spanned::span), message, hint));
        }
    }
    Ok(())
}
