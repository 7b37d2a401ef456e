//! `pcocc image repo list`: the configured repositories.

use std::path::PathBuf;

use serde::Serialize;

use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::messages::warn;
use crate::output::Format;

/// List the configured repositories
///
/// In the order in which they are searched; the first is the default to write to.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pcocc image repo list\n\nJSON: a list of {name, path, writable, version, images}."
)]
pub(crate) struct Args {
    /// How to write the list
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

/// One repository, as `--format json` writes it. The keys are stable.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    path: PathBuf,
    writable: bool,
    /// Version of its format; null when it cannot be read.
    version: Option<u32>,
    /// Number of images; null when it cannot be read.
    images: Option<usize>,
}

impl Run for Args {
    fn action(&self) -> String {
        "list the repositories".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let repositories = invocation.host.repositories()?;
        let rows: Vec<Row> = repositories
            .iter()
            .map(|repository| {
                let version = repository.version();
                if let Err(error) = &version {
                    warn(&error.to_string());
                }
                Row {
                    name: repository.name().to_owned(),
                    path: repository.path().to_owned(),
                    writable: repository.check_writable().is_ok(),
                    images: match version {
                        Ok(_) => repository.list().ok().map(|list| list.latest().count()),
                        Err(_) => None,
                    },
                    version: version.ok(),
                }
            })
            .collect();
        self.format.list(
            &["NAME", "PATH", "WRITABLE", "IMAGES"],
            &["IMAGES"],
            rows,
            Row::cells,
        )
    }
}

impl Row {
    fn cells(self) -> Vec<String> {
        vec![
            self.name,
            self.path.display().to_string(),
            if self.writable { "yes" } else { "no" }.to_owned(),
            self.images
                .map_or("unknown".to_owned(), |images| images.to_string()),
        ]
    }
}
