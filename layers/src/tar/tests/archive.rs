//! Writes tar archives that no honest tool would write.

/// A tar archive in the making.
#[derive(Debug)]
pub(crate) struct Archive {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    kind: u8,
    path: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    device: (u32, u32),
    content: Vec<u8>,
    pax: Vec<(String, Vec<u8>)>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    pub(crate) fn entry(&mut self, kind: u8, path: &str, link: &str, content: &[u8]) -> &mut Self {
        self.entries.push(Entry {
            kind,
            path: path.into(),
            link: link.into(),
            mode: 0o644,
            owner: (0, 0),
            mtime: 0,
            device: (0, 0),
            content: content.into(),
            pax: Vec::new(),
        });
        self
    }

    fn last(&mut self, change: impl FnOnce(&mut Entry)) -> &mut Self {
        change(self.entries.last_mut().unwrap());
        self
    }

    pub(crate) fn file(&mut self, path: &str, content: &[u8]) -> &mut Self {
        self.entry(b'0', path, "", content)
    }

    pub(crate) fn dir(&mut self, path: &str, mode: u32) -> &mut Self {
        self.entry(b'5', path, "", b"").mode(mode)
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) -> &mut Self {
        let same = self
            .entries
            .iter()
            .find(|entry| entry.path == target.trim_start_matches('/').as_bytes())
            .cloned();
        self.entry(b'1', path, target, b"").last(|entry| {
            if let Some(same) = same {
                (entry.mode, entry.owner, entry.mtime) = (same.mode, same.owner, same.mtime);
            }
        })
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(b'2', path, target, b"")
    }

    pub(crate) fn node(&mut self, kind: u8, path: &str, device: (u32, u32)) -> &mut Self {
        self.entry(kind, path, "", b"")
            .last(|entry| entry.device = device)
    }

    pub(crate) fn mode(&mut self, mode: u32) -> &mut Self {
        self.last(|entry| entry.mode = mode)
    }

    pub(crate) fn owner(&mut self, uid: u64, gid: u64) -> &mut Self {
        self.last(|entry| entry.owner = (uid, gid))
    }

    pub(crate) fn mtime(&mut self, mtime: u64) -> &mut Self {
        self.last(|entry| entry.mtime = mtime)
    }

    pub(crate) fn bytes_name(&mut self, path: &[u8]) -> &mut Self {
        self.last(|entry| entry.path = path.into())
    }

    pub(crate) fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        self.last(|entry| {
            let records = records
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()));
            entry.pax.extend(records);
        })
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut tar = Vec::new();
        for entry in &self.entries {
            let mut records = Vec::new();
            for (key, value) in &entry.pax {
                records.extend(pax_record(key, value));
            }
            if !records.is_empty() {
                push(&mut tar, &header(b'x', b"pax", b"", entry), &records);
            }
            for (kind, name) in [(b'L', &entry.path), (b'K', &entry.link)] {
                if name.len() > 100 {
                    push(&mut tar, &header(kind, b"././@LongLink", b"", entry), name);
                }
            }
            let block = header(entry.kind, &entry.path, &entry.link, entry);
            push(&mut tar, &block, &entry.content);
        }
        tar.extend([0; 1024]);
        tar
    }

    /// One sparse file in the old GNU format.
    pub(crate) fn gnu_sparse(
        path: &str,
        segments: &[(u64, u64)],
        size: u64,
        content: &[u8],
    ) -> Vec<u8> {
        let mut archive = Self::new();
        archive.file(path, content);
        let mut block = header(b'S', path.as_bytes(), b"", &archive.entries[0]);
        block.as_mut_bytes()[257..265].copy_from_slice(b"ustar  \0");
        for (number, (offset, length)) in segments.iter().enumerate() {
            let start = 386 + number * 24;
            let bytes = block.as_mut_bytes();
            bytes[start..start + 12].copy_from_slice(&base_256(*offset));
            bytes[start + 12..start + 24].copy_from_slice(&base_256(*length));
        }
        block.as_mut_bytes()[483..495].copy_from_slice(&base_256(size));
        let mut tar = Vec::new();
        push(&mut tar, &block, content);
        tar.extend([0; 1024]);
        tar
    }
}

/// A number as GNU tar writes those that do not fit in octal digits.
fn base_256(number: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0] = 0x80;
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn header(kind: u8, path: &[u8], link: &[u8], entry: &Entry) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    let bytes = header.as_mut_bytes();
    let (path, link) = (&path[..path.len().min(100)], &link[..link.len().min(100)]);
    bytes[..path.len()].copy_from_slice(path);
    bytes[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.0);
    header.set_gid(entry.owner.1);
    header.set_mtime(entry.mtime);
    header.set_device_major(entry.device.0).unwrap();
    header.set_device_minor(entry.device.1).unwrap();
    header
}

fn push(tar: &mut Vec<u8>, header: &tar::Header, content: &[u8]) {
    let mut header = header.clone();
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.extend(header.as_bytes());
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// A pax record with its length.
pub(crate) fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() > rest.to_string().len() {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// Adds an entry called `raw` whose size field is `size`, whatever its content is.
pub(crate) fn push_raw(tar: &mut Vec<u8>, kind: u8, size: &[u8; 12], content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    let bytes = header.as_mut_bytes();
    bytes[..3].copy_from_slice(b"raw");
    bytes[100..107].copy_from_slice(b"0000644");
    bytes[124..136].copy_from_slice(size);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_cksum();
    tar.extend(header.as_bytes());
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}
