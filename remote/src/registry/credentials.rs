//! Credentials for a registry out of docker's `config.json` and podman's `auth.json`.
//!
//! The first file with credentials for the registry counts. Order within a file, as docker's: the host's own entry in
//! `credHelpers`, then `credsStore`, then `auths`. A helper is the program `docker-credential-NAME`, run with `get`
//! (docker-credential-helpers protocol: the host on its input, JSON on its output). Of the keys of `auths`, the one docker
//! writes comes first, then the longest that names a folder of the repository (containers-auth.json(5)).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use pcocc_core::child;
use serde::Deserialize;

use pcocc_image::transfer::Context;
use pcocc_image::{Error, Result};

const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A file with credentials. Its text may hold passwords.
#[derive(Clone)]
pub struct CredentialFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl std::fmt::Debug for CredentialFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CredentialFile({})", self.path.display())
    }
}

/// Credentials of a user.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// User name and password.
    Password {
        /// The user.
        user: String,
        /// The password or access token.
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken(String),
    /// A bearer token, sent unchanged.
    RegistryToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// What is read of such a file. Go's programs write `null` for an empty map.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: Option<BTreeMap<String, Option<Auth>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Finds the credentials for the repository `path` of `host`.
pub(super) fn find(
    files: &[CredentialFile],
    host: &str,
    path: &str,
    context: &Context,
) -> Result<Option<Credentials>> {
    for file in files {
        let config = Config::parse(file)?;
        let found = match config.asked(file, host, context)? {
            None => config.stored(file, host, path)?,
            found => found,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

impl Config {
    fn parse(file: &CredentialFile) -> Result<Self> {
        if file.text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(&file.text).map_err(|error| {
            Error::invalid(
                file.path.display().to_string(),
                format!("does not parse: {error}"),
            )
        })
    }

    /// The credentials for `host` of the helper that the file names.
    fn asked(
        &self,
        file: &CredentialFile,
        host: &str,
        context: &Context,
    ) -> Result<Option<Credentials>> {
        let keys: &[&str] = match host {
            "docker.io" => &[DOCKER_HUB, "index.docker.io", host],
            _ => &[host],
        };
        let own = self.cred_helpers.iter();
        let own = own.flat_map(|helpers| keys.iter().find_map(|key| helpers.get(*key)));
        let helper = own.chain(&self.creds_store).find(|name| !name.is_empty());
        match helper {
            Some(helper) => ask(helper, keys.first().unwrap_or(&host), file, context),
            None => Ok(None),
        }
    }

    /// The credentials that stand in the file itself.
    fn stored(&self, file: &CredentialFile, host: &str, path: &str) -> Result<Option<Credentials>> {
        let auths = self.auths.iter().flatten();
        let fitting =
            auths.filter_map(|(key, auth)| Some((fit(key, host, path)?, key, auth.as_ref()?)));
        let mut fitting: Vec<_> = fitting.collect();
        fitting.sort_by_key(|(fit, key, _)| (*fit, *key));
        for (_, key, auth) in fitting {
            if let Some(found) = of_auth(auth, key, file)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// As [`find`], without asking a helper.
pub(super) fn find_stored(
    file: &CredentialFile,
    host: &str,
    path: &str,
) -> Result<Option<Credentials>> {
    Config::parse(file)?.stored(file, host, path)
}

/// How well a key of `auths` fits: the better, the less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The key that docker writes for the host.
    Exact,
    /// It names the repository or a folder of it, with so many components less than the repository.
    Folder(usize),
    /// It is the host as a URL, which old versions of docker wrote, or another name of the host.
    Url,
}

/// Compares a key of `auths` with the repository `path` of `host`; `None` when it means another.
fn fit(key: &str, host: &str, path: &str) -> Option<Fit> {
    const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
    let is_hub = host == "docker.io";
    if key == if is_hub { DOCKER_HUB } else { host } {
        return Some(Fit::Exact);
    }
    let stripped = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let (name, folder) = stripped
        .unwrap_or(key)
        .split_once('/')
        .unwrap_or((stripped.unwrap_or(key), ""));
    if name != host && !(is_hub && HUB.contains(&name)) {
        return None;
    }
    let folder = folder.trim_end_matches('/');
    if matches!(folder, "" | "v1" | "v2") {
        return Some(Fit::Url);
    }
    let rest = path.strip_prefix(folder).filter(|_| stripped.is_none())?;
    match rest.is_empty() || rest.starts_with('/') {
        true => Some(Fit::Folder(rest.matches('/').count())),
        false => None,
    }
}

fn of_auth(auth: &Auth, key: &str, file: &CredentialFile) -> Result<Option<Credentials>> {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = filled(&auth.identitytoken) {
        return Ok(Some(Credentials::IdentityToken(token)));
    }
    if let Some(token) = filled(&auth.registrytoken) {
        return Ok(Some(Credentials::RegistryToken(token)));
    }
    if let Some(encoded) = filled(&auth.auth) {
        let bad = || {
            Error::invalid(
                format!("{}, entry {key:?},", file.path.display()),
                format!("is malformed; log in again: docker login {key}"),
            )
        };
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(encoded.trim())
            .map_err(|_| bad())?;
        let decoded = String::from_utf8(decoded).map_err(|_| bad())?;
        let (user, password) = decoded.split_once(':').ok_or_else(bad)?;
        return Ok(Some(Credentials::Password {
            user: user.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        }));
    }
    Ok(match (filled(&auth.username), filled(&auth.password)) {
        (Some(user), Some(password)) => Some(Credentials::Password { user, password }),
        _ => None,
    })
}

/// Asks a credential helper; `None` when it does not know the host.
fn ask(
    helper: &str,
    key: &str,
    file: &CredentialFile,
    context: &Context,
) -> Result<Option<Credentials>> {
    let is_name = helper
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !is_name {
        return Err(Error::invalid(
            file.path.display().to_string(),
            format!("names the credential helper {helper:?}, which is no program name"),
        ));
    }
    let program = format!("docker-credential-{helper}");
    let mut command = Command::new(&program);
    command.arg("get");
    let failed = |why: String| Error::Denied {
        what: format!(
            "credential helper {program}, which {} names,",
            file.path.display()
        ),
        why,
    };
    let finished = child::run(&mut command, &context.cancel, |input| {
        input.write_all(key.as_bytes())
    })
    .map_err(|error| failed(format!("cannot be run: {error}; install it")))?
    .ok_or(Error::Cancelled)?;
    if !finished.status.success() {
        // In this protocol, helpers write their errors to standard output.
        let words = String::from_utf8_lossy(&finished.output);
        let words = words.trim();
        if words.contains("credentials not found") {
            return Ok(None);
        }
        let words = if words.is_empty() {
            &finished.words
        } else {
            words
        };
        return Err(failed(format!(
            "failed: {}",
            words.chars().take(500).collect::<String>()
        )));
    }
    of_helper(&finished.output)
        .map(Some)
        .map_err(|_| failed("gave an answer that does not parse".to_owned()))
}

/// The credentials in the answer of a helper.
pub(super) fn of_helper(answer: &[u8]) -> serde_json::Result<Credentials> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let answer: Answer = serde_json::from_slice(answer)?;
    Ok(match answer.username.as_str() {
        "<token>" => Credentials::IdentityToken(answer.secret),
        _ => Credentials::Password {
            user: answer.username,
            password: answer.secret,
        },
    })
}
