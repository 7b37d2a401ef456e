//! The only place that reads environment variables, the user database and the terminal.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use pcocc_core::template::Variables;
use pcocc_run::account::Account;
use pcocc_vm::job::JobId;
use pcocc_vm::slurm;

use crate::errors::Failure;

/// The command's surroundings.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// The user's home directory.
    pub(crate) home: PathBuf,
    /// The user's login name.
    pub(crate) user: String,
    /// Folder of the site's configuration (PCOCC_SYSTEM_CONF_DIR, `/etc/pcocc`).
    pub(crate) system_conf: PathBuf,
    /// Folder of the user's configuration (PCOCC_USER_CONF_DIR, `~/.pcocc`).
    pub(crate) user_conf: PathBuf,
    /// Folders of the shells' own files.
    pub(crate) shells: ShellFolders,
    /// The user's shell (SHELL).
    pub(crate) shell: Option<PathBuf>,
    /// Job of the enclosing shell or allocation (PCOCC_JOBID, SLURM_JOB_ID).
    pub(crate) enclosing_job: Option<String>,
    /// Slurm's variables inside of a job.
    pub(crate) slurm: SlurmVariables,
    /// The docker daemon that the user has chosen.
    pub(crate) docker: DockerVariables,
    /// The proxies (http_proxy, https_proxy, no_proxy).
    pub(crate) proxies: Proxies,
    /// Folder of docker's own client configuration (DOCKER_CONFIG, `~/.docker`).
    pub(crate) docker_config: PathBuf,
    /// Podman's file of credentials (REGISTRY_AUTH_FILE).
    pub(crate) auth_file: Option<PathBuf>,
    /// Podman's rules for registries (CONTAINERS_REGISTRIES_CONF).
    pub(crate) registries_conf: Option<PathBuf>,
    /// Folders of programs (PATH).
    pub(crate) path: Option<OsString>,
    /// Folder for large temporary files (TMPDIR, `/var/tmp`).
    pub(crate) temporary: PathBuf,
    /// The user's folder for sockets (XDG_RUNTIME_DIR).
    pub(crate) runtime: Option<PathBuf>,
    /// Log filter (PCOCC_LOG).
    pub(crate) log: Option<String>,
    /// The terminal, if there is one.
    pub(crate) terminal: Terminal,
}

/// The variables by which docker's own command finds its daemon.
#[derive(Clone, Debug)]
pub(crate) struct DockerVariables {
    /// DOCKER_HOST.
    pub(crate) host: Option<String>,
    /// DOCKER_TLS_VERIFY: any value turns it on.
    pub(crate) tls_verify: Option<String>,
    /// DOCKER_CERT_PATH, or docker's configuration folder, as in docker.
    pub(crate) cert_path: PathBuf,
    /// DOCKER_CONTEXT.
    pub(crate) context: Option<String>,
}

/// `HTTP_PROXY` and the like, by their names in capitals. May hold passwords.
#[derive(Clone, Default)]
pub(crate) struct Proxies(pub(crate) BTreeMap<String, String>);

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proxies(secret)")
    }
}

impl Proxies {
    /// The name in small letters comes first, as in curl.
    fn read() -> Self {
        let names = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"].into_iter();
        let read = |name: &str| variable(&name.to_lowercase()).or_else(|| variable(name));
        let found =
            names.filter_map(|name| Some((name.to_owned(), read(name)?.into_string().ok()?)));
        Self(found.collect())
    }
}

/// An environment variable that pcocc reads.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its value, or its default.
    pub(crate) value: String,
    /// Whether it is set.
    pub(crate) set: bool,
}

/// The daemon without DOCKER_HOST.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Folders in which shells find the user's files.
#[derive(Clone, Debug)]
pub(crate) struct ShellFolders {
    /// bash-completion's own (BASH_COMPLETION_USER_DIR).
    pub(crate) bash: PathBuf,
    /// XDG_CONFIG_HOME, `~/.config`.
    pub(crate) config: PathBuf,
    /// XDG_DATA_HOME, `~/.local/share`.
    pub(crate) data: PathBuf,
    /// Folder of zsh's own files (ZDOTDIR, the home).
    pub(crate) zsh: PathBuf,
}

/// Slurm's variables inside of a job.
#[derive(Clone, Debug)]
pub(crate) struct SlurmVariables(BTreeMap<String, String>);

impl SlurmVariables {
    fn read() -> Self {
        let mut variables = Environment::variables();
        let slurms = |name: &str| name.starts_with("SLURM") || name.starts_with("SBATCH_");
        variables.retain(|name, value| slurms(name) && !value.is_empty());
        Self(variables)
    }

