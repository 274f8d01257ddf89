// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Container images in a directory: the image layout of the Open Container Initiative, version 1.
//!
//! ```text
//! oci-layout, index.json -> manifest -> layers, each a blob with the name of its SHA-256 sum
//! ```

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// Longest index or manifest; registries refuse longer ones.
const MAX_JSON: u64 = 4 << 20;
/// Most indexes within indexes.
const MAX_DEPTH: usize = 4;
const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// The layers of the only image in a directory, or of that for this machine, the lowest first. All
/// sums are checked.
pub fn layers(dir: &Path) -> Result<Vec<File>> {
    let Layout { image_layout_version } = json(&dir.join("oci-layout"))
        .with_context(|| format!("{} is not an OCI image layout", dir.display()))?;
    ensure!(
        image_layout_version.starts_with("1."),
        "{}: image layout version {image_layout_version}, expected 1",
        dir.display()
    );
    let Index { manifests } = json(&dir.join("index.json"))?;
    let manifest = manifest_of(dir, manifests, MAX_DEPTH)?;
    let Manifest { layers } = parse(blob(dir, &manifest, Some(MAX_JSON))?, &manifest.digest)?;
    let open = |layer: &Descriptor| {
        // Such as "application/vnd.oci.image.layer.v1.tar+gzip". Others are no file systems.
        let is_layer = layer.media_type.contains(".tar");
        ensure!(
            is_layer,
            "layer {} is of type {:?}, expected a tar archive",
            layer.digest,
            layer.media_type
        );
        blob(dir, layer, None)
    };
    layers.iter().map(open).collect()
}

/// The manifest of the only image, or of that for this machine.
fn manifest_of(dir: &Path, mut found: Vec<Descriptor>, depth: usize) -> Result<Descriptor> {
    let all = found.len();
    if all > 1 {
        let architecture = architecture();
        found.retain(|found| match &found.platform {
            Some(platform) => platform.os == "linux" && platform.architecture == architecture,
            None => false,
        });
    }
    let fit = found.len();
    let Some(first) = found.pop().filter(|_| fit == 1) else {
        bail!(
            "{} has {all} images, {fit} of them for this machine (linux/{}): expected one",
            dir.display(),
            architecture()
        );
    };
    if !INDEX_TYPES.contains(&first.media_type.as_str()) {
        return Ok(first);
    }
    ensure!(depth > 0, "{} has more than {MAX_DEPTH} indexes in one another", dir.display());
    let Index { manifests } = parse(blob(dir, &first, Some(MAX_JSON))?, &first.digest)?;
    manifest_of(dir, manifests, depth - 1)
}

/// This machine's architecture, as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Opens a blob and checks its size and sum.
fn blob(dir: &Path, descriptor: &Descriptor, most: Option<u64>) -> Result<File> {
    let Descriptor { digest, size, .. } = descriptor;
    let sum = digest.strip_prefix("sha256:").filter(|sum| {
        sum.len() == 64 && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    });
    let sum = sum.with_context(|| format!("digest {digest:?}, expected sha256: and 64 digits"))?;
    let path = dir.join("blobs/sha256").join(sum);
    let mut file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let found = file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
    ensure!(found == *size, "{} has {found} bytes, expected {size}", path.display());
    ensure!(
        most.is_none_or(|most| found <= most),
        "{} has {found} bytes, expected a manifest of at most {MAX_JSON}",
        path.display()
    );
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash).with_context(|| format!("cannot read {}", path.display()))?;
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == sum, "{} is damaged: its sum is {found}", path.display());
    file.rewind().with_context(|| format!("cannot read {}", path.display()))?;
    Ok(file)
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    parse(file, &path.display().to_string())
}

fn parse<T: DeserializeOwned>(file: File, name: &str) -> Result<T> {
    let mut text = Vec::new();
    file.take(MAX_JSON + 1)
        .read_to_end(&mut text)
        .with_context(|| format!("cannot read {name}"))?;
    ensure!(text.len() as u64 <= MAX_JSON, "{name} has more than {MAX_JSON} bytes");
    serde_json::from_slice(&text).with_context(|| format!("cannot understand {name}"))
}
