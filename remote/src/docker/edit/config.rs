//! Configs of edited images: the config that the shell runs on, and the config of the result.
//!
//! The result's config is the source's text with a few places changed. Every other member (Entrypoint, Cmd,
//! User, WorkingDir, Env, Labels, Volumes, ExposedPorts, future members of OCI) stays byte for byte. For that,
//! the text is cut at the ends of its members. The text was parsed before, so the cuts can rely on valid JSON.

use std::ops::Range;

use serde_json::{Map, Value, json};

use pcocc_image::{Error, Result};
use pcocc_layers::DiffId;

/// The history entry of an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The time, as in RFC 3339.
    pub created: String,
    /// The command, such as `pcocc docker edit centos new-centos`.
    pub created_by: String,
}

/// The config of an edited image: the source's with the `added` layers and one more history entry.
pub fn edited(config: &[u8], added: &[DiffId], entry: &HistoryEntry) -> Result<Vec<u8>> {
    let parsed = parse(config)?;
    let text = std::str::from_utf8(config).map_err(|error| bad(error.to_string()))?;
    let mut history = json!({"created": entry.created, "created_by": entry.created_by});
    if added.is_empty()
        && let Value::Object(members) = &mut history
    {
        members.insert("empty_layer".to_owned(), Value::Bool(true));
    }
    let top = Members::of(text, 0..text.len());
    let rootfs = top
        .value("rootfs")
        .ok_or_else(|| bad("has no rootfs".to_owned()))?;
    let diff_ids = Members::of(text, rootfs)
        .value("diff_ids")
        .ok_or_else(|| bad("has no diff_ids".to_owned()))?;
    // Ranges of the text and their replacements, applied from the end to the start.
    let mut changes: Vec<(Range<usize>, String)> = Vec::new();
    let is_empty = |pointer| match parsed.pointer(pointer) {
        Some(Value::Array(items)) => items.is_empty(),
        _ => true,
    };
    if !added.is_empty() {
        let ids: Vec<_> = added
            .iter()
            .map(|diff_id| json!(diff_id.to_string()).to_string())
            .collect();
        changes.push(appended(
            text,
            diff_ids,
            is_empty("/rootfs/diff_ids"),
            &ids.join(","),
        ));
    }
    match (top.value("history"), parsed.get("history")) {
        (Some(place), Some(Value::Array(items))) => {
            changes.push(appended(
                text,
                place,
                items.is_empty(),
                &history.to_string(),
            ));
        }
        (Some(place), _) => changes.push((place, format!("[{history}]"))),
        (None, _) => changes.push(appended(
            text,
            top.outer.clone(),
            false,
            &format!("\"history\":[{history}]"),
        )),
    }
    if let Some(place) = top.value("created") {
        changes.push((place, json!(entry.created).to_string()));
    }
    changes.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    let mut made = text.to_owned();
    for (place, new) in changes {
        made.replace_range(place, &new);
    }
    Ok(made.into_bytes())
}

/// The config of the image that the shell runs on: the same files, and nothing that the image would do by
/// itself. It has no volumes, because docker would commit nothing of their content.
pub fn bare(config: &[u8], labels: &[(String, String)]) -> Result<Vec<u8>> {
    let parsed = parse(config)?;
    let mut made = Map::new();
    for key in [
        "architecture",
        "variant",
        "os",
        "os.version",
        "os.features",
        "created",
        "rootfs",
    ] {
        if let Some(value) = parsed.get(key) {
            made.insert(key.to_owned(), value.clone());
        }
    }
    let mut run = Map::new();
    for key in ["Env", "WorkingDir"] {
        if let Some(value) = parsed.pointer(&format!("/config/{key}")) {
            run.insert(key.to_owned(), value.clone());
        }
    }
    let labels: Map<String, Value> = labels
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    run.insert("Labels".to_owned(), Value::Object(labels));
    made.insert("config".to_owned(), Value::Object(run));
    serde_json::to_vec(&made).map_err(|error| bad(error.to_string()))
}

