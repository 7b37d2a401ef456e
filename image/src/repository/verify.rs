//! Checking a whole repository: every blob hashed again, every image followed to its layers.

use std::fs::File;
use std::io;

use crate::digest::Hashing;
use crate::error::{Error, Result};
use crate::repository::folder::Repository;
use crate::repository::meta::{Kind, Meta};
use crate::transfer::Context;

/// What was checked, and what is wrong.
#[derive(Debug, Default)]
pub struct Verified {
    /// Image revisions looked at.
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
    pub fn verify(&self, context: &Context) -> Result<Verified> {
        self.version()?;
        let listing = self.list()?;
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
        for (digest, path) in self.blob_files()? {
            context.check()?;
            let mut reader = Hashing::new(File::open(&path).map_err(Error::io("open", &path))?);
            match io::copy(&mut reader, &mut io::sink()) {
                Ok(_) => {}
                Err(error) => verified.problems.push(Error::io("read", &path)(error)),
            }
            let (found, size, _) = reader.finish();
            verified.blobs += 1;
            verified.bytes += size;
            if found != digest {
                verified.problems.push(Error::Corrupt {
                    expected: digest,
                    found: format!("{found} of {size} bytes, in {}", path.display()),
                });
            }
        }
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
