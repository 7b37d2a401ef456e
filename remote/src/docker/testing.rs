//! The parsers of what docker daemons say, for the fuzzer in `fuzz/`.
#![cfg_attr(
    not(test),
    expect(
        clippy::expect_used,
        reason = "a broken property is to stop the fuzzer"
    )
)]

use bollard::models::{
    ContainerInspectResponse, ContainerSummary, FilesystemChange, ImageInspect, ImageSummary,
    SystemInfo,
};
use bytes::BytesMut;
use serde_json::Value;

use super::attach::{Stream, frame};
use super::client::{ImageStore, Inspected, entries, inspected};
use super::container::listed_changes;
use super::edit::changes::layer_of;
use super::edit::config::{HistoryEntry, bare, edited, variable};
use super::roles::{Contents, assign};
use super::save::read_archive;
use super::v1::LayerGuess;
use pcocc_image::reference::DockerReference;
use pcocc_image::store::Store as _;
use pcocc_image::testing::MemoryStore;
use pcocc_image::transfer::Context;
use pcocc_layers::tar::{EntryType, TarStream};
use pcocc_layers::{DiffId, Digest};

/// Separates the parts of an input; no JSON has it.
const SEPARATOR: u8 = 255;

/// The archive of `docker save`. In front of it stand the diff IDs that the daemon gave, as 64 hex digits each in a
/// line, and an empty line; the image ID is that of the first.
pub fn save(data: &[u8]) {
    let mut rest = data;
    let mut digests: Vec<Digest> = Vec::new();
    while let Some((line, below)) = rest.split_at_checked(65) {
        let Ok(Ok(digest)) =
            std::str::from_utf8(line).map(|line| Digest::from_hex(line.trim_end()))
        else {
            break;
        };
        digests.push(digest);
        rest = below;
    }
    let archive = rest.strip_prefix(b"\n").unwrap_or(rest);
    let Some((id, layers)) = digests.split_first() else {
        return;
    };
    let inspected = Inspected {
        id: *id,
        diff_ids: layers.iter().copied().map(DiffId).collect(),
        size: 0,
        tags: Vec::new(),
    };
    let (context, store) = (Context::silent(), MemoryStore::temporary());
    let store = store.expect("a store in memory");
    for kind in [ImageStore::GraphDriver, ImageStore::Containerd] {
        let sink = store.sink("image", None).expect("a name that is free");
        let mut receiver = sink.open(&context).expect("a store in memory");
        let image = read_archive(archive, &inspected, kind, true, &mut *receiver, &context);
        if let Ok(image) = image {
            assert_eq!(image.diff_ids(), inspected.diff_ids);
            let is_named = kind == ImageStore::Containerd || image.id() == inspected.id;
            assert!(is_named, "an image with another ID");
        }
    }
}

/// `manifest.json` of an archive, its config, and then links, each as path, zero byte and target.
pub fn roles(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == SEPARATOR);
    let mut contents = Contents::default();
    for name in ["manifest.json", "config.json"] {
        let content = parts.next().unwrap_or_default();
        contents.add_document(name.to_owned(), content.to_vec());
    }
    for part in parts {
        let text = String::from_utf8_lossy(part);
        if let Some((path, target)) = text.split_once('\0') {
            let _ = contents.add_link(path.to_owned(), target.to_owned());
        }
    }
    if let Ok(roles) = assign(&contents) {
        for path in &roles.layers {
            assert!(contents.unoffered(path).is_some(), "no content at {path}");
        }
    }
}

/// Documents `json` of an archive of docker before 25, for an image of two layers. In front of each stands the path.
pub fn v1(data: &[u8]) {
    let layers = [DiffId(Digest::of(b"one")), DiffId(Digest::of(b"two"))];
    let mut guess = LayerGuess::new(&layers);
    for part in data.split(|byte| *byte == SEPARATOR) {
        let Some(end) = part.iter().position(|byte| *byte == 0) else {
            continue;
        };
        let (path, document) = part.split_at(end);
        let path = String::from_utf8_lossy(path);
        guess.learn(&path, &document[1..]);
        let layer = path.replace("/json", "/layer.tar");
        let found = guess.diff_id(&layer);
        assert!(found.is_none_or(|found| layers.contains(&found)));
    }
}

