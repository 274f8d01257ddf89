// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compares docs/reference/cluster-file.schema.json with what the program reads.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn schema() -> Value {
    let path = beside("../docs/reference/cluster-file.schema.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Whether a cluster file is as the schema says.
fn fits(text: &str) -> bool {
    let file: Value = toml::from_str(text).unwrap();
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("cluster.json", schema()).unwrap();
    let index = compiler.compile("cluster.json", &mut schemas).unwrap();
    schemas.validate(&file, index).is_ok()
}

/// The keys that the program names when it finds another one.
fn keys(text: &str) -> BTreeSet<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lab.toml");
    fs::write(&file, text).unwrap();
    let mut up = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
    let output = up.arg("up").arg(&file).arg("--dry-run").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if let Some((_, list)) = said.split_once("expected one of") {
        return list
            .lines()
            .next()
            .unwrap()
            .split('`')
            .skip(1)
            .step_by(2)
            .map(Into::into)
            .collect();
    }
    // At the top there are tables too: "use the keys A and B, and the tables [C], [[D]] and [[E]]".
    let (_, hint) = said.split_once("hint: use the ").unwrap_or_else(|| panic!("{said}"));
    let words = hint.split(|c: char| !c.is_ascii_lowercase() && c != '-');
    let ours = |word: &&str| !["", "keys", "and", "the", "tables"].contains(word);
    words.filter(ours).map(str::to_owned).collect()
}

#[test]
fn the_schema_has_every_key_and_no_other() {
    let schema = schema();
    let items = |name: &str| &schema["properties"][name]["items"];
    for (text, table) in [
        ("nothing = 1\n[[vm]]\n", &schema),
        ("[pool]\nnothing = 1\n[[vm]]\n", &schema["properties"]["pool"]),
        ("[[import]]\nfrom = \"a\"\nnothing = 1\n[[vm]]\n", items("import")),
        ("[[vm]]\nnothing = 1\n", items("vm")),
    ] {
        let properties = table["properties"].as_object().unwrap();
        let known: BTreeSet<String> = properties.keys().cloned().collect();
        assert_eq!(keys(text), known, "{text}");
        assert_eq!(table["additionalProperties"], false);
        assert!(!fits(text), "{text}");
    }
}

#[test]
fn the_schema_takes_the_files_of_the_documents() {
    let page = fs::read_to_string(beside("../docs/reference/cluster-file.md")).unwrap();
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut count = 0;
    for block in blocks {
        assert!(fits(block), "{block}");
        count += 1;
    }
    assert!(count >= 2, "{count} cluster files in the page");
    let example = |name: &str| fs::read_to_string(beside("tests/cli/cluster.in").join(name));
    assert!(fits(&example("lab.toml").unwrap()));
    for name in ["typo.toml", "size.toml", "from.toml", "table.toml"] {
        assert!(!fits(&example(name).unwrap()), "{name}");
    }
}
