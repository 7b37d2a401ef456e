//! Jobs with their names and states, from their records.

use std::collections::HashMap;
use std::path::Path;

use pcocc_vm::job::{JobId, Jobs, Queue, Queued};

use crate::Candidate;

/// A queue that is never asked: the scheduler would take too long for a TAB.
#[derive(Debug)]
struct Unasked;

impl Queue for Unasked {
    fn query(&self, _ids: &[JobId]) -> Option<HashMap<JobId, Queued>> {
        None
    }
}

/// Gives the jobs that are not over, the newest first, whose records are in the user's configuration folder.
pub fn living(conf: &Path, typed: &str) -> Vec<Candidate> {
    let jobs = Jobs::open(conf).and_then(|jobs| jobs.list(&Unasked));
    let living = jobs.unwrap_or_default().into_iter().rev();
    living
        .filter(|job| !job.record.state.is_over())
        .map(|job| {
            let record = job.record;
            Candidate::new(
                record.id.to_string(),
                format!("{} {}", record.name, record.state),
            )
        })
        .filter(|candidate| candidate.value.starts_with(typed))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcocc_vm::job::{Backend, Record, State};

    #[test]
    fn jobs_come_with_name_and_state() {
        let conf = tempfile::tempdir().unwrap();
        let jobs = Jobs::open(conf.path()).unwrap();
        for (number, state) in [(9, State::Ready), (10, State::Ended), (101, State::Booting)] {
            let id = JobId::new(number).unwrap();
            let folder = jobs.create_slurm(id, false).unwrap();
            let mut record = Record::new(id, "docker", Backend::Slurm, "doe", 0);
            record.state = state;
            folder.write(&record).unwrap();
        }
        let found = living(conf.path(), "");
        assert_eq!(
            found,
            [
                Candidate::new("101", "docker booting"),
                Candidate::new("9", "docker ready")
            ]
        );
        assert_eq!(living(conf.path(), "1").len(), 1);
        assert_eq!(living(&conf.path().join("none"), ""), []);
    }
}
