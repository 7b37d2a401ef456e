//! JSON as docker reads it.
//!
//! Go's reader ignores the case of keys and takes `null` for an empty list or map, so images that docker holds and runs have
//! such documents. Documents are never rewritten; only what is read of them is brought to one spelling.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Gives each key of `object` that is one of `known` in another case its known spelling; of several spellings the last counts,
/// as for Go. Members that are `null` go.
fn spelled(object: Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    let mut result = Map::new();
    for (key, value) in object {
        let name = known.iter().find(|name| name.eq_ignore_ascii_case(&key));
        let name = name.map_or(key, |name| (*name).to_owned());
        // The later member takes the place at the end, too.
        result.shift_remove(&name);
        if !value.is_null() {
            result.insert(name, value);
        }
    }
    result
}

/// The object in `value` with the `known` keys spelled so; empty for `null`.
pub fn object(value: Value, known: &[&str]) -> Option<Map<String, Value>> {
    match value {
        Value::Object(members) => Some(spelled(members, known)),
        Value::Null => Some(Map::new()),
        _ => None,
    }
}

/// A list of texts: `null` is an empty one, and a text a list of one.
pub fn texts(value: Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(text) => Some(vec![text]),
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Some(text),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// Parses a document in which the list `list` may be `null`. A key that is there twice is an error, as ever.
pub(super) fn parse<T: DeserializeOwned>(document: &[u8], list: &str) -> serde_json::Result<T> {
    let strict = serde_json::from_slice(document);
    if strict.is_ok() {
        return strict;
    }
    let mut document: Value = serde_json::from_slice(document)?;
    match document.get_mut(list).filter(|value| value.is_null()) {
        Some(null) => {
            *null = Value::Array(Vec::new());
            serde_json::from_value(document)
        }
        None => strict,
    }
}
