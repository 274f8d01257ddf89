// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compares the media format with images of the reference tools: what they wrote is read exactly,
//! and what we write is what they would have written.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod common;
#[path = "common/images.rs"]
mod images;

use std::collections::BTreeSet;
use std::fs;

use common::Pool;
use famfs::format::view::View;
use famfs::format::{DaxdevBody, LOG_OFFSET};
use famfs::format::{
    EXT_INTERLEAVED, Entry, EntryKind, FileBody, InterleavedMap, LogHeader, MkdirBody, RawExtent,
    SimpleMap, Superblock, slot_offset,
};
use famfs::media::{Media, PoolFile};
use famfs::store::mkfs::{Options, mkfs};
use famfs::store::superblock;
use famfs::sys::dax::Access;
use images::{DEVICE_LEN, image, vector};
use serde_json::{Value, json};
use uuid::Uuid;
use zerocopy::{FromBytes, transmute};

const IMAGES: [(&str, &str); 4] = [
    ("empty.img.zst", "empty.expected.json"),
    ("empty-log16m.img.zst", "empty-log16m.expected.json"),
    ("mixed.img.zst", "mixed.expected.json"),
    ("mkfs-devdax-8g.first16m.raw.zst", "mkfs-devdax-8g.first16m.expected.json"),
];

/// What an image holds.
fn expected(name: &str) -> Value {
    serde_json::from_slice(&fs::read(vector(name)).unwrap()).unwrap()
}

fn open(pool: &Pool, access: Access) -> PoolFile {
    PoolFile::open(&pool.path, access).unwrap()
}

fn at<T: FromBytes>(bytes: &[u8], offset: u64) -> T {
    let offset = usize::try_from(offset).unwrap();
    T::read_from_bytes(&bytes[offset..offset + size_of::<T>()]).ok().unwrap()
}

fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

