//! Reads a daemon's save archive front to back, once, in bounded memory.
//!
//! The tar crate would read names of any length into memory and take an archive's early end for its
//! end; here every length is bounded and an entry that is cut short is an error.

use std::io::{self, Read};

use pcocc_image::archive;
use pcocc_image::{Error, Result};

/// Longest name or extended header, in bytes.
const MAX_METADATA: u64 = 1 << 20;

const BLOCK: u64 = 512;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file; its content comes next.
    File,
    /// A symbolic or hard link to this path, which lies inside the archive.
    Link(String),
    /// A folder or something else without content of interest.
    Other,
}

/// An entry's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Normalised path: relative, no `.`, no `..`.
    pub(super) path: String,
    pub(super) kind: Kind,
    /// Length of the content in bytes.
    pub(super) size: u64,
}

/// The archive; as a reader, the content of the entry that [`Tarball::next`] returned last.
#[derive(Debug)]
pub(super) struct Tarball<R> {
    inner: R,
    left: u64,
    padding: u64,
    ended: bool,
}

/// What extended headers say about the entry after them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Tarball<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            left: 0,
            padding: 0,
            ended: false,
        }
    }

    /// Skips what is left of the current entry and reads the next one's header; `None` at the end.
    ///
    /// At the end the stream is drained, so that an error behind the archive is seen.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        if self.ended {
            return Ok(None);
        }
        self.skip(self.left + self.padding)?;
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.header()? else {
                self.ended = true;
                self.drain()?;
                return Ok(None);
            };
            let size = header
                .entry_size()
                .map_err(|error| bad(format!("has a header without a size: {error}")))?;
            let kind = header.entry_type();
            if kind.is_pax_local_extensions() {
                pax(&self.metadata(size)?, &mut extended)?;
            } else if kind.is_gnu_longname() {
                extended.path = Some(c_string(self.metadata(size)?));
            } else if kind.is_gnu_longlink() {
                extended.link = Some(c_string(self.metadata(size)?));
            } else if kind.is_pax_global_extensions() {
                self.metadata(size)?;
            } else {
                return self.entry(&header, size, extended).map(Some);
            }
        }
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        header_size: u64,
        extended: Extended,
    ) -> Result<Entry> {
        let path = extended
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let path = text(path)?;
        let path = normalise("", &path)
            .ok_or_else(|| bad(format!("has an entry {path:?} that leaves the archive")))?;
        let mut size = extended.size.unwrap_or(header_size);
        let kind = header.entry_type();
        let link = || -> Result<String> {
            let named = match &extended.link {
                Some(name) => name.clone(),
                None => header
                    .link_name_bytes()
                    .map(|name| name.into_owned())
                    .unwrap_or_default(),
            };
            text(named)
        };
        let kind = if kind.is_file() || kind.is_contiguous() {
            Kind::File
        } else if kind.is_symlink() || kind.is_hard_link() {
            // POSIX: links carry no content, whatever their size field says.
            size = 0;
            let base = match path.rsplit_once('/') {
                Some((folder, _)) if kind.is_symlink() => folder,
                _ => "",
            };
            let named = link()?;
            Kind::Link(normalise(base, &named).ok_or_else(|| {
                bad(format!(
                    "has a link {path:?} to {named:?}, outside the archive"
                ))
            })?)
        } else if kind.is_gnu_sparse() {
            return Err(bad(format!("has the sparse entry {path:?}")));
        } else {
            if kind.is_dir() {
                size = 0;
            }
            Kind::Other
        };
        if size > i64::MAX as u64 {
            return Err(bad(format!("claims {size} bytes for {path:?}")));
        }
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
        Ok(Entry { path, kind, size })
    }

    fn header(&mut self) -> Result<Option<tar::Header>> {
        let mut header = tar::Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest).map_err(stream_error)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(truncated()),
                n => filled += n,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The sum of all bytes with the sum's own field taken as blanks (POSIX ustar).
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(i, byte)| {
                if (148..156).contains(&i) {
                    32
                } else {
                    u32::from(*byte)
                }
            })
            .sum();
        match header.cksum() {
            Ok(stored) if stored == sum => Ok(Some(header)),
            _ => Err(bad(
                "is not a tar archive: a header's checksum is wrong".to_owned()
            )),
        }
    }

    fn metadata(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_METADATA {
            return Err(bad(format!(
                "has a name or extended header of {size} bytes"
            )));
        }
        let mut data = Vec::new();
        (&mut self.inner)
            .take(size)
            .read_to_end(&mut data)
            .map_err(stream_error)?;
        if data.len() as u64 != size {
            return Err(truncated());
        }
        self.left = 0;
        self.padding = 0;
        self.skip((BLOCK - size % BLOCK) % BLOCK)?;
        Ok(data)
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        let skipped =
            io::copy(&mut (&mut self.inner).take(bytes), &mut io::sink()).map_err(stream_error)?;
        self.left = 0;
        self.padding = 0;
        if skipped == bytes {
            Ok(())
        } else {
            Err(truncated())
        }
    }

    fn drain(&mut self) -> Result<()> {
        // Archives are padded to 10 KiB or so; more than that is something else.
        let rest = io::copy(&mut (&mut self.inner).take(MAX_METADATA), &mut io::sink())
            .map_err(stream_error)?;
        if rest == MAX_METADATA {
            return Err(bad("goes on behind its end".to_owned()));
        }
        Ok(())
    }
}

