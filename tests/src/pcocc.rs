//! The `pcocc` command, in an environment of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::children::{Outcome, run};
use crate::docker::Docker;
use crate::proxy::Proxy;
use crate::user::OrdinaryUser;

/// Finds the `pcocc` program: `PCOCC_TEST_BINARY`, else the one beside the running test.
#[track_caller]
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("PCOCC_TEST_BINARY").filter(|value| !value.is_empty()) {
        return PathBuf::from(named);
    }
    let test = std::env::current_exe().expect("the test's own path");
    let found = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("pcocc"));
    found
        .filter(|path| path.is_file())
        .last()
        .unwrap_or_else(|| {
            panic!(
                "no pcocc program near {}: run `cargo build -p pcocc` first",
                test.display()
            )
        })
}

/// An environment to run `pcocc` in: an own home, one repository `user` in it, nothing else.
#[derive(Debug)]
pub struct Pcocc {
    user: OrdinaryUser,
    program: PathBuf,
    as_user: bool,
    docker_host: Option<String>,
    variables: Vec<(String, String)>,
}

impl Pcocc {
    /// Makes the environment, for whoever runs the tests. No docker daemon is known in it.
    pub fn new() -> Self {
        let user = with_temporary(OrdinaryUser::new());
        user.take_over(&user.home().join("tmp"));
        user.take_over(user.home());
        Self {
            user,
            program: binary(),
            as_user: false,
            docker_host: None,
            variables: Vec::new(),
        }
    }

    /// Makes an environment in which everything runs as an ordinary user.
    pub fn as_ordinary_user() -> Self {
        let user = with_temporary(OrdinaryUser::new());
        let program = user.copy_of(&binary());
        let bin = user.home().join("bin");
        fs::create_dir(&bin).expect("make a folder");
        fs::rename(&program, bin.join("pcocc")).expect("move the program");
        Self {
            program: bin.join("pcocc"),
            user,
            as_user: true,
            docker_host: None,
            variables: Vec::new(),
        }
    }

    /// Makes commands talk to a daemon.
    #[must_use]
    pub fn with(mut self, docker: &Docker) -> Self {
        if self.as_user {
            self.user.may_use(docker.host());
        }
        self.docker_host = Some(docker.host().to_owned());
        self
    }

    /// Sets an environment variable for all commands.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives commands a TMPDIR of their own in the home, so that what is kept there can be looked at.
    #[must_use]
    pub fn with_own_temporary(self) -> Self {
        let folder = self.home().join("tmp");
        self.run_any("mkdir", &["-p", &folder.to_string_lossy()]);
        self.with_variable("TMPDIR", &folder.to_string_lossy())
    }

    /// Makes commands talk to what is in front of a daemon.
    #[must_use]
    pub fn through(mut self, proxy: &Proxy) -> Self {
        if self.as_user {
            self.user.may_use(&proxy.host());
        }
        self.docker_host = Some(proxy.host());
        self
    }

    /// The home folder.
    pub fn home(&self) -> &Path {
        self.user.home()
    }

    /// Where the default configuration puts repository `user`.
    pub fn repository(&self) -> PathBuf {
        self.home().join(".pcocc/images")
    }

    /// Where the default configuration puts the cache.
    pub fn cache(&self) -> PathBuf {
        self.home().join(".pcocc/cache")
    }

    /// Writes the user's `repos.yaml`.
    pub fn configure_repositories(&self, yaml: &str) {
        let folder = self.home().join(".pcocc");
        fs::create_dir_all(&folder).expect("make the configuration folder");
        fs::write(folder.join("repos.yaml"), yaml).expect("write repos.yaml");
        if self.as_user {
            self.user.own(&folder);
        }
    }

    /// Builds a `pcocc` command with an environment of HOME, PATH, the configuration folders and DOCKER_HOST.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.any(&self.program);
        command.args(arguments);
        command
    }

    /// Builds a command of any program in the same environment, as the same user.
    pub fn any(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = if self.as_user {
            self.user.command(program)
        } else {
            let mut command = Command::new(program);
            command.current_dir(self.home());
            command
        };
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home());
        // Exported images and copies under way are kept there, and go with the home.
        command.env("TMPDIR", self.home().join("tmp"));
        command.env("PCOCC_USER_CONF_DIR", self.home().join(".pcocc"));
        command.env(
            "PCOCC_SYSTEM_CONF_DIR",
            self.home().join("no-system-configuration"),
        );
        command.env("LC_ALL", "C.UTF-8").env("RUST_BACKTRACE", "1");
        // Without a daemon of its own no test may find one that happens to run on the machine.
        let nowhere = format!("unix://{}", self.home().join("no-docker.sock").display());
        command.env("DOCKER_HOST", self.docker_host.as_ref().unwrap_or(&nowhere));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `pcocc` with `arguments`, whatever comes of it.
    #[track_caller]
    pub fn try_run(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.command(arguments))
    }

    /// Runs `pcocc` with `arguments` and gives its standard output; panics when it fails.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).ok().to_owned()
    }

    /// Runs any program as the same user; panics when it fails.
    #[track_caller]
    pub fn run_any(&self, program: &str, arguments: &[&str]) -> String {
        run(self.any(program).args(arguments)).ok().to_owned()
    }

    /// Gives an image's ID as `pcocc image show` knows it: the digest of its configuration.
    ///
    /// It is read from the repository itself, so that a test does not trust what it tests.
    #[track_caller]
    pub fn image_id(&self, name: &str) -> String {
        image_id_of(&self.repository(), name)
    }

    /// Checks that the default repository is whole: every image readable and every blob what its name says.
    #[track_caller]
    pub fn verify(&self) {
        self.run(&["image", "repo", "verify", "user"]);
    }
}

impl Default for Pcocc {
    fn default() -> Self {
        Self::new()
    }
}

fn with_temporary(user: OrdinaryUser) -> OrdinaryUser {
    let folder = user.home().join("tmp");
    fs::create_dir(&folder).expect("make a folder for temporary files");
    user.own(&folder);
    user
}

/// Reads image `name@0`'s config digest from a repository, through its metadata and manifest.
#[track_caller]
fn image_id_of(repository: &Path, name: &str) -> String {
    let json = |path: PathBuf| -> serde_json::Value {
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let meta = json(repository.join("meta").join(format!("{name}@0")));
    let digest = meta["custom_meta"]["oci_index"]["manifests"][0]["digest"].as_str();
    let hex = digest
        .and_then(|digest| digest.strip_prefix("sha256:"))
        .expect("a manifest digest");
    let manifest = json(repository.join("data").join(&hex[..2]).join(hex));
    manifest["config"]["digest"]
        .as_str()
        .expect("a config digest")
        .to_owned()
}
