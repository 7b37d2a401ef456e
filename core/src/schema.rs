//! The config files as JSON schemas, generated from the very types that read them.
//!
//! Data path: the types of [`crate::repos`], [`crate::containers`] … → [`schema`] → `pcocc config schema`. Tests compare
//! `docs/schemas/` and the tables in `docs/CONFIGURATION.md` with it, so that a key without documentation does not pass.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::{batch, containers, repos, templates};

/// Names of the config files.
pub const FILES: [&str; 4] = [repos::FILE, containers::FILE, batch::FILE, templates::FILE];

/// The JSON schema (draft 2020-12) of the config file called `file`; `None` when there is no such file.
pub fn schema(file: &str) -> Option<Value> {
    let schema = match file {
        repos::FILE => of::<repos::File>(),
        containers::FILE => of::<containers::File>(),
        batch::FILE => of::<batch::File>(),
        templates::FILE => of::<templates::File>(),
        _ => return None,
    };
    Some(schema.to_value())
}

fn of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>()
}

#[cfg(test)]
mod tests;
