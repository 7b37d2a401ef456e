//! Saved guests, booted to "docker daemon ready" and not yet a job's.
//!
//! ```text
//! CACHE/snapshots/KEY/ram           the guest's memory, sparse; mapped copy-on-write by all that resume it
//! CACHE/snapshots/KEY/state         QEMU's state of the devices
//! CACHE/snapshots/KEY/data.qcow2    the data disk; copied by each
//! CACHE/snapshots/KEY/snapshot.json what the others must be
//! CACHE/snapshots/.lock             held while one is made
//! ```
//!
//! A snapshot is made in a folder beside its place and renamed when complete. The key covers all that the
//! guest has seen of its machine and its settings. Files are only ever removed, never changed: machines that have
//! them mapped keep them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::machine::MachineError;
use pcocc_core::beneath::OpenFolder;
use pcocc_core::durable;
use pcocc_core::hex::hex;

/// Version of the folder's layout.
const VERSION: u32 = 1;
/// Name of the record.
const RECORD: &str = "snapshot.json";
/// Most bytes of the record.
const MAX_RECORD: u64 = 64 << 10;
/// How many are kept; each takes some hundred megabytes.
const KEEP: usize = 3;

/// A complete snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    folder: PathBuf,
}

/// What the files of a snapshot were when it was saved.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    ram_size: u64,
    /// Hashing hundreds of megabytes takes longer than resuming them: time and size must do.
    ram_changed_ns: i64,
    state_sha256: String,
    data_sha256: String,
}

impl Record {
    /// Parses a record.
    pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }

    /// The record as text.
    pub(crate) fn render(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    fn of(folder: &OpenFolder) -> io::Result<Self> {
        let ram = folder.open_file("ram")?.metadata()?;
        Ok(Self {
            version: VERSION,
            ram_size: ram.len(),
            ram_changed_ns: ram.mtime() * 1_000_000_000 + ram.mtime_nsec(),
            state_sha256: sha256(folder.open_file("state")?)?,
            data_sha256: sha256(folder.open_file("data.qcow2")?)?,
        })
    }
}

impl Snapshot {
    /// The guest's memory.
    pub(crate) fn ram(&self) -> PathBuf {
        self.folder.join("ram")
    }

    /// The state of the devices.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The data disk.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data.qcow2")
    }

    /// Removes it.
    pub(crate) fn remove(&self) {
        let parent = self.folder.parent().unwrap_or(&self.folder);
        let name = self.folder.file_name().unwrap_or_default();
        let removed = OpenFolder::open(parent).and_then(|snapshots| snapshots.remove_all(name));
        if let Err(error) = removed {
            tracing::warn!(folder = %self.folder.display(), %error, "a bad snapshot stays");
        }
    }
}

/// Where one user's snapshots on one node are.
#[derive(Debug)]
pub(crate) struct Snapshots {
    folder: OpenFolder,
}

impl Snapshots {
    /// Opens the folder `cache`/snapshots, which is made if missing.
    pub(crate) fn open(cache: &Path) -> Result<Self, MachineError> {
        let opened = durable::create_folders(cache, 0o700)
            .and_then(|()| OpenFolder::open(cache))
            .and_then(|cache| cache.folder_or_new("snapshots", 0o700));
        let folder = opened.map_err(MachineError::io("make the folder", cache))?;
        Ok(Self { folder })
    }

    /// Finds the snapshot of `key`. Fails with the reason when the snapshot is not as it was saved.
    pub(crate) fn find(&self, key: &str) -> Result<Option<Snapshot>, (Snapshot, String)> {
        let snapshot = Snapshot {
            folder: self.folder.path().join(key),
        };
        let read = self.folder.folder(key).and_then(|folder| {
            let text = folder.read(RECORD, MAX_RECORD)?;
            Ok((text, Record::of(&folder)?))
        });
        let (text, found) = match read {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.folder.has(key) => {
                return Ok(None);
            }
            Err(error) => return Err((snapshot, format!("cannot be read: {error}"))),
        };
        match Record::parse(&text) {
            Ok(record) if record == found => {
                // Used: of those that are not, the oldest goes first.
                let _ = self.folder.touch(key);
                Ok(Some(snapshot))
            }
            Ok(_) => Err((snapshot, "is not as it was saved".into())),
            Err(error) => Err((
                snapshot,
                format!("has a record that makes no sense: {error}"),
            )),
        }
    }

    /// Takes the lock under which a snapshot is made, and waits for it while `check` lets it.
    pub(crate) fn lock(
        &self,
        mut check: impl FnMut() -> Result<(), MachineError>,
    ) -> Result<File, MachineError> {
        let path = self.folder.path().join(".lock");
        let file = self.folder.open_or_create(".lock", 0o600);
        let file = file.map_err(MachineError::io("open", &path))?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(MachineError::io("lock", &path)(error.into())),
            }
            check()?;
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes a folder to save into; whoever died while saving left theirs, which goes now. To be called under
    /// the lock.
    pub(crate) fn begin(&self) -> Result<tempfile::TempDir, MachineError> {
        for name in self.folder.names().unwrap_or_default() {
            if name.as_encoded_bytes().starts_with(b".new-") {
                let _ = self.folder.remove_all(&name);
            }
        }
        tempfile::Builder::new()
            .prefix(".new-")
            // The memory holds what the settings of docker hold: passwords of proxies, for one.
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(self.folder.path())
            .map_err(MachineError::io("make a folder in", self.folder.path()))
    }

