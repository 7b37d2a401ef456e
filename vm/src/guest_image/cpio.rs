//! Writes the initramfs: a cpio archive in the "newc" form (Linux, `early-userspace/buffer-format`).

use std::io::{self, Write};

/// An archive being written.
#[derive(Debug)]
pub(crate) struct Cpio<W> {
    output: W,
    inode: u32,
}

impl<W: Write> Cpio<W> {
    /// Starts an archive.
    pub(crate) fn new(output: W) -> Self {
        Self { output, inode: 0 }
    }

    /// Adds a folder.
    pub(crate) fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, 0o040_755, (0, 0), &[])
    }

    /// Adds a program or file.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, 0o100_755, (0, 0), content)
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(path, 0o020_600, (major, minor), &[])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        let fields = [
            self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.output.write_all(b"070701")?;
        for field in fields {
            write!(self.output, "{field:08x}")?;
        }
        self.output.write_all(path.as_bytes())?;
        self.output.write_all(b"\0")?;
        self.pad(110 + path.len() + 1)?;
        self.output.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, length: usize) -> io::Result<()> {
        let missing = length.next_multiple_of(4) - length;
        self.output
            .write_all(b"\0\0\0".get(..missing).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_contents_are_aligned() {
        let mut cpio = Cpio::new(Vec::new());
        cpio.folder("dev").unwrap();
        cpio.device("dev/console", 5, 1).unwrap();
        cpio.file("init", b"12345").unwrap();
        let bytes = cpio.finish().unwrap();
        let starts: Vec<usize> = bytes
            .windows(6)
            .enumerate()
            .filter(|(_, window)| *window == b"070701")
            .map(|(offset, _)| offset)
            .collect();
        assert_eq!(starts.len(), 4);
        assert!(starts.iter().all(|start| start % 4 == 0), "{starts:?}");
        assert_eq!(bytes.len() % 4, 0);
    }
}