/// The frames of a container's streams: in pieces they are what they are at once. The first byte is the length of the
/// pieces.
pub fn frames(data: &[u8]) {
    let Some((length, wire)) = data.split_first() else {
        return;
    };
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| -> Result<Vec<(Stream, Vec<u8>)>, String> {
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some((stream, data)) = frame(&mut buffer)? {
                found.push((stream, data.to_vec()));
            }
        }
        Ok(found)
    };
    let whole = read(&mut std::iter::once(wire));
    assert_eq!(read(&mut wire.chunks(usize::from(*length).max(1))), whole);
}

/// The list of a container's changes, and the archive of each of them.
pub fn changes(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == SEPARATOR);
    let (list, archive) = (parts.next(), parts.next().unwrap_or_default());
    let Ok(list) = serde_json::from_slice::<Vec<FilesystemChange>>(list.unwrap_or_default()) else {
        return;
    };
    let Ok(Some(layer)) = layer_of(listed_changes(list), archive) else {
        return;
    };
    let mut tar = TarStream::new(layer.as_slice());
    while let Some(entry) = tar.next_entry().expect("our own tar can be read") {
        assert!(!entry.path.starts_with(b"/"));
        assert!(
            !entry
                .path
                .split(|byte| *byte == b'/')
                .any(|name| name == b"..")
        );
        assert!(entry.kind != EntryType::Link || !entry.link.is_empty());
    }
}

/// The answers of a daemon: its description, lists and inspections of images and containers.
pub fn answers(data: &[u8]) {
    if let Ok(image) = serde_json::from_slice::<ImageInspect>(data) {
        let _ = inspected(image);
    }
    if let Ok(images) = serde_json::from_slice::<Vec<ImageSummary>>(data)
        && let Ok(entries) = entries(images)
    {
        assert!(entries.is_sorted_by(|a, b| a.name <= b.name));
        for entry in entries {
            assert!(entry.name.parse::<DockerReference>().is_ok());
        }
    }
    let _ = serde_json::from_slice::<SystemInfo>(data);
    let _ = serde_json::from_slice::<Vec<ContainerSummary>>(data);
    let _ = serde_json::from_slice::<ContainerInspectResponse>(data);
}

/// The config of an image that is edited: it gets a layer and a history entry, and stays as it is otherwise.
pub fn edit_config(data: &[u8]) {
    let added = [DiffId(Digest::of(b"new"))];
    let entry = HistoryEntry {
        created: "2026-11-25T18:00:00Z".to_owned(),
        created_by: "pcocc docker edit a b".to_owned(),
    };
    if let Ok(config) = bare(data, &[("label".to_owned(), "value".to_owned())]) {
        let config: Value = serde_json::from_slice(&config).expect("our own config parses");
        assert!(config.pointer("/config/Volumes").is_none());
        let _ = variable(data, "PATH");
    }
    // Who edits has parsed the config.
    if pcocc_image::oci::diff_ids(data).is_err() {
        return;
    }
    let Ok(made) = edited(data, &added, &entry) else {
        return;
    };
    let mut old: Value = serde_json::from_slice(data).expect("it was parsed");
    let mut made: Value = serde_json::from_slice(&made).expect("what is made parses");
    let ids = "/rootfs/diff_ids";
    let mut expected = taken(&mut old, ids);
    expected.push(Value::String(added[0].to_string()));
    assert_eq!(taken(&mut made, ids), expected);
    let mut expected = taken(&mut old, "/history");
    expected.push(serde_json::json!({"created": entry.created, "created_by": entry.created_by}));
    assert_eq!(taken(&mut made, "/history"), expected);
    for config in [&mut old, &mut made] {
        let members = config.as_object_mut().expect("a config is an object");
        members.retain(|name, _| !["history", "created"].contains(&name.as_str()));
        if let Some(ids) = config.pointer_mut(ids) {
            ids.take();
        }
    }
    assert_eq!(made, old, "something else has changed");
}

/// Takes a list out of a document; an empty one where there is none.
fn taken(document: &mut Value, pointer: &str) -> Vec<Value> {
    let list = document.pointer_mut(pointer).and_then(Value::as_array_mut);
    list.map(std::mem::take).unwrap_or_default()
}

/// The file of a docker context, and docker's `config.json`.
pub fn context(data: &[u8]) {
    super::contexts::meta(data);
}
