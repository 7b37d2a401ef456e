//! Fetching Debian packages with apt, without installing anything and without root.
//!
//! apt gets state, cache and sources folders of its own and the machine's own configuration otherwise, so that
//! proxies and mirrors of the site are used. It verifies signatures with Debian's keyring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcocc_core::cancel::Cancel;

use crate::machine::MachineError;
use crate::program;

/// Where packages come from when the machine's own apt does not know.
const DEBIAN: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt of its own.
#[derive(Debug)]
pub(crate) struct Apt {
    folder: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// Prepares apt for `suite` in `folder`; `mirror` is asked of the machine's own apt when not given.
    pub(crate) fn new(
        folder: &Path,
        suite: &str,
        mirror: Option<&str>,
        cancel: &Cancel,
    ) -> Result<Self, MachineError> {
        if !Path::new(KEYRING).exists() {
            return Err(MachineError::ProgramMissing {
                program: KEYRING.into(),
                package: "debian-archive-keyring",
            });
        }
        for part in ["state/lists/partial", "cache/archives/partial", "packages"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).map_err(MachineError::io("make the folder", &part))?;
        }
        let (main, security) = match mirror {
            Some(mirror) => (mirror.trim_end_matches('/').to_owned(), None),
            None => machine_mirror(cancel)?,
        };
        let mut sources = format!("deb [signed-by={KEYRING}] {main} {suite} main\n");
        if let Some(security) = security {
            sources += &format!("deb [signed-by={KEYRING}] {security} {suite}-security main\n");
        }
        let list = folder.join("sources.list");
        fs::write(&list, sources).map_err(MachineError::io("write", &list))?;
        let status = folder.join("state/status");
        fs::write(&status, "").map_err(MachineError::io("write", &status))?;
        let path = |part: &str| folder.join(part).display().to_string();
        let options = [
            ("Dir::Etc::SourceList", path("sources.list")),
            ("Dir::Etc::SourceParts", "-".into()),
            ("Dir::Etc::Preferences", "-".into()),
            ("Dir::Etc::PreferencesParts", "-".into()),
            ("Dir::State", path("state")),
            ("Dir::State::status", path("state/status")),
            ("Dir::Cache", path("cache")),
            ("APT::Architecture", "amd64".into()),
            ("APT::Architectures", "amd64".into()),
            // Its sandbox user could not write to our folder.
            ("APT::Sandbox::User", String::new()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::Retries", "3".into()),
        ];
        let apt = Self {
            folder: folder.to_owned(),
            options: options
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        };
        program::run(
            apt.command("apt-get")
                .args(["-q", "--error-on=any", "update"]),
            "apt",
            cancel,
        )?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command.current_dir(self.folder.join("packages"));
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    /// Finds the package that the metapackage `name` stands for.
    pub(crate) fn behind(&self, name: &str, cancel: &Cancel) -> Result<String, MachineError> {
        let output = program::run(
            self.command("apt-cache").args(["depends", name]),
            "apt",
            cancel,
        )?;
        let text = String::from_utf8_lossy(&output);
        text.lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .map(str::to_owned)
            .ok_or_else(|| MachineError::Image {
                what: format!("package {name}"),
                why: "depends on nothing, though it should on a kernel".into(),
            })
    }

    /// Fetches packages; gives the file of each and its version, in the order asked for.
    pub(crate) fn download(
        &self,
        names: &[&str],
        cancel: &Cancel,
    ) -> Result<Vec<Package>, MachineError> {
        program::run(
            self.command("apt-get").args(["-q", "download"]).args(names),
            "apt",
            cancel,
        )?;
        let folder = self.folder.join("packages");
        let files: Vec<String> = fs::read_dir(&folder)
            .map_err(MachineError::io("read", &folder))?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names
            .iter()
            .map(|name| {
                // NAME_VERSION_ARCHITECTURE.deb, with the version's colon escaped.
                let found = files.iter().find_map(|file| {
                    let rest = file.strip_prefix(name)?.strip_prefix('_')?;
                    Some((file, rest.split('_').next()?))
                });
                let (file, version) = found.ok_or_else(|| MachineError::Image {
                    what: format!("package {name}"),
                    why: "was not fetched, though apt did not complain".into(),
                })?;
                Ok(Package {
                    name: (*name).to_owned(),
                    version: version.replace("%3a", ":"),
                    file: folder.join(file),
                })
            })
            .collect()
    }
}

/// A fetched package.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Its file.
    pub(crate) file: PathBuf,
}

/// Asks the machine's apt where it gets Debian from: the archive itself, and its security updates.
fn machine_mirror(cancel: &Cancel) -> Result<(String, Option<String>), MachineError> {
    let output = program::run(
        Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
        ]),
        "apt",
        cancel,
    )
    .or_else(|error| match error {
        // An apt without lists has no targets and says so.
        MachineError::Hypervisor { .. } => Ok(Vec::new()),
        error => Err(error),
    })?;
    let text = String::from_utf8_lossy(&output).into_owned();
    let uris: Vec<&str> = text
        .lines()
        .map(|line| line.trim_end_matches('/'))
        .collect();
    let find = |security: bool| {
        uris.iter()
            .find(|uri| uri.ends_with("security") == security)
            .map(|uri| (*uri).to_owned())
    };
    Ok((
        find(false).unwrap_or_else(|| DEBIAN.to_owned()),
        find(true).or_else(|| Some(format!("{DEBIAN}-security"))),
    ))
}
