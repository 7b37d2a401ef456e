//! The `config.json` at the top of an image's squashfs file.
//!
//! A minimal OCI runtime configuration with the keys that pcocc 0.7 reads: `root.path` is `rootfs`, and
//! `process` has `cwd`, `env`, `args` (the image's Cmd) and `entrypoint`, which is not in the runtime
//! specification.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::oci::lenient;

/// Makes the runtime configuration of an image from its config.
pub fn runtime_config(config: &[u8]) -> Result<Vec<u8>> {
    let bad = |why: String| Error::invalid("image config", why);
    let parsed: Value =
        serde_json::from_slice(config).map_err(|error| bad(format!("does not parse: {error}")))?;
    let document = lenient::object(parsed, &["config"]);
    let config = document.and_then(|mut document| {
        let config = document.shift_remove("config").unwrap_or_default();
        lenient::object(config, &["WorkingDir", "Env", "Cmd", "Entrypoint"])
    });
    let config = config.ok_or_else(|| bad("is no object".to_owned()))?;
    let wanted = |key: &str| {
        let value = config.get(key)?;
        let empty = match value {
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty() || items.as_slice() == [""],
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
            let value = match value {
                Value::String(text) => json!([text]),
                value => value,
            };
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
