// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What package managers and model hubs keep on a disk.

use anyhow::Result;

use crate::contents::{bytes, seed, sha256};
use crate::plant::Plant;

const MIB: usize = 1 << 20;

/// The cache of a Hugging Face hub: blobs by digest, snapshots of relative links to them.
pub fn huggingface(plant: &Plant) -> Result<()> {
    let models = [
        (
            "models--example--tiny-bert",
            &["config.json", "tokenizer/vocab.txt", "model.safetensors"],
        ),
        ("datasets--example--news", &["README.md", "data/train.parquet", "data/test.parquet"]),
    ];
    for (model, files) in models {
        let commit = &sha256(model.as_bytes())[..40];
        plant.file(format!("hub/{model}/refs/main"), commit)?;
        plant.file(format!("hub/{model}/.no_exist/{commit}/added_tokens.json"), "")?;
        for (number, file) in files.iter().enumerate() {
            let length = [700, 230_000, 5 * MIB + 17][number];
            let content = bytes(seed(file.as_bytes()), length);
            let blob = sha256(&content);
            plant.file(format!("hub/{model}/blobs/{blob}"), content)?;
            plant.file(format!("hub/.locks/{model}/{blob}.lock"), "")?;
            let up = "../".repeat(2 + file.matches('/').count());
            let snapshot = format!("hub/{model}/snapshots/{commit}/{file}");
            plant.symlink(snapshot, format!("{up}blobs/{blob}"))?;
        }
    }
    plant.file("hub/version.txt", "1")?;
    plant.file("token", "hf_not_a_token")?;
    plant.mode("token", 0o600);
    Ok(())
}

/// What npm installs: packages in packages, scopes, links to programs, long names.
pub fn node_modules(plant: &Plant) -> Result<()> {
    let mut lock = String::from("{\"lockfileVersion\":3,\"packages\":{");
    let long = format!("a-name-of-two-hundred-bytes-{}", "x".repeat(172));
    let names = ["semver", "chalk", "@scope/parser", "@scope/types", "@babel/core", &long];
    for name in names {
        package(plant, &format!("node_modules/{name}"))?;
        lock.push_str(&format!("\"node_modules/{name}\":{{}},"));
    }
    for (inside, name) in [("@babel/core", "semver"), ("chalk", "ansi-styles")] {
        package(plant, &format!("node_modules/{inside}/node_modules/{name}"))?;
    }
    let deepest = "node_modules/chalk/node_modules/ansi-styles/node_modules/color-convert";
    package(plant, deepest)?;
    plant.symlink("node_modules/.bin/semver", "../semver/bin/cli.js")?;
    plant.symlink("node_modules/.bin/parser", "../@scope/parser/bin/cli.js")?;
    let inner = "node_modules/@babel/core/node_modules/.bin/semver";
    plant.symlink(inner, "../semver/bin/cli.js")?;
    // A package of the same workspace.
    plant.file("packages/local/index.js", "export default 1;\n")?;
    plant.symlink("node_modules/local", "../packages/local")?;
    plant.file("node_modules/.package-lock.json", lock + "}}")?;
    plant.file("package.json", "{\"workspaces\":[\"packages/*\"]}\n")
}

fn package(plant: &Plant, path: &str) -> Result<()> {
    plant.file(format!("{path}/package.json"), format!("{{\"name\":\"{path}\"}}\n"))?;
    let cli = format!("{path}/bin/cli.js");
    plant.file(&cli, "#!/usr/bin/env node\nrequire('../lib');\n")?;
    plant.mode(&cli, 0o755);
    plant.file(format!("{path}/.npmignore"), "")?;
    for number in 0..12 {
        plant.random(format!("{path}/lib/part {number}.js"), 60 + 700 * number)?;
    }
    plant.random(format!("{path}/lib/__tests__/__snapshots__/index.test.js.snap"), 900)
}

/// A local Maven repository: deep directories, and paths of more than 79 bytes.
pub fn maven(plant: &Plant) -> Result<()> {
    let artifacts = [
        ("org/springframework/boot", "spring-boot-autoconfigure-processor", "3.3.5"),
        ("org/apache/maven/plugins", "maven-dependency-analyzer-plugin", "3.8.0-SNAPSHOT"),
        ("com/fasterxml/jackson/datatype", "jackson-datatype-jsr310", "2.18.1"),
        ("io/netty", "netty-transport-native-unix-common", "4.1.114.Final"),
    ];
    for (number, (group, name, version)) in artifacts.iter().enumerate() {
        let dir = format!("repository/{group}/{name}/{version}");
        for kind in ["jar", "pom", "module"] {
            let file = format!("{dir}/{name}-{version}.{kind}");
            let content = bytes(seed(file.as_bytes()), 900 + 400_000 * number);
            plant.file(format!("{file}.sha1"), &sha256(&content)[..40])?;
            plant.file(file, content)?;
        }
        plant.file(format!("{dir}/_remote.repositories"), "#NOTE: internal\n")?;
        plant.file(format!("{dir}/{name}-{version}-tests.jar.lastUpdated"), "")?;
        plant.random(format!("repository/{group}/{name}/maven-metadata-central.xml"), 340)?;
    }
    plant.file("settings.xml", "<settings/>\n")
}
