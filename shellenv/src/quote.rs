//! Statements that set and unset variables, each shell's by its own rules of quoting.
//!
//! Values are bytes: a path may hold spaces, quotes, newlines, `$`, and what is no UTF-8. The user's
//! manual shows `eval $(pcocc docker env)` *without* double quotes, where the shell splits the output at
//! white space, takes `*` for a pattern of file names, and joins the pieces with single spaces. So
//! - every statement ends with `;`, because line breaks may get lost, and
//! - no quoted value holds white space or a pattern's characters as they are: values that have any are
//!   written as escapes, for which every dialect has a notation (`sh` has printf).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use crate::dialect::Dialect;

/// Writes a statement that exports variable `name`, an identifier, with `value`.
pub fn set(dialect: Dialect, name: &str, value: &OsStr) -> OsString {
    let bytes = value.as_bytes();
    let mut code = Vec::new();
    let word = word(dialect, bytes);
    match dialect {
        Dialect::Sh if needs_escapes(bytes) => {
            // The X keeps newlines at the end, which the substitution would drop.
            code.extend(format!("{name}=$(printf ").into_bytes());
            code.push(b'\'');
            code.extend(octal(bytes));
            code.extend(format!("X');{name}=${{{name}%X}};export {name}").into_bytes());
        }
        Dialect::Sh | Dialect::Bash | Dialect::Zsh => {
            code.extend(format!("export {name}=").into_bytes());
            code.extend(word);
        }
        Dialect::Fish => {
            code.extend(format!("set -gx {name} ").into_bytes());
            code.extend(word);
        }
        Dialect::Tcsh => {
            code.extend(format!("setenv {name} ").into_bytes());
            code.extend(word);
        }
    }
    code.extend(b";\n");
    OsString::from_vec(code)
}

/// Writes a statement that unsets variable `name`, whether it is set or not.
pub fn unset(dialect: Dialect, name: &str) -> OsString {
    match dialect {
        Dialect::Sh | Dialect::Bash | Dialect::Zsh => format!("unset {name};\n"),
        Dialect::Fish => format!("set -ge {name};\n"),
        Dialect::Tcsh => format!("unsetenv {name};\n"),
    }
    .into()
}

/// Quotes one word. For [`Dialect::Sh`], only a word that [`needs_escapes`] does not name is kept whole
/// without double quotes around the substitution.
pub fn word(dialect: Dialect, bytes: &[u8]) -> Vec<u8> {
    if !bytes.is_empty() && bytes.iter().all(|byte| is_plain(*byte)) {
        return bytes.to_vec();
    }
    match dialect {
        Dialect::Sh => match std::str::from_utf8(bytes) {
            Ok(text) => shell_words::quote(text).into_owned().into_bytes(),
            Err(_) => single_quoted(bytes),
        },
        Dialect::Bash | Dialect::Zsh if needs_escapes(bytes) => {
            [b"$'", &*octal(bytes), b"'"].concat()
        }
        // tcsh takes \351 for a character, not for a byte; bytes as they are it leaves alone.
        Dialect::Tcsh if needs_escapes(bytes) => {
            let escaped = bytes.chunk_by(|a, b| a.is_ascii() == b.is_ascii());
            let escaped = escaped.flat_map(|run| match run.is_ascii() {
                true => octal(run),
                false => run.to_vec(),
            });
            [b"$'", &*escaped.collect::<Vec<u8>>(), b"'"].concat()
        }
        Dialect::Bash | Dialect::Zsh | Dialect::Tcsh => single_quoted(bytes),
        Dialect::Fish if bytes.is_empty() => b"''".to_vec(),
        Dialect::Fish => bytes
            .iter()
            .flat_map(|byte| match byte {
                byte if is_plain(*byte) => vec![*byte],
                // Outside quotes, fish turns \XNN into that byte.
                byte => format!("\\X{byte:02x}").into_bytes(),
            })
            .collect(),
    }
}

/// Whether no shell treats the byte specially, at any place of a word.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'/' | b'.' | b'_' | b'-' | b',' | b':' | b'@' | b'+')
}

/// Whether single quotes do not keep the value whole in `eval $(…)`, or not in every shell.
fn needs_escapes(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| {
        !byte.is_ascii_graphic()
            || matches!(
                byte,
                b'*' | b'?' | b'[' | b'\\' | b'!' | b'~' | b'^' | b'#' | b'{'
            )
    })
}

/// Writes all that is not plain as `\NNN`, which $'…' and printf's format turn into bytes.
fn octal(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|byte| match byte {
            byte if is_plain(*byte) => vec![*byte],
            byte => format!("\\{byte:03o}").into_bytes(),
        })
        .collect()
}

