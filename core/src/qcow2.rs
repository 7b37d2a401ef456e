//! The header of a qcow2 file, as far as it leads to other files (QEMU's docs/interop/qcow2.txt), and how QEMU is given a
//! chain of such files.
//!
//! A header names the file below in words that QEMU would open with the rights of whoever runs it: any path, or even a
//! connection. So QEMU never gets to choose: [`source`] names every file of the chain by its descriptor and ends the chain.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use serde_json::{Value, json};

use crate::beneath::path_for_children;

/// Longest name of a backing file.
const MAX_NAME: u32 = 1023;

/// Bit of the incompatible features: the content is in another file.
const DATA_FILE: u64 = 1 << 2;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The file this one holds only the differences to, as the header names it.
    pub backing: Option<String>,
    /// Whether the content is in another file.
    pub has_data_file: bool,
    /// Size of the disk in bytes, as a machine sees it.
    pub virtual_size: u64,
}

impl Header {
    /// Reads the header of an open file; `None` when it is no qcow2.
    ///
    /// Fails with [`io::ErrorKind::InvalidData`] when the header contradicts itself.
    pub fn read(file: &File) -> io::Result<Option<Self>> {
        let mut header = [0; 104];
        let got = read_at(file, &mut header, 0)?;
        let field = |at: usize| u64::from_be_bytes(*header[at..].first_chunk().unwrap_or(&[0; 8]));
        let short = |at: usize| u32::from_be_bytes(*header[at..].first_chunk().unwrap_or(&[0; 4]));
        if got < 72 || !header.starts_with(b"QFI\xfb") {
            return Ok(None);
        }
        let (offset, size) = (field(8), short(16));
        let has_data_file = short(4) >= 3 && field(72) & DATA_FILE != 0;
        let backing = match (offset, size) {
            (0, _) => None,
            (_, size) if size > MAX_NAME => return Err(bad("names a backing file at length")),
            (offset, size) => {
                let mut name = vec![0; usize::try_from(size).unwrap_or(0)];
                if read_at(file, &mut name, offset)? < name.len() {
                    return Err(bad("ends within the name of its backing file"));
                }
                Some(String::from_utf8_lossy(&name).into_owned())
            }
        };
        Ok(Some(Self {
            backing,
            has_data_file,
            virtual_size: field(24),
        }))
    }
}

/// What QEMU's programs take for the disk in the qcow2 files `chain`, from the bottom to the top; `None` for no files.
///
/// The files must stay open meanwhile. What their headers say of backing files is not followed.
pub fn source(chain: &[File]) -> Option<String> {
    let disk = chain.iter().fold(Value::Null, |below, file| {
        json!({
            "driver": "qcow2",
            "file": {"driver": "file", "filename": path_for_children(file)},
            "backing": below,
        })
    });
    (!disk.is_null()).then(|| format!("json:{disk}"))
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64))? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

fn bad(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("is a qcow2 file that {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    /// A header of version 3, with a name of a backing file at offset 200.
    fn header(backing: &[u8], features: u64) -> Vec<u8> {
        let mut header = vec![0; 200];
        header[..4].copy_from_slice(b"QFI\xfb");
        header[7] = 3;
        if !backing.is_empty() {
            header[15] = 200;
            header[16..20].copy_from_slice(&(backing.len() as u32).to_be_bytes());
        }
        header[24..32].copy_from_slice(&(1_u64 << 20).to_be_bytes());
        header[72..80].copy_from_slice(&features.to_be_bytes());
        header.extend_from_slice(backing);
        header
    }

    #[test]
    fn a_header_tells_which_files_it_leads_to() {
        let read = |bytes: &[u8]| Header::read(&file(bytes));
        assert_eq!(read(b"").unwrap(), None);
        assert_eq!(read(&[b'x'; 200]).unwrap(), None);
        let alone = read(&header(b"", 0)).unwrap().unwrap();
        assert_eq!(
            alone,
            Header {
                backing: None,
                has_data_file: false,
                virtual_size: 1 << 20
            }
        );
        let backed = read(&header(b"/etc/shadow", 0)).unwrap().unwrap();
        assert_eq!(backed.backing.as_deref(), Some("/etc/shadow"));
        assert!(
            read(&header(b"", DATA_FILE))
                .unwrap()
                .unwrap()
                .has_data_file
        );
        let mut cut = header(b"/etc/shadow", 0);
        cut.truncate(205);
        assert!(read(&cut).is_err());
        assert!(read(&header(&[b'x'; 1024], 0)).is_err());
        let mut wild = header(b"x", 0);
        wild[8..16].fill(0xff);
        assert!(read(&wild).is_err());
    }

    #[test]
    fn a_chain_is_named_by_its_descriptors_and_ends() {
        assert_eq!(source(&[]), None);
        let (bottom, top) = (file(b""), file(b""));
        let (low, high) = (path_for_children(&bottom), path_for_children(&top));
        let text = source(&[bottom, top]).unwrap();
        let value: Value = serde_json::from_str(text.strip_prefix("json:").unwrap()).unwrap();
        assert_eq!(value["file"]["filename"], json!(high));
        assert_eq!(value["backing"]["file"]["filename"], json!(low));
        assert!(value["backing"]["backing"].is_null());
    }
}
