//! The user's own shell, started with a job's docker environment.
//!
//! The shell reads the user's own rc files and keeps its history. For the prompt's tag it reads a file of
//! ours after them, each shell by its own means: bash by `--rcfile`, zsh by ZDOTDIR (put back before the
//! user's files are read), fish by `--init-command`, POSIX shells by ENV. The hook in those files does
//! nothing that an installed hook has done already. tcsh and shells that are not known get the
//! environment only.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dialect::Dialect;
use crate::environment::{DockerEnvironment, Variables};
use crate::hook::hook;
use crate::quote;

/// What a shell is started with.
///
/// ```no_run
/// # fn example(environment: &pcocc_shellenv::DockerEnvironment, variables: &pcocc_shellenv::Variables)
/// # -> std::io::Result<()> {
/// # use std::path::Path;
/// let status = pcocc_shellenv::spawn::Spawn {
///     shell: Path::new("/bin/zsh"),              // SHELL
///     environment,                               // of the job
///     variables,                                 // all of ours
///     pcocc: &std::env::current_exe()?,
///     folder: Path::new("/home/doe/.pcocc/job_7/shell"),
/// }
/// .interactive()?                                // or .script("make test")?
/// .status()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Spawn<'a> {
    /// The user's shell.
    pub shell: &'a Path,
    /// Where the job's docker daemon is.
    pub environment: &'a DockerEnvironment,
    /// The variables that are set now; the child inherits them from this process.
    pub variables: &'a Variables,
    /// The `pcocc` program, for `pcocc-use` and `pcocc-leave`.
    pub pcocc: &'a Path,
    /// Folder for the files that the shell reads; made if need be, mode 0700. The job's own folder is the
    /// place for it: it goes with the job, and a shell reads the files only when it starts.
    pub folder: &'a Path,
}

/// Why a script's command line cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// A quote is not closed.
    #[error("a quote is not closed in {script:?}")]
    Quote {
        /// The command line.
        script: String,
    },
    /// There is no word in it.
    #[error("{script:?} names no program")]
    Empty {
        /// The command line.
        script: String,
    },
}

impl Spawn<'_> {
    /// Gives the user's shell as a command, ready to run: interactive when its standard input is a
    /// terminal. Its exit code is the shell's.
    ///
    /// Fails when the folder or a file in it cannot be written.
    pub fn interactive(&self) -> io::Result<Command> {
        let mut command = Command::new(self.shell);
        let dialect = Dialect::of_program(self.shell.as_os_str());
        match dialect {
            Some(Dialect::Bash) => {
                let asset = include_str!("../assets/shell.bashrc");
                let file = self.write("bashrc", &[asset.as_bytes(), &self.hook(Dialect::Bash)])?;
                command.arg("--rcfile").arg(file);
            }
            Some(Dialect::Zsh) => {
                let asset = include_str!("../assets/shell.zshrc");
                self.write(".zshrc", &[asset.as_bytes(), &self.hook(Dialect::Zsh)])?;
                self.write(".zshenv", &[include_bytes!("../assets/shell.zshenv")])?;
                self.hand_over(&mut command, "ZDOTDIR", "PCOCC_ZDOTDIR", self.folder);
            }
            Some(Dialect::Fish) => {
                let file = self.write("hook.fish", &[&self.hook(Dialect::Fish)])?;
                let word = quote::word(Dialect::Fish, file.as_os_str().as_bytes());
                let source = [b"source ", &*word].concat();
                command
                    .arg("--init-command")
                    .arg(OsStr::from_bytes(&source));
            }
            Some(Dialect::Sh) => {
                let file = self.write("shrc", &[include_bytes!("../assets/shell.sh")])?;
                self.hand_over(&mut command, "ENV", "PCOCC_ENV", &unexpanded(&file));
            }
            Some(Dialect::Tcsh) | None => {}
        }
        self.environment
            .activate(self.variables)
            .apply(&mut command);
        Ok(command)
    }

    /// Gives a command line as a command, split into words as a POSIX shell does, but not run by one.
    pub fn script(&self, script: &str) -> Result<Command, ScriptError> {
        let words = shell_words::split(script).map_err(|_| ScriptError::Quote {
            script: script.to_owned(),
        })?;
        let (program, arguments) = words.split_first().ok_or_else(|| ScriptError::Empty {
            script: script.to_owned(),
        })?;
        let mut command = Command::new(program);
        command.args(arguments);
        self.environment
            .activate(self.variables)
            .apply(&mut command);
        Ok(command)
    }

    /// The hook, told that leaving such a shell ends it.
    fn hook(&self, dialect: Dialect) -> Vec<u8> {
        let spawned: &[u8] = match dialect {
            Dialect::Fish => b"set -g __pcocc_spawned exit\n",
            _ => b"__pcocc_spawned=exit\n",
        };
        let hook = hook(dialect, self.pcocc).unwrap_or_default();
        [hook.as_bytes(), spawned].concat()
    }

    /// Sets `name` for the shell's start, with the user's own value in `own`.
    fn hand_over(&self, command: &mut Command, name: &str, own: &str, value: &Path) {
        match self.variables.get(OsStr::new(name)) {
            Some(old) => command.env(own, old),
            None => command.env_remove(own),
        };
        command.env(name, value);
    }

    /// Writes a file for the shell: whole or not at all, since another shell of the job may be reading it.
    fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<PathBuf> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.folder)?;
        let file = self.folder.join(name);
        let part = self.folder.join(format!("{name}.{}", std::process::id()));
        let mut options = OpenOptions::new();
        let written = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .and_then(|mut open| open.write_all(&parts.concat()))
            .and_then(|()| fs::rename(&part, &file));
        if written.is_err() {
            // What was tried has failed; that it stays is no second failure.
            let _ = fs::remove_file(&part);
        }
        written.map(|()| file)
    }
}

