//! Clocks of a job.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time.
pub trait Clock {
    /// Wall clock, in unix seconds.
    fn unix(&self) -> u64;
    /// Seconds since the machine was booted, its sleep included. This clock is never set.
    fn boot(&self) -> f64;
}

/// The wall clock, in nanoseconds since 1970.
pub(crate) fn unix_nanoseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    fn boot(&self) -> f64 {
        // CLOCK_BOOTTIME, see proc_uptime(5); without /proc nothing here works.
        fs::read_to_string("/proc/uptime")
            .ok()
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .unwrap_or(0.0)
    }
}
