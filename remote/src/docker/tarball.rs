//! Reads a daemon's save archive front to back, with rules for names and links.

use std::io::{self, Read};

use pcocc_image::archive;
use pcocc_image::{Error, Result};
use pcocc_layers::tar::{EntryType, TarError, TarStream};

/// Most bytes accepted behind the archive's end. Usual archives are padded to 10 KiB.
const MAX_PADDING: u64 = 1 << 20;

/// An entry of the archive. Paths are normalised: relative, no `.`, no `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SavedEntry {
    /// A regular file; its `size` bytes come next.
    File { path: String, size: u64 },
    /// A symbolic or hard link to the path `target`, inside the archive.
    Link { path: String, target: String },
    /// A folder or another file without useful content.
    Other { path: String },
}

/// The archive. As a reader, it gives the content of the entry that [`Tarball::next`] returned last.
#[derive(Debug)]
pub(super) struct Tarball<R> {
    tar: TarStream<R>,
    ended: bool,
}

impl<R: Read> Tarball<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            tar: TarStream::new(inner),
            ended: false,
        }
    }

    /// Skips the rest of the current entry and reads the next header; `None` at the end.
    ///
    /// At the end the stream is drained, so that an error behind the archive is seen.
    pub(super) fn next(&mut self) -> Result<Option<SavedEntry>> {
        if self.ended {
            return Ok(None);
        }
        let Some(entry) = self.tar.next_entry().map_err(failed)? else {
            self.ended = true;
            self.drain()?;
            return Ok(None);
        };
        let path = text(entry.path)?;
        let path = normalise("", &path)
            .ok_or_else(|| bad(format!("has an entry {path:?} that leaves the archive")))?;
        if entry.segments.is_some() {
            return Err(bad(format!("has the sparse entry {path:?}")));
        }
        Ok(Some(match entry.kind {
            EntryType::Regular | EntryType::Continuous => SavedEntry::File {
                path,
                size: entry.size,
            },
            EntryType::Symlink | EntryType::Link => {
                let base = match path.rsplit_once('/') {
                    Some((folder, _)) if entry.kind == EntryType::Symlink => folder,
                    _ => "",
                };
                let named = text(entry.link)?;
                let target = normalise(base, &named).ok_or_else(|| {
                    bad(format!(
                        "has a link {path:?} to {named:?}, outside the archive"
                    ))
                })?;
                SavedEntry::Link { path, target }
            }
            _ => SavedEntry::Other { path },
        }))
    }

    fn drain(&mut self) -> Result<()> {
        let mut rest = self.tar.rest().take(MAX_PADDING);
        if io::copy(&mut rest, &mut io::sink()).map_err(stream_error)? == MAX_PADDING {
            return Err(bad("goes on behind its end".to_owned()));
        }
        Ok(())
    }
}

impl<R: Read> Read for Tarball<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.tar.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => failed(TarError::Truncated).into(),
            _ => error,
        })
    }
}

fn failed(error: TarError) -> Error {
    match error {
        TarError::Read(error) => stream_error(error),
        TarError::Truncated => bad("ends too early".to_owned()),
        TarError::Invalid(why) => bad(why),
    }
}

fn bad(why: String) -> Error {
    Error::invalid("the archive from the docker daemon", why)
}

fn stream_error(error: io::Error) -> Error {
    Error::io("read", "the archive from the docker daemon")(error)
}

fn text(name: Vec<u8>) -> Result<String> {
    String::from_utf8(name).map_err(|_| bad("has an entry whose name is not UTF-8".to_owned()))
}

