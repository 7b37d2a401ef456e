//! What a shell evaluates once, in its own rc file, to show jobs in its prompt.
//!
//! The code is in asset files, one for each shell, with the place of the `pcocc` program left open.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use crate::dialect::Dialect;
use crate::quote;

/// Stands for the path of the program in asset files.
const PROGRAM: &[u8] = b"@PROGRAM@";

/// Gives the hook for a shell, which calls `program` for `pcocc-use` and `pcocc-leave`.
///
/// `None` for [`Dialect::Sh`] and [`Dialect::Tcsh`], which have nothing to hook into.
pub fn hook(dialect: Dialect, program: &Path) -> Option<OsString> {
    let asset = match dialect {
        Dialect::Bash => include_str!("../assets/hook.bash"),
        Dialect::Zsh => include_str!("../assets/hook.zsh"),
        Dialect::Fish => include_str!("../assets/hook.fish"),
        Dialect::Sh | Dialect::Tcsh => return None,
    };
    Some(filled(dialect, asset, PROGRAM, program.as_os_str()))
}

/// Puts a value, quoted, in the place of the first `mark`.
pub fn filled(dialect: Dialect, asset: &str, mark: &[u8], value: &OsStr) -> OsString {
    let asset = asset.as_bytes();
    let at = asset.windows(mark.len()).position(|window| window == mark);
    let Some((before, rest)) = at.and_then(|at| asset.split_at_checked(at)) else {
        return OsString::from_vec(asset.to_vec());
    };
    let after = rest.get(mark.len()..).unwrap_or_default();
    OsString::from_vec([before, &*quote::word(dialect, value.as_bytes()), after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// Lets a program read `code` and fails if it has anything to say.
    fn accepted(program: &[&str], code: &OsStr) {
        let mut child = Command::new(program[0])
            .args(&program[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; scripts/install-dependencies test", program[0])
            });
        child
            .stdin
            .take()
            .unwrap()
            .write_all(code.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(
            output.status.success() && said.is_empty(),
            "{program:?}: {said}"
        );
    }

    #[test]
    fn hooks_are_clean_wherever_the_program_is() {
        for program in [
            "/usr/bin/pcocc",
            "/opt/my tools/it's $HOME/pcocc",
            "/opt/\u{e9}\n/pcocc",
        ] {
            let hook = |dialect| hook(dialect, Path::new(program)).unwrap();
            let bash = hook(Dialect::Bash);
            accepted(&["shellcheck", "-s", "bash", "-o", "all", "-"], &bash);
            accepted(&["shfmt", "-d", "-i", "4", "-ln", "bash"], &bash);
            accepted(&["bash", "-n"], &bash);
            accepted(&["bash", "--posix", "-euc", "eval \"$(cat)\""], &bash);
            accepted(
                &["bash", "-euc", "eval \"$(cat)\"; eval \"$(declare -f)\""],
                &bash,
            );
            let zsh = hook(Dialect::Zsh);
            accepted(&["zsh", "-n", "/dev/stdin"], &zsh);
            accepted(&["zsh", "-feuc", "eval \"$(cat)\""], &zsh);
            let fish = hook(Dialect::Fish);
            accepted(&["fish", "--no-config", "-n"], &fish);
            accepted(&["fish", "--no-config", "-c", "source"], &fish);
        }
        assert_eq!(hook(Dialect::Sh, Path::new("/x")), None);
    }

    /// Bash 4.4 is what the oldest supported systems have; newer shells are what tests mostly run.
    #[test]
    fn bash_is_that_of_4_4() {
        // From bash's CHANGES: what 5.0 to 5.3 added that could find its way into a hook.
        let newer = [
            "EPOCHSECONDS",
            "EPOCHREALTIME",
            "SRANDOM",
            "BASH_ARGV0",
            "BASH_MONOSECONDS",
            "GLOBSORT",
            "@U}",
            "@u}",
            "@L}",
            "@K}",
            "@k}",
            "local -I",
            "wait -p",
            "localvar_inherit",
            "assoc_expand_once",
            "varredir_close",
            "noexpand_translation",
            "patsub_replacement",
            "array_expand_once",
            "compgen -V",
            "read -E",
            "${ ",
            "${|",
        ];
        for asset in [
            include_str!("../assets/hook.bash"),
            include_str!("../assets/shell.bashrc"),
            include_str!("../../cli/src/complete/complete.bash"),
        ] {
            for word in newer {
                assert!(!asset.contains(word), "{word} is newer than bash 4.4");
            }
            // In POSIX mode it came with 5.1.
            assert!(!asset.contains("<("), "process substitution");
        }
        let hook = hook(Dialect::Bash, Path::new("/usr/bin/pcocc")).unwrap();
        let code = "BASH_COMPAT=4.4; set -eu; eval \"$(cat)\"; PS1='> '; PCOCC_JOBID=7; HOME=/nonexistent; \
                    __pcocc_told=7; __pcocc_prompt; \
                    [[ ${PS1@P} == '(pcocc/7 ended) > ' && ${PROMPT_COMMAND} == __pcocc_prompt ]]";
        accepted(&["bash", "--norc", "-c", code], &hook);
    }

    #[test]
    fn assets_are_clean() {
        for (name, asset) in [
            ("sh", include_str!("../assets/shell.sh")),
            ("bash", include_str!("../assets/shell.bashrc")),
        ] {
            let asset = OsStr::new(asset);
            accepted(&["shellcheck", "-s", name, "-o", "all", "-"], asset);
            let language = if name == "sh" { "posix" } else { name };
            accepted(&["shfmt", "-d", "-i", "4", "-ln", language], asset);
        }
        for asset in [
            include_str!("../assets/shell.zshenv"),
            include_str!("../assets/shell.zshrc"),
        ] {
            accepted(&["zsh", "-n", "/dev/stdin"], OsStr::new(asset));
        }
        accepted(
            &["fish_indent", "--check"],
            OsStr::new(include_str!("../assets/hook.fish")),
        );
    }
}
