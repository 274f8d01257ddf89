// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The order in which VMs start that depend on others.

use std::collections::BTreeSet;
use std::thread;

use crate::vm::Accelerator;

/// How many emulated VMs boot at the same time on each processor of the host. With more, guests
/// give up on devices for which they wait.
const EMULATED: usize = 2;

/// VMs that wait for each other in a circle, each for the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circle(pub Vec<String>);

/// Groups VMs, which are given by their names and those of the VMs that they depend on. Each group
/// depends only on groups before it. Names of other VMs count as if those ran already. Returns
/// indices.
///
/// # Errors
/// VMs that depend on each other.
pub fn waves(vms: &[(&str, &[String])]) -> Result<Vec<Vec<usize>>, Circle> {
    let index = |name: &String| vms.iter().position(|(other, _)| other == name);
    let before: Vec<BTreeSet<usize>> =
        vms.iter().map(|(_, names)| names.iter().filter_map(index).collect()).collect();
    let (mut waves, mut done) = (Vec::new(), BTreeSet::new());
    while done.len() < vms.len() {
        let is_next = |vm: &usize| !done.contains(vm) && before[*vm].is_subset(&done);
        let wave: Vec<usize> = (0..vms.len()).filter(is_next).collect();
        if wave.is_empty() {
            return Err(circle(vms, &before, &done));
        }
        done.extend(&wave);
        waves.push(wave);
    }
    Ok(waves)
}

/// Splits groups so that no more VMs boot at the same time than this host can emulate.
#[must_use]
pub fn in_turns(waves: Vec<Vec<usize>>, accelerator: Accelerator) -> Vec<Vec<usize>> {
    if accelerator == Accelerator::Kvm {
        return waves;
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    split(&waves, EMULATED * processors)
}

fn split(waves: &[Vec<usize>], most: usize) -> Vec<Vec<usize>> {
    waves.iter().flat_map(|wave| wave.chunks(most)).map(<[usize]>::to_vec).collect()
}

/// A circle among those that are not done: each of them waits for another one of them.
fn circle(vms: &[(&str, &[String])], before: &[BTreeSet<usize>], done: &BTreeSet<usize>) -> Circle {
    let first = (0..vms.len()).find(|vm| !done.contains(vm));
    let next = |vm: &usize| before[*vm].difference(done).next().copied();
    let mut path: Vec<usize> = Vec::new();
    for vm in std::iter::successors(first, next) {
        if let Some(begin) = path.iter().position(|seen| *seen == vm) {
            path.drain(..begin);
            path.push(vm);
            break;
        }
        path.push(vm);
    }
    Circle(path.into_iter().map(|vm| vms[vm].0.to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vms: &[(&str, &[&str])]) -> Result<Vec<Vec<usize>>, Circle> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let vms: Vec<(&str, Vec<String>)> =
            vms.iter().map(|(name, before)| (*name, owned(before))).collect();
        let vms: Vec<(&str, &[String])> =
            vms.iter().map(|(name, before)| (*name, before.as_slice())).collect();
        waves(&vms)
    }

    #[test]
    fn each_wave_depends_on_those_before_it() {
        assert_eq!(of(&[]), Ok(vec![]));
        assert_eq!(of(&[("a", &[]), ("b", &[])]), Ok(vec![vec![0, 1]]));
        let vms: [(&str, &[&str]); 4] =
            [("a", &["c"]), ("b", &[]), ("c", &["b", "running"]), ("d", &["b", "b"])];
        assert_eq!(of(&vms), Ok(vec![vec![1], vec![2, 3], vec![0]]));
    }

    #[test]
    fn groups_are_split_in_their_order() {
        let waves = vec![vec![4], vec![0, 1, 2, 3, 5], vec![]];
        assert_eq!(split(&waves, 2), [vec![4], vec![0, 1], vec![2, 3], vec![5]]);
        assert_eq!(in_turns(waves.clone(), Accelerator::Kvm), waves);
        let many = vec![(0..10_000).collect::<Vec<_>>()];
        assert!(in_turns(many, Accelerator::Tcg).len() > 1);
    }

    #[test]
    fn circles_are_named_without_those_that_lead_to_them() {
        let circle = |vms: &[(&str, &[&str])]| of(vms).unwrap_err().0.join(" ");
        assert_eq!(circle(&[("a", &["a"])]), "a a");
        let vms: [(&str, &[&str]); 4] =
            [("z", &[]), ("a", &["b"]), ("b", &["z", "c"]), ("c", &["b"])];
        assert_eq!(circle(&vms), "b c b");
    }
}
