//! The parsers of what registries and docker's `config.json` say, for the fuzzer in `fuzz/`.

use super::challenge::Challenge;
use super::credentials::{CredentialFile, find_stored, of_helper};
use super::failure::{MAX_MESSAGE, message};
use super::session::token_in;

/// A `WWW-Authenticate` header.
pub fn challenge(data: &[u8]) {
    let Ok(header) = std::str::from_utf8(data) else {
        return;
    };
    // Without the backslashes of quoted strings.
    let plain: String = header.chars().filter(|&c| c != '\\').collect();
    for challenge in Challenge::parse(header) {
        if let Challenge::Bearer { realm, service } = challenge {
            for value in [Some(realm), service].into_iter().flatten() {
                assert!(plain.contains(&value.replace('\\', "")));
            }
        }
    }
}

/// The answers of a token server and of a credential helper, and the body of an error.
pub fn answer(data: &[u8]) {
    let _ = token_in(data);
    let _ = of_helper(data);
    if let Some(words) = message(data) {
        assert!(words.chars().count() <= MAX_MESSAGE);
        assert!(!words.contains(char::is_control));
    }
}

/// Docker's `config.json`.
pub fn docker_config(data: &[u8]) {
    if let Ok(text) = String::from_utf8(data.to_vec()) {
        let path = "config.json".into();
        let file = CredentialFile { path, text };
        for host in ["docker.io", "localhost:5000", "ghcr.io"] {
            let _ = find_stored(&file, host, "org/app");
        }
    }
}

/// Podman's `registries.conf`.
pub fn registries_conf(data: &[u8]) {
    super::rules::any(data);
}
