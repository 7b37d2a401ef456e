//! Whether what a path leads to can have been made, or can be changed, by nobody but the user and root.
//!
//! [`check_folder`] goes from `/` to the folder as the kernel does, link by link: each folder on the way must be the user's
//! or root's and not writable by others. A folder with the sticky bit may be writable by all, because the next folder in it is
//! looked at as well and only its owner can rename it. A group that is the user's own, as systems with a group for each user
//! make it, is nobody else.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, statat};

use crate::beneath::Found;

/// Links that are followed on the way, as many as by the kernel.
const MAX_LINKS: u32 = 40;

/// Why something is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// It belongs to somebody else.
    #[error("{} belongs to the user with the number {uid}, not to you or root", path.display())]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others can write to it.
    #[error("{} can be written to by other users (mode {mode:o})", path.display())]
    Writable {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be looked at.
    #[error("{} cannot be looked at: {source}", path.display())]
    Unknown {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Checks that only the user and root can have written `found`, which is at `path`.
pub fn check(found: &Found, path: &Path) -> Result<(), Untrusted> {
    let path = || path.to_owned();
    let (uid, mode) = (found.uid, found.mode);
    if !is_own(uid) {
        return Err(Untrusted::Owner { path: path(), uid });
    }
    match is_writable_by_others(found) {
        true => Err(Untrusted::Writable { path: path(), mode }),
        false => Ok(()),
    }
}

/// Whether [`check`] finds nothing.
pub fn is_trusted(found: &Found) -> bool {
    is_own(found.uid) && !is_writable_by_others(found)
}

/// Checks the folder at `path` and all on the way to it. The way ends where a folder is missing: what somebody makes there
/// later is to be checked again.
pub fn check_folder(path: &Path) -> Result<(), Untrusted> {
    let unknown = |path: &Path| {
        let path = path.to_owned();
        move |source| Untrusted::Unknown { path, source }
    };
    let path = std::path::absolute(path).map_err(unknown(path))?;
    let mut left: VecDeque<OsString> = VecDeque::new();
    push_front(&mut left, &path);
    let mut reached = PathBuf::from("/");
    let mut links = 0;
    check_step(&reached, &stat(&reached).map_err(unknown(&reached))?)?;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            reached.pop();
            continue;
        }
        let next = reached.join(&part);
        let found = match stat(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            found => found.map_err(unknown(&next))?,
        };
        if found.is_link() {
            links += 1;
            if !is_own(found.uid) {
                return Err(Untrusted::Owner {
                    path: next,
                    uid: found.uid,
                });
            }
            if links > MAX_LINKS {
                let source = rustix::io::Errno::LOOP.into();
                return Err(Untrusted::Unknown { path: next, source });
            }
            let target = fs::read_link(&next).map_err(unknown(&next))?;
            if target.is_absolute() {
                reached = PathBuf::from("/");
            }
            push_front(&mut left, &target);
            continue;
        }
        check_step(&next, &found)?;
        reached = next;
    }
    Ok(())
}

/// Puts the components of `path` before those that are left.
fn push_front(left: &mut VecDeque<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => left.push_front(name.to_owned()),
            Component::ParentDir => left.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn check_step(path: &Path, found: &Found) -> Result<(), Untrusted> {
    const STICKY: u32 = 0o1000;
    match check(found, path) {
        // Nobody but its owner can rename or remove what is in it.
        Err(Untrusted::Writable { mode, .. }) if mode & STICKY != 0 => Ok(()),
        result => result,
    }
}

fn stat(path: &Path) -> io::Result<Found> {
    Ok(statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?.into())
}

fn is_own(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

fn is_writable_by_others(found: &Found) -> bool {
    let is_private_group = found.gid == rustix::process::geteuid().as_raw()
        && found.gid == rustix::process::getegid().as_raw();
    let bits = if is_private_group { 0o002 } else { 0o022 };
    found.mode & bits != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn each_folder_on_the_way_counts() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("a/b");
        fs::create_dir_all(&cache).unwrap();
        set_mode(&dir.path().join("a"), 0o755);
        set_mode(&cache, 0o700);
        check_folder(&cache).unwrap();
        check_folder(&cache.join("missing/too")).unwrap();
        for (folder, mode, is_trusted) in [
            ("a/b", 0o777, false),
            ("a", 0o777, false),
            ("a", 0o757, false),
            ("a", 0o1777, true),
            ("a", 0o755, true),
        ] {
            let folder = dir.path().join(folder);
            set_mode(&folder, mode);
            let checked = check_folder(&cache);
            assert_eq!(checked.is_ok(), is_trusted, "{} {mode:o}", folder.display());
            if let Err(why) = checked {
                assert!(why.to_string().contains(folder.to_str().unwrap()), "{why}");
            }
            set_mode(&folder, 0o755);
        }
    }

    #[test]
    fn links_are_followed_through_folders_that_are_checked_too() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["open", "closed", "closed/cache"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            set_mode(&dir.path().join(folder), 0o755);
        }
        symlink("../closed/cache", dir.path().join("open/link")).unwrap();
        let link = dir.path().join("open/link");
        check_folder(&link).unwrap();
        // Whoever can write there can make the link lead elsewhere.
        set_mode(&dir.path().join("open"), 0o777);
        assert!(matches!(
            check_folder(&link),
            Err(Untrusted::Writable { .. })
        ));
        check_folder(&dir.path().join("closed/cache")).unwrap();
        symlink("loop", dir.path().join("closed/loop")).unwrap();
        let looped = check_folder(&dir.path().join("closed/loop"));
        assert!(matches!(looped, Err(Untrusted::Unknown { .. })));
    }

    #[test]
    fn what_belongs_to_others_is_not_trusted_as_root() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a");
        fs::create_dir(&folder).unwrap();
        set_mode(&folder, 0o755);
        chown(&folder, Some(4242), Some(4242)).unwrap();
        let why = check_folder(&folder).unwrap_err();
        assert!(matches!(why, Untrusted::Owner { uid: 4242, .. }), "{why}");
        // Not the group of root: what its members write is not root's.
        chown(&folder, Some(0), Some(4242)).unwrap();
        set_mode(&folder, 0o775);
        assert!(matches!(
            check_folder(&folder),
            Err(Untrusted::Writable { .. })
        ));
        let link = dir.path().join("link");
        symlink("a", &link).unwrap();
        set_mode(&folder, 0o755);
        check_folder(&link).unwrap();
        std::os::unix::fs::lchown(&link, Some(4242), None).unwrap();
        assert!(matches!(check_folder(&link), Err(Untrusted::Owner { .. })));
    }
}