impl<R: Read> Read for Tarball<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let Some(buf) = buf.get_mut(..want).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let n = self.inner.read(buf)?;
        if n == 0 {
            return Err(truncated().into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

fn bad(why: String) -> Error {
    Error::invalid("the archive from the docker daemon", why)
}

fn truncated() -> Error {
    bad("ends too early".to_owned())
}

fn stream_error(error: io::Error) -> Error {
    Error::io("read", "the archive from the docker daemon")(error)
}

fn text(name: Vec<u8>) -> Result<String> {
    String::from_utf8(name).map_err(|_| bad("has an entry whose name is not UTF-8".to_owned()))
}

fn c_string(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|byte| *byte == 0);
    name.truncate(end.unwrap_or(name.len()));
    name
}

/// Joins `path` to the folder `base`; `None` when it leaves the archive.
pub(super) fn normalise(base: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains('\0') {
        return None;
    }
    archive::fold(base.split('/').chain(path.split('/')))
}

/// Reads the records `LENGTH KEY=VALUE\n` of a pax header (POSIX pax, "Extended Header").
fn pax(mut data: &[u8], extended: &mut Extended) -> Result<()> {
    let malformed = || bad("has a malformed pax header".to_owned());
    while !data.is_empty() {
        let blank = data.iter().position(|b| *b == b' ').ok_or_else(malformed)?;
        let (digits, _) = data.split_at(blank);
        let length: usize = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(malformed)?;
        let record = data
            .get(blank + 1..length)
            .and_then(|record| record.strip_suffix(b"\n"))
            .ok_or_else(malformed)?;
        let equals = record
            .iter()
            .position(|b| *b == b'=')
            .ok_or_else(malformed)?;
        let (key, value) = record.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        match key {
            b"path" => extended.path = Some(value.to_vec()),
            b"linkpath" => extended.link = Some(value.to_vec()),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                extended.size = Some(size.ok_or_else(malformed)?);
            }
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(bad("has a sparse entry".to_owned()));
            }
            _ => {}
        }
        data = data.get(length..).ok_or_else(malformed)?;
    }
    Ok(())
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

    fn read(data: &[u8]) -> Result<Vec<(String, Kind, Vec<u8>)>> {
        let mut tarball = Tarball::new(data);
        let mut found = Vec::new();
        while let Some(entry) = tarball.next()? {
            let mut content = Vec::new();
            tarball.read_to_end(&mut content).map_err(stream_error)?;
            assert_eq!(content.len() as u64, entry.size);
            found.push((entry.path, entry.kind, content));
        }
        Ok(found)
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let found = read(&archive()).unwrap();
        let kinds: Vec<_> = found
            .iter()
            .map(|(path, kind, data)| (path.len(), kind, data.len()))
            .collect();
        let target = Kind::Link("a/one".to_owned());
        assert_eq!(
            kinds,
            [
                (1, &Kind::Other, 0),
                (5, &Kind::File, 700),
                (302, &Kind::File, 4),
                (11, &target, 0),
                (6, &target, 0)
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
        // Only between entries, and in the zeros at the end, can a cut go unnoticed here.
        let end = whole.len() - 1024;
        assert!(
            ends.iter().all(|cut| cut % 512 == 0 || *cut > end),
            "{ends:?}"
        );
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
            (entry(b"x", "", Regular, u64::MAX / 2 + 1), "claims"),
            (entry(b"x", "", XHeader, 1 << 40), "extended header"),
            (entry(b"x", "", GNULongName, 1 << 40), "extended header"),
            (entry(b"x", "", GNUSparse, 0), "sparse"),
        ] {
            let error = read(&archive).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
        let mut endless = vec![0; 1024];
        endless.resize(3 << 20, 1);
        assert!(read(&endless).unwrap_err().to_string().contains("behind"));
    }

    #[test]
    fn pax_records_are_read_strictly() {
        let mut extended = Extended::default();
        pax(b"30 path=a name\nwith=signs\n 12 x\n", &mut extended).unwrap_err();
        pax(b"12 path=abc\n16 size=9999999\n", &mut extended).unwrap();
        assert_eq!(extended.path.unwrap(), b"abc");
        assert_eq!(extended.size, Some(9_999_999));
        for broken in [
            &b"x"[..],
            b"0 a=b\n",
            b"99 a=b\n",
            b"5 ab\n",
            b"7 a=b\n",
            b"9 size=x\n",
        ] {
            pax(broken, &mut Extended::default()).unwrap_err();
        }
    }
}
