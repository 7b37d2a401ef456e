//! Results on stdout: text, tables, JSON, sizes and dates.

use std::io::Write as _;

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::errors::{Outcome, WRITE_RESULT, While as _};
use crate::messages::{is_shown, printable, printable_lines};

/// How a listing is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // No doc comments: the names are enough, and the help stays on one line.
    #[default]
    Table,
    Json,
}

impl Format {
    /// Writes a list: its rows as JSON, or their `cells` as a table; see [`table`].
    pub(crate) fn list<R: Serialize>(
        self,
        header: &[&str],
        right: &[&str],
        rows: Vec<R>,
        cells: fn(R) -> Vec<String>,
    ) -> Outcome {
        match self {
            Self::Json => json(&rows),
            Self::Table => table(header, right, rows.into_iter().map(cells).collect()),
        }
    }
}

/// Writes `text`, which people read, to stdout.
pub(crate) fn text(text: &str) -> Outcome {
    bytes(printable_lines(text).as_bytes())
}

/// Writes `bytes`, which another program reads, to stdout.
pub(crate) fn bytes(bytes: &[u8]) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .when(|| WRITE_RESULT)
}

/// Writes `value` to stdout as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    let document = serde_json::to_string_pretty(value).when(|| WRITE_RESULT)?;
    bytes((json_escaped(&document) + "\n").as_bytes())
}

/// Escapes what a terminal does not show, by JSON's own means: the values stay what they are. Outside of strings there is
/// no such character but the ends of lines.
fn json_escaped(document: &str) -> String {
    let mut escaped = String::with_capacity(document.len() + 1);
    for c in document.chars() {
        if c == '\n' || is_shown(c) {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                escaped += &format!("\\u{unit:04x}");
            }
        }
    }
    escaped
}

/// Writes rows under a header line; columns named in `right` are aligned to the right.
pub(crate) fn table(header: &[&str], right: &[&str], rows: Vec<Vec<String>>) -> Outcome {
    text(&lines(header, right, rows))
}

fn lines(header: &[&str], right: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().map(Cell::new));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| Cell::new(printable(&cell))));
    }
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if right.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// A size in the manual's notation: `575 B`, `744.86 KB`, `1.37 MB` (1 KB is 1024 B).
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        // Larger values would be rounded to "1024.00".
        if value < 1023.995 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.2} {unit}")
}

/// A date in the local time zone: `2026-11-23 21:04:05`.
pub(crate) fn date(seconds: f64) -> String {
    match timestamp(seconds) {
        Some(stamp) => stamp
            .to_zoned_datetime(TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string(),
        None => "unknown".to_owned(),
    }
}

/// A date as RFC 3339 in UTC, for JSON.
pub(crate) fn rfc3339(seconds: f64) -> Option<String> {
    timestamp(seconds).map(|stamp| stamp.to_string())
}

fn timestamp(seconds: f64) -> Option<Timestamp> {
    // Whole seconds: fractions are noise, and a hostile number must not overflow.
    if !seconds.is_finite() || seconds.abs() > 1e12 {
        return None;
    }
    Timestamp::from_second(seconds as i64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_in_the_manual() {
        for (bytes, text) in [
            (0, "0 B"),
            (575, "575 B"),
            (1023, "1023 B"),
            (1024, "1.00 KB"),
            (762_734, "744.86 KB"),
            (1024 * 1024 - 1, "1.00 MB"),
            (1_436_549, "1.37 MB"),
            (u64::MAX, "16.00 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn table_aligns_wide_characters_and_hides_control_characters() {
        let rows = vec![
            vec!["名前".into(), "1 B".into()],
            vec!["a\x1b[2Jb".into(), "10 B".into()],
        ];
        assert_eq!(
            lines(&["NAME", "SIZE"], &["SIZE"], rows),
            "NAME         SIZE\n名前          1 B\na\\u{1b}[2Jb  10 B\n"
        );
    }

    #[test]
    fn json_shows_every_character_and_keeps_every_value() {
        let value = "\u{1b}\u{7f}\u{9b}\u{202e}\u{e0041}\n\"\u{540d}";
        let document = serde_json::to_string_pretty(&[value]).unwrap();
        let escaped = json_escaped(&document);
        let shown = r#"\u001b\u007f\u009b\u202e\udb40\udc41\n\""#;
        assert_eq!(escaped, format!("[\n  \"{shown}\u{540d}\"\n]"));
        let read: Vec<String> = serde_json::from_str(&escaped).unwrap();
        assert_eq!(read, [value]);
    }

    #[test]
    fn dates_cope_with_any_number() {
        assert_eq!(rfc3339(0.5).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(rfc3339(f64::NAN), None);
        assert_eq!(date(f64::INFINITY), "unknown");
    }
}
