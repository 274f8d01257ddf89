// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks reports against docs/reference/vhost-famfs.schema.json.

use serde_json::Value;

pub const SCHEMA: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/vhost-famfs.schema.json");

/// The whole schema.
pub fn schema() -> Value {
    serde_json::from_slice(&std::fs::read(SCHEMA).unwrap()).unwrap()
}

/// How a report differs from the schema's definition with that name.
pub fn problem(name: &str, report: &Value) -> Option<String> {
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("vhost-famfs.json", schema()).unwrap();
    let at = format!("vhost-famfs.json#/$defs/{name}");
    let index = compiler.compile(&at, &mut schemas).unwrap();
    schemas.validate(report, index).err().map(|err| format!("{name}: {err:#}: {report}"))
}