    /// The value of a variable.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    /// The names of those that speak of the enclosing job. Commands that ask for another job must not have them.
    pub(crate) fn of_a_job(&self) -> impl Iterator<Item = &String> {
        self.0.keys().filter(|name| slurm::is_of_a_job(name))
    }

    /// The number of the enclosing job.
    pub(crate) fn job(&self) -> Option<JobId> {
        self.variable("SLURM_JOB_ID")?.parse().ok()
    }
}

/// The properties of stderr and stdin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Whether lines on stderr can be redrawn.
    pub(crate) redraws: bool,
    /// Whether stderr takes colors.
    pub(crate) color: bool,
    /// Whether stdin is a terminal.
    pub(crate) types: bool,
}

impl Environment {
    /// Reads the environment.
    pub(crate) fn read() -> Result<Self, Failure> {
        let home = env::home_dir()
            .filter(|home| home.is_absolute())
            .ok_or_else(|| {
                Failure::message("find your home directory", "HOME is not an absolute path")
                    .hint("set HOME to your home directory")
            })?;
        let directory = |name: &str, default: PathBuf| match variable(name) {
            Some(value) => PathBuf::from(value),
            None => default,
        };
        let docker_config = directory("DOCKER_CONFIG", home.join(".docker"));
        let data = directory("XDG_DATA_HOME", home.join(".local/share"));
        let dumb = variable("TERM").is_none_or(|term| term == "dumb");
        let colors = !dumb
            && variable("NO_COLOR").is_none()
            && variable("CLICOLOR").is_none_or(|value| value != "0");
        Ok(Self {
            user: user_name()?,
            system_conf: directory("PCOCC_SYSTEM_CONF_DIR", "/etc/pcocc".into()),
            user_conf: directory("PCOCC_USER_CONF_DIR", home.join(".pcocc")),
            shells: ShellFolders {
                bash: directory("BASH_COMPLETION_USER_DIR", data.join("bash-completion")),
                config: directory("XDG_CONFIG_HOME", home.join(".config")),
                zsh: directory("ZDOTDIR", home.clone()),
                data,
            },
            shell: variable("SHELL").map(PathBuf::from),
            enclosing_job: ["PCOCC_JOBID", "SLURM_JOB_ID"]
                .into_iter()
                .find_map(|name| variable(name)?.into_string().ok()),
            slurm: SlurmVariables::read(),
            docker: DockerVariables {
                host: text("DOCKER_HOST")?,
                tls_verify: text("DOCKER_TLS_VERIFY")?,
                cert_path: directory("DOCKER_CERT_PATH", docker_config.clone()),
                context: text("DOCKER_CONTEXT")?,
            },
            proxies: Proxies::read(),
            docker_config,
            auth_file: variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
            registries_conf: variable("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from),
            path: variable("PATH"),
            temporary: directory("TMPDIR", "/var/tmp".into()),
            runtime: variable("XDG_RUNTIME_DIR").map(PathBuf::from),
            log: text("PCOCC_LOG")?,
            terminal: Terminal {
                redraws: !dumb && std::io::stderr().is_terminal(),
                color: colors && std::io::stderr().is_terminal(),
                types: std::io::stdin().is_terminal(),
            },
            home,
        })
    }

    /// The files with credentials for registries, best first: the one that the user names, docker's, and podman's own two.
    pub(crate) fn credential_files(&self) -> Vec<PathBuf> {
        let podmans = self
            .runtime
            .iter()
            .map(|folder| folder.join("containers/auth.json"));
        let named = self.auth_file.iter().cloned();
        named
            .chain([self.docker_config.join("config.json")])
            .chain(podmans)
            .chain([self.shells.config.join("containers/auth.json")])
            .collect()
    }

    /// Podman's rules for registries: the user's file or else the site's, then what both folders add, sorted by name.
    pub(crate) fn registries_conf(&self) -> Vec<PathBuf> {
        if let Some(named) = &self.registries_conf {
            return vec![named.clone()];
        }
        let folders = [
            PathBuf::from("/etc/containers"),
            self.shells.config.join("containers"),
        ];
        let [site, user] = folders.clone().map(|folder| folder.join("registries.conf"));
        let mut files = vec![if user.exists() { user } else { site }];
        for folder in folders.map(|folder| folder.join("registries.conf.d")) {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let mut more: Vec<_> = entries.map(|entry| entry.path()).collect();
            more.retain(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "conf")
            });
            more.sort();
            files.extend(more);
        }
        files
    }

    /// The folders of registries' authorities, as in docker and podman.
    pub(crate) fn certificate_folders(&self) -> Vec<PathBuf> {
        vec![
            self.home.join(".config/containers/certs.d"),
            "/etc/containers/certs.d".into(),
            "/etc/docker/certs.d".into(),
        ]
    }

    /// The variables with their values or defaults, for `config show`.
    pub(crate) fn shown(&self) -> Vec<Variable> {
        let row = |name: &'static str, value: String| Variable {
            name,
            value,
            set: variable(name).is_some(),
        };
        let path = |name, path: &Path| row(name, path.display().to_string());
        let docker = &self.docker;
        let mut rows = vec![
            path("PCOCC_SYSTEM_CONF_DIR", &self.system_conf),
            path("PCOCC_USER_CONF_DIR", &self.user_conf),
            path("TMPDIR", &self.temporary),
            row(
                "DOCKER_HOST",
                docker.host.clone().unwrap_or(DEFAULT_HOST.to_owned()),
            ),
            path("DOCKER_CERT_PATH", &docker.cert_path),
            path("DOCKER_CONFIG", &self.docker_config),
        ];
        rows.extend(
            [
                ("DOCKER_TLS_VERIFY", &docker.tls_verify),
                ("DOCKER_CONTEXT", &docker.context),
                ("PCOCC_LOG", &self.log),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some(row(name, value.clone()?))),
        );
        for (name, file) in [
            ("REGISTRY_AUTH_FILE", &self.auth_file),
            ("CONTAINERS_REGISTRIES_CONF", &self.registries_conf),
        ] {
            rows.extend(file.iter().map(|file| path(name, file)));
        }
        rows
    }

    /// All variables.
    pub(crate) fn all_variables() -> Vec<(OsString, OsString)> {
        env::vars_os().collect()
    }

    /// The working directory, by the name in PWD if PWD is right.
    pub(crate) fn working_directory() -> Result<PathBuf, Failure> {
        let real = env::current_dir()
            .map_err(|error| Failure::new("find out the working directory", error))?;
        let named = variable("PWD").map(PathBuf::from);
        let same = |named: &PathBuf| {
            named.is_absolute() && std::fs::canonicalize(named).is_ok_and(|path| path == real)
        };
        Ok(named.filter(same).unwrap_or(real))
    }

    /// The user of this process, from the user database.
    pub(crate) fn account(&self) -> Account {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let found = nix::unistd::User::from_uid(uid).ok().flatten();
        let mut numbers = vec![gid];
        numbers.extend(nix::unistd::getgroups().unwrap_or_default());
        numbers.sort_unstable_by_key(|group| (*group != gid, group.as_raw()));
        numbers.dedup();
        let groups = numbers.into_iter().filter_map(|gid| {
            let group = nix::unistd::Group::from_gid(gid).ok().flatten()?;
            Some((group.name, gid.as_raw()))
        });
        Account {
            name: found.map_or_else(|| self.user.clone(), |user| user.name),
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            home: self.home.clone(),
            groups: groups.collect(),
        }
    }

    /// All variables that are text, for the `%{env:NAME}` templates of configuration files.
    pub(crate) fn variables() -> BTreeMap<String, String> {
        env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Whether a program has this name.
    pub(crate) fn has_program(&self, name: &str) -> bool {
        let path = self.path.clone().unwrap_or_default();
        env::split_paths(&path).any(|folder| folder.join(name).is_file())
    }

    /// The variables for path templates of configuration files.
    pub(crate) fn path_variables(&self) -> Variables {
        Variables {
            homedir: self.home.clone(),
            user: self.user.clone(),
            env: Self::variables(),
        }
    }

    /// All variables, for children and for shell code.
    pub(crate) fn all() -> BTreeMap<OsString, OsString> {
        env::vars_os().collect()
    }
}

/// The value of a variable that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The value of a variable that must be text.
fn text(name: &str) -> Result<Option<String>, Failure> {
    variable(name)
        .map(|value| {
            value.into_string().map_err(|_| {
                Failure::message("read the environment", format!("{name} is not UTF-8 text"))
            })
        })
        .transpose()
}

/// USER, or the name of the process's user in the user database.
fn user_name() -> Result<String, Failure> {
    if let Some(user) = text("USER")? {
        return Ok(user);
    }
    let uid = nix::unistd::getuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => Ok(user.name),
        // In a container, or with a broken directory service, the number is better than nothing.
        Ok(None) | Err(_) => Ok(uid.to_string()),
    }
}
