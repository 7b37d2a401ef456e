//! Certificate authorities of single registries, in the folders of docker and podman:
//! `FOLDER/HOST[:PORT]/*.crt`, each with one or more certificates in PEM.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use pcocc_core::named;
use reqwest::Certificate;

use pcocc_image::{Error, Result};

/// Most bytes of a file with certificates.
const MAX_PEM: u64 = 4 << 20;

/// Reads the certificates in `folders` for the registry `host`, which is `HOST[:PORT]`.
pub(super) fn of(host: &str, folders: &[PathBuf]) -> Result<Vec<Certificate>> {
    let mut parts = Path::new(host).components();
    if !matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    ) {
        // This is no host; as a path, it would lead out of the folders.
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for folder in folders {
        let folder = folder.join(host);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if absent(&error) => continue,
            Err(error) => return Err(Error::io("read", &folder)(error)),
        };
        for entry in entries {
            let path = entry.map_err(Error::io("read", &folder))?.path();
            if path.extension() == Some(OsStr::new("crt")) {
                found.extend(certificates(&path)?);
            }
        }
    }
    Ok(found)
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let text = named::read(path, MAX_PEM).map_err(Error::io("read", path))?;
    let bad = |why: String| Error::invalid(path.display().to_string(), why);
    let certificates = Certificate::from_pem_bundle(&text)
        .map_err(|error| bad(format!("is not a PEM certificate: {error}")))?;
    if certificates.is_empty() {
        return Err(bad("holds no PEM certificate".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_that_host_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("none"), folder.path().join("certs")];
        let of = |host: &str| of(host, &folders);
        assert!(of("reg.io:5000").unwrap().is_empty());
        let mine = folders[1].join("reg.io:5000");
        fs::create_dir_all(&mine).unwrap();
        fs::write(mine.join("client.key"), "not read").unwrap();
        assert!(of("reg.io:5000").unwrap().is_empty());
        fs::write(mine.join("ca.crt"), "no certificate").unwrap();
        let error = of("reg.io:5000").unwrap_err().to_string();
        assert!(error.contains("ca.crt"), "{error}");
        assert!(of("reg.io").unwrap().is_empty());
        // A configuration file may have any name for a registry.
        for host in ["../certs/reg.io:5000", "/", "", "..", "a/b"] {
            assert!(of(host).unwrap().is_empty(), "{host}");
        }
    }
}
