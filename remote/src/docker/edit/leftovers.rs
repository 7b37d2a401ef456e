//! Containers of edits that were killed or kept.
//!
//! A container without changes is removed with its images. A container with changes stays until it is saved or
//! the user removes it: no edit is lost.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::{PROCESS, SOURCE, TOKEN, image_of, remove, token_of};
use crate::docker::client::Daemon;
use pcocc_image::Result;
use pcocc_image::repository::is_abandoned;
use pcocc_layers::Digest;

/// A container with unsaved changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub container: String,
    /// The user's name for the image.
    pub source: String,
    /// ID of the image.
    pub image: Option<Digest>,
}

/// Whether the labelled process has ended. A process of another machine counts as alive.
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