fn text(field: &[u8]) -> String {
    let len = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    String::from_utf8(field[..len].to_vec()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode_superblock(bytes: &[u8]) -> Value {
    let raw: Superblock = at(bytes, 0);
    json!({
        "magic": format!("{:#x}", raw.magic.get()),
        "version": raw.version.get(),
        "log_offset": raw.log_offset.get(),
        "log_len": raw.log_len.get(),
        "alloc_unit": raw.alloc_unit.get(),
        "omf_major": raw.omf_major.get(),
        "omf_minor": raw.omf_minor.get(),
        "fs_uuid": Uuid::from_bytes(raw.fs_uuid).to_string(),
        "dev_uuid": Uuid::from_bytes(raw.dev_uuid).to_string(),
        "system_uuid": Uuid::from_bytes(raw.system_uuid).to_string(),
        "crc": format!("{:#x}", raw.crc.get()),
        "crc_calc": format!("{:#x}", raw.checksum()),
        "crc_ok": raw.crc.get() == raw.checksum(),
        "flags": raw.flags.get(),
        "pad_108": hex(&raw.pad.get().to_le_bytes()),
        "dev_size": raw.dev_size.get(),
        "dd_uuid": hex(&raw.dd_uuid),
        "dd_name": text(&raw.dev_name),
        "rest_of_2m_zero": all_zero(&bytes[size_of::<Superblock>()..2 << 20]),
    })
}

fn decode_log(bytes: &[u8]) -> Value {
    let raw: LogHeader = at(bytes, LOG_OFFSET);
    json!({
        "magic": format!("{:#x}", raw.magic.get()),
        "len": raw.len.get(),
        "last_index": raw.last_index.get(),
        "crc": format!("{:#x}", raw.crc.get()),
        "crc_calc": format!("{:#x}", raw.checksum()),
        "crc_ok": raw.crc.get() == raw.checksum(),
        "next_seqnum": raw.next_seqnum.get(),
        "next_index": raw.next_index.get(),
    })
}

fn decode_extents(extents: &[RawExtent]) -> Value {
    let extents = extents
        .iter()
        .map(|e| json!({ "dev": e.devindex.get(), "offset": e.offset.get(), "len": e.len.get() }));
    extents.collect()
}

fn decode_entry(index: u64, entry: &Entry) -> Value {
    let mut value = json!({
        "index": index,
        "seqnum": entry.seqnum.get(),
        "type": entry.kind.get(),
        "crc": format!("{:#x}", entry.crc.get()),
        "crc_ok": entry.crc.get() == entry.checksum(),
    });
    let body = match EntryKind::of(entry) {
        Some(EntryKind::File) => decode_file(&transmute!(entry.body)),
        Some(EntryKind::Mkdir) => {
            let body: MkdirBody = transmute!(entry.body);
            json!({
                "kind": "mkdir",
                "uid": body.uid.get(),
                "gid": body.gid.get(),
                "mode": format!("{:#o}", body.mode.get()),
                "path": text(&body.path),
            })
        }
        Some(EntryKind::Daxdev) => {
            let body: DaxdevBody = transmute!(entry.body);
            json!({
                "kind": "add_daxdev",
                "size": body.size.get(),
                "uuid": Uuid::from_bytes(body.uuid).to_string(),
                "dev_index": body.index.get(),
            })
        }
        _ => panic!("entry {index} has type {}", entry.kind.get()),
    };
    value.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    value
}

fn decode_file(body: &FileBody) -> Value {
    let mut value = json!({
        "kind": "file",
        "size": body.size.get(),
        "flags": body.flags.get(),
        "uid": body.uid.get(),
        "gid": body.gid.get(),
        "mode": format!("{:#o}", body.mode.get()),
        "path": text(&body.path),
        "ext_type": body.ext_type.get(),
    });
    let object = value.as_object_mut().unwrap();
    if body.ext_type.get() == EXT_INTERLEAVED {
        let map: InterleavedMap = transmute!(body.map);
        let strips = &map.strips[..usize::try_from(map.nstrips.get()).unwrap()];
        object.insert("nextents".into(), map.count.get().into());
        object.insert(
            "interleaved".into(),
            json!({
                "count": map.count.get(),
                "nstrips": map.nstrips.get(),
                "chunk_size": map.chunk_size.get(),
                "strips": decode_extents(strips),
            }),
        );
    } else {
        let map: SimpleMap = transmute!(body.map);
        let extents = &map.extents[..usize::try_from(map.count.get()).unwrap()];
        object.insert("nextents".into(), map.count.get().into());
        object.insert("simple".into(), decode_extents(extents));
    }
    value
}

/// Every file of the directory has a test; `bad` has its own tests.
#[test]
fn every_vector_has_a_test() {
    let with_expectation: BTreeSet<&str> =
        IMAGES.iter().flat_map(|(image, expected)| [*image, *expected]).collect();
    let others =
        ["pool-8g.first18m-with-nvdimm-info.raw.zst", "prng-seed-1.bin", "prng-seed-42.bin"];
    for entry in fs::read_dir(vector("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = with_expectation.contains(name.as_str()) || others.contains(&name.as_str());
        assert!(known || ["bad", "README.md"].contains(&name.as_str()), "{name}");
    }
}

#[test]
fn every_field_reads_as_an_independent_decoder_reads_it() {
    for (name, expected_name) in IMAGES {
        let bytes = image(name);
        let mut expected = expected(expected_name);
        for about_the_file in ["image", "image_bytes"] {
            expected.as_object_mut().unwrap().remove(about_the_file);
        }
        let next = expected["log"]["next_index"].as_u64().unwrap();
        let log_len = expected["log"]["len"].as_u64().unwrap();
        let log_end = usize::try_from(LOG_OFFSET + log_len).unwrap();
        let entries: Vec<Value> =
            (0..next).map(|i| decode_entry(i, &at(&bytes, slot_offset(i)))).collect();
        let tail = usize::try_from(slot_offset(next)).unwrap();
        let decoded = json!({
            "superblock": decode_superblock(&bytes),
            "log": decode_log(&bytes),
            "entries": entries,
            "log_tail_zero": all_zero(&bytes[tail..log_end]),
        });
        assert_eq!(decoded, expected, "{name}");
    }
}

#[test]
fn mkfs_writes_what_the_reference_writes() {
    for (name, expected_name) in IMAGES {
        if name.starts_with("mixed") {
            continue;
        }
        let reference = image(name);
        let uuid = |field: &str| -> Uuid {
            let text = expected(expected_name)["superblock"][field].clone();
            text.as_str().unwrap().parse().unwrap()
        };
        let superblock = &expected(expected_name)["superblock"];
        let device_len = superblock["dev_size"].as_u64().unwrap();
        // Garbage where the reference would leave it: ours zeroes the whole area.
        let pool = Pool::new(&vec![0xee; reference.len()], device_len);
        let media = open(&pool, Access::Write);
        let log_len = superblock["log_len"].as_u64();
        let options = Options {
            log_len: log_len.filter(|len| *len != superblock::REFERENCE_LOG_LEN),
            extensions: false,
            force: true,
            fs_uuid: uuid("fs_uuid"),
            dev_uuid: uuid("dev_uuid"),
            system_uuid: uuid("system_uuid"),
            dev_name: superblock["dd_name"].as_str().unwrap().into(),
        };
        mkfs(&media, &options).unwrap();
        let written = usize::try_from(LOG_OFFSET + log_len.unwrap()).unwrap();
        let mut ours = vec![0; written];
        media.read_at(0, &mut ours).unwrap();
        assert!(ours == reference[..written], "{name}: superblock or log differs");
    }
}

#[test]
fn a_namespace_made_by_ndctl_is_seen_in_the_devdax_view() {
    let pool = Pool::new(&image("pool-8g.first18m-with-nvdimm-info.raw.zst"), 8 << 30);
    let media = open(&pool, Access::Read);
    assert_eq!(media.view(), View::Devdax);
    assert_eq!(media.len(), (8 << 30) - (2 << 20));
    let found = superblock::Superblock::read(&media).unwrap();
    assert_eq!(found.dev_name, "/dev/dax0.0");
    assert_eq!(found.dev_size, media.len());
}

#[test]
fn a_raw_pool_is_seen_in_the_raw_view() {
    let pool = Pool::new(&image("mixed.img.zst"), DEVICE_LEN);
    assert_eq!(open(&pool, Access::Read).view(), View::Raw);
}
