// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The folders of this crate import downwards only, and the files of a folder form no circle.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Folders from the bottom up; each may use those before it. `run` belongs to the program, not to
/// the library.
const ORDER: &[&str] =
    &["bounded_log", "host", "pool", "device", "vm", "cluster", "doctor", "args", "run"];

/// The modules of the library and of the program, each with its code.
type Modules = BTreeMap<String, String>;

fn source() -> Modules {
    let mut modules = Modules::new();
    add(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut modules);
    modules
}

fn add(dir: &Path, module: &str, modules: &mut Modules) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let inner = join(module, name);
        if path.is_dir() {
            add(&path, &inner, modules);
        } else {
            let inner = if ["mod", "lib", "main"].contains(&name) { module.into() } else { inner };
            modules.entry(inner).or_default().push_str(&code(&fs::read_to_string(&path).unwrap()));
        }
    }
}

fn join(path: &str, name: &str) -> String {
    let parts = [path, name].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("::")
}

/// A source file without its comments and its tests.
fn code(text: &str) -> String {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: Vec<_> = code.take_while(|line| *line != "mod tests {").collect();
    code.join("\n")
}

fn is_test(module: &str) -> bool {
    module.ends_with("tests")
}

/// The path or paths at the beginning of some code, as in `a::{b, c::d}`, and the length of that
/// code.
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

/// The paths in a module's code that begin at the root of the crate.
fn imports(module: &str, code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in ["crate", "vhost_famfs"] {
        for (at, _) in code.match_indices(&format!("{root}::")) {
            paths(&code[at + root.len()..], "", &mut found);
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

fn folder(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

/// The module that a path leads into.
fn module_of<'p>(mut path: &'p str, modules: &Modules) -> &'p str {
    while !modules.contains_key(path) {
        path = path.rsplit_once("::").map_or("", |(above, _)| above);
    }
    path
}

/// The first folder that imports one that is not before it, with the path.
fn upward(modules: &Modules) -> Option<String> {
    let rank = |name: &str| ORDER.iter().position(|folder| *folder == name);
    for (module, code) in modules {
        let Some(own) = rank(folder(module)) else { continue };
        for import in imports(module, code) {
            match rank(folder(&import)) {
                Some(other) if other > own => return Some(format!("{module} uses {import}")),
                _ => {}
            }
        }
    }
    None
}

/// The first circle of files found. It is not a circle if a module and those inside it use each
/// other.
fn circle(modules: &Modules) -> Option<String> {
    let inside = |inner: &str, outer: &str| inner.starts_with(&format!("{outer}::"));
    let mut arrows: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (module, code) in modules.iter().filter(|(module, _)| !is_test(module)) {
        let imports = imports(module, code);
        let used = imports.iter().map(|import| module_of(import, modules));
        let used = used.filter(|used| {
            !used.is_empty() && used != module && !inside(used, module) && !inside(module, used)
        });
        arrows.insert(module, used.map(str::to_owned).collect());
    }
    // A module that uses none of the remaining ones is in no circle, so it can be removed.
    loop {
        let left: BTreeSet<String> = arrows.keys().map(|module| (*module).to_owned()).collect();
        arrows.retain(|_, used| used.iter().any(|used| left.contains(used)));
        if arrows.len() == left.len() {
            break;
        }
    }
    let mut walk = vec![(*arrows.keys().next()?).to_owned()];
    loop {
        let used = &arrows[walk.last()?.as_str()];
        let next = used.iter().find(|used| arrows.contains_key(used.as_str()))?;
        if let Some(begin) = walk.iter().position(|module| module == next) {
            return Some(format!("{} -> {next}", walk[begin..].join(" -> ")));
        }
        walk.push(next.clone());
    }
}

#[test]
fn folders_import_downwards_only() {
    let found = upward(&source());
    assert_eq!(found, None, "of {ORDER:?} each may use those before it");
}

#[test]
fn files_form_no_circle() {
    assert_eq!(circle(&source()), None);
}

#[test]
fn every_folder_has_its_place() {
    let folders: BTreeSet<_> = source().keys().map(|module| folder(module).to_owned()).collect();
    let expected: BTreeSet<_> = ORDER.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        folders.difference(&[String::new()].into()).cloned().collect::<BTreeSet<_>>(),
        expected
    );
}

#[test]
fn what_must_not_be_is_found() {
    let plant = |module: &str, code: &str| {
        let mut modules = source();
        modules.entry(module.to_owned()).or_default().push_str(code);
        (upward(&modules), circle(&modules))
    };
    let upward = plant("pool::kind", "use crate::{host::sys, vm::Vm};").0;
    assert_eq!(upward.as_deref(), Some("pool::kind uses vm::Vm"));
    let circle = plant("device::pmem", "use super::{durability, queue::Batch};").1;
    assert_eq!(circle.as_deref(), Some("device::durability -> device::pmem -> device::durability"));
    let circle = plant("host::units", "use super::memory;\nuse crate::host::sys;").1;
    assert_eq!(circle, None);
}
