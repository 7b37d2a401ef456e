//! The completion files of shells, and the lines that tell zsh the folder.
//!
//! A file calls the program and holds no completion itself: so both always fit. All files begin with a mark; a
//! file without it is not ours, and stays.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use pcocc_shellenv::{Dialect, filled};

use crate::environment::Environment;
use crate::errors::{Failure, Outcome};

/// In the first lines of every file of ours.
const MARK: &str =
    "# Made by `pcocc completions install`; `pcocc completions uninstall` takes it away.";
/// Around our lines in .zshrc.
const BEGIN: &str = "# >>> pcocc completions >>>";
const END: &str = "# <<< pcocc completions <<<";

/// The completion of one shell.
#[derive(Debug)]
pub(super) struct Stub {
    dialect: Dialect,
    file: PathBuf,
    /// The start file that has to name the folder.
    rc: Option<PathBuf>,
}

impl Stub {
    /// The completions of all shells.
    pub(super) fn all(environment: &Environment) -> [Self; 3] {
        let folders = &environment.shells;
        let stub = |dialect, file: PathBuf, rc| Self { dialect, file, rc };
        [
            stub(Dialect::Bash, folders.bash.join("completions/pcocc"), None),
            stub(
                Dialect::Zsh,
                folders.data.join("zsh/site-functions/_pcocc"),
                Some(folders.zsh.join(".zshrc")),
            ),
            stub(
                Dialect::Fish,
                folders.config.join("fish/completions/pcocc.fish"),
                None,
            ),
        ]
    }

    /// The shell.
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the user seems to use the shell.
    pub(super) fn is_used(&self, environment: &Environment) -> bool {
        let own = environment.shell.as_deref();
        let own = own.and_then(|shell| Dialect::of_program(shell.as_os_str()));
        let there = match self.dialect {
            Dialect::Zsh => self.rc.as_deref().is_some_and(Path::exists),
            Dialect::Fish => environment.shells.config.join("fish").exists(),
            _ => environment.home.join(".bashrc").exists(),
        };
        there || own == Some(self.dialect)
    }

    /// Writes the file, and zsh's lines; returns a description.
    pub(super) fn install(&self, program: &Path) -> Outcome<String> {
        let action = || {
            format!(
                "install completion for {} as {}",
                self.dialect,
                self.file.display()
            )
        };
        if let Some(found) = read(&self.file).map_err(|error| Failure::new(action(), error))?
            && !is_ours(&found)
        {
            return Err(
                Failure::message(action(), "a file that pcocc did not make is there")
                    .hint("move it away if you do not need it"),
            );
        }
        let text = code(self.dialect, MARK, program);
        replace(&self.file, text.as_bytes()).map_err(|error| Failure::new(action(), error))?;
        let mut said = format!("Wrote {}\n", self.file.display());
        if let (Some(rc), Some(folder)) = (&self.rc, self.file.parent()) {
            let lines = "fpath+=(@P@)\nif (($+functions[compdef])); then\n    \
                         autoload -Uz _pcocc && compdef _pcocc pcocc pcocc-use\nfi\n";
            let lines = filled(self.dialect, lines, b"@P@", folder.as_os_str());
            let block = [
                BEGIN.as_bytes(),
                b"\n",
                lines.as_bytes(),
                END.as_bytes(),
                b"\n",
            ]
            .concat();
            said += &change(rc, Some(&block))?;
        }
        said += "It works in shells that are started from now on.\n";
        Ok(said)
    }

    /// Removes exactly the results of [`Stub::install`]; returns a description.
    pub(super) fn uninstall(&self) -> Outcome<String> {
        let action = || format!("remove {}", self.file.display());
        let mut said = String::new();
        let found = read(&self.file).map_err(|error| Failure::new(action(), error))?;
        if found.is_some_and(|text| is_ours(&text)) {
            fs::remove_file(&self.file).map_err(|error| Failure::new(action(), error))?;
            said += &format!("Removed {}\n", self.file.display());
        }
        if let Some(rc) = &self.rc {
            said += &change(rc, None)?;
        }
        Ok(said)
    }
}

/// The file of a shell, which calls `program`; `mark` is a comment in it.
pub(super) fn code(dialect: Dialect, mark: &str, program: &Path) -> OsString {
    let text = match dialect {
        Dialect::Zsh => {
            "#compdef pcocc pcocc-use\nMARK\nsource <(COMPLETE=zsh @P@)\n_pcocc \"$@\"\n"
        }
        Dialect::Fish => "MARK\nCOMPLETE=fish @P@ | source\n",
        _ => "MARK\nsource <(COMPLETE=bash @P@)\n",
    };
    let text = text.replace("MARK", mark);
    filled(dialect, &text, b"@P@", program.as_os_str())
}

fn is_ours(text: &[u8]) -> bool {
    text.windows(MARK.len())
        .any(|window| window == MARK.as_bytes())
}

/// The content of a file, if there is one.
fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces our lines at the end of a start file, or removes them.
fn change(rc: &Path, block: Option<&[u8]>) -> Outcome<String> {
    let action = || format!("change the lines for completion in {}", rc.display());
    let failed = |error| Failure::new(action(), error);
    let old = read(rc).map_err(failed)?.unwrap_or_default();
    let mut new = Vec::new();
    let mut inside = false;
    for line in old.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii_end();
        inside |= text == BEGIN.as_bytes();
        if !inside {
            new.extend(line);
        }
        inside &= text != END.as_bytes();
    }
    if inside {
        let why = format!("the line {END:?} is missing");
        return Err(
            Failure::message(action(), why).hint("put it back, or take our lines out by hand")
        );
    }
    if let Some(block) = block {
        if new.last().is_some_and(|byte| *byte != b'\n') {
            new.push(b'\n');
        }
        new.extend(block);
    }
    if new == old {
        return Ok(String::new());
    }
    replace(rc, &new).map_err(failed)?;
    Ok(format!("Changed {}\n", rc.display()))
}

/// Replaces a file as a whole, or the file behind a link; the mode stays.
fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = target.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let mut new = tempfile::Builder::new()
        .prefix(".pcocc-")
        .tempfile_in(folder)?;
    new.write_all(content)?;
    let permissions = match fs::metadata(&target) {
        Ok(old) => old.permissions(),
        Err(_) => std::os::unix::fs::PermissionsExt::from_mode(0o644),
    };
    new.as_file().set_permissions(permissions)?;
    new.as_file().sync_all()?;
    new.persist(&target).map_err(|error| error.error)?;
    Ok(())
}
