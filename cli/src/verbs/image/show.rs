//! `pcocc image show`: one image in detail.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use pcocc_image::oci::Image;
use pcocc_image::origin::Origin;
use pcocc_image::reference::ImageUri;
use pcocc_image::repository::{CacheKey, Kind, Meta, Repositories, Repository};
use pcocc_run::config::ImageConfig;
use serde::Serialize;

use super::list::total_size;
use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::messages::printable;
use crate::output::{self, Format};

/// Show one image in detail
///
/// Names its digests, layers and platform, what it runs, and its revisions.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc image show user:mycentos7\n  pcocc image show --format json centos@3\n\n\
    JSON: {name, kind, repo, path, revision, owner, date, size, description, revisions, layers} and, of \
    a container image, {id, manifest, platform, config, squashfs, origin}; origin is null, or {made_by, daemon, \
    source, parent, dockerfile} as far as they are known, parent {name, id, manifest}."
)]
pub(crate) struct Args {
    /// The image: [REPO:]IMAGE[@REVISION]
    image: String,
    /// How to write the details
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

/// An image, as `--format json` writes it. The keys are stable.
#[derive(Debug, Serialize)]
struct Details {
    name: String,
    kind: &'static str,
    repo: String,
    /// Folder of the repository.
    path: PathBuf,
    revision: u64,
    owner: String,
    date: Option<String>,
    size: u64,
    description: Option<String>,
    /// Lowest first.
    revisions: Vec<Revision>,
    /// Bottom first.
    layers: Vec<LayerDetails>,
    #[serde(flatten)]
    container: Option<Container>,
    #[serde(skip)]
    timestamp: f64,
}

#[derive(Debug, Serialize)]
struct Revision {
    revision: u64,
    date: Option<String>,
    size: u64,
    #[serde(skip)]
    timestamp: f64,
}

#[derive(Debug, Serialize)]
struct LayerDetails {
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct Container {
    /// Image ID: digest of the config.
    id: String,
    /// Digest of the manifest.
    manifest: String,
    platform: String,
    config: RunConfig,
    /// The root filesystem in the cache; null if the first use will make it.
    squashfs: Option<PathBuf>,
    /// The image's origin; null if it is unknown.
    origin: Option<Origin>,
}

/// The part of an image's config that says how the image runs.
#[derive(Debug, Serialize)]
struct RunConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

impl From<ImageConfig> for RunConfig {
    fn from(config: ImageConfig) -> Self {
        let words = |words: Vec<String>| (!words.is_empty()).then_some(words);
        let text = |text: String| (!text.is_empty()).then_some(text);
        Self {
            entrypoint: words(config.entrypoint),
            cmd: words(config.cmd),
            env: words(config.env),
            working_dir: text(config.working_dir),
            user: text(config.user),
        }
    }
}

impl Run for Args {
    fn action(&self) -> String {
        format!("show image {}", self.image)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let uri: ImageUri = self.image.parse()?;
        let repositories = invocation.host.repositories()?;
        let (repository, meta) = repositories.find(&uri)?;
        let details = Details::read(repositories, repository, &meta)?;
        match self.format {
            Format::Json => output::json(&details),
            Format::Table => output::text(&details.text()),
        }
    }
}

impl Details {
    fn read(
        repositories: &Repositories,
        repository: &Repository,
        meta: &Meta,
    ) -> pcocc_image::Result<Self> {
        let mut sizes = HashMap::new();
        let mut revisions = Vec::new();
        for revision in repository.revisions(meta.name())? {
            let meta = repository.meta(meta.name(), Some(revision))?;
            revisions.push(Revision {
                revision,
                date: output::rfc3339(meta.timestamp()),
                size: total_size(repository, &meta, &mut sizes),
                timestamp: meta.timestamp(),
            });
        }
        let image = match meta.kind() {
            Kind::Container => Some(repository.image(meta)?),
            _ => None,
        };
        let layers = match &image {
            Some(image) => image
                .layers()
                .iter()
                .map(|layer| LayerDetails {
                    digest: layer.digest.to_string(),
                    size: layer.size,
                    media_type: Some(layer.media_type().to_string()),
                    diff_id: Some(layer.diff_id.to_string()),
                })
                .collect(),
            None => meta
                .data_blobs()
                .iter()
                .map(|digest| LayerDetails {
                    digest: digest.to_string(),
                    size: sizes.get(digest).copied().unwrap_or_default(),
                    media_type: None,
                    diff_id: None,
                })
                .collect(),
        };
        Ok(Self {
            name: meta.name().to_owned(),
            kind: meta.kind().as_str(),
            repo: repository.name().to_owned(),
            path: repository.path().to_owned(),
            revision: meta.revision(),
            owner: meta.owner().to_owned(),
            date: output::rfc3339(meta.timestamp()),
            size: total_size(repository, meta, &mut sizes),
            description: meta.description().map(str::to_owned),
            revisions,
            layers,
            container: image.map(|image| Container::of(&image, repositories, repository, meta)),
            timestamp: meta.timestamp(),
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{label:<14}{}", printable(value));
        };
        line("Name:", &self.name);
        line(
            "Repository:",
            &format!("{} ({})", self.repo, self.path.display()),
        );
        let kind = match self.container {
            Some(_) => "container",
            None => "virtual machine",
        };
        line("Type:", &format!("{} ({kind})", self.kind));
        line("Revision:", &self.revision.to_string());
        line("Owner:", &self.owner);
        line("Date:", &output::date(self.timestamp));
        line("Size:", &output::size(self.size));
        if let Some(description) = &self.description {
            line("Description:", description);
        }
        if let Some(container) = &self.container {
            line("Image ID:", &container.id);
            line("Manifest:", &container.manifest);
            line("Platform:", &container.platform);
            let config = &container.config;
            for (label, words) in [
                ("Entrypoint:", &config.entrypoint),
                ("Command:", &config.cmd),
            ] {
                if let Some(words) = words {
                    line(label, &shell_words::join(words));
                }
            }
            for (label, value) in [("Directory:", &config.working_dir), ("User:", &config.user)] {
                if let Some(value) = value {
                    line(label, value);
                }
            }
            for (n, variable) in config.env.iter().flatten().enumerate() {
                line(if n == 0 { "Environment:" } else { "" }, variable);
            }
            if let Some(origin) = &container.origin {
                line("Made by:", &origin.made_by);
                let parent = origin.parent.as_ref().map(|parent| match parent.id {
                    Some(id) => format!("{} ({id})", parent.name),
                    None => parent.name.clone(),
                });
                for (label, value) in [
                    ("Parent:", parent),
                    ("Source:", origin.source.clone()),
                    ("Daemon:", origin.daemon.clone()),
                    (
                        "Dockerfile:",
                        origin.dockerfile.map(|digest| digest.to_string()),
                    ),
                ] {
                    if let Some(value) = value {
                        line(label, &value);
                    }
                }
            }
            match &container.squashfs {
                Some(path) => line("Squashfs:", &path.display().to_string()),
                None => line("Squashfs:", "not in the cache, made at first use"),
            }
        }
        for (n, layer) in self.layers.iter().enumerate() {
            let size = output::size(layer.size);
            let label = if n == 0 { "Layers:" } else { "" };
            line(label, &format!("{} {size}", layer.digest));
        }
        if self.revisions.len() > 1 {
            for (n, revision) in self.revisions.iter().enumerate() {
                let date = output::date(revision.timestamp);
                let size = output::size(revision.size);
                let label = if n == 0 { "Revisions:" } else { "" };
                line(label, &format!("{} {date} {size}", revision.revision));
            }
        }
        text
    }
}

impl Container {
    fn of(
        image: &Image,
        repositories: &Repositories,
        repository: &Repository,
        meta: &Meta,
    ) -> Self {
        let key = CacheKey::of_meta(meta, repository.name());
        Self {
            id: image.id().to_string(),
            manifest: image.manifest_digest().to_string(),
            platform: image.platform(),
            // A config that does not follow the specification is left out: the rest is useful.
            config: ImageConfig::parse(image.config())
                .unwrap_or_default()
                .into(),
            squashfs: repositories
                .cache()
                .filter(|cache| cache.contains(&key))
                .map(|cache| cache.entry_path(&key)),
            origin: meta.origin(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_members_of_a_config_are_null() {
        let config = br#"{"config": {"Cmd": ["sh"], "Entrypoint": [], "User": "", "Env": null}}"#;
        let shown = RunConfig::from(ImageConfig::parse(config).unwrap());
        let json = serde_json::to_value(shown).unwrap();
        let null = serde_json::Value::Null;
        assert_eq!(json["cmd"], serde_json::json!(["sh"]));
        for key in ["entrypoint", "env", "working_dir", "user"] {
            assert_eq!(json[key], null, "{key}");
        }
    }
}
