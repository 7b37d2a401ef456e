//! Certificate authorities of single registries, in the folders of docker and podman:
//! `FOLDER/HOST[:PORT]/*.crt`, each with one or more certificates in PEM; `*.cert` and `*.key` are the client's own.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use pcocc_core::named;
use reqwest::{Certificate, Identity};

use pcocc_image::{Error, Result};

/// Most bytes of a file with certificates.
const MAX_PEM: u64 = 4 << 20;

/// What the folders hold for one registry.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Authorities that may sign its certificate.
    pub(super) authorities: Vec<Certificate>,
    /// The certificate and key that it wants to see: `NAME.cert` and `NAME.key`, the first by name.
    pub(super) identity: Option<Identity>,
}

/// Reads what is in `folders` for the registry `host`, which is `HOST[:PORT]`.
pub(super) fn of(host: &str, folders: &[PathBuf]) -> Result<Trust> {
    let mut parts = Path::new(host).components();
    let mut trust = Trust::default();
    if !matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    ) {
        // This is no host; as a path, it would lead out of the folders.
        return Ok(trust);
    }
    for folder in folders {
        let folder = folder.join(host);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if absent(&error) => continue,
            Err(error) => return Err(Error::io("read", &folder)(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(Error::io("read", &folder))?.path());
        }
        paths.sort();
        for path in paths {
            if path.extension() == Some(OsStr::new("crt")) {
                trust.authorities.extend(certificates(&path)?);
            } else if path.extension() == Some(OsStr::new("cert")) && trust.identity.is_none() {
                trust.identity = Some(identity(&path)?);
            }
        }
    }
    Ok(trust)
}

/// The certificate at `path` with the key beside it.
fn identity(path: &Path) -> Result<Identity> {
    let key = path.with_extension("key");
    let mut pem = named::read(path, MAX_PEM).map_err(Error::io("read", path))?;
    let private = named::read(&key, MAX_PEM).map_err(|error| {
        Error::invalid(
            path.display().to_string(),
            format!(
                "has no key beside it: {} cannot be read ({error})",
                key.display()
            ),
        )
    })?;
    pem.push(b'\n');
    pem.extend(private);
    Identity::from_pem(&pem).map_err(|error| {
        let both = format!("{} with {}", path.display(), key.display());
        Error::invalid(both, format!("is no certificate of a client: {error}"))
    })
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
        let of = |host: &str| of(host, &folders).map(|trust| trust.authorities);
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
