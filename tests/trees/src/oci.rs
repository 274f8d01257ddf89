// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A container image of three layers, and the tree that it stands for.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::contents::{bytes, seed, sha256};
use crate::plant::Plant;
use crate::tree::Time;

/// The time of every entry.
const TIME: u32 = 1_650_000_000;

const LONG: &str = "usr/share/doc/a-directory-whose-name-is-long-enough-that-a-path-below-it-does-not-\
                    fit-into/the-hundred-bytes-that-a-header-of-ustar-has-for-it/copyright";

/// A layer's archive, as it is written.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, size: usize) -> Result<Header> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(u64::try_from(size)?);
        header.set_mtime(TIME.into());
        header.set_uid(0);
        header.set_gid(0);
        Ok(header)
    }

    fn dirs(&mut self, paths: &[&str]) -> Result<()> {
        paths.iter().try_for_each(|path| {
            let mut header = Self::header(EntryType::Directory, 0o755, 0)?;
            Ok(self.0.append_data(&mut header, format!("{path}/"), &[][..])?)
        })
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = Self::header(EntryType::Regular, mode, content.len())?;
        Ok(self.0.append_data(&mut header, path, content)?)
    }

    fn link(&mut self, kind: EntryType, path: &str, target: &str) -> Result<()> {
        let mut header = Self::header(kind, 0o777, 0)?;
        Ok(self.0.append_link(&mut header, path, target)?)
    }

    /// Removes a name of the layers below.
    fn whiteout(&mut self, path: &str) -> Result<()> {
        self.file(path, 0o644, &[])
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().context("cannot end the archive")
    }
}

fn content(name: &str, length: usize) -> Vec<u8> {
    bytes(seed(name.as_bytes()), length)
}

fn first() -> Result<Vec<u8>> {
    let mut layer = Layer::new();
    layer.dirs(&["etc", "usr", "usr/bin", "cache", "opaque", "opaque/old"])?;
    layer.file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\n")?;
    layer.file("etc/empty", 0o644, b"")?;
    layer.file("usr/bin/tool", 0o4755, &content("tool", 3 << 20))?;
    layer.link(EntryType::Link, "usr/bin/tool-1.0", "usr/bin/tool")?;
    layer.link(EntryType::Symlink, "bin", "usr/bin")?;
    layer.file(LONG, 0o644, b"long")?;
    for name in ["a", "b", "c"] {
        layer.file(&format!("cache/{name}"), 0o600, name.as_bytes())?;
        layer.file(&format!("opaque/old/{name}"), 0o644, name.as_bytes())?;
    }
    layer.file("gone", 0o644, b"gone")?;
    layer.file("changes", 0o644, b"a file")?;
    layer.finish()
}

fn second() -> Result<Vec<u8>> {
    let mut layer = Layer::new();
    layer.dirs(&["etc", "cache", "opaque"])?;
    layer.whiteout(".wh.gone")?;
    layer.whiteout("cache/.wh.a")?;
    layer.whiteout("opaque/.wh..wh..opq")?;
    layer.file("opaque/new", 0o644, b"new")?;
    layer.file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")?;
    layer.whiteout(".wh.changes")?;
    layer.dirs(&["changes"])?;
    layer.file("changes/inside", 0o644, b"now a directory")?;
    layer.finish()
}

fn third() -> Result<Vec<u8>> {
    let mut layer = Layer::new();
    layer.dirs(&["usr/bin", "cache", "gone"])?;
    layer.whiteout("cache/.wh.b")?;
    layer.whiteout("cache/.wh.never-there")?;
    layer.file("gone/back", 0o644, b"back")?;
    // A hard link to a file of another layer.
    layer.link(EntryType::Link, "usr/bin/tool-2.0", "usr/bin/tool")?;
    layer.link(EntryType::Symlink, "etc/dangling", "/nowhere")?;
    layer.finish()
}

/// The tree that the image stands for.
pub fn plant_oci_result(dir: &Path) -> Result<()> {
    let plant = Plant::create(dir)?;
    let users = b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n";
    plant.file("etc/passwd", users)?;
    plant.file("etc/empty", "")?;
    plant.symlink("etc/dangling", "/nowhere")?;
    plant.file("usr/bin/tool", content("tool", 3 << 20))?;
    plant.mode("usr/bin/tool", 0o4755);
    plant.link("usr/bin/tool-1.0", "usr/bin/tool")?;
    plant.link("usr/bin/tool-2.0", "usr/bin/tool")?;
    plant.symlink("bin", "usr/bin")?;
    plant.file(LONG, "long")?;
    plant.file("cache/c", "c")?;
    plant.mode("cache/c", 0o600);
    plant.file("opaque/new", "new")?;
    plant.file("changes/inside", "now a directory")?;
    plant.file("gone/back", "back")?;
    plant.finish_at(Time { seconds: TIME.into(), nanoseconds: 0 })
}

/// Makes an image layout in an empty directory: a layer of gzip, one of zstd, one of gzip. The
/// directories above the long name are in no layer.
pub fn plant_oci_image(dir: &Path) -> Result<()> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
    let blob = |media_type: &str, content: &[u8]| -> Result<Value> {
        let digest = sha256(content);
        fs::write(blobs.join(&digest), content).context("cannot write a blob")?;
        let digest = format!("sha256:{digest}");
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": content.len() }))
    };
    let (mut layers, mut contents) = (Vec::new(), Vec::new());
    for (archive, compression) in [(first()?, "gzip"), (second()?, "zstd"), (third()?, "gzip")] {
        contents.push(format!("sha256:{}", sha256(&archive)));
        let compressed = match compression {
            "gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&archive)?;
                encoder.finish()?
            }
            _ => zstd::encode_all(&archive[..], 3)?,
        };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar+{compression}");
        layers.push(blob(&media_type, &compressed)?);
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": contents },
    });
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers,
    });
    let manifest = blob(media_type, manifest.to_string().as_bytes())?;
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    let write = |name: &str, value: &Value| fs::write(dir.join(name), value.to_string());
    write("index.json", &index).context("cannot write the index")?;
    write("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))
        .context("cannot write the layout")
}
