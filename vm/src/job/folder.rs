//! The folder of one job: its paths, and how its files are written.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use pcocc_core::beneath::{Found, OpenFolder, TempFile};
use pcocc_core::durable;

use super::record::VERSION;
use super::{Error, JobId, Record, Result};

/// Name of the record.
const RECORD: &str = "job.json";
/// Name of the line for prompts.
const STATE: &str = "state";
/// Name of the folder with the certificates.
const CERTIFICATES: &str = "vmcerts";

/// Largest record that is read, in bytes.
const MAX_RECORD: u64 = 1 << 20;

/// The certificates of docker's client, in PEM.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    /// Certificate of the job's authority.
    pub ca: String,
    /// The client's certificate.
    pub cert: String,
    /// The client's private key.
    pub key: String,
}

/// The folder of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFolder {
    id: JobId,
    path: PathBuf,
}

/// The file that a bounded log becomes when a new one begins in its place.
pub fn older(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

impl JobFolder {
    pub(super) fn new(conf: &Path, id: JobId) -> Self {
        Self {
            id,
            path: conf.join(format!("{PREFIX}{id}")),
        }
    }

    /// The job's number.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder to set DOCKER_CERT_PATH to.
    pub fn client_certificates(&self) -> PathBuf {
        self.path.join("vmcerts/client")
    }

    /// The output of the VM's console.
    pub fn console_log(&self) -> PathBuf {
        self.path.join("console.log")
    }

    /// What was in [`JobFolder::console_log`] before, if that became long.
    pub fn older_console_log(&self) -> PathBuf {
        older(&self.console_log())
    }

    /// The log of the launcher.
    pub fn launcher_log(&self) -> PathBuf {
        self.path.join("launcher.log")
    }

    /// The record.
    pub fn record_file(&self) -> PathBuf {
        self.path.join(RECORD)
    }

    /// Makes the folder; fails with [`io::ErrorKind::AlreadyExists`] inside [`Error::File`] when it is there.
    pub fn create(&self) -> Result<()> {
        let (conf, name) = self.place();
        durable::create_folders(conf, 0o777).map_err(Error::io("create", conf))?;
        OpenFolder::open(conf)
            .and_then(|conf| conf.create_folder(name, 0o700))
            .map_err(Error::io("create", &self.path))?;
        // The umask may forbid the user's own access.
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700))
            .map_err(Error::io("set the mode of", &self.path))
    }

    /// The folder it is in, and its name there.
    fn place(&self) -> (&Path, &Path) {
        let conf = self.path.parent().unwrap_or(Path::new("/"));
        (conf, self.path.file_name().map_or(&*self.path, Path::new))
    }

    /// Checks that nobody else can have put anything into the folder.
    pub fn check(&self) -> Result<()> {
        self.open().map(drop)
    }

    /// Opens the folder, which must be the user's alone. No link is followed below.
    fn open(&self) -> Result<OpenFolder> {
        let (conf, name) = self.place();
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoSuchJob(self.id),
            _ => Error::io("look at", &self.path)(error),
        };
        let conf = OpenFolder::open(conf).map_err(failed)?;
        let refused = |why| {
            let path = self.path.clone();
            Err(Error::Unsafe { path, why })
        };
        if !conf.stat(name).map_err(failed)?.is_folder() {
            return refused("is no folder");
        }
        let folder = conf.folder(name).map_err(failed)?;
        let found = Found::of_file(folder.as_fd()).map_err(failed)?;
        if found.uid != rustix::process::geteuid().as_raw() {
            return refused("is not yours");
        }
        match found.mode & 0o077 {
            0 => Ok(folder),
            _ => refused("is open to other users; make it private with chmod 700"),
        }
    }

    /// Reads the record as it was written. [`super::Jobs`] finds out whether it is still true.
    pub fn read(&self) -> Result<Record> {
        let folder = self.open()?;
        let path = self.record_file();
        let text = match folder.read(RECORD, MAX_RECORD) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoSuchJob(self.id));
            }
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        parse(&text, self.id).map_err(|why| Error::Record { path, why })
    }

    /// Writes the record and the line for prompts.
    pub fn write(&self, record: &Record) -> Result<()> {
        let folder = self.open()?;
        replace(&folder, RECORD, &json(record, &self.record_file())?)?;
        replace(&folder, STATE, record.state_line().as_bytes())
    }

    /// Writes the first record, unless the job has a record; returns whether it was written.
    pub fn write_first(&self, record: &Record) -> Result<bool> {
        let folder = self.open()?;
        let path = self.record_file();
        let text = json(record, &path)?;
        match written(&folder, &text).and_then(|mut temp| temp.create_new(&folder, RECORD)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(Error::io("write", &path)(error)),
        }
        // The launcher may have written a later one already.
        if !folder.has(STATE) {
            replace(&folder, STATE, record.state_line().as_bytes())?;
        }
        Ok(true)
    }

    /// Writes the client's certificates, all readable by the user alone.
    pub fn write_client_files(&self, files: &ClientFiles) -> Result<()> {
        let folder = self.open()?;
        let made = folder
            .folder_or_new(CERTIFICATES, 0o700)
            .and_then(|certificates| certificates.folder_or_new("client", 0o700));
        let folder = made.map_err(Error::io("create", &self.client_certificates()))?;
        for (name, text) in [
            ("ca.pem", &files.ca),
            ("cert.pem", &files.cert),
            ("key.pem", &files.key),
        ] {
            replace(&folder, name, text.as_bytes())?;
        }
        Ok(())
    }

    /// Removes the client's certificates, which are of no use after the job.
    pub fn remove_client_files(&self) -> Result<()> {
        match self.open() {
            Err(Error::NoSuchJob(_)) => Ok(()),
            folder => folder?
                .remove_all(CERTIFICATES)
                .map_err(Error::io("remove", &self.path.join(CERTIFICATES))),
        }
    }

    /// Removes the folder and all in it.
    pub fn remove(&self) -> Result<()> {
        let (conf, name) = self.place();
        match OpenFolder::open(conf) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            conf => conf
                .and_then(|conf| conf.remove_all(name))
                .map_err(Error::io("remove", &self.path)),
        }
    }
}

