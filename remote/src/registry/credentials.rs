//! Credentials for a registry out of docker's `config.json`.
//!
//! Order, as docker's: the host's own entry in `credHelpers`, then `credsStore`, then `auths`. A helper is the
//! program `docker-credential-NAME`, run with `get` (docker-credential-helpers protocol: the host on its input,
//! JSON on its output).

use std::collections::HashMap;
use std::process::Command;

use base64::Engine as _;
use pcocc_core::child;
use serde::Deserialize;

use pcocc_image::transfer::Context;
use pcocc_image::{Error, Result};

const DOCKER_HUB: &str = "https://index.docker.io/v1/";

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

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: HashMap<String, Auth>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Finds the credentials for `host` in the text of a `config.json`.
pub(super) fn find(config: &str, host: &str, context: &Context) -> Result<Option<Credentials>> {
    let config = Config::parse(config)?;
    let key = if host == "docker.io" {
        DOCKER_HUB
    } else {
        host
    };
    let helper = config
        .cred_helpers
        .get(key)
        .or_else(|| config.cred_helpers.get(host))
        .or(config.creds_store.as_ref())
        .filter(|name| !name.is_empty());
    if let Some(helper) = helper
        && let Some(found) = ask(helper, key, context)?
    {
        return Ok(Some(found));
    }
    config.stored(host)
}

impl Config {
    fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| {
            Error::invalid("docker's config.json", format!("does not parse: {error}"))
        })
    }

    /// The credentials for `host` that stand in the file itself.
    fn stored(&self, host: &str) -> Result<Option<Credentials>> {
        let mut auths = self.auths.iter();
        match auths.find(|(name, _)| names(name, host)) {
            Some((_, auth)) => of_auth(auth, host),
            None => Ok(None),
        }
    }
}

/// As [`find`], without asking a helper.
pub(super) fn find_stored(config: &str, host: &str) -> Result<Option<Credentials>> {
    Config::parse(config)?.stored(host)
}

/// Whether a key of `auths` means `host`: docker writes hosts, older versions wrote URLs.
fn names(key: &str, host: &str) -> bool {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let bare = bare.split('/').next().unwrap_or(bare);
    bare == host
        || (host == "docker.io"
            && matches!(
                bare,
                "index.docker.io" | "registry-1.docker.io" | "docker.io"
            ))
}

fn of_auth(auth: &Auth, host: &str) -> Result<Option<Credentials>> {
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
                format!("docker's config.json, entry {host:?},"),
                format!("is malformed; log in again: docker login {host}"),
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
fn ask(helper: &str, key: &str, context: &Context) -> Result<Option<Credentials>> {
    let is_name = helper
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !is_name {
        return Err(Error::invalid(
            "docker's config.json",
            format!("names the credential helper {helper:?}, which is no program name"),
        ));
    }
    let program = format!("docker-credential-{helper}");
    let mut command = Command::new(&program);
    command.arg("get");
    let failed = |why: String| Error::Denied {
        what: format!("credential helper {program}, which docker's config.json names,"),
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
