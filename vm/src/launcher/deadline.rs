//! When a job is to end.

use crate::clock::Clock;

/// The end of a job, measured so that setting the node's clock does not change it.
pub(super) struct Deadline {
    /// In seconds since boot, sleep included.
    boot: Option<f64>,
    /// In unix seconds, as it was recorded last.
    unix: u64,
}

impl Deadline {
    pub(super) fn new(unix: Option<u64>, clock: &dyn Clock) -> Self {
        let left = |deadline: u64| deadline as f64 - clock.unix() as f64;
        Self {
            boot: unix.map(|deadline| clock.boot() + left(deadline)),
            unix: unix.unwrap_or(0),
        }
    }

    pub(super) fn is_over(&self, clock: &dyn Clock) -> bool {
        self.boot.is_some_and(|boot| clock.boot() >= boot)
    }

    /// The deadline in unix seconds, when the clock was set since.
    pub(super) fn moved(&mut self, clock: &dyn Clock) -> Option<u64> {
        let now = clock.unix() as f64 + (self.boot? - clock.boot());
        if (now - self.unix as f64).abs() < 5.0 {
            return None;
        }
        self.unix = now.max(0.0) as u64;
        Some(self.unix)
    }
}
