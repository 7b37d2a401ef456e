//! Messages on stderr: text beside the result, and warnings.

use std::io::Write as _;

/// Writes `text` to stderr. A closed stderr is no failure.
pub(crate) fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Writes a warning; the verb goes on.
pub(crate) fn warn(text: &str) {
    complain(&format!("{}\n", warning(text)));
}

/// A warning's line.
pub(crate) fn warning(text: &str) -> String {
    format!("pcocc: warning: {}", printable(text))
}

/// Escapes characters that would move the cursor or break a line: names come from others.
pub(crate) fn printable(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.chars()
            .flat_map(|c| match c.is_control() {
                true => c.escape_default().collect::<Vec<_>>(),
                false => vec![c],
            })
            .collect()
    } else {
        text.to_owned()
    }
}