/// A path as the value of ENV, which POSIX shells expand as if it were in double quotes.
fn unexpanded(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes().iter();
    let escaped: Vec<u8> = bytes
        .flat_map(|byte| match byte {
            b'$' | b'`' | b'\\' => vec![b'\\', *byte],
            byte => vec![*byte],
        })
        .collect();
    OsStr::from_bytes(&escaped).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> DockerEnvironment {
        DockerEnvironment {
            job: "7".to_owned(),
            host: "tcp://10.0.0.7:2376".to_owned(),
            cert_path: "/home/doe/.pcocc/job_7/vmcerts/client".into(),
            docker_path: None,
        }
    }

    #[test]
    fn scripts_are_split_into_words_and_run_without_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        let (environment, variables) = (environment(), Variables::new());
        let spawn = Spawn {
            shell: Path::new("/bin/false"),
            environment: &environment,
            variables: &variables,
            pcocc: Path::new("/usr/bin/pcocc"),
            folder: folder.path(),
        };
        let mut command = spawn
            .script(r#"sh -c 'printf "%s\n" "$0" "$DOCKER_HOST"; exit 3' 'a  $b'"#)
            .unwrap();
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.stdout, b"a  $b\ntcp://10.0.0.7:2376\n");
        assert!(matches!(
            spawn.script("echo 'a"),
            Err(ScriptError::Quote { .. })
        ));
        assert!(matches!(spawn.script("  "), Err(ScriptError::Empty { .. })));
    }

    #[test]
    fn files_are_private_and_whole() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("job_7/shell");
        let (environment, variables) = (environment(), Variables::new());
        for shell in [
            "/bin/bash",
            "/bin/zsh",
            "/usr/bin/fish",
            "/bin/dash",
            "/bin/tcsh",
            "/opt/nu",
        ] {
            let spawn = Spawn {
                shell: Path::new(shell),
                environment: &environment,
                variables: &variables,
                pcocc: Path::new("/usr/bin/pcocc"),
                folder: &folder,
            };
            spawn.interactive().unwrap();
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
        names.sort();
        assert_eq!(names, [".zshenv", ".zshrc", "bashrc", "hook.fish", "shrc"]);
    }
}
