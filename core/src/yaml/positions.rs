//! Lines and columns of all values of a config file, for messages and for `pcocc config show --origin`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{At, ConfigError, read};

/// The position of a value in its file, and those of the values below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    line: u64,
    column: u64,
    below: Below,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Below {
    Null,
    Nothing,
    Text(String),
    Items(Vec<Positions>),
    Keys(Vec<(String, Positions)>),
}

impl Positions {
    /// The positions in `file`; `None` when there is no such file, or nothing in it.
    pub fn read(file: &Path) -> Result<Option<Self>, ConfigError> {
        Ok(read::<Option<Self>>(file)?.flatten())
    }

    /// The line of the value at `path`, which has keys, and numbers for the items of lists. `None` when the file has no
    /// such key, or the key has no value. A path that goes on below a plain value ends at that value.
    pub fn line(&self, path: &[&str]) -> Option<u64> {
        Some(self.position(path)?.0)
    }

    /// Line and column of the item `text` in the list at `path`.
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
                let (_, position) = keys.iter().find(|(key, _)| key == first)?;
                position.item(rest, text)
            }
            _ => None,
        }
    }

    /// Line and column of the value at `path`, as for [`line`](Self::line).
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

/// `FILE:LINE:COLUMN` of what `found` finds in the first of `files` that has it; for messages about a value that turned
/// out to be wrong.
pub fn place(
    files: &[PathBuf],
    found: impl Fn(&Positions) -> Option<(u64, u64)>,
) -> Option<String> {
    files.iter().find_map(|file| {
        let (line, column) = found(&Positions::read(file).ok()??)?;
        Some(format!("{}:{line}:{column}", file.display()))
    })
}

impl<'de> Deserialize<'de> for Positions {
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
        macro_rules! scalars {
            ($($name:ident: $value:ty),* $(,)?) => {
                $(fn $name<E>(self, _: $value) -> Result<Below, E> { Ok(Below::Nothing) })*
            };
        }
        struct BelowVisitor;

        impl<'de> Visitor<'de> for BelowVisitor {
            type Value = Below;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            scalars! {
                visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128,
                visit_f64: f64, visit_bytes: &[u8],
            }

            fn visit_str<E>(self, text: &str) -> Result<Below, E> {
                Ok(Below::Text(text.to_owned()))
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
                let mut all = Vec::new();
                while let Some(position) = items.next_element::<Positions>()? {
                    all.push(position);
                }
                Ok(Below::Items(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Below, A::Error> {
                let mut all = Vec::new();
                while let Some(key) = entries.next_key::<At<String>>()? {
                    let mut position = entries.next_value::<Positions>()?;
                    // The position of an entry is its key's, which may stand above the value.
                    (position.line, position.column) = (key.line, key.column);
                    all.push((key.value, position));
                }
                Ok(Below::Keys(all))
            }
        }

        deserializer.deserialize_any(BelowVisitor)
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
        let positions: Positions = crate::yaml::parse(TEXT, Path::new("f")).unwrap();
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
            assert_eq!(positions.line(path), line, "{path:?}");
        }
    }

    #[test]
    fn an_item_is_found_by_its_words() {
        let positions: Positions = crate::yaml::parse(TEXT, Path::new("f")).unwrap();
        for (path, text, found) in [
            (&["runtime", "list"] as &[&str], "x", Some((8, 10))),
            (&["runtime", "list"], "7", None),
            (&["runtime", "nothing"], "x", None),
            (&["repos"], "a", None),
            (&["runtime"], "x", None),
            (&["no"], "x", None),
        ] {
            assert_eq!(positions.item(path, text), found, "{path:?} {text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let files = ["user", "site"].map(|name| folder.path().join(name));
        std::fs::write(&files[1], TEXT).unwrap();
        let place = place(&files, |p| p.item(&["runtime", "list"], "x"));
        assert_eq!(place, Some(format!("{}:8:10", files[1].display())));
    }

    #[test]
    fn an_empty_file_has_no_places() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Positions::read(file.path()).unwrap(), None);
        assert_eq!(Positions::read(Path::new("/nonexistent/x")).unwrap(), None);
    }
}
