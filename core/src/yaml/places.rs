//! Where the values of a config file stand, for those who tell where a value came from.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{At, ConfigError, read};

/// Where the values of a file stand, whatever they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    line: u64,
    column: u64,
    below: Below,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Below {
    Null,
    Nothing,
    Text(String),
    Items(Vec<Places>),
    Keys(Vec<(String, Places)>),
}

impl Places {
    /// The places in `file`; `None` when there is no such file, or nothing in it.
    pub fn read(file: &Path) -> Result<Option<Self>, ConfigError> {
        Ok(read::<Option<Self>>(file)?.flatten())
    }

    /// The line of the value at `path`: keys, and numbers for the items of lists; `None` when the file
    /// does not say it, or says nothing but the key. A path that goes on below a plain value ends there: that value says it all.
    pub fn line(&self, path: &[&str]) -> Option<u64> {
        Some(self.position(path)?.0)
    }

    /// Where the list at `path` has the item `text`, line and column.
    pub fn item(&self, path: &[&str], text: &str) -> Option<(u64, u64)> {
        match (path.split_first(), &self.below) {
            (None, Below::Items(items)) => {
                let found = items.iter().find(|item| match &item.below {
                    Below::Text(known) => known == text,
                    _ => false,
                })?;
                Some((found.line, found.column))
            }
            (Some((first, rest)), Below::Keys(keys)) => {
                let (_, place) = keys.iter().find(|(key, _)| key == first)?;
                place.item(rest, text)
            }
            _ => None,
        }
    }

    /// The same, line and column.
    pub fn position(&self, path: &[&str]) -> Option<(u64, u64)> {
        let here = (self.line, self.column);
        let Some((first, rest)) = path.split_first() else {
            return (self.below != Below::Null).then_some(here);
        };
        match &self.below {
            Below::Null => None,
            Below::Nothing | Below::Text(_) => Some(here),
            Below::Items(items) => items.get(first.parse::<usize>().ok()?)?.position(rest),
            Below::Keys(keys) => keys.iter().find(|(key, _)| key == first)?.1.position(rest),
        }
    }
}

/// `FILE:LINE:COLUMN` of what `found` finds in the first of `files` in which it finds anything; for messages, once a value
/// that was read from one of them turns out to be wrong.
pub fn place(files: &[PathBuf], found: impl Fn(&Places) -> Option<(u64, u64)>) -> Option<String> {
    files.iter().find_map(|file| {
        let (line, column) = found(&Places::read(file).ok()??)?;
        Some(format!("{}:{line}:{column}", file.display()))
    })
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let At {
            value,
            line,
            column,
        } = At::<Below>::deserialize(deserializer)?;
        Ok(Self {
            line,
            column,
            below: value,
        })
    }
}

impl<'de> Deserialize<'de> for Below {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Looking;

        impl<'de> Visitor<'de> for Looking {
            type Value = Below;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Below, E> {
                Ok(Below::Nothing)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Below, E> {
                Ok(Below::Nothing)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Below, E> {
                Ok(Below::Nothing)
            }

            fn visit_i128<E>(self, _: i128) -> Result<Below, E> {
                Ok(Below::Nothing)
            }

            fn visit_u128<E>(self, _: u128) -> Result<Below, E> {
                Ok(Below::Nothing)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Below, E> {
                Ok(Below::Nothing)
            }

            fn visit_str<E>(self, text: &str) -> Result<Below, E> {
                Ok(Below::Text(text.to_owned()))
            }

            fn visit_bytes<E>(self, _: &[u8]) -> Result<Below, E> {
                Ok(Below::Nothing)
            }

            fn visit_unit<E>(self) -> Result<Below, E> {
                Ok(Below::Null)
            }

            fn visit_none<E>(self) -> Result<Below, E> {
                Ok(Below::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Below, D::Error> {
                Below::deserialize(inner)
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                inner: D,
            ) -> Result<Below, D::Error> {
                Below::deserialize(inner)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Below, A::Error> {
                let mut places = Vec::new();
                while let Some(place) = items.next_element::<Places>()? {
                    places.push(place);
                }
                Ok(Below::Items(places))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Below, A::Error> {
                let mut places = Vec::new();
                while let Some(key) = entries.next_key::<At<String>>()? {
                    let mut place = entries.next_value::<Places>()?;
                    // What people look for is the key, which may stand above its value.
                    (place.line, place.column) = (key.line, key.column);
                    places.push((key.value, place));
                }
                Ok(Below::Keys(places))
            }
        }

        deserializer.deserialize_any(Looking)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# comment
repos:
  - name: a
    path:
      /a
  - {name: b, path: /b}
runtime:
  list: [x, 7, null, 1.5, true]
  nothing:
";

    #[test]
    fn every_value_has_a_line() {
        let places: Places = crate::yaml::parse(TEXT, Path::new("f")).unwrap();
        for (path, line) in [
            (&["repos"] as &[&str], Some(2)),
            (&["repos", "0"], Some(3)),
            (&["repos", "0", "path"], Some(4)),
            (&["repos", "1", "path"], Some(6)),
            (&["repos", "2"], None),
            (&["repos", "x"], None),
            (&["runtime", "list", "4"], Some(8)),
            (&["runtime", "list", "2"], None),
            (&["runtime", "list", "1", "further"], Some(8)),
            (&["runtime", "nothing"], None),
            (&["runtime", "nothing", "further"], None),
            (&["other"], None),
        ] {
            assert_eq!(places.line(path), line, "{path:?}");
        }
    }

    #[test]
    fn an_item_is_found_by_its_words() {
        let places: Places = crate::yaml::parse(TEXT, Path::new("f")).unwrap();
        for (path, text, found) in [
            (&["runtime", "list"] as &[&str], "x", Some((8, 10))),
            (&["runtime", "list"], "7", None),
            (&["runtime", "nothing"], "x", None),
            (&["repos"], "a", None),
            (&["runtime"], "x", None),
            (&["no"], "x", None),
        ] {
            assert_eq!(places.item(path, text), found, "{path:?} {text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let files = ["user", "site"].map(|name| folder.path().join(name));
        std::fs::write(&files[1], TEXT).unwrap();
        let place = place(&files, |places| places.item(&["runtime", "list"], "x"));
        assert_eq!(place, Some(format!("{}:8:10", files[1].display())));
    }

    #[test]
    fn an_empty_file_has_no_places() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Places::read(file.path()).unwrap(), None);
        assert_eq!(Places::read(Path::new("/nonexistent/x")).unwrap(), None);
    }
}
