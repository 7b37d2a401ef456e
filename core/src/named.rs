//! Files that the user or the site has named: the path may lead through links, as configuration often does.
//!
//! The file itself must be a regular one. A pipe is not waited for and a device feeds nothing in, whoever put it there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::beneath::{self, Found, Refusal};

/// Opens a regular file for reading.
///
/// Fails with [`Refusal::NotRegular`] for anything else.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let file = match opened {
        // A socket.
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            return Err(Refusal::NotRegular.into());
        }
        opened => opened?,
    };
    if !Found::of_file(&file)?.is_file() {
        return Err(Refusal::NotRegular.into());
    }
    rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
    Ok(file)
}

/// Reads a regular file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    beneath::read(open(path)?, limit)
}

/// Reads a regular file of at most `limit` bytes of UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn links_lead_to_regular_files_and_nothing_else_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "text").unwrap();
        symlink(at("file"), at("link")).unwrap();
        assert_eq!(read_text(&at("link"), 4).unwrap(), "text");
        let error = read(&at("link"), 3).unwrap_err();
        assert!(matches!(Refusal::of(&error), Some(Refusal::TooLarge(3))));
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for name in ["pipe", "zero", "socket", "."] {
            let error = open(&at(name)).unwrap_err();
            assert!(
                matches!(Refusal::of(&error), Some(Refusal::NotRegular)),
                "{name}: {error}"
            );
        }
        assert_eq!(
            open(&at("none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
