//! What edits left in a daemon whose process was killed, or which were kept on purpose.
//!
//! A container that changed nothing goes, with its images; one with changes stays until it is saved or
//! the user removes it: no edit is lost.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::{PROCESS, SOURCE, TOKEN, image_of, remove, token_of};
use crate::docker::client::Daemon;
use pcocc_image::Result;
use pcocc_image::repository::is_abandoned;
use pcocc_layers::Digest;

/// A container with changes that nobody saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub container: String,
    /// What the user called the image it is of.
    pub source: String,
    /// ID of that image.
    pub image: Option<Digest>,
}

/// Whether the process that a label names ended, here. One of another machine may live for ever.
fn is_dead(process: Option<&String>) -> bool {
    let now = SystemTime::now();
    process.is_some_and(|process| is_abandoned(&format!("{process}edit"), now, Duration::ZERO))
}

pub(super) fn collect(daemon: &Daemon) -> Result<Vec<Kept>> {
    let mut kept = Vec::new();
    let mut in_use = HashSet::new();
    for container in daemon.containers_labelled(TOKEN)? {
        let Some(token) = token_of(&container.labels) else {
            continue;
        };
        let is_abandoned = is_dead(container.labels.get(PROCESS));
        if is_abandoned {
            if container.is_running {
                daemon.kill_container(&container.name)?;
            }
            if daemon.container_changes(&container.name)?.is_empty() {
                remove(daemon, token);
                continue;
            }
            kept.push(Kept {
                container: container.name.clone(),
                source: container.labels.get(SOURCE).cloned().unwrap_or_default(),
                image: image_of(&container.labels),
            });
        }
        in_use.insert(token.to_owned());
    }
    for (_, labels) in daemon.images_labelled(TOKEN)? {
        if let Some(token) = token_of(&labels)
            && !in_use.contains(token)
            && is_dead(labels.get(PROCESS))
        {
            remove(daemon, token);
        }
    }
    Ok(kept)
}
