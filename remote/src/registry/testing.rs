//! The parsers of what registries and docker's `config.json` say, for the fuzzer in `fuzz/`.

use super::credentials::{find_stored, of_helper};
use super::session::{Challenge, MAX_MESSAGE, message, token_in};

/// A `WWW-Authenticate` header.
pub fn challenge(data: &[u8]) {
    if let Ok(header) = std::str::from_utf8(data)
        && let Some(Challenge::Bearer { realm, service }) = Challenge::parse(header)
    {
        assert!(header.contains(&realm));
        assert!(service.is_none_or(|service| header.contains(&service)));
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
    if let Ok(config) = std::str::from_utf8(data) {
        for host in ["docker.io", "localhost:5000", "ghcr.io"] {
            let _ = find_stored(config, host);
        }
    }
}
