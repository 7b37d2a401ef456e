//! The shells that are spoken, and how their names are recognised.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A language that shell code is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// POSIX shells: dash, busybox, ksh.
    Sh,
    /// GNU bash 4.4 and later.
    Bash,
    /// zsh.
    Zsh,
    /// fish 3.
    Fish,
    /// tcsh, and csh where that is tcsh.
    Tcsh,
}

impl Dialect {
    /// All dialects.
    pub const ALL: [Self; 5] = [Self::Sh, Self::Bash, Self::Zsh, Self::Fish, Self::Tcsh];

    /// Gives its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sh => "sh",
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
            Self::Tcsh => "tcsh",
        }
    }

    /// Recognises a shell by its program: a path or a name, with the `-` of a login shell or a version
    /// behind it. `None` for programs that are no shell.
    pub fn of_program(program: &OsStr) -> Option<Self> {
        let name = Path::new(program).file_name()?.as_bytes();
        let name = name.strip_prefix(b"-").unwrap_or(name);
        let version = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        let end = name.iter().rposition(|byte| !version(byte))? + 1;

        match name.get(..end)? {
            b"sh" | b"dash" | b"ash" | b"busybox" | b"ksh" | b"mksh" | b"pdksh" | b"yash" => {
                Some(Self::Sh)
            }
            b"bash" | b"rbash" => Some(Self::Bash),
            b"zsh" | b"rzsh" => Some(Self::Zsh),
            b"fish" => Some(Self::Fish),
            b"tcsh" | b"csh" => Some(Self::Tcsh),
            _ => None,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_recognised_by_name() {
        for (program, dialect) in [
            ("/bin/bash", Some(Dialect::Bash)),
            ("-zsh", Some(Dialect::Zsh)),
            ("/opt/zsh/bin/zsh-5.9", Some(Dialect::Zsh)),
            ("bash5.2", Some(Dialect::Bash)),
            ("/usr/bin/dash", Some(Dialect::Sh)),
            ("ksh93", Some(Dialect::Sh)),
            ("fish", Some(Dialect::Fish)),
            ("csh", Some(Dialect::Tcsh)),
            ("/usr/bin/python3", None),
            ("fisherman", None),
            ("5.2", None),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(
                Dialect::of_program(OsStr::new(program)),
                dialect,
                "{program}"
            );
        }
    }
}
