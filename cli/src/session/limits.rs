//! The limits of a session: the longest wait for the VM, and the end of the VM.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::errors::{Failure, TIMED_OUT};

/// Times of the warnings, in seconds before the end.
const WARNINGS: [u64; 2] = [600, 60];

/// When a wait for a VM ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GiveUp {
    /// The end.
    pub(crate) at: SystemTime,
    /// The whole wait, in seconds.
    pub(crate) seconds: u64,
}

impl GiveUp {
    /// The limit of a wait that begins now.
    pub(crate) fn after(seconds: u64) -> Self {
        Self {
            at: SystemTime::now() + Duration::from_secs(seconds),
            seconds,
        }
    }

    /// Whether the wait is over.
    pub(crate) fn is_over(&self) -> bool {
        SystemTime::now() >= self.at
    }

    /// The failure of a wait for the VM of a job.
    pub(crate) fn failure(&self) -> Failure {
        let why = format!("it was not ready within {} seconds", self.seconds);
        Failure::because(why)
            .hint("give it more time with -T, or see what it does with `pcocc docker logs`")
            .code(TIMED_OUT)
    }
}

/// Warns before the end of a VM.
#[derive(Debug)]
pub(crate) struct Countdown {
    warned: u64,
}

impl Countdown {
    /// A countdown from `now`, without the warnings that are past.
    pub(crate) fn new(deadline: Option<u64>, now: u64) -> Self {
        let left = deadline.map_or(u64::MAX, |deadline| deadline.saturating_sub(now));
        let warned = WARNINGS.into_iter().filter(|at| *at >= left).min();
        Self {
            warned: warned.unwrap_or(u64::MAX),
        }
    }

    /// The remaining time in words, if a warning is due.
    pub(crate) fn due(&mut self, deadline: Option<u64>, now: u64) -> Option<String> {
        let left = deadline?.saturating_sub(now);
        let at = WARNINGS.into_iter().filter(|at| left <= *at).min()?;
        if at >= self.warned {
            return None;
        }
        self.warned = at;
        Some(match left {
            left if left >= 120 => format!("{} minutes", left / 60),
            left => format!("{left} seconds"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_countdown_warns_once_for_each_time() {
        let mut countdown = Countdown::new(Some(2000), 1000);
        assert_eq!(countdown.due(Some(2000), 1000), None);
        assert_eq!(countdown.due(Some(2000), 1400).unwrap(), "10 minutes");
        assert_eq!(countdown.due(Some(2000), 1401), None);
        assert_eq!(countdown.due(Some(2000), 1941).unwrap(), "59 seconds");
        assert_eq!(countdown.due(Some(2000), 1999), None);
        assert_eq!(countdown.due(None, 0), None);
        // A job of half a minute needs no warning.
        let mut countdown = Countdown::new(Some(1030), 1000);
        assert_eq!(countdown.due(Some(1030), 1001), None);
        let mut countdown = Countdown::new(Some(1300), 1000);
        assert_eq!(countdown.due(Some(1300), 1010), None);
        assert_eq!(countdown.due(Some(1300), 1241).unwrap(), "59 seconds");
    }

    #[test]
    fn a_wait_is_over_at_its_end() {
        assert!(!GiveUp::after(60).is_over());
        assert!(GiveUp::after(0).is_over());
    }
}
