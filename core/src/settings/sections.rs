//! The sections `containers` and `modules` of `containers.yaml`. Their lists join both files, so each item has its own
//! origin.

use std::path::Path;

use serde_json::Value;

use super::{Files, Origin, Setting, is_empty, written};
use crate::containers::{ContainerTemplates, SectionsFile};
use crate::repos::Scope;
use crate::yaml::ConfigError;

/// The values of both sections, item by item.
pub(super) fn settings(
    files: &Files,
    system: &Path,
    user: &Path,
) -> Result<Vec<Setting>, ConfigError> {
    let raw = [(Scope::User, user), (Scope::System, system)]
        .into_iter()
        .map(|(scope, file)| Ok((scope, files.json(&SectionsFile::read(file)?)?)))
        .collect::<Result<Vec<_>, ConfigError>>()?;
    let mut settings = Vec::new();
    for (section, templates) in entries(files.json(&ContainerTemplates::load(system, user)?)?) {
        for (name, template) in entries(templates) {
            for (key, value) in entries(template) {
                let mut path = vec![section.clone(), name.clone(), key];
                let Value::Array(items) = value else {
                    files.flatten(value, &mut path, &mut settings);
                    continue;
                };
                for (index, value) in items.into_iter().enumerate() {
                    let origin = raw
                        .iter()
                        .find_map(|(scope, whole)| item(files, *scope, whole, &path, &value))
                        .unwrap_or(Origin::Default);
                    settings.push(Setting {
                        file: files.name,
                        key: format!("{}[{index}]", written(&path)),
                        value,
                        origin,
                    });
                }
            }
        }
    }
    settings.retain(|setting| !is_empty(&setting.value));
    Ok(settings)
}

fn entries(value: Value) -> impl Iterator<Item = (String, Value)> {
    let entries = match value {
        Value::Object(entries) => Some(entries),
        _ => None,
    };
    entries.into_iter().flatten()
}

/// The origin of `item` in the list at `path` of the file of `scope`, whose content is `whole`. A repeated item counts at
/// its last position.
fn item(
    files: &Files,
    scope: Scope,
    whole: &Value,
    path: &[String],
    item: &Value,
) -> Option<Origin> {
    let list = path
        .iter()
        .try_fold(whole, |value, key| value.get(key.as_str()))?;
    let number = match list {
        Value::Array(items) => items.iter().rposition(|known| known == item)?,
        _ => return None,
    };
    let number = number.to_string();
    let path: Vec<&str> = path.iter().map(String::as_str).chain([&*number]).collect();
    files.at(Some(scope), &path)
}
