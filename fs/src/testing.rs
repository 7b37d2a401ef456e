//! A layout in the mount as a tool could leave it, for the fuzzer: the examination never panics, and a complete
//! folder is an image. `fuzz/` calls the function.
#![cfg_attr(
    not(test),
    expect(
        clippy::expect_used,
        reason = "a broken property is to stop the fuzzer"
    )
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pcocc_core::cancel::Cancel;
use pcocc_image::store::Store as _;
use pcocc_image::testing::MemoryStore;
use pcocc_image::transfer::{self, Context, Layout as _};
use pcocc_layers::Digest;

use crate::mountpoint::mounts_of;
use crate::staged::{Item, StagedFile, StagedImage, Verdict, examine};

/// The list of mounts: no mount is taken for ours that another program made.
pub fn mounts(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').count();
    let ours = mounts_of(data);
    assert!(ours.len() <= lines);
    assert!(ours.is_empty() || data.windows(5).any(|word| word == b"pcocc"));
}

/// A staged folder. Its files are separated by a byte 255, which no JSON has: `index.json`, `oci-layout`, then
/// blobs.
///
/// Every part may contain `@N` and `#N`, the digest and the size of the later blob N (the first is 0): changed
/// bytes would otherwise end at the first digest. The first byte of a blob says what is wrong with it: `!` a
/// changed bit, `<` a missing end, `-` an empty file, `?` a missing file.
pub fn staged(data: &[u8]) {
    let _ = look(data);
}

/// Takes the input of [`staged`] and returns the state of the folder: `complete`, `incomplete: …` or `refused:
/// …`.
pub fn look(data: &[u8]) -> String {
    let Ok(folder) = tempfile::tempdir() else {
        return String::new();
    };
    let Some(items) = items(data, folder.path()) else {
        return String::new();
    };
    let cancel = Cancel::new();
    let complete = match examine(&items, &cancel) {
        Ok(Verdict::Complete(image)) => image,
        Ok(Verdict::Incomplete(why)) => return format!("incomplete: {why}"),
        Err(error) => return format!("refused: {error}"),
    };
    let parts = parts_of(&complete);
    let store = MemoryStore::repository(folder.path());
    let sink = store.sink("copy", None).expect("a name that is free");
    let copied = transfer::copy(&complete, &*sink, &Context::silent());
    assert_eq!(store.get("copy").is_some(), copied.is_ok());
    // Each part counts.
    for path in parts {
        let mut fewer = items.clone();
        fewer
            .remove(&path)
            .expect("what an image consists of was there");
        let verdict = examine(&fewer, &cancel);
        assert!(
            matches!(verdict, Ok(Verdict::Incomplete(_))),
            "complete without {path}"
        );
    }
    "complete".to_owned()
}

/// The files of the image, each compared with the image.
fn parts_of(complete: &StagedImage) -> Vec<String> {
    let context = Context::silent();
    let image = complete.image(&context).expect("a complete image is known");
    let mut parts = vec!["index.json".to_owned(), "oci-layout".to_owned()];
    assert_eq!(image.id(), Digest::of(image.config()));
    parts.push(blob(image.id()));
    for layer in image.layers() {
        let mut content = Vec::new();
        let mut reader = complete.open_layer(layer).expect("a layer is there");
        std::io::Read::read_to_end(&mut reader, &mut content).expect("a layer can be read");
        let found = (Digest::of(&content), content.len() as u64);
        assert_eq!(found, (layer.digest, layer.size));
        parts.push(blob(layer.digest));
    }
    parts.sort();
    parts.dedup();
    parts
}

fn blob(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The folder that `data` describes; `None` when it has more parts than a layout needs.
fn items(data: &[u8], folder: &Path) -> Option<BTreeMap<String, Item>> {
    let mut items = BTreeMap::new();
    for (path, content) in files(data)? {
        let file = StagedFile::new(Arc::from(folder));
        file.write_at(&content, 0, 0).ok()?;
        file.flushed(0);
        items.insert(path, Item::File(file));
    }
    Some(items)
}

/// The files of the folder that the input of [`staged`] describes, by their paths; `None` when there are more than a
/// layout needs.
pub fn files(data: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    const MOST: usize = 16;
    let parts: Vec<&[u8]> = data.split(|byte| *byte == 255).collect();
    if parts.len() > MOST {
        return None;
    }
    let mut files = BTreeMap::new();
    // The last part first: it names no other.
    let mut known = BTreeMap::new();
    for (number, part) in parts.iter().enumerate().skip(2).rev() {
        let (fault, text) = match part.split_first() {
            Some((fault @ (b'!' | b'<' | b'-' | b'?'), text)) => (Some(fault), text),
            _ => (None, *part),
        };
        let mut content = resolved(text, &known);
        let digest = Digest::of(&content);
        known.insert(number - 2, (digest, content.len()));
        match (fault, content.last_mut()) {
            (Some(b'?'), _) => continue,
            (Some(b'-'), _) => content.clear(),
            (Some(b'!'), Some(last)) => *last ^= 1,
            (Some(b'<'), Some(_)) => content.truncate(content.len() - 1),
            _ => {}
        }
        files.insert(blob(digest), content);
    }
    for (path, part) in ["index.json", "oci-layout"].into_iter().zip(&parts) {
        files.insert(path.to_owned(), resolved(part, &known));
    }
    Some(files)
}

/// Replaces `@N` and `#N` by digests and sizes.
fn resolved(text: &[u8], known: &BTreeMap<usize, (Digest, usize)>) -> Vec<u8> {
    let mut result = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let number = match (byte, bytes.peek()) {
            (b'@' | b'#', Some(digit)) => char::from(*digit).to_digit(16),
            _ => None,
        };
        match number.and_then(|number| known.get(&(number as usize))) {
            Some((digest, size)) => {
                bytes.next();
                let word = match byte {
                    b'@' => digest.to_string(),
                    _ => size.to_string(),
                };
                result.extend(word.into_bytes());
            }
            None => result.push(byte),
        }
    }
    result
}
