//! Why a request got no answer, in words.

use std::error::Error as _;

/// Whether a connection failed for its TLS.
pub(super) fn is_about_tls(error: &reqwest::Error) -> bool {
    const SIGNS: [&str; 4] = [
        "tls handshake",
        "InvalidContentType",
        "certificate",
        "corrupt message",
    ];
    let words = chain(error);
    SIGNS.iter().any(|sign| words.contains(sign))
}

/// An error with its causes; reqwest's own text has only the outermost.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // hyper's own layer says nothing beyond its cause.
        if !text.starts_with("client error") {
            words.push(text);
        }
        cause = error.source();
    }
    words.dedup();
    if words.is_empty() {
        error.to_string()
    } else {
        words.join(": ")
    }
}
