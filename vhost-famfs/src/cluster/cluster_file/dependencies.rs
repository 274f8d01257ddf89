// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which VMs of a cluster file depend on others: `depends-on`.

use std::ops::Range;

use toml::Spanned;

use super::super::order::{Circle, waves};
use super::super::spec::VmSpec;
use super::text::Fault;
use super::{Name, VmTable};

/// What the tables of a file depend on.
pub(super) struct Dependencies {
    /// The names of tables with a count.
    counted: Vec<String>,
    /// Every name that a table depends on, and where it is in the file.
    names: Vec<(String, Range<usize>)>,
}

impl Dependencies {
    pub(super) fn new(tables: &[Spanned<VmTable>]) -> Self {
        let tables = || tables.iter().map(Spanned::get_ref);
        let counted = tables().filter(|table| table.count.is_some());
        let name = |table: &VmTable| table.name.as_ref().map_or("vm", |Name(name)| name).to_owned();
        let names = tables().flat_map(|table| &table.depends_on);
        let names = names.map(|name| (name.get_ref().clone(), name.span()));
        Self { counted: counted.map(name).collect(), names: names.collect() }
    }

    /// Replaces the name of a table with a count by the names of its VMs, and checks that every
    /// name is one, and that no VM waits for itself.
    pub(super) fn resolve(&self, vms: &mut [VmSpec]) -> Result<(), Fault> {
        let all: Vec<String> = vms.iter().map(|vm| vm.name.clone()).collect();
        for vm in vms.iter_mut() {
            let named = |name: &String| match self.counted.contains(name) {
                true => all.iter().filter(|vm| is_of_table(vm, name)).cloned().collect(),
                false => vec![name.clone()],
            };
            vm.depends_on = vm.depends_on.iter().flat_map(named).collect();
        }
        let is_known = |name: &String| all.contains(name) || self.counted.contains(name);
        if let Some((name, at)) = self.names.iter().find(|(name, _)| !is_known(name)) {
            let hint = format!("the VMs of this file are {}", all.join(", "));
            return Err(Fault::new(at, format!("no VM has the name {name:?}"), &hint));
        }
        let order: Vec<_> =
            vms.iter().map(|vm| (vm.name.as_str(), vm.depends_on.as_slice())).collect();
        match waves(&order) {
            Ok(_) => Ok(()),
            Err(Circle(path)) => {
                let at = self.names.iter().find(|(name, _)| {
                    path.iter().any(|vm| vm == name)
                        || self.counted.contains(name)
                            && path.iter().any(|vm| is_of_table(vm, name))
                });
                let at = at.map_or(0..0, |(_, at)| at.clone());
                let message = format!("VMs wait for each other: {}", path.join(" -> "));
                Err(Fault::new(&at, message, "remove one of these depends-on"))
            }
        }
    }
}

/// Whether a VM is one of a table with a count.
fn is_of_table(vm: &str, table: &str) -> bool {
    let number = vm.strip_prefix(table).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}
