//! The end of a console's log, for a VM that does not start.

use std::io::{self, BufRead as _, Seek as _, SeekFrom};
use std::path::Path;

use pcocc_core::beneath;
use pcocc_vm::job::JobFolder;

use crate::messages;

/// Number of lines that are shown.
const LAST_LINES: usize = 15;

/// Shows the console's last lines on stderr.
pub(crate) fn show_console(folder: &JobFolder) {
    let mut lines = last_lines(&folder.console_log(), LAST_LINES);
    if lines.len() < LAST_LINES {
        let missing = LAST_LINES - lines.len();
        lines.splice(0..0, last_lines(&folder.older_console_log(), missing));
    }
    if !lines.is_empty() {
        messages::complain("Last lines of the VM's console:\n");
        for line in lines {
            messages::complain(&format!("  {}\n", messages::printable(line.trim_end())));
        }
    }
}

/// The last lines of a file; none when the file cannot be read.
fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let Ok(mut file) = beneath::open_file(path) else {
        return Vec::new();
    };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    // Far more than a few lines of a console.
    if file
        .seek(SeekFrom::Start(length.saturating_sub(64 << 10)))
        .is_err()
    {
        return Vec::new();
    }
    let mut lines: Vec<String> = io::BufReader::new(file)
        .split(b'\n')
        .map_while(Result::ok)
        .map(|line| String::from_utf8_lossy(&line).trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines.split_off(lines.len().saturating_sub(count))
}

pub(super) fn last_line(path: &Path) -> Option<String> {
    last_lines(path, 1).pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_last_lines_of_a_console() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"a\r\n\r\nb\xff\nc").unwrap();
        assert_eq!(last_lines(file.path(), 2).len(), 2);
        assert_eq!(last_line(file.path()).unwrap(), "c");
        assert!(last_lines(Path::new("/nonexistent"), 3).is_empty());
    }
}
