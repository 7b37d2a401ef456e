//! `pcocc image delete`: removes an image from a repository.

use pcocc_image::reference::ImageUri;

use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::output;

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

impl Run for Args {
    fn action(&self) -> String {
        format!("delete image {}", self.image)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let uri: ImageUri = self.image.parse()?;
        let repositories = invocation.host.repositories()?;
        let (repository, revisions) = repositories.delete(&uri)?;
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
