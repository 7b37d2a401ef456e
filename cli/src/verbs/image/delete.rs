//! `pcocc image delete`: takes an image out of a repository.

use pcocc_image::reference::ImageUri;

use crate::errors::{Outcome, While as _};
use crate::invocation::Invocation;
use crate::output;
use crate::stores;

/// Delete an image from a repository
///
/// Deletes all revisions of the image, or the one that is named. Space is given back by `pcocc image repo
/// gc`, once no other image needs the data.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc image delete user:mycentos7@5\n  pcocc image delete myrepo:centos7-cloud"
)]
pub(crate) struct Args {
    /// Image to delete: [REPO:]IMAGE[@REVISION]
    image: String,
}

impl Args {
    /// Deletes the image.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let action = || format!("delete image {}", self.image);
        let uri: ImageUri = self.image.parse().when(action)?;
        let repositories = stores::repositories(&invocation.environment)?;
        let (repository, revisions) = repositories.delete(&uri).when(action)?;
        let mut text = String::new();
        for revision in revisions {
            text += &format!(
                "Deleted image: {}:{}@{revision}\n",
                repository.name(),
                uri.name
            );
        }
        output::text(&text)
    }
}
