//! The keys of a schema, as the tables in `docs/CONFIGURATION.md` list them.

use std::collections::BTreeSet;

use serde_json::Value;

/// A key of a config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Its path: `repos[].name`; `*` stands for a name of the user's choice.
    pub(super) path: String,
    /// Type of its value, in words.
    pub(super) kind: String,
    /// Its default, in Markdown, if it has one.
    pub(super) default: Option<String>,
    /// Whether the key must be present.
    pub(super) required: bool,
    /// Its description: one paragraph of Markdown.
    pub(super) description: String,
}

/// Lists the keys of a schema in the order in which they are declared.
pub(super) fn keys(schema: &Value) -> Vec<Key> {
    let mut keys = Vec::new();
    collect(schema, schema, "", &mut BTreeSet::new(), &mut keys);
    keys
}

/// Adds the keys below `node` of the schema `root`; `open` are the definitions that we are in.
fn collect(
    root: &Value,
    node: &Value,
    path: &str,
    open: &mut BTreeSet<String>,
    keys: &mut Vec<Key>,
) {
    let (node, name) = resolved(root, node);
    if let Some(name) = &name
        && !open.insert(name.clone())
    {
        return;
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        for variant in list(node, choice) {
            collect(root, variant, path, open, keys);
        }
    }
    if let Some(items) = node.get("items") {
        collect(root, items, &format!("{path}[]"), open, keys);
    }
    let below = |key: &str| match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    };
    let required: Vec<&str> = list(node, "required").filter_map(Value::as_str).collect();
    let properties = node.get("properties").and_then(Value::as_object);
    for (key, property) in properties.into_iter().flatten() {
        let path = below(key);
        keys.push(Key {
            kind: kind(root, property),
            default: default(root, property),
            required: required.contains(&key.as_str()),
            description: description(root, property),
            path: path.clone(),
        });
        collect(root, property, &path, open, keys);
    }
    if let Some(values) = node.get("additionalProperties").filter(|v| v.is_object()) {
        collect(root, values, &below("*"), open, keys);
    }
    if let Some(name) = name {
        open.remove(&name);
    }
}

fn list<'v>(node: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    node.get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Follows `$ref`s to definitions of the same schema.
fn resolved<'v>(root: &'v Value, node: &'v Value) -> (&'v Value, Option<String>) {
    let Some(reference) = node.get("$ref").and_then(Value::as_str) else {
        return (node, None);
    };
    let target = reference
        .strip_prefix('#')
        .and_then(|pointer| root.pointer(pointer));
    (target.unwrap_or(&Value::Null), Some(reference.to_owned()))
}

/// The description of a property, else that of its type.
fn description(root: &Value, property: &Value) -> String {
    let words = |node: &Value| Some(node.get("description")?.as_str()?.replace('\n', " "));
    words(property)
        .or_else(|| words(resolved(root, property).0))
        .unwrap_or_default()
}

/// The default of a property: `x-default`, else its default value, else `none` for lists and maps.
fn default(root: &Value, property: &Value) -> Option<String> {
    if let Some(words) = property.get("x-default").and_then(Value::as_str) {
        return Some(words.to_owned());
    }
    let several = |node: &Value| {
        let (node, _) = resolved(root, node);
        ["items", "properties", "additionalProperties"]
            .iter()
            .any(|below| node.get(below).is_some())
    };
    match property.get("default").filter(|value| !value.is_null()) {
        Some(Value::Array(items)) if items.is_empty() => Some("none".to_owned()),
        Some(Value::Object(entries)) if entries.is_empty() => Some("none".to_owned()),
        Some(value) => Some(format!("`{}`", value.to_string().trim_matches('"'))),
        None => {
            (several(property) || list(property, "anyOf").any(several)).then(|| "none".to_owned())
        }
    }
}

/// The type of a node in words: `text`, `list of text`, `keep, gzip or none` …
fn kind(root: &Value, node: &Value) -> String {
    let (node, _) = resolved(root, node);
    for choice in ["anyOf", "oneOf"] {
        let mut kinds: Vec<String> = list(node, choice)
            .map(|variant| kind(root, variant))
            .filter(|kind| !kind.is_empty())
            .collect();
        kinds.dedup();
        if !kinds.is_empty() {
            return alternatives(&kinds);
        }
    }
    if let Some(word) = node.get("const").and_then(Value::as_str) {
        return format!("`{word}`");
    }
    let words: Vec<String> = list(node, "enum")
        .filter_map(Value::as_str)
        .map(|word| format!("`{word}`"))
        .collect();
    if !words.is_empty() {
        return alternatives(&words);
    }
    let types = match node.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let kinds: Vec<String> = types
        .into_iter()
        .filter_map(|kind_of| match kind_of {
            "null" => None,
            "string" => Some("text".to_owned()),
            "boolean" => Some("true or false".to_owned()),
            "integer" | "number" => Some("number".to_owned()),
            "array" => Some(match node.get("items") {
                Some(items) => format!("list of {}", kind(root, items)),
                None => "list".to_owned(),
            }),
            _ => Some("keys".to_owned()),
        })
        .collect();
    alternatives(&kinds)
}

fn alternatives(kinds: &[String]) -> String {
    match kinds {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
