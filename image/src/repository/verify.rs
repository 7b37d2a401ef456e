//! Checking a whole repository: every blob hashed again, every image followed to its layers.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use pcocc_core::progress::BlobKind;

use crate::error::{Error, Result};
use crate::meter::BlobMeter;
use crate::repository::folder::Repository;
use crate::repository::meta::{Kind, Meta};
use crate::transfer::Context;
use pcocc_layers::Digest;
use pcocc_layers::digest::Hashing;

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
    /// Hashes every blob and follows every image to its blobs. Changes nothing.
    ///
    /// Progress counts the bytes of the whole repository: thousands of blobs would not fit on a screen.
    pub fn verify(&self, context: &Context) -> Result<Verified> {
        self.version()?;
        let listing = self.list()?;
        let blobs = self.blob_files()?;
        context.progress.stage(format!(
            "Checking {} image revisions and {} blobs",
            listing.metas.len(),
            blobs.len()
        ));
        let mut verified = Verified::default();
        verified
            .problems
            .extend(listing.bad.into_iter().map(|bad| bad.error));
        for meta in &listing.metas {
            context.check()?;
            verified.images += 1;
            if let Err(error) = self.verify_meta(meta) {
                verified.problems.push(Error::invalid(
                    format!("image {}:{}@{}", self.name(), meta.name(), meta.revision()),
                    format!("is damaged: {error}"),
                ));
            }
        }
        // The hashing below reports an unreadable blob.
        let sizes = blobs.iter().filter_map(|(_, path)| fs::metadata(path).ok());
        let total = sizes.map(|metadata| metadata.len()).sum();
        let mut meter = BlobMeter::start(
            &context.progress,
            BlobKind::Repository,
            self.name(),
            Some(total),
        );
        for (digest, path) in &blobs {
            let (found, size) = match hash(path, &mut meter, context)? {
                Ok(read) => read,
                // Garbage collection has removed the blob: no image needs it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    verified.blobs += 1;
                    verified.problems.push(Error::io("read", path)(error));
                    continue;
                }
            };
            verified.blobs += 1;
            verified.bytes += size;
            if found != *digest {
                verified.problems.push(Error::Corrupt {
                    expected: *digest,
                    found: format!("{found} of {size} bytes, in {}", path.display()),
                });
            }
        }
        meter.finish();
        Ok(verified)
    }

    fn verify_meta(&self, meta: &Meta) -> Result<()> {
        self.check_blobs(meta)?;
        if meta.kind() == Kind::Container {
            let image = self.image(meta)?;
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
        }
        Ok(())
    }
}

/// Reads a file for its digest and length; an unreadable file is a result. Fails only when the operation is
/// cancelled.
fn hash(
    path: &Path,
    meter: &mut BlobMeter,
    context: &Context,
) -> Result<io::Result<(Digest, u64)>> {
    let mut reader = match File::open(path) {
        Ok(file) => Hashing::new(file),
        Err(error) => return Ok(Err(error)),
    };
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
