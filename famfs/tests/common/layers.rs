// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The folders of a crate are its layers: a folder uses those below it, and the files of a folder
//! do not use each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Where a file or an import belongs: a folder of `src`, and a module in it. The module is empty
/// for what is in the folder's `mod.rs`.
type Place = (String, String);

/// The source files of a crate with what they import.
pub struct Layers {
    /// Name of the folder or file in `src`, from the bottom up.
    order: Vec<String>,
    /// Source texts.
    sources: BTreeMap<Place, String>,
    /// How code names its own crate.
    roots: [String; 2],
}

impl Layers {
    /// Reads the sources of the crate `name` in `src`.
    pub fn read(src: &Path, name: &str, order: &[&str]) -> Self {
        let mut layers = Self::new(name, order);
        layers.add(src, &[]);
        layers
    }

    fn new(name: &str, order: &[&str]) -> Self {
        let order = order.iter().map(ToString::to_string).collect();
        Self { order, sources: BTreeMap::new(), roots: ["crate::".into(), format!("{name}::")] }
    }

    fn add(&mut self, dir: &Path, inside: &[String]) {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
            let place: Vec<String> = inside.iter().cloned().chain([name]).collect();
            if entry.is_dir() {
                self.add(&entry, &place);
            } else {
                self.insert(&place, &fs::read_to_string(&entry).unwrap());
            }
        }
    }

    fn insert(&mut self, path: &[String], text: &str) {
        let module = path.get(1).filter(|name| *name != "mod").cloned().unwrap_or_default();
        // A file and the folder of its parts are one module.
        self.sources.entry((path[0].clone(), module)).or_default().push_str(text);
    }

    /// Source texts of a folder or file of `src`.
    pub fn texts(&self, layer: &str) -> impl Iterator<Item = &str> {
        self.sources.iter().filter(move |((folder, _), _)| folder == layer).map(|(_, text)| &**text)
    }

    /// What is wrong: a folder without a place in the order, an import that leads upward, a circle
    /// in a folder.
    pub fn faults(&self) -> Vec<String> {
        let folders: BTreeSet<&String> = self.sources.keys().map(|(folder, _)| folder).collect();
        let roots = ["lib", "main"];
        let placed = |name: &str| roots.contains(&name) || self.order.iter().any(|o| o == name);
        let mut faults: Vec<String> = Vec::new();
        faults
            .extend(folders.iter().filter(|name| !placed(name)).map(|n| format!("{n}: no place")));
        let gone = self.order.iter().filter(|name| !folders.contains(name));
        faults.extend(gone.map(|name| format!("{name}: is not there")));
        let rank = |name: &str| self.order.iter().position(|folder| folder == name);
        for (from, to) in self.arrows() {
            // A file that is not in a layer, such as a crate's root, may use all of them.
            if rank(&from.0).is_some_and(|rank_of_user| rank(&to.0) > Some(rank_of_user)) {
                faults.push(format!("{} uses {}, which is above it", name(&from), name(&to)));
            }
        }
        faults.extend(self.circles());
        faults
    }

    /// How many arrows there are between folders.
    pub fn between_folders(&self) -> usize {
        let arrows = self.arrows().into_iter().map(|(from, to)| (from.0, to.0));
        arrows.filter(|(from, to)| from != to).collect::<BTreeSet<_>>().len()
    }

    /// Which module uses which other one.
    fn arrows(&self) -> BTreeSet<(Place, Place)> {
        let mut arrows = BTreeSet::new();
        for (place, text) in &self.sources {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let code: String = code.collect::<Vec<_>>().join("\n");
            for root in &self.roots {
                for rest in after(&code, root) {
                    for path in paths(rest) {
                        arrows.insert((place.clone(), self.place(&path)));
                    }
                }
            }
            for path in after(&code, "super::").flat_map(paths) {
                // A module of tests says it of the module that it is in.
                let sibling = path.first().map(|name| (place.0.clone(), name.clone()));
                if let Some(sibling) = sibling.filter(|place| self.sources.contains_key(place)) {
                    arrows.insert((place.clone(), sibling));
                }
            }
        }
        arrows.retain(|(from, to)| from != to);
        arrows
    }

    /// Where an imported path belongs.
    fn place(&self, path: &[String]) -> Place {
        let part = |index: usize| path.get(index).cloned().unwrap_or_default();
        let inside = (part(0), part(1));
        match self.sources.contains_key(&inside) {
            true => inside,
            false => (part(0), String::new()),
        }
    }

    /// Modules of one folder that use each other in a circle. The folder's own file is one of them.
    fn circles(&self) -> Vec<String> {
        let mut uses: BTreeMap<Place, Vec<Place>> = BTreeMap::new();
        for (from, to) in self.arrows() {
            if from.0 == to.0 {
                uses.entry(from).or_default().push(to);
            }
        }
        let mut circles = Vec::new();
        for start in uses.keys() {
            let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
            while let Some(place) = next.pop() {
                let further = uses.get(place).into_iter().flatten();
                next.extend(further.filter(|place| reached.insert((*place).clone())));
            }
            if reached.contains(start) {
                circles.push(format!("{} is in a circle", name(start)));
            }
        }
        circles
    }
}

