//! The number of a job.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;

/// A job's number: Slurm's, or one of the local backend's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(NonZeroU32);

impl JobId {
    /// Gives the job with this number; there is no job 0.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

impl FromStr for JobId {
    type Err = Error;

    /// Parses a number as Slurm prints it. Array tasks (`7_1`) and parts of heterogeneous jobs (`7+1`) are no
    /// jobs of pcocc.
    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(Self(number)),
            _ => Err(Error::NotAnId(text.to_owned())),
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// In JSON an id is text, as in Slurm's own output.
impl Serialize for JobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_numbers_are_ids() {
        assert_eq!("1756494".parse::<JobId>().unwrap().number(), 1_756_494);
        for text in [
            "",
            "0",
            "-1",
            "+1",
            " 1",
            "7_1",
            "7+1",
            "4294967296",
            "job_1",
            "../1",
            "1/..",
        ] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }
}
