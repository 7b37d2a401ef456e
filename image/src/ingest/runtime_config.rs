//! The `config.json` at the top of an image's squashfs file.
//!
//! A minimal OCI runtime configuration with the keys that pcocc 0.7 reads: `root.path` is `rootfs`, and
//! `process` has `cwd`, `env`, `args` (the image's Cmd) and `entrypoint`, which is not in the runtime
//! specification.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Makes the runtime configuration of an image from its config.
pub fn runtime_config(config: &[u8]) -> Result<Vec<u8>> {
    let parsed: Value = serde_json::from_slice(config)
        .map_err(|error| Error::invalid("image config", format!("does not parse: {error}")))?;
    let wanted = |key: &str| {
        let value = parsed.get("config")?.get(key)?;
        let empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        (!empty).then(|| value.clone())
    };
    let mut process = Map::new();
    process.insert(
        "cwd".to_owned(),
        wanted("WorkingDir").unwrap_or_else(|| json!("/")),
    );
    for (key, source) in [
        ("env", "Env"),
        ("args", "Cmd"),
        ("entrypoint", "Entrypoint"),
    ] {
        if let Some(value) = wanted(source) {
            process.insert(key.to_owned(), value);
        }
    }
    let runtime = json!({
        "ociVersion": "0.1.0",
        "root": {"path": "rootfs"},
        "process": process,
    });
    serde_json::to_vec(&runtime).map_err(|error| Error::invalid("image config", error.to_string()))
}