fn name((folder, module): &Place) -> String {
    if module.is_empty() { folder.clone() } else { format!("{folder}::{module}") }
}

/// What follows a word, wherever the word is not part of another.
fn after<'t>(text: &'t str, word: &str) -> impl Iterator<Item = &'t str> {
    text.match_indices(word).filter_map(move |(at, _)| {
        let part_of_a_name = |before: char| before.is_alphanumeric() || "_:".contains(before);
        let by_itself = !text[..at].ends_with(part_of_a_name);
        by_itself.then(|| &text[at + word.len()..])
    })
}

/// The paths at the start of a text, as segments: `a::{b, c::D}` is two.
fn paths(text: &str) -> Vec<Vec<String>> {
    let (mut found, mut path, mut depths) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = text;
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        if !word.is_empty() && word != "as" {
            path.push(word.to_owned());
        }
        rest = behind.trim_start_matches(|c: char| c.is_whitespace() || c == '*');
        if let Some(further) = rest.strip_prefix("::") {
            rest = further;
        } else if let Some(list) = rest.strip_prefix('{') {
            // A list only stands behind `::`, or at the very start.
            if !word.is_empty() {
                found.push(path);
                return found;
            }
            depths.push(path.len());
            rest = list.trim_start();
        } else if let Some(&depth) = depths.last() {
            if path.len() > depth {
                found.push(path.clone());
            }
            path.truncate(depth);
            if let Some(further) = rest.strip_prefix('}') {
                depths.pop();
                path.truncate(depths.last().copied().unwrap_or(0));
                rest = further;
                if depths.is_empty() {
                    return found;
                }
            } else if let Some(further) = rest.strip_prefix(',') {
                rest = further.trim_start();
            } else if word.is_empty() {
                return found;
            }
        } else {
            found.push(path);
            return found;
        }
    }
}

/// Plants faults that the checks must find.
pub fn planted_faults_are_found() {
    let faults = |sources: &[(&str, &str)]| {
        let mut layers = Layers::new("house", &["cellar", "roof"]);
        for (file, text) in sources {
            let path: Vec<String> = file.split('/').map(str::to_owned).collect();
            layers.insert(&path, text);
        }
        layers.faults()
    };
    let sound =
        [("cellar/mod", "pub struct Barrel;"), ("roof/tiles", "use crate::cellar::Barrel;")];
    assert_eq!(faults(&sound), [""; 0]);
    let upward = [("cellar/door", "fn f() { house::roof::tiles::drop() }"), ("roof/tiles", "")];
    assert_eq!(faults(&upward), ["cellar::door uses roof::tiles, which is above it"]);
    let circle = [
        ("cellar/a", "use crate::cellar::{\n    b::{self, B},\n    c,\n};"),
        ("cellar/b", "use super::c;"),
        ("cellar/c", "use crate::{cellar::a as x};"),
        ("roof/tiles", ""),
    ];
    let members = ["a", "b", "c"].map(|name| format!("cellar::{name} is in a circle"));
    assert_eq!(faults(&circle), members);
    assert_eq!(
        faults(&[("cellar/mod", ""), ("shed", "")]),
        ["shed: no place", "roof: is not there"]
    );
}
