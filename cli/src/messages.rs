//! Messages on stderr, and the one place that makes text printable: names and words come from others.
//!
//! Everything a person reads goes through here: failures, warnings, progress and log lines on stderr, and the text and
//! tables of [`crate::output`] on stdout. Nothing in there can move the cursor, colour or hide what follows, or turn it
//! around; such characters are shown as `\u{1b}`. Bytes that are meant for a program, and those of a container's or VM's
//! own terminal, do not.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::LazyLock;

use regex::Regex;

/// Writes `text` to stderr. A closed stderr is no failure.
pub(crate) fn complain(text: &str) {
    let _ = io::stderr().write_all(printable_lines(text).as_bytes());
}

/// Writes a warning; the verb goes on.
pub(crate) fn warn(text: &str) {
    complain(&format!("{}\n", warning(text)));
}

/// A warning's line.
pub(crate) fn warning(text: &str) -> String {
    format!("pcocc: warning: {}", printable(text))
}

/// Escapes what would move the cursor, break a line, or show other text than is there.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| !is_shown(c))
}

/// The same for a text of several lines.
pub(crate) fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && !is_shown(c))
}

/// Indents all lines but the first, and leaves out the ends of the last.
pub(crate) fn indented(text: &str) -> String {
    text.trim_end_matches('\n').replace('\n', "\n  ")
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match hidden(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown.into()
}

/// Control characters, those that format others (marks of direction, joiners, tags), and separators of lines and paragraphs.
static HIDDEN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]").ok());

/// Whether a character stands for itself.
pub(crate) fn is_shown(c: char) -> bool {
    match c.is_ascii() {
        true => !c.is_ascii_control(),
        false => {
            let hides = |hidden: &Regex| hidden.is_match(c.encode_utf8(&mut [0; 4]));
            HIDDEN.as_ref().is_some_and(|hidden| !hides(hidden))
        }
    }
}

/// Stderr for log lines, each of which is one write; `color` lets through the colours that the log has of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogWriter {
    pub(crate) color: bool,
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        // An event is one line, whatever the words of others in it.
        let (text, end) = match text.strip_suffix('\n') {
            Some(text) => (text, "\n"),
            None => (&*text, ""),
        };
        let shown = match self.color {
            true => with_colors(text),
            false => printable(text).into_owned(),
        } + end;
        io::stderr().write_all(shown.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Makes printable what is no colour (`ESC [ numbers m`); the log itself has taken others' escapes out of its values.
fn with_colors(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let mut shown = printable(pieces.next().unwrap_or_default()).into_owned();
    for piece in pieces {
        let numbers = piece.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        shown += match numbers.starts_with('m') {
            true => "\u{1b}[",
            false => "\\u{1b}[",
        };
        shown += &printable(piece);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_named() {
        for (text, shown) in [
            (
                "plain, caf\u{e9} \u{540d}\u{524d}",
                "plain, caf\u{e9} \u{540d}\u{524d}",
            ),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("a\rb\tc", "a\\rb\\tc"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("exe.\u{202e}txt", "exe.\\u{202e}txt"),
            ("\u{2066}a\u{2069}\u{200b}", "\\u{2066}a\\u{2069}\\u{200b}"),
            (
                "\u{feff}\u{e0041}\u{2028}\u{ad}",
                "\\u{feff}\\u{e0041}\\u{2028}\\u{ad}",
            ),
        ] {
            assert_eq!(printable(text), shown);
            assert_eq!(printable_lines(text), shown);
        }
        assert_eq!(printable("a\nb"), "a\\nb");
        assert_eq!(printable_lines("a\nb"), "a\nb");
    }

    #[test]
    fn a_log_line_has_its_own_colors_only() {
        let line = "\u{1b}[2mnow\u{1b}[0m x=\u{1b}]0;t\u{7} \u{1b}[2J \u{202e}\nhint: y";
        let shown = "\u{1b}[2mnow\u{1b}[0m x=\\u{1b}]0;t\\u{7} \\u{1b}[2J \\u{202e}\\nhint: y";
        assert_eq!(with_colors(line), shown);
    }
}
