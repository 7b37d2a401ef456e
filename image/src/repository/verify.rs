//! Checking a whole repository: every blob hashed again, every image followed to its layers, every layer inflated and held
//! against the diff ID in the image's configuration.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use pcocc_core::progress::BlobKind;

use crate::error::{Error, Result};
use crate::meter::BlobMeter;
use crate::oci::{self, Image, MAX_DOCUMENT};
use crate::repository::blobs::blob_name;
use crate::repository::folder::Repository;
use crate::repository::gc::BlobFiles;
use crate::repository::meta::{Kind, Meta};
use crate::stream;
use crate::transfer::Context;
use pcocc_layers::digest::Hashing;
use pcocc_layers::{Compression, DiffId, Digest};

/// Bytes read between two checks of the cancel flag.
const CHUNK: usize = 1 << 20;

/// What was checked, and which problems were found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Image revisions checked.
    pub images: u64,
    /// Blobs hashed.
    pub blobs: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// What is damaged, missing or unreadable.
    pub problems: Vec<Error>,
}

impl Repository {
    /// Hashes every blob, follows every image to its blobs and inflates its layers. Changes nothing.
    ///
    /// Progress counts the bytes of the whole repository: thousands of blobs would not fit on a screen.
    pub fn verify(&self, context: &Context) -> Result<Verified> {
        self.version()?;
        let listing = self.list()?;
        let BlobFiles { blobs, refused } = self.blob_files()?;
        context.progress.stage(format!(
            "Checking {} image revisions and {} blobs",
            listing.metas.len(),
            blobs.len()
        ));
        let mut verified = Verified {
            problems: refused,
            ..Verified::default()
        };
        verified
            .problems
            .extend(listing.bad.into_iter().map(|bad| bad.error));
        let mut contents = Contents::default();
        for meta in &listing.metas {
            context.check()?;
            verified.images += 1;
            contents.promise(self.documents(meta));
            match self.verify_meta(meta, &mut contents) {
                Ok(Some(image)) => contents.add(meta, &image),
                Ok(None) => {}
                Err(error) => verified.problems.push(Error::invalid(
                    format!("image {}:{}@{}", self.name(), meta.name(), meta.revision()),
                    format!("is damaged: {error}"),
                )),
            }
        }
        let root = self.root()?;
        // One that cannot be looked at is missed when it is read.
        let sizes = blobs.iter().filter_map(|digest| {
            let found = root.stat(blob_name(*digest)).ok()?;
            found.is_file().then_some(found.size)
        });
        let total = sizes.sum();
        let mut meter = BlobMeter::start(
            &context.progress,
            BlobKind::Repository,
            self.name(),
            Some(total),
        );
        for digest in &blobs {
            let opened = root.open_file(blob_name(*digest));
            let opened = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
            let read = match opened {
                // It may be far larger than what there is to read: files can have holes.
                Ok((size, _)) if contents.is_broken(*digest, size) => {
                    let path = self.blob_path(*digest);
                    verified.blobs += 1;
                    verified.problems.push(Error::Corrupt {
                        expected: *digest,
                        found: format!("a file of {size} bytes, {}", path.display()),
                    });
                    continue;
                }
                Ok((_, mut file)) => hash(&mut file, &mut meter, context)?.map(|read| (file, read)),
                Err(error) => Err(error),
            };
            let (file, (found, size)) = match read {
                Ok(read) => read,
                // Garbage collection has removed the blob: no image needs it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    verified.blobs += 1;
                    verified.problems.push(self.on_blob("read", *digest)(error));
                    continue;
                }
            };
            verified.blobs += 1;
            verified.bytes += size;
            if found != *digest {
                let path = self.blob_path(*digest);
                verified.problems.push(Error::Corrupt {
                    expected: *digest,
                    found: format!("{found} of {size} bytes, in {}", path.display()),
                });
                continue;
            }
            for content in contents.of(*digest) {
                if let Some(why) = content.contradiction(&file, context)? {
                    verified.problems.push(Error::invalid(
                        format!("image {}:{}", self.name(), content.images),
                        format!("is not what its configuration says: layer {digest} {why}"),
                    ));
                }
            }
        }
        meter.finish();
        Ok(verified)
    }

    /// The sizes of an image's manifests and config, as far as its documents can be read.
    fn documents(&self, meta: &Meta) -> Vec<(Digest, u64)> {
        let index = meta
            .oci_index()
            .and_then(|index| oci::parse_index(index.as_bytes()));
        let mut sizes = Vec::new();
        for manifest in index.unwrap_or_default() {
            sizes.push((manifest.digest, manifest.size));
            let size = self.blob_size(manifest.digest);
            if size.is_ok_and(|found| found == Some(manifest.size))
                && let Ok(document) = self.read_blob(manifest.digest, MAX_DOCUMENT)
                && let Ok(config) = oci::config_of(&document)
            {
                sizes.push(config);
            }
        }
        sizes
    }

    /// Follows an image to its blobs; returns it when it is a container's.
    fn verify_meta(&self, meta: &Meta, contents: &mut Contents) -> Result<Option<Image>> {
        self.check_blobs(meta)?;
        if meta.kind() == Kind::Container {
            let image = self.image(meta)?;
            contents.promise(image.blobs());
            for (digest, size) in image.blobs() {
                if !meta.data_blobs().contains(&digest) {
                    return Err(Error::invalid(
                        format!("blob {digest}"),
                        "is not among its data_blobs, so garbage collection would delete it",
                    ));
                }
                match self.blob_size(digest)? {
                    Some(found) if found == size => {}
                    Some(found) => {
                        return Err(Error::Corrupt {
                            expected: digest,
                            found: format!("{found} bytes, not {size}"),
                        });
                    }
                    None => return Err(Error::NotFound(format!("blob {digest}"))),
                }
            }
            return Ok(Some(image));
        }
        Ok(None)
    }
}

