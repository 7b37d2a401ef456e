//! `pcocc docker ls`: the user's docker VMs.

use pcocc_vm::clock::{Clock as _, SystemClock};
use pcocc_vm::job::Job;
use serde::Serialize;

use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::output::{self, Format};

/// List docker VMs
///
/// Shows the jobs that are not over. A state in parentheses is the last that was known, of a job that cannot be seen
/// from here.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "ps",
    after_help = "Example:\n  pcocc docker ls --all\n\n\
                  JSON: a list of {job, name, state, confirmed, backend, node, endpoint, deadline, error}."
)]
pub(crate) struct Args {
    /// Show jobs that are over as well
    #[arg(short, long)]
    all: bool,
    /// How to write the list
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

/// A line of the list, for JSON.
#[derive(Debug, Serialize)]
struct Line {
    job: u32,
    name: String,
    state: &'static str,
    confirmed: bool,
    backend: &'static str,
    node: Option<String>,
    endpoint: Option<String>,
    deadline: Option<String>,
    error: Option<String>,
}

impl Run for Args {
    fn action(&self) -> String {
        "list docker VMs".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let mut list = invocation.host.list_jobs()?;
        list.retain(|job| self.all || !job.record.state.is_over());
        match self.format {
            Format::Json => {
                let lines: Vec<Line> = list.into_iter().map(line).collect();
                output::json(&lines)
            }
            Format::Table => {
                let now = SystemClock.unix();
                let header = [
                    "JOB", "NAME", "STATE", "BACKEND", "NODE", "LEFT", "ENDPOINT",
                ];
                let rows = list.iter().map(|job| row(job, now)).collect();
                output::table(&header, &["JOB", "LEFT"], rows)
            }
        }
    }
}

fn line(job: Job) -> Line {
    let record = job.record;
    Line {
        job: record.id.number(),
        name: record.name,
        state: record.state.name(),
        confirmed: job.confirmed,
        backend: record.backend.name(),
        node: record.node,
        endpoint: record.endpoint,
        deadline: record
            .deadline
            .and_then(|deadline| output::rfc3339(deadline as f64)),
        error: record.error,
    }
}

fn row(job: &Job, now: u64) -> Vec<String> {
    let record = &job.record;
    let dash = || "-".to_owned();
    vec![
        record.id.to_string(),
        record.name.clone(),
        shown_state(job),
        record.backend.name().to_owned(),
        record.node.clone().unwrap_or_else(dash),
        match record.deadline {
            Some(_) if record.state.is_over() => dash(),
            Some(deadline) => left(deadline.saturating_sub(now)),
            None => dash(),
        },
        record.endpoint.clone().unwrap_or_else(dash),
    ]
}

/// A job's state; in parentheses if it is only the last known one.
pub(super) fn shown_state(job: &Job) -> String {
    match job.confirmed {
        true => job.record.state.to_string(),
        false => format!("({})", job.record.state),
    }
}

/// A time in Slurm's form: `9:30`, `1:00:00`, `2-03:00:00`.
pub(super) fn left(seconds: u64) -> String {
    let (minutes, second) = (seconds / 60, seconds % 60);
    let (hours, minute) = (minutes / 60, minutes % 60);
    let (days, hour) = (hours / 24, hours % 24);
    match (days, hour) {
        (0, 0) => format!("{minute}:{second:02}"),
        (0, _) => format!("{hour}:{minute:02}:{second:02}"),
        _ => format!("{days}-{hour:02}:{minute:02}:{second:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_slurms() {
        for (seconds, text) in [
            (0, "0:00"),
            (570, "9:30"),
            (3600, "1:00:00"),
            (2 * 86400 + 3 * 3600, "2-03:00:00"),
        ] {
            assert_eq!(left(seconds), text);
        }
    }
}
