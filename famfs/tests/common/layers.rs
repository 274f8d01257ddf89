// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The folders of a crate's sources as its layers: a folder uses those below it, and no files use
//! each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The modules of a crate, each with its code.
pub struct Layers {
    /// Names of the folders in `src`, from the bottom up.
    order: &'static [&'static str],
    /// How code names its own crate.
    roots: [&'static str; 2],
    modules: BTreeMap<String, String>,
}

impl Layers {
    /// Reads the sources in `src` of a crate. What `main.rs` and `lib.rs` hold is in no folder.
    pub fn read(src: &Path, name: &'static str, order: &'static [&'static str]) -> Self {
        let mut layers = Self { order, roots: ["crate", name], modules: BTreeMap::new() };
        layers.add(src, "");
        layers
    }

    fn add(&mut self, dir: &Path, module: &str) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let inner = join(module, name);
            if path.is_dir() {
                self.add(&path, &inner);
            } else {
                let whole = ["mod", "lib", "main"].contains(&name);
                let inner = if whole { module.to_owned() } else { inner };
                self.modules
                    .entry(inner)
                    .or_default()
                    .push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }

    /// Adds code to a module: a test of these checks.
    pub fn plant(&mut self, module: &str, code: &str) {
        let text = self.modules.entry(module.to_owned()).or_default();
        // Before its tests.
        text.insert_str(0, code);
    }

    /// The names of the folders, and of files that lie beside them.
    pub fn folders(&self) -> BTreeSet<&str> {
        self.modules.keys().map(|module| folder(module)).filter(|name| !name.is_empty()).collect()
    }

    /// Source texts of a folder, or of the crate's root.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let inside = self.modules.iter().filter(move |(module, _)| folder(module) == name);
        inside.map(|(_, text)| text.as_str())
    }

    /// The first folder that uses one which is not before it.
    pub fn upward(&self) -> Option<String> {
        let rank = |name: &str| self.order.iter().position(|folder| *folder == name);
        let arrows = self.arrows();
        let mut upward = arrows.iter().flat_map(|(module, used)| {
            let own = rank(folder(module));
            let above = move |other: &&String| own.is_some() && rank(folder(other)) > own;
            used.iter().filter(above).map(move |other| format!("{module} uses {other}"))
        });
        upward.next()
    }

    /// The first circle of files that is found.
    pub fn circle(&self) -> Option<String> {
        let mut arrows = self.arrows();
        arrows.retain(|module, _| !module.ends_with("tests"));
        // A module that uses none of those that are left is in no circle, nor in the way of one.
        loop {
            let left: BTreeSet<String> = arrows.keys().cloned().collect();
            arrows.retain(|_, used| used.iter().any(|used| left.contains(used)));
            if arrows.len() == left.len() {
                break;
            }
        }
        let mut walk = vec![arrows.keys().next()?.clone()];
        loop {
            let next = arrows[walk.last()?].iter().find(|used| arrows.contains_key(*used))?;
            if let Some(begin) = walk.iter().position(|module| module == next) {
                return Some(format!("{} -> {next}", walk[begin..].join(" -> ")));
            }
            walk.push(next.clone());
        }
    }

    /// How many arrows there are between folders.
    pub fn between_folders(&self) -> usize {
        let arrows = self.arrows();
        let arrows = arrows
            .iter()
            .flat_map(|(module, used)| used.iter().map(move |used| (folder(module), folder(used))));
        let arrows = arrows.filter(|(from, to)| !from.is_empty() && from != to);
        arrows.collect::<BTreeSet<_>>().len()
    }

    /// Which modules each one uses. The crate's root is none.
    fn arrows(&self) -> BTreeMap<String, BTreeSet<String>> {
        let arrows = self.modules.iter().map(|(module, text)| {
            let imports = self.imports(module, &code(text));
            let used = imports.iter().map(|import| self.module_of(import));
            let used = used.filter(|used| !used.is_empty() && used != module);
            (module.clone(), used.map(str::to_owned).collect())
        });
        arrows.collect()
    }

    /// The paths in a module's code that begin at the root of the crate.
    fn imports(&self, module: &str, code: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for root in self.roots {
            for (at, _) in code.match_indices(&format!("{root}::")) {
                let is_part = |before: char| before.is_alphanumeric() || "_:".contains(before);
                if !code[..at].ends_with(is_part) {
                    paths(&code[at + root.len()..], "", &mut found);
                }
            }
        }
        for (at, _) in code.match_indices("super::") {
            if code[..at].ends_with("super::") {
                continue;
            }
            let (mut base, mut end) = (module, at);
            while code[end..].starts_with("super::") {
                base = base.rsplit_once("::").map_or("", |(above, _)| above);
                end += "super::".len();
            }
            paths(&code[end - 2..], base, &mut found);
        }
        found
    }

    /// The module that a path leads into.
    fn module_of<'p>(&self, mut path: &'p str) -> &'p str {
        while !path.is_empty() && !self.modules.contains_key(path) {
            path = path.rsplit_once("::").map_or("", |(above, _)| above);
        }
        path
    }
}

fn join(path: &str, name: &str) -> String {
    let parts = [path, name].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("::")
}

fn folder(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

/// A source file without its comments and its tests.
fn code(text: &str) -> String {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: Vec<_> = code.take_while(|line| *line != "mod tests {").collect();
    code.join("\n")
}

/// Finds the path at the beginning of some code, or the paths, as in `a::{b, c::d}`. Returns the
/// length of that code.
fn paths(code: &str, prefix: &str, found: &mut BTreeSet<String>) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let word = code.find(|c| !is_word(c)).unwrap_or(code.len());
    let path = join(prefix, &code[..word]);
    let Some(inner) = code[word..].strip_prefix("::") else {
        found.insert(path);
        return word;
    };
    let mut at = word + 2;
    if !inner.starts_with('{') {
        return at + paths(inner, &path, found);
    }
    while !code[at..].starts_with('}') {
        at += 1;
        at += code[at..].find(|c: char| !c.is_whitespace()).unwrap();
        at += paths(&code[at..], &path, found);
        at += code[at..].find([',', '}']).unwrap();
    }
    at + 1
}