    /// Publishes what was saved into `folder` as the snapshot of `key`.
    pub(crate) fn publish(
        &self,
        folder: tempfile::TempDir,
        key: &str,
    ) -> Result<Snapshot, MachineError> {
        let path = folder.path().to_owned();
        let publish = || -> io::Result<Snapshot> {
            // Before its record says that it is complete: after a power cut the memory must not be zeros.
            let name = path.file_name().unwrap_or_default();
            let folder = self.folder.folder(name)?;
            for file in ["ram", "state", "data.qcow2"] {
                folder.open_file(file)?.sync_all()?;
            }
            let record = Record::of(&folder)?.render()?;
            folder.create_file(RECORD, 0o600)?.write_all(&record)?;
            self.folder.rename(name, &self.folder, key)?;
            Ok(Snapshot {
                folder: self.folder.path().join(key),
            })
        };
        let snapshot = publish().map_err(MachineError::io("save the snapshot in", &path))?;
        // The folder has its name now.
        let _ = folder.keep();
        self.remove_surplus();
        Ok(snapshot)
    }

    /// Removes the snapshots that were not used for longest.
    fn remove_surplus(&self) {
        let names = self.folder.names().unwrap_or_default();
        let mut found: Vec<(SystemTime, OsString)> = names
            .into_iter()
            .filter(|name| self.folder.stat(Path::new(name).join(RECORD)).is_ok())
            .filter_map(|name| Some((self.folder.stat(&name).ok()?.modified, name)))
            .collect();
        found.sort();
        let surplus = found.len().saturating_sub(KEEP);
        for (_, name) in found.into_iter().take(surplus) {
            let _ = self.folder.remove_all(name);
        }
    }
}

/// Makes a key out of parts; other borders between them give another key.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(hash.finalize().as_slice().get(..16).unwrap_or_default())
}

fn sha256(mut file: File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let got = file.read(&mut buffer)?;
        if got == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(buffer.get(..got).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(snapshots: &Snapshots, key: &str) -> Snapshot {
        let folder = snapshots.begin().unwrap();
        for file in ["ram", "state", "data.qcow2"] {
            fs::write(folder.path().join(file), file).unwrap();
        }
        snapshots.publish(folder, key).unwrap()
    }

    #[test]
    fn found_as_saved_and_only_so() {
        let cache = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(cache.path()).unwrap();
        assert_eq!(snapshots.find("a").unwrap(), None);
        let snapshot = save(&snapshots, "a");
        assert_eq!(snapshots.find("a").unwrap(), Some(snapshot.clone()));
        for file in [snapshot.state(), snapshot.data(), snapshot.ram()] {
            let before = fs::read(&file).unwrap();
            let times = fs::metadata(&file).unwrap().modified().unwrap();
            fs::write(&file, "other").unwrap();
            let (bad, why) = snapshots.find("a").unwrap_err();
            assert_eq!((&bad, &*why), (&snapshot, "is not as it was saved"));
            fs::write(&file, before).unwrap();
            File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_modified(times)
                .unwrap();
        }
        fs::remove_file(snapshot.state()).unwrap();
        assert!(snapshots.find("a").is_err());
        for record in ["mkfifo", "ln -s /dev/zero"] {
            let path = snapshot.folder.join(RECORD);
            fs::remove_file(&path).unwrap();
            let line = format!("{record} {}", path.display());
            let made = std::process::Command::new("sh")
                .args(["-c", &line])
                .status();
            assert!(made.unwrap().success());
            assert!(snapshots.find("a").is_err());
        }
        snapshot.remove();
        assert_eq!(snapshots.find("a").unwrap(), None);
    }

    #[test]
    fn few_are_kept_and_leftovers_go() {
        let cache = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(cache.path()).unwrap();
        let leftover = snapshots.begin().unwrap().keep();
        let names = ["a", "b", "c", "d"];
        for (age, name) in names.iter().enumerate() {
            let snapshot = save(&snapshots, name);
            let time = SystemTime::now() - Duration::from_secs(100 - age as u64);
            File::open(&snapshot.folder)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        assert!(!leftover.exists());
        let left: Vec<bool> = names
            .iter()
            .map(|name| snapshots.find(name).unwrap().is_some())
            .collect();
        assert_eq!(left, [false, true, true, true]);
    }

    #[test]
    fn keys_have_no_seams() {
        let parts = |parts: &[&str]| key(parts.iter().map(|part| part.as_bytes()));
        assert_ne!(parts(&["ab", "c"]), parts(&["a", "bc"]));
        assert_eq!(parts(&["ab", "c"]), parts(&["ab", "c"]));
    }
}
