//! `pcocc docker status`: one docker VM in detail.

use pcocc_vm::clock::{Clock as _, SystemClock};
use pcocc_vm::job::{Job, State};

use crate::errors::Outcome;
use crate::host::jobs::JobOption;
use crate::invocation::{Invocation, Run};
use crate::messages;
use crate::output::{self, Format};
use crate::session::show_console;
use crate::verbs::docker::ls;

/// Show how a docker VM is doing
///
/// Also one that is over, with the reason; one that failed with the last lines of its console.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc docker status -j 1756495\n\n\
    JSON: the job's record, as in job.json, and `confirmed`.")]
pub(crate) struct Args {
    #[command(flatten)]
    job: JobOption,
    /// How to write it
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

impl Run for Args {
    fn action(&self) -> String {
        "show a docker VM".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let job = self.job.find(&invocation.host)?;
        match self.format {
            Format::Json => {
                let mut value = serde_json::to_value(&job.record)?;
                if let Some(object) = value.as_object_mut() {
                    object.insert("confirmed".into(), job.confirmed.into());
                }
                output::json(&value)
            }
            Format::Table => {
                output::text(&text(&job, SystemClock.unix()))?;
                if job.record.state == State::Failed {
                    show_console(&job.folder);
                }
                Ok(())
            }
        }
    }
}

fn text(job: &Job, now: u64) -> String {
    let record = &job.record;
    let mut lines = vec![
        ("job", format!("{} ({})", record.id, record.name)),
        ("state", ls::shown_state(job)),
        ("backend", record.backend.name().to_owned()),
        ("asked for", output::date(record.created as f64)),
    ];
    if let Some(error) = &record.error {
        lines.push(("because", error.clone()));
    }
    if let Some(node) = &record.node {
        lines.push(("node", node.clone()));
    }
    if !record.state.is_over() {
        if let Some(endpoint) = &record.endpoint {
            lines.push(("docker", endpoint.clone()));
        }
        if let Some(deadline) = record.deadline {
            let left = ls::left(deadline.saturating_sub(now));
            let end = output::date(deadline as f64);
            lines.push(("ends", format!("{end} (in {left})")));
        }
        if let Some(mount) = &record.mount {
            lines.push(("mounted at", mount.display().to_string()));
        }
    }
    lines.push(("folder", job.folder.path().display().to_string()));
    lines
        .into_iter()
        .map(|(name, value)| format!("{name:<12}{}\n", messages::printable(&value)))
        .collect()
}
