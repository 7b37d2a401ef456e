//! Reading YAML config files; the only file that names the YAML crate.
//!
//! Errors say which file, which line and column, and what is wrong there.

mod positions;

use std::borrow::Cow;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_saphyr::Spanned;

use crate::beneath::Refusal;
use crate::named;

pub use positions::{Positions, place};

/// Largest config file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Most values that the aliases of a document may repeat: a few bytes could otherwise stand for a million values.
const MAX_REPEATED: usize = 10_000;

/// Why a config file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("read {}: {source}", file.display())]
    Read {
        /// The config file.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Something in the file is not valid YAML, not of the expected shape, or makes no sense.
    #[error("{}:{line}:{column}: {message}", file.display())]
    Syntax {
        /// The config file.
        file: PathBuf,
        /// Line of the mistake, from 1.
        line: u64,
        /// Column of the mistake, from 1.
        column: u64,
        /// What is wrong.
        message: String,
    },
    /// The file's content contradicts itself or another file.
    #[error("{}: {message}", file.display())]
    Content {
        /// The config file.
        file: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// A value and where it stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its line, from 1.
    pub line: u64,
    /// Its column, from 1.
    pub column: u64,
}

impl<T> At<T> {
    /// An error about this value of `file`.
    pub fn error(&self, file: &Path, message: impl Into<String>) -> ConfigError {
        ConfigError::Syntax {
            file: file.to_owned(),
            line: self.line,
            column: self.column,
            message: message.into(),
        }
    }

    /// `FILE:LINE:COLUMN` of this value of `file`.
    pub fn place(&self, file: &Path) -> String {
        format!("{}:{}:{}", file.display(), self.line, self.column)
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        Ok(Self {
            line: spanned.referenced.line(),
            column: spanned.referenced.column(),
            value: spanned.value,
        })
    }
}

impl<T: Serialize> Serialize for At<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Parses `text`, the content of `file`.
pub fn parse<T: DeserializeOwned>(text: &str, file: &Path) -> Result<T, ConfigError> {
    let mut options = serde_saphyr::Options::default();
    options.alias_limits.max_total_replayed_events = MAX_REPEATED;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = match error.location() {
            Some(location) => (location.line(), location.column()),
            None => (1, 1),
        };
        ConfigError::Syntax {
            file: file.to_owned(),
            line,
            column,
            message: strip_location(&error.to_string()),
        }
    })
}

/// Reads and parses `file`; `None` when there is no such file.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, ConfigError> {
    let failed = |source| ConfigError::Read {
        file: file.to_owned(),
        source,
    };
    let bytes = match named::read(file, MAX_FILE) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(match Refusal::of(&error) {
                Some(refusal) => ConfigError::Content {
                    file: file.to_owned(),
                    message: format!("{refusal}; that is no config file"),
                },
                None => failed(error),
            });
        }
    };
    let text = String::from_utf8(bytes)
        .map_err(|error| no_text(file, error.as_bytes(), error.utf8_error().valid_up_to()))?;
    parse(&text, file).map(Some)
}

/// The error for a file that is UTF-8 only up to the byte `end`.
fn no_text(file: &Path, bytes: &[u8], end: usize) -> ConfigError {
    let before = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let last = before.rsplit('\n').next().unwrap_or_default();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX).saturating_add(1);
    ConfigError::Syntax {
        file: file.to_owned(),
        line: number(before.matches('\n').count()),
        column: number(last.chars().count()),
        message: format!(
            "the byte 0x{:02x} is no UTF-8; write the file in UTF-8",
            bytes.get(end).copied().unwrap_or_default()
        ),
    }
}

/// Drops the position at either end of the YAML crate's messages; ours comes first.
fn strip_location(message: &str) -> String {
    let mut rest = message;
    if let Some(tail) = rest.strip_prefix("error: ") {
        rest = tail;
    }
    if let Some(after) = rest.strip_prefix("line ")
        && let Some((position, text)) = after.split_once(": ")
        && position
            .chars()
            .all(|c| c.is_ascii_digit() || " ,column".contains(c))
    {
        rest = text;
    }
    if let Some(at) = rest.rfind(" at line ") {
        rest = rest.get(..at).unwrap_or(rest);
    }
    rest.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        count: u32,
    }

    #[test]
    fn names_file_line_and_column() {
        let file = Path::new("/etc/pcocc/sample.yaml");
        assert_eq!(parse::<Sample>("count: 3\n", file).unwrap().count, 3);
        for (text, position) in [
            ("count: many\n", ":1:8:"),
            ("count: 1\nextra: 2\n", ":2:1:"),
            ("count: [1\n", "sample.yaml:"),
        ] {
            let error = parse::<Sample>(text, file).unwrap_err().to_string();
            assert!(error.starts_with("/etc/pcocc/sample.yaml:"), "{error}");
            assert!(error.contains(position), "{error}");
            assert!(!error.contains('\n'), "{error}");
            assert_eq!(error.matches("line ").count(), 0, "{error}");
        }
    }

    #[test]
    fn aliases_repeat_a_bounded_number_of_values() {
        let file = Path::new("/etc/pcocc/sample.yaml");
        let lists = |levels: usize| -> String {
            let level = |n| format!("l{n}: &l{n} [{}]\n", format!("*l{}, ", n - 1).repeat(9));
            "l0: &l0 [x]\n".to_owned() + &(1..=levels).map(level).collect::<String>()
        };
        assert!(parse::<serde_json::Value>(&lists(2), file).is_ok());
        let error = parse::<serde_json::Value>(&lists(6), file).unwrap_err();
        assert!(error.to_string().contains("alias"), "{error}");
    }

    #[test]
    fn bytes_that_are_no_text_have_a_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"count: 3\n# \xc3\xa9 \xff\n").unwrap();
        let error = read::<Sample>(file.path()).unwrap_err().to_string();
        let start = format!("{}:2:5: the byte 0xff", file.path().display());
        assert!(error.starts_with(&start), "{error}");
    }

    #[test]
    fn a_missing_file_is_none() {
        assert!(
            read::<Sample>(Path::new("/nonexistent/x.yaml"))
                .unwrap()
                .is_none()
        );
    }
}
