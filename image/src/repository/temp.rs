//! Names of work in progress, `HOST.PID.RANDOM`: the name tells whether the writer still lives.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// Age until which the temporary files of other machines are left alone.
const FOREIGN_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Prefix of this process's temporary names, `HOST.PID.`.
pub fn prefix() -> String {
    format!("{}.{}.", host(), process::id())
}

/// Makes a temporary file in `dir`, which is made if missing, with the permission bits `mode` as the umask
/// allows. The file is deleted when dropped.
pub fn file_in(dir: &Path, mode: u32) -> std::io::Result<tempfile::NamedTempFile> {
    let make = || {
        tempfile::Builder::new()
            .prefix(&prefix())
            .rand_bytes(12)
            .permissions(fs::Permissions::from_mode(mode))
            .tempfile_in(dir)
    };
    match make() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(dir)?;
            make()
        }
        result => result,
    }
}

/// Whether the writer of the temporary file `name`, last changed at `modified`, is gone: its process on this
/// machine has ended, or the file has not changed for a week.
pub fn is_abandoned(name: &str, modified: SystemTime, grace: Duration) -> bool {
    let age = modified.elapsed().unwrap_or_default();
    if age > FOREIGN_AGE.max(grace) {
        return true;
    }
    let mut parts = name.rsplitn(3, '.');
    let (Some(_), Some(pid), Some(on)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let Ok(pid) = pid.parse::<u32>() else {
        return false;
    };
    // The grace time covers containers that share the host's name but have other process numbers.
    on == host()
        && !Path::new("/proc").join(pid.to_string()).exists()
        && age >= grace.min(Duration::from_secs(3600))
}

/// This machine's name without characters that are unsafe in a file name.
fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name: String = name
            .trim()
            .chars()
            .map(|c| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => c,
                _ => '-',
            })
            .take(64)
            .collect();
        if name.is_empty() {
            "localhost".to_owned()
        } else {
            name
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_spared() {
        let now = SystemTime::now();
        let day = Duration::from_secs(86400);
        let mine = format!("{}abc", prefix());
        let dead = format!("{}.4194999.abc", host());
        assert!(!is_abandoned(&mine, now, Duration::ZERO));
        assert!(is_abandoned(&dead, now, Duration::ZERO));
        assert!(!is_abandoned(&dead, now, day));
        assert!(is_abandoned(&dead, now - day, day));
        assert!(!is_abandoned("other.1.abc", now - day, Duration::ZERO));
        assert!(is_abandoned("other.1.abc", now - 8 * day, Duration::ZERO));
        assert!(!is_abandoned("tmpx1y2", now - day, Duration::ZERO));
    }
}