/// Joins `path` to the folder `base`; `None` when it leaves the archive.
pub(super) fn normalise(base: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains('\0') {
        return None;
    }
    archive::fold(base.split('/').chain(path.split('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |kind, path: &str, link: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            if link.is_empty() {
                builder.append_data(&mut header, path, data).unwrap();
            } else {
                builder.append_link(&mut header, path, link).unwrap();
            }
        };
        let long = format!("d/{}", "x".repeat(300));
        add(tar::EntryType::Directory, "./a/", "", b"");
        add(tar::EntryType::Regular, "a/one", "", &[7; 700]);
        add(tar::EntryType::Regular, &long, "", b"long");
        add(tar::EntryType::Symlink, "b/layer.tar", "../a/one", b"");
        add(tar::EntryType::Link, "b/hard", "a/one", b"");
        builder.into_inner().unwrap()
    }

    fn read(data: &[u8]) -> Result<Vec<SavedEntry>> {
        let mut tarball = Tarball::new(data);
        let mut found = Vec::new();
        while let Some(entry) = tarball.next()? {
            let mut content = Vec::new();
            tarball.read_to_end(&mut content).map_err(stream_error)?;
            let size = match entry {
                SavedEntry::File { size, .. } => size,
                _ => 0,
            };
            assert_eq!(content.len() as u64, size);
            found.push(entry);
        }
        Ok(found)
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let file = |path: &str, size| SavedEntry::File {
            path: path.to_owned(),
            size,
        };
        let link = |path: &str| SavedEntry::Link {
            path: path.to_owned(),
            target: "a/one".to_owned(),
        };
        assert_eq!(
            read(&archive()).unwrap(),
            [
                SavedEntry::Other {
                    path: "a".to_owned()
                },
                file("a/one", 700),
                file(&format!("d/{}", "x".repeat(300)), 4),
                link("b/layer.tar"),
                link("b/hard"),
            ]
        );
    }

    #[test]
    fn a_cut_inside_an_entry_is_an_error() {
        let whole = archive();
        let mut ends = vec![];
        for cut in 0..whole.len() {
            if read(&whole[..cut]).is_ok() {
                ends.push(cut);
            }
        }
        // A cut is not noticed here between entries, in the padding behind content, and between the zeros at
        // the end.
        let mut unnoticed = vec![0, 512];
        unnoticed.extend(1024 + 700..=2048);
        unnoticed.extend(3584 + 4..=4096);
        unnoticed.extend([4608, 5120, 5632]);
        assert_eq!(ends, unnoticed);
    }

    #[test]
    fn hostile_archives_are_refused() {
        let entry = |path: &[u8], link: &str, kind, size: u64| {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path);
            if !link.is_empty() {
                header.set_link_name_literal(link).unwrap();
            }
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        use tar::EntryType::*;
        for (archive, word) in [
            (b"garbage".repeat(100), "checksum"),
            (entry(b"../x", "", Regular, 0), "leaves"),
            (entry(b"/etc/passwd", "", Regular, 0), "leaves"),
            (entry(b"x", "../../y", Symlink, 0), "outside"),
            (entry(b"x", "/etc/passwd", Symlink, 0), "outside"),
            (entry(b"x", "a/../../y", Link, 0), "outside"),
            (entry(b"x\xff", "", Regular, 0), "UTF-8"),
            (entry(b"x", "", Regular, 5), "too early"),
            (entry(b"x", "", Regular, u64::MAX / 2 + 1), "too large"),
            (entry(b"x", "", XHeader, 1 << 40), "extension header"),
            (entry(b"x", "", GNULongName, 1 << 40), "extension header"),
            (entry(b"x", "", GNUSparse, 0), "sparse"),
        ] {
            let error = read(&archive).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
        let pax = |records: &[u8]| {
            let mut tar = entry(b"x", "", XHeader, records.len() as u64);
            tar.extend(records);
            tar.resize(1024, 0);
            [tar, entry(b"y", "", Regular, 0)].concat()
        };
        for (records, word) in [
            (&b"99 a=b\n"[..], "pax record"),
            (b"9 size=x\n", "broken number"),
            (
                b"21 GNU.sparse.size=0\n26 GNU.sparse.numblocks=0\n",
                "sparse",
            ),
        ] {
            let error = read(&pax(records)).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
        let stray = [vec![0; 512], entry(b"x", "", Regular, 0)].concat();
        assert!(read(&stray).unwrap_err().to_string().contains("stray"));
        let mut endless = vec![0; 1024];
        endless.resize(3 << 20, 1);
        assert!(read(&endless).unwrap_err().to_string().contains("behind"));
    }
}