/// The image's own environment variable `name`.
pub(in crate::docker) fn variable(config: &[u8], name: &str) -> Option<String> {
    let parsed: Value = serde_json::from_slice(config).ok()?;
    let variables = parsed.pointer("/config/Env")?.as_array()?;
    variables.iter().find_map(|variable| {
        let (key, value) = variable.as_str()?.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

fn parse(config: &[u8]) -> Result<Value> {
    serde_json::from_slice(config).map_err(|error| bad(format!("does not parse: {error}")))
}

fn bad(why: String) -> Error {
    Error::invalid("image config", why)
}

/// A change that puts `items` before the end of the array or object at `place`.
fn appended(
    text: &str,
    place: Range<usize>,
    is_empty: bool,
    items: &str,
) -> (Range<usize>, String) {
    let inside = text.get(place.clone()).unwrap_or_default();
    // Go writes `null` for a missing list.
    if !inside.ends_with([']', '}']) {
        return (place, format!("[{items}]"));
    }
    let last = inside.len() - 1;
    let end = place.start
        + inside
            .get(..last)
            .unwrap_or_default()
            .trim_end_matches([' ', '\t', '\r', '\n'])
            .len();
    let comma = if is_empty { "" } else { "," };
    (end..end, format!("{comma}{items}"))
}

/// The members of one JSON object, as ranges of its text.
struct Members {
    /// The range of the object, braces included.
    outer: Range<usize>,
    members: Vec<(String, Range<usize>)>,
}

impl Members {
    /// The members of the object in `place`; none for any other value.
    fn of(text: &str, place: Range<usize>) -> Self {
        let bytes = text.as_bytes();
        let at = |i: usize| bytes.get(i).copied().unwrap_or_default();
        let skip_space = |mut i: usize| {
            while matches!(at(i), b' ' | b'\t' | b'\r' | b'\n') {
                i += 1;
            }
            i
        };
        let start = skip_space(place.start);
        let mut members = Vec::new();
        let mut i = skip_space(start + 1);
        while at(start) == b'{' && i < place.end && at(i) == b'"' {
            let end_of_key = value_end(bytes, i);
            let key = text.get(i..end_of_key).unwrap_or_default();
            let value = skip_space(skip_space(end_of_key) + 1);
            let end = value_end(bytes, value);
            if let Ok(key) = serde_json::from_str(key) {
                members.push((key, value..end));
            }
            i = skip_space(end);
            if at(i) != b',' {
                break;
            }
            i = skip_space(i + 1);
        }
        Self {
            outer: start..value_end(bytes, start),
            members,
        }
    }

    /// The range of the value of `key`; the last one counts, as in parsing.
    fn value(&self, key: &str) -> Option<Range<usize>> {
        let found = self.members.iter().rev().find(|(k, _)| k == key)?;
        Some(found.1.clone())
    }
}

/// The end of the value that starts at `start`.
fn value_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut in_text = false;
    let mut i = start;
    while let Some(byte) = bytes.get(i) {
        if in_text {
            match byte {
                b'\\' => i += 1,
                b'"' => in_text = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => in_text = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => return i,
                b'}' | b']' => depth -= 1,
                b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return i,
                _ => {}
            }
        }
        i += 1;
        if depth == 0 && !in_text && matches!(byte, b'"' | b'}' | b']') {
            return i;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use pcocc_layers::Digest;

    fn entry() -> HistoryEntry {
        HistoryEntry {
            created: "2026-11-25T18:00:00Z".into(),
            created_by: "pcocc docker edit \"a\" b".into(),
        }
    }

    fn added() -> Vec<DiffId> {
        vec![DiffId(Digest::of(b"new"))]
    }

    #[test]
    fn nothing_else_changes_by_a_byte() {
        let source = r#"{ "created":"then", "config" : {"Cmd":["\u003ca\u003e", "}"],"X":1e3,
 "Entrypoint":null, "rootfs": {"diff_ids": 7}},
 "rootfs":{"type":"layers","diff_ids" : [ "sha256:aa" ]},"history":[{"created_by":"x, ]"}
 ], "os":"linux"}
"#;
        let made = String::from_utf8(edited(source.as_bytes(), &added(), &entry()).unwrap());
        let id = Digest::of(b"new");
        let expected = format!(
            r#"{{ "created":"2026-11-25T18:00:00Z", "config" : {{"Cmd":["\u003ca\u003e", "}}"],"X":1e3,
 "Entrypoint":null, "rootfs": {{"diff_ids": 7}}}},
 "rootfs":{{"type":"layers","diff_ids" : [ "sha256:aa","{id}" ]}},"history":[{{"created_by":"x, ]"}},{{"created":"2026-11-25T18:00:00Z","created_by":"pcocc docker edit \"a\" b"}}
 ], "os":"linux"}}
"#
        );
        assert_eq!(made.unwrap(), expected);
    }

    #[test]
    fn configs_without_layers_or_history_get_them() {
        for source in [
            r#"{"rootfs":{"diff_ids":[]}}"#,
            r#"{"rootfs":{"diff_ids":null},"history":null}"#,
            r#"{"history":[],"rootfs":{"x":[],"diff_ids":[ ]}}"#,
        ] {
            let made = edited(source.as_bytes(), &added(), &entry()).unwrap();
            let made: Value = serde_json::from_slice(&made).unwrap();
            assert_eq!(
                made.pointer("/rootfs/diff_ids"),
                Some(&json!([Digest::of(b"new").to_string()])),
                "{source}"
            );
            assert_eq!(made["history"].as_array().unwrap().len(), 1, "{source}");
        }
        let same = edited(br#"{"rootfs":{"diff_ids":["x"]}}"#, &[], &entry()).unwrap();
        let same: Value = serde_json::from_slice(&same).unwrap();
        assert_eq!(same["history"][0]["empty_layer"], json!(true));
        assert_eq!(same["rootfs"]["diff_ids"], json!(["x"]));
        assert!(edited(b"{}", &added(), &entry()).is_err());
        assert!(edited(b"{", &added(), &entry()).is_err());
    }

    #[test]
    fn the_shells_image_does_nothing_by_itself() {
        let source = br#"{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":["x"]},"history":[],
            "config":{"Env":["A=b","PATH=/p"],"WorkingDir":"/w","Volumes":{"/v":{}},"Entrypoint":["x"],
            "User":"5","Healthcheck":{"Test":["CMD"]},"Labels":{"a":"b"},"OnBuild":["RUN x"]}}"#;
        let made = bare(source, &[("pcocc.edit".into(), "t".into())]).unwrap();
        let made: Value = serde_json::from_slice(&made).unwrap();
        assert_eq!(
            made["config"],
            json!({"Env": ["A=b", "PATH=/p"], "WorkingDir": "/w", "Labels": {"pcocc.edit": "t"}})
        );
        assert_eq!(made["rootfs"], json!({"diff_ids": ["x"]}));
        assert_eq!(variable(source, "PATH").as_deref(), Some("/p"));
        assert_eq!(variable(source, "NONE"), None);
    }

    proptest! {
        #[test]
        fn any_config_gains_one_layer_and_one_entry(
            label in ".*", cmd in prop::collection::vec(".*", 0..4), pretty: bool, history in 0usize..3,
        ) {
            let source = json!({
                "config": {"Cmd": cmd, "Labels": {label.clone(): label}},
                "rootfs": {"type": "layers", "diff_ids": ["sha256:aa"]},
                "history": vec![json!({"created_by": "{["}); history],
            });
            let text = if pretty {
                serde_json::to_string_pretty(&source).unwrap()
            } else {
                source.to_string()
            };
            let made = edited(text.as_bytes(), &added(), &entry()).unwrap();
            let made: Value = serde_json::from_slice(&made).unwrap();
            prop_assert_eq!(&made["config"], &source["config"]);
            prop_assert_eq!(made["history"].as_array().unwrap().len(), history + 1);
            prop_assert_eq!(made["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
        }
    }
}
