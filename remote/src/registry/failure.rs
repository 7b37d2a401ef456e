//! Why a request failed, in words: of the connection, and of the registry.

use std::error::Error as _;

use serde::Deserialize;

/// Longest message of a registry that is shown.
pub(super) const MAX_MESSAGE: usize = 500;

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

/// The registry's message in an error answer (OCI distribution spec, "Error Codes").
pub(super) fn message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        errors: Option<Vec<Entry>>,
        details: Option<String>,
    }
    #[derive(Deserialize)]
    struct Entry {
        code: Option<String>,
        message: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let entry = answer.errors.and_then(|errors| errors.into_iter().next());
    let words = match entry {
        Some(Entry {
            code: Some(code),
            message: Some(message),
        }) => format!("{message} ({code})"),
        Some(Entry { code, message }) => message.or(code)?,
        None => answer.details?,
    };
    Some(
        words
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MAX_MESSAGE)
            .collect(),
    )
}