fn single_quoted(bytes: &[u8]) -> Vec<u8> {
    let mut word = vec![b'\''];
    for byte in bytes {
        match byte {
            b'\'' => word.extend(b"'\\''"),
            byte => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// What has broken somebody's quoting before.
    const NASTY: &[&[u8]] = &[
        b"",
        b" ",
        b"a b",
        b"  two  blanks  ",
        b"tab\there",
        b"line\nbreak",
        b"ends in newline\n",
        b"\n\n",
        b"cr\rlf\r\n",
        b"it's",
        b"''",
        b"\"double\"",
        b"$HOME ${HOME} $(id) `id`",
        b"$HOME",
        b"`id`",
        b"a\\b",
        b"\\",
        b"\\n\\x41\\101",
        b"100%s%n%%",
        b"!event !! !$",
        b"^a^b",
        b"*",
        b"/*",
        b"[a-z]?",
        b"{a,b}",
        b"~",
        b"~root/x",
        b"=ls",
        b"#comment",
        b"a;b&c|d<e>f(g)h",
        b"-n",
        b"--",
        b"caf\xc3\xa9 \xe5\x90\x8d",
        b"latin1 \xe9\xff\x80",
        b"\xf0\x28\x8c\x28",
        b"\x01\x02\x1b[2J\x7f",
        b"/opt/a:/opt/b",
        b"tcp://[fe80::1%25eth0]:2376",
        b"A1",
        b"0123",
    ];

    /// A shell program, its arguments before the code, and how a file is fed to it in every way that
    /// users do. `@` stands for the file.
    const SHELLS: &[(Dialect, &[&str], &[&str])] = &[
        (
            Dialect::Sh,
            &["dash", "-c"],
            &["eval \"$(cat @)\"", "eval $(cat @)", ". @"],
        ),
        (
            Dialect::Sh,
            &["busybox", "sh", "-c"],
            &["eval \"$(cat @)\"", "eval $(cat @)"],
        ),
        (
            Dialect::Sh,
            &["bash", "--posix", "-c"],
            &["eval \"$(cat @)\"", "eval $(cat @)"],
        ),
        (
            Dialect::Bash,
            &["bash", "-c"],
            &["eval \"$(cat @)\"", "eval $(cat @)", ". @"],
        ),
        (
            Dialect::Bash,
            &["bash", "--posix", "-c"],
            &["eval $(cat @)"],
        ),
        (Dialect::Bash, &["bash", "-euc"], &["eval $(cat @)"]),
        (
            Dialect::Zsh,
            &["zsh", "-fc"],
            &["eval \"$(cat @)\"", "eval $(cat @)", ". @"],
        ),
        (
            Dialect::Fish,
            &["fish", "--no-config", "-c"],
            &["source @", "cat @ | source", "eval (cat @)"],
        ),
        (
            Dialect::Tcsh,
            &["tcsh", "-fc"],
            &["eval `cat @`", "source @"],
        ),
    ];

    /// Lets a real shell read `code` and gives what a child then finds in the variables PCOCC_0, PCOCC_1…
    fn read_back(shell: &[&str], how: &str, code: &[u8], locale: &str) -> BTreeMap<usize, Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("code");
        std::fs::write(&file, code).unwrap();
        // A file that patterns could find.
        std::fs::write(folder.path().join("decoy"), "").unwrap();
        let how = how.replace('@', &file.to_string_lossy());
        let child = Command::new(shell[0])
            .args(&shell[1..])
            .arg(format!("{how}\n/usr/bin/env -0"))
            .env_clear()
            .envs([
                ("PATH", "/usr/bin:/bin"),
                ("HOME", folder.path().to_str().unwrap()),
                ("LC_ALL", locale),
            ])
            .env("PCOCC_0", "before")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; scripts/install-dependencies test", shell[0])
            });
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(
            child.status.success() && said.is_empty(),
            "{shell:?} {how}: {said}"
        );
        let entries = child.stdout.split(|byte| *byte == 0);
        entries
            .filter_map(|entry| {
                let entry = entry.strip_prefix(b"PCOCC_")?;
                let equals = entry.iter().position(|byte| *byte == b'=')?;
                let number = std::str::from_utf8(&entry[..equals]).ok()?.parse().ok()?;
                Some((number, entry[equals + 1..].to_vec()))
            })
            .collect()
    }

    #[test]
    fn every_shell_reads_back_every_value() {
        for (dialect, shell, ways) in SHELLS {
            let statement = |(n, value): (usize, &&[u8])| {
                set(*dialect, &format!("PCOCC_{n}"), OsStr::from_bytes(value)).into_vec()
            };
            let code: Vec<u8> = NASTY.iter().enumerate().flat_map(statement).collect();
            for (n, how) in ways.iter().enumerate() {
                let locale = if n == 0 { "C.UTF-8" } else { "C" };
                let read = read_back(shell, how, &code, locale);
                for (n, value) in NASTY.iter().enumerate() {
                    let shown = String::from_utf8_lossy(value);
                    assert_eq!(
                        read.get(&n).map(Vec::as_slice),
                        Some(*value),
                        "{shell:?} {how}: {shown:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_shell_unsets() {
        for (dialect, shell, ways) in SHELLS {
            // Twice is no error, not even with set -u and -e.
            let code = unset(*dialect, "PCOCC_0").into_vec().repeat(2);
            for how in *ways {
                assert_eq!(
                    read_back(shell, how, &code, "C.UTF-8"),
                    BTreeMap::new(),
                    "{shell:?}"
                );
            }
        }
    }

    /// Lets one shell read many words and gives what it read.
    fn words_back(shell: &[&str], dialect: Dialect, values: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut code = b"/usr/bin/printf '%s\\0'".to_vec();
        for value in values {
            code.push(b' ');
            code.extend(word(dialect, value));
        }
        let mut child = Command::new(shell[0])
            .args(&shell[1..])
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(&[&code[..], b"\n"].concat())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let mut read: Vec<_> = output
            .stdout
            .split(|byte| *byte == 0)
            .map(<[u8]>::to_vec)
            .collect();
        read.pop();
        read
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn random_bytes_survive(values in proptest::collection::vec(
            proptest::collection::vec(1u8..=255, 0..20), 50)
        ) {
            for (dialect, shell) in [
                (Dialect::Sh, &["dash"] as &[&str]),
                (Dialect::Bash, &["bash", "--norc"]),
                (Dialect::Zsh, &["zsh", "-f"]),
                (Dialect::Fish, &["fish", "--no-config"]),
                (Dialect::Tcsh, &["tcsh", "-f"]),
            ] {
                prop_assert_eq!(words_back(shell, dialect, &values), values.clone(), "{}", dialect);
            }
        }
    }
}
