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
    /// The names of tables with a count, and their numbers in the file.
    counted: Vec<(String, usize)>,
    /// Every name that a table depends on, and where it is in the file.
    names: Vec<(String, Range<usize>)>,
}

impl Dependencies {
    pub(super) fn new(tables: &[Spanned<VmTable>]) -> Self {
        let tables = || tables.iter().map(Spanned::get_ref);
        let counted = tables().enumerate().filter(|(_, table)| table.count.is_some());
        let name = |(number, table): (usize, &VmTable)| {
            (table.name.as_ref().map_or("vm", |Name(name)| name).to_owned(), number)
        };
        let names = tables().flat_map(|table| &table.depends_on);
        let names = names.map(|name| (name.get_ref().clone(), name.span()));
        Self { counted: counted.map(name).collect(), names: names.collect() }
    }

    /// Replaces the name of a table with a count by the names of its VMs, and checks that every
    /// name is one, and that no VM waits for itself. `numbers` has the table's number for each VM.
    pub(super) fn resolve(&self, vms: &mut [VmSpec], numbers: &[usize]) -> Result<(), Fault> {
        let all: Vec<String> = vms.iter().map(|vm| vm.name.clone()).collect();
        let of_table = |table: usize| {
            all.iter().zip(numbers).filter(move |(_, of)| **of == table).map(|(name, _)| name)
        };
        for vm in vms.iter_mut() {
            let named = |name: &String| match self.table(name) {
                Some(table) => of_table(table).cloned().collect(),
                None => vec![name.clone()],
            };
            vm.depends_on = vm.depends_on.iter().flat_map(named).collect();
        }
        let is_known = |name: &String| all.contains(name) || self.table(name).is_some();
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
                    let mut of_table = self.table(name).into_iter().flat_map(of_table);
                    path.contains(name) || of_table.any(|vm| path.contains(vm))
                });
                let at = at.map_or(0..0, |(_, at)| at.clone());
                let message = format!("VMs wait for each other: {}", path.join(" -> "));
                Err(Fault::new(&at, message, "remove one of these depends-on"))
            }
        }
    }

    /// The number of the table with a count and that name.
    fn table(&self, name: &str) -> Option<usize> {
        self.counted.iter().find(|(counted, _)| counted == name).map(|(_, number)| *number)
    }
}
