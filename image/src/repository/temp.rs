//! Names of work in progress: `HOST.PLACE.PID.RANDOM`, so that whoever finds one can tell whether its
//! writer still lives.
//!
//! PLACE is the machine's boot and the name space of process numbers: the number says nothing elsewhere. Nodes that share
//! a name, and containers of one node, are other places.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;
use std::process;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// How long the temporary files of another place are left alone.
const FOREIGN_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Prefix of this process's temporary names, `HOST.PLACE.PID.`.
pub fn prefix() -> String {
    let place = place().unwrap_or(UNKNOWN);
    format!("{}.{place}.{}.", host(), process::id())
}

/// A temporary name that nobody else has.
pub(crate) fn unique() -> String {
    let random = RandomState::new().build_hasher().finish();
    format!("{}{random:016x}", prefix())
}

/// Whether the writer of the temporary file `name`, last changed at `modified`, is gone: its process, which
/// this process could see, has ended, or nothing was written for a week.
pub fn is_abandoned(name: &str, modified: SystemTime, grace: Duration) -> bool {
    let age = modified.elapsed().unwrap_or_default();
    if age > FOREIGN_AGE.max(grace) {
        return true;
    }
    let mut parts = name.rsplitn(4, '.');
    let (Some(_), Some(pid), Some(at)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let Ok(pid) = pid.parse::<u32>() else {
        return false;
    };
    place() == Some(at)
        && !Path::new("/proc").join(pid.to_string()).exists()
        && age >= grace.min(Duration::from_secs(3600))
}

/// The place of a process that cannot tell its own.
const UNKNOWN: &str = "unknown";

/// Where this process has its number: boot and name space.
fn place() -> Option<&'static str> {
    static PLACE: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let space = fs::read_link("/proc/self/ns/pid").ok()?;
        let digits =
            |text: &str| -> String { text.chars().filter(char::is_ascii_alphanumeric).collect() };
        // "pid:[4026531836]"
        let space = digits(space.to_str()?.trim_start_matches("pid"));
        Some(format!("{}-{space}", digits(&boot)))
    };
    PLACE.get_or_init(read).as_deref()
}

/// This machine's name, reduced to what is safe in a file name.
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

    const DAY: Duration = Duration::from_secs(86400);

    #[test]
    fn the_living_are_spared() {
        let now = SystemTime::now();
        let mine = format!("{}abc", prefix());
        let dead = format!("{}.{}.4194999.abc", host(), place().unwrap());
        assert!(!is_abandoned(&mine, now, Duration::ZERO));
        assert!(is_abandoned(&dead, now, Duration::ZERO));
        assert!(!is_abandoned(&dead, now, DAY));
        assert!(is_abandoned(&dead, now - DAY, DAY));
        assert!(unique().starts_with(&prefix()));
        assert_ne!(unique(), unique());
    }

    #[test]
    fn a_process_that_cannot_be_seen_lives_until_it_writes_nothing_for_a_week() {
        let now = SystemTime::now();
        let place = place().unwrap();
        let (boot, space) = place.split_once('-').unwrap();
        for at in [
            // Another name space of process numbers on this node.
            format!("{boot}-{space}7"),
            // A node with the same name, or this one before it was booted again.
            format!("{}-{space}", "0".repeat(boot.len())),
            UNKNOWN.to_owned(),
            // As earlier versions named them: nobody knows where the number counts.
            "node".to_owned(),
        ] {
            let theirs = format!("{}.{at}.4194999.abc", host());
            assert!(!is_abandoned(&theirs, now - DAY, Duration::ZERO), "{at}");
            assert!(is_abandoned(&theirs, now - 8 * DAY, Duration::ZERO), "{at}");
        }
        assert!(!is_abandoned("other.1.abc", now - DAY, Duration::ZERO));
        assert!(!is_abandoned("tmpx1y2", now - DAY, Duration::ZERO));
    }
}
