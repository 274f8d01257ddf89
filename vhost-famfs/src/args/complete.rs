// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a shell offers for the names of clusters and VMs: those that are there now.

use std::collections::BTreeMap;

use clap::{Command, CommandFactory};
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate};

use super::Cli;
use crate::cluster::directory::{self, Directory};
use crate::cluster::host::runtime_dir;
use crate::cluster::spec::check_name;

/// The environment variable by which a shell's completion asks this program, and the script for a
/// shell is had: `VHOST_FAMFS_COMPLETE=bash vhost-famfs`.
pub const VARIABLE: &str = "VHOST_FAMFS_COMPLETE";

/// Answers the question of a shell's completion and ends the program, if there is one.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command as fn() -> Command).var(VARIABLE).complete();
}

/// The names of all clusters.
pub(super) fn clusters() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let names = directories().into_iter().map(|directory| directory.name().to_owned());
        names.map(CompletionCandidate::new).collect()
    })
}

/// The names of the VMs of all clusters. What else the command line says is not known here.
pub(super) fn vms() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let mut clusters_of = BTreeMap::<String, Vec<String>>::new();
        for directory in directories() {
            // One that cannot be read has no names to offer.
            let Ok(Some(state)) = directory.read() else { continue };
            for vm in state.vms.into_iter().filter(|vm| check_name(&vm.name).is_ok()) {
                clusters_of.entry(vm.name).or_default().push(directory.name().to_owned());
            }
        }
        let offered = clusters_of.into_iter().map(|(vm, clusters)| {
            let help = format!("VM of cluster {}", clusters.join(", "));
            CompletionCandidate::new(vm).help(Some(help.into()))
        });
        offered.collect()
    })
}

fn directories() -> Vec<Directory> {
    let Ok(base) = runtime_dir() else { return Vec::new() };
    let names = directory::names(&base).unwrap_or_default();
    let names = names.into_iter().filter(|name| check_name(name).is_ok());
    names.map(|name| Directory::new(&base, &name)).collect()
}
