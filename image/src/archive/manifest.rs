//! `manifest.json` of a docker archive: the list of images, and the choice of one.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::layout::list;

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Option<Vec<String>>,
}

/// Picks the image `reference`, or the only image.
pub(super) fn choose<'a>(
    listed: &'a [Listed],
    reference: Option<&str>,
    path: &Path,
) -> Result<&'a Listed> {
    let tags: Vec<&str> = listed
        .iter()
        .flat_map(|image| image.repo_tags.iter().flatten())
        .map(String::as_str)
        .collect();
    let Some(reference) = reference else {
        return match listed {
            [only] => Ok(only),
            [] => Err(Error::invalid(
                path.display().to_string(),
                "holds no image: its manifest.json is empty",
            )),
            _ => Err(Error::invalid(
                path.display().to_string(),
                format!(
                    "holds several images: {}; choose one with docker-archive:{}:NAME",
                    list(&tags),
                    path.display()
                ),
            )),
        };
    };
    let wanted = familiar(reference);
    listed
        .iter()
        .find(|image| {
            let mut tags = image.repo_tags.iter().flatten();
            tags.any(|tag| familiar(tag) == wanted)
        })
        .ok_or_else(|| {
            let reference: String = reference.chars().take(100).collect();
            Error::NotFound(format!(
                "name {reference:?} in the docker archive {} (it holds {})",
                path.display(),
                list(&tags)
            ))
        })
}

/// A reference without docker's own registry, and with a tag.
fn familiar(reference: &str) -> String {
    let name = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let has_tag = name
        .rsplit_once(':')
        .is_some_and(|(_, tag)| !tag.contains('/'));
    if has_tag {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}