/// Replaces the file `name` as a whole; only the user can read it.
pub(super) fn replace(folder: &OpenFolder, name: &str, content: &[u8]) -> Result<()> {
    written(folder, content)
        .and_then(|mut temp| temp.replace(folder, name))
        .map_err(Error::io("write", &folder.path().join(name)))
}

/// Writes a new file with mode 0600.
fn written(folder: &OpenFolder, content: &[u8]) -> io::Result<TempFile> {
    let mut temp = folder.temp(".new-", 0o600)?;
    temp.write_all(content)?;
    Ok(temp)
}

/// A record as text for the file `path`.
fn json(record: &Record, path: &Path) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(record)
        .map_err(io::Error::other)
        .map_err(Error::io("write", path))?;
    text.push(b'\n');
    Ok(text)
}

/// The name of a job's folder, before the number.
pub(super) const PREFIX: &str = "job_";

/// Parses a record of the job `id`.
fn parse(text: &[u8], id: JobId) -> Result<Record, String> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let bad = |error: serde_json::Error| format!("is no job record: {error}");
    let Version { version } = serde_json::from_slice(text).map_err(bad)?;
    if version != VERSION {
        return Err(format!(
            "has version {version}, and this pcocc knows version {VERSION} only"
        ));
    }
    let record: Record = serde_json::from_slice(text).map_err(bad)?;
    match record.id == id {
        true => Ok(record),
        false => Err(format!("is of job {}, which is another one", record.id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Backend, State};
    use std::os::unix::fs::MetadataExt as _;

    fn folder() -> (tempfile::TempDir, JobFolder) {
        let conf = tempfile::tempdir().unwrap();
        let folder = JobFolder::new(conf.path(), JobId::new(7).unwrap());
        folder.create().unwrap();
        (conf, folder)
    }

    fn record() -> Record {
        Record::new(
            JobId::new(7).unwrap(),
            "docker",
            Backend::Local,
            "doe",
            1_800_000_000,
        )
    }

    #[test]
    fn what_is_written_is_read_and_private() {
        let (conf, folder) = folder();
        let mut record = record();
        assert!(folder.write_first(&record).unwrap());
        assert!(!folder.write_first(&record).unwrap());
        folder.write(&record).unwrap();
        assert_eq!(folder.read().unwrap(), record);
        let line = || fs::read_to_string(folder.path().join(STATE)).unwrap();
        assert_eq!(line(), "queued -\n");
        record.state = State::Ready;
        record.deadline = Some(1_800_000_060);
        record.other.insert("later".into(), 1.into());
        folder.write(&record).unwrap();
        assert_eq!(line(), "ready 1800000060\n");
        assert_eq!(folder.read().unwrap(), record);
        let files = ClientFiles {
            ca: "1".into(),
            cert: "2".into(),
            key: "3".into(),
        };
        folder.write_client_files(&files).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.client_certificates()), 0o700);
        for name in ["job.json", "state", "vmcerts/client/key.pem"] {
            assert_eq!(mode(&folder.path().join(name)), 0o600, "{name}");
        }
        // No temporary file stays.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        folder.remove_client_files().unwrap();
        folder.remove_client_files().unwrap();
        folder.remove().unwrap();
        assert!(matches!(folder.read(), Err(Error::NoSuchJob(_))));
        drop(conf);
    }

    #[test]
    fn a_folder_is_removed_with_its_links_and_nothing_behind_them() {
        let (conf, folder) = folder();
        let elsewhere = conf.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("precious"), "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, folder.path().join("vmcerts")).unwrap();
        folder.remove_client_files().unwrap();
        assert!(!folder.path().join("vmcerts").exists());
        std::os::unix::fs::symlink(&elsewhere, folder.path().join("link")).unwrap();
        folder.remove().unwrap();
        assert!(!folder.path().exists() && elsewhere.join("precious").exists());
    }

    #[test]
    fn foreign_records_are_refused_by_name() {
        let (_conf, folder) = folder();
        let mut other = record();
        other.id = JobId::new(8).unwrap();
        let good = serde_json::to_string(&record()).unwrap();
        for (text, part) in [
            (String::new(), "is no job record"),
            ("{".into(), "is no job record"),
            ("{\"version\": 2}".into(), "has version 2"),
            ("{\"version\": 1}".into(), "missing field"),
            (serde_json::to_string(&other).unwrap(), "of job 8"),
            (good.replace("queued", "dreaming"), "dreaming"),
        ] {
            fs::write(folder.record_file(), text).unwrap();
            let error = folder.read().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(error.contains("job_7/job.json"), "{error}");
        }
        // What stands in the record's place is not waited for, and not followed.
        fs::remove_file(folder.record_file()).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(folder.record_file())
            .status();
        assert!(made.unwrap().success());
        let error = folder.read().unwrap_err().to_string();
        assert!(error.contains("is not a regular file"), "{error}");
        fs::remove_file(folder.record_file()).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.record_file()).unwrap();
        let error = folder.read().unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let error = folder.read().unwrap_err().to_string();
        assert!(error.contains("open to other users"), "{error}");
    }
}
