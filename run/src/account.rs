//! The user in a container's `/etc/passwd` and `/etc/group`.
//!
//! The files of the image stay as they are but for the lines of the user and of the groups the user is in.
//! The user's line comes first: programs that look a number up take the first line that has it, and the
//! image may have given the number to somebody else.

use std::path::{Path, PathBuf};

/// Who runs the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Number of the main group.
    pub gid: u32,
    /// Home folder.
    pub home: PathBuf,
    /// Names and numbers of all groups, the main one among them.
    pub groups: Vec<(String, u32)>,
}

/// The shell of users the image does not know.
const SHELL: &str = "/bin/sh";

/// The image's `/etc/passwd` with the user in it.
pub fn passwd(image: &[u8], account: &Account) -> Vec<u8> {
    let text = String::from_utf8_lossy(image);
    let (mut shell, mut comment) = (SHELL.to_owned(), String::new());
    let mut others = String::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [name, _, _, _, theirs, _, path] if *name == account.name => {
                comment = (*theirs).to_owned();
                if !path.is_empty() {
                    shell = (*path).to_owned();
                }
            }
            _ => {
                others.push_str(line);
                others.push('\n');
            }
        }
    }
    let home = clean(account.home.to_string_lossy().as_ref());
    let name = clean(&account.name);
    format!(
        "{name}:x:{}:{}:{comment}:{home}:{shell}\n{others}",
        account.uid, account.gid
    )
    .into_bytes()
}

/// The image's `/etc/group` with the user's groups in it.
pub fn group(image: &[u8], account: &Account) -> Vec<u8> {
    let text = String::from_utf8_lossy(image);
    let mut mine: Vec<(&str, u32)> = account
        .groups
        .iter()
        .map(|(name, gid)| (name.as_str(), *gid))
        .collect();
    if !mine.iter().any(|(_, gid)| *gid == account.gid) {
        // A group without a name of its own: the user's is as good.
        mine.push((&account.name, account.gid));
    }
    let mut others = String::new();
    let mut first = String::new();
    for (name, gid) in &mine {
        let members = if *gid == account.gid {
            ""
        } else {
            account.name.as_str()
        };
        first.push_str(&format!("{}:x:{gid}:{}\n", clean(name), clean(members)));
    }
    for line in text.lines() {
        let name = line.split(':').next().unwrap_or_default();
        if !mine.iter().any(|(known, _)| *known == name) {
            others.push_str(line);
            others.push('\n');
        }
    }
    (first + &others).into_bytes()
}

/// Whether the account has a home that can be given a place in a container.
pub(crate) fn home_of(account: &Account) -> Option<&Path> {
    let home = account.home.as_path();
    (home.is_absolute() && home != Path::new("/")).then_some(home)
}

/// A field without what would end it.
fn clean(text: &str) -> String {
    text.replace([':', '\n'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doe() -> Account {
        Account {
            name: "doe".into(),
            uid: 1000,
            gid: 100,
            home: "/home/doe".into(),
            groups: vec![("users".into(), 100), ("video".into(), 44)],
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_user_comes_first() {
        let image = b"root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash\n";
        assert_eq!(
            text(passwd(image, &doe())),
            "doe:x:1000:100::/home/doe:/bin/sh\nroot:x:0:0:root:/root:/bin/bash\n\
             node:x:1000:1000::/home/node:/bin/bash\n"
        );
        let known = b"root:x:0:0:root:/root:/bin/sh\ndoe:x:7:7:John:/x:/bin/bash";
        assert_eq!(
            text(passwd(known, &doe())),
            "doe:x:1000:100:John:/home/doe:/bin/bash\nroot:x:0:0:root:/root:/bin/sh\n"
        );
        assert_eq!(
            text(passwd(b"", &doe())),
            "doe:x:1000:100::/home/doe:/bin/sh\n"
        );
    }

    #[test]
    fn the_groups_are_the_hosts() {
        let image = b"root:x:0:\nvideo:x:27:other\nusers:x:1:\n";
        assert_eq!(
            text(group(image, &doe())),
            "users:x:100:\nvideo:x:44:doe\nroot:x:0:\n"
        );
        let nameless = Account {
            groups: Vec::new(),
            ..doe()
        };
        assert_eq!(text(group(b"", &nameless)), "doe:x:100:\n");
    }

    #[test]
    fn nobody_smuggles_a_line_in() {
        let evil = Account {
            home: "/home\nroot::0:0::/:/bin/sh".into(),
            ..doe()
        };
        assert_eq!(text(passwd(b"", &evil)).lines().count(), 1);
    }
}