/// What images say of blobs.
#[derive(Debug, Default)]
struct Contents {
    /// What layers hold.
    layers: HashMap<Digest, Vec<Content>>,
    /// The sizes of blobs. Images may disagree, and one of them be right.
    sizes: HashMap<Digest, Vec<u64>>,
}

/// What one or more images say that a layer holds.
#[derive(Debug)]
struct Content {
    compression: Compression,
    diff_id: DiffId,
    /// Their names, the first few.
    images: String,
    count: usize,
}

impl Contents {
    fn promise(&mut self, sizes: Vec<(Digest, u64)>) {
        for (digest, size) in sizes {
            let known = self.sizes.entry(digest).or_default();
            if !known.contains(&size) {
                known.push(size);
            }
        }
    }

    /// Whether a blob of that size is none that an image names.
    fn is_broken(&self, digest: Digest, size: u64) -> bool {
        let sizes = self.sizes.get(&digest);
        sizes.is_some_and(|sizes| !sizes.contains(&size))
    }

    fn add(&mut self, meta: &Meta, image: &Image) {
        let name = format!("{}@{}", meta.name(), meta.revision());
        for layer in image.layers() {
            let contents = self.layers.entry(layer.digest).or_default();
            let known = contents.iter_mut().find(|content| {
                (content.compression, content.diff_id) == (layer.compression, layer.diff_id)
            });
            match known {
                Some(content) => content.also(&name),
                None => contents.push(Content {
                    compression: layer.compression,
                    diff_id: layer.diff_id,
                    images: name.clone(),
                    count: 1,
                }),
            }
        }
    }

    fn of(&self, digest: Digest) -> &[Content] {
        self.layers.get(&digest).map_or(&[], Vec::as_slice)
    }
}

impl Content {
    fn also(&mut self, name: &str) {
        self.count += 1;
        match self.count {
            2 | 3 => self.images += &format!(", {name}"),
            4 => self.images += " and more",
            _ => {}
        }
    }

    /// Why the blob `file` does not hold that, if it does not.
    fn contradiction(&self, file: &File, context: &Context) -> Result<Option<String>> {
        match stream::diff_id(file, self.compression, context) {
            Ok(found) if found == self.diff_id => Ok(None),
            Ok(found) => Ok(Some(format!("holds {found}, not {}", self.diff_id))),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => Ok(Some(format!("cannot be inflated: {error}"))),
        }
    }
}

/// Reads a file for its digest and length; an unreadable file is a result. Fails only when the operation is
/// cancelled.
fn hash(
    file: &mut File,
    meter: &mut BlobMeter,
    context: &Context,
) -> Result<io::Result<(Digest, u64)>> {
    let mut reader = Hashing::new(file);
    let mut buffer = vec![0; CHUNK];
    loop {
        context.check()?;
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => meter.add(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
    let (digest, size, _) = reader.finish();
    Ok(Ok((digest, size)))
}
