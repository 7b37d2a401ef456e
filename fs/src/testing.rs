//! A layout that a tool could have left in the mount, for the fuzzer: the look at it never panics, and what it
//! takes for complete is an image. `fuzz/` calls it with what it makes up, `fs/tests/corpus.rs` with what it kept.
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
use pcocc_image::testing::parsers::Target;
use pcocc_image::transfer::{self, Context, Layout as _};
use pcocc_layers::Digest;

use crate::staged::{Item, StagedFile, StagedImage, Verdict, examine};

/// Every target of this crate by its name, which is also the name of its corpus.
pub const TARGETS: [(&str, Target); 1] = [("staged", staged)];

/// A staged folder, its files with a byte 255 in between, which no JSON has: `index.json`, `oci-layout`, then blobs.
///
/// So that changed bytes do not end at the first digest, every part may say `@N` for the digest and `#N` for
/// the size of the blob N (the first is 0) if that comes behind it. The first byte of a blob says what is wrong
/// with it: `!` one of its bits, `<` its end is cut off, `-` it is empty, `?` it is not there.
pub fn staged(data: &[u8]) {
    let _ = look(data);
}

/// Takes what [`staged`] takes, and says what the folder is: `complete`, or the first word of `incomplete: …` and
/// `refused: …` and why.
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

/// The files that are an image, each of which is checked to be what the image says.
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

/// The folder that `data` tells; nothing when it has more parts than a layout needs.
fn items(data: &[u8], folder: &Path) -> Option<BTreeMap<String, Item>> {
    const MOST: usize = 16;
    let parts: Vec<&[u8]> = data.split(|byte| *byte == 255).collect();
    if parts.len() > MOST {
        return None;
    }
    let mut items = BTreeMap::new();
    let mut add = |path: String, content: &[u8]| {
        let file = StagedFile::new(Arc::from(folder));
        file.write_at(content, 0, 0).ok()?;
        file.flushed(0);
        items.insert(path, Item::File(file));
        Some(())
    };
    // The last first: it names no other.
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
        add(blob(digest), &content)?;
    }
    for (path, part) in ["index.json", "oci-layout"].into_iter().zip(&parts) {
        add(path.to_owned(), &resolved(part, &known))?;
    }
    Some(items)
}

/// Puts digests and sizes in.
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
