//! Reports of a launcher to the command that started it: one line of JSON each, on the launcher's standard output.
//!
//! The job's record says the same, but a file on a shared file system may be seen seconds later.

use serde::{Deserialize, Serialize};

use crate::job::Record;

/// One report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// The job's record has changed.
    Record(Box<Record>),
    /// A step of the start, in words.
    Stage(String),
    /// Something the user should know.
    Warning(String),
}

impl Report {
    /// The report as a line, with its end.
    pub fn line(&self) -> String {
        // Nothing in there can fail to be written as JSON.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Reads a line; `None` for what is no report, such as a message of srun's.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}
