//! Which failures of a registry pass by themselves, and how long to wait for it.
//!
//! A registry that is busy, or whose proxy has lost it for a moment, answers 429, 502, 503 or 504; a connection breaks. A
//! request is then repeated, [`MOST`] times. The pause is the registry's own `Retry-After`, else it doubles.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::failure::is_about_tls;

/// Repetitions of one request.
pub(super) const MOST: u32 = 5;

/// The first pause, when the registry names none.
const FIRST: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });

/// The longest `Retry-After` that is waited for. Longer waits are the user's to decide.
const LONGEST: Duration = Duration::from_secs(120);

/// Counts the repetitions of one request.
#[derive(Debug, Default)]
pub(super) struct Retries(u32);

impl Retries {
    /// Which repetition comes next, from 1.
    pub(super) fn number(&self) -> u32 {
        self.0
    }

    /// The pause after which to repeat a request with this answer; `None` when the answer is to be taken.
    pub(super) fn after_answer(&mut self, response: &Response) -> Option<Duration> {
        if !is_passing(response.status()) {
            return None;
        }
        match asked_for(response.headers(), SystemTime::now()) {
            Some(pause) if pause > LONGEST => None,
            Some(pause) => self.next().map(|_| pause),
            None => self.next(),
        }
    }

    /// The pause after which to repeat a request that got no whole answer.
    pub(super) fn after_error(&mut self, error: &reqwest::Error) -> Option<Duration> {
        // Redirects are refused on purpose, and a server whose certificate is not trusted now is not trusted later.
        let passes = !(error.is_redirect() || error.is_builder() || is_about_tls(error));
        passes.then(|| self.next()).flatten()
    }

    fn next(&mut self) -> Option<Duration> {
        (self.0 < MOST).then(|| {
            self.0 += 1;
            FIRST * 2u32.pow(self.0 - 1)
        })
    }
}

/// Whether an answer says that the server cannot answer now.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The wait that an answer asks for (RFC 9110 §10.2.3: seconds, or a date).
pub(super) fn asked_for(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_given_in_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        for (value, seconds) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Tue, 06 Nov 1984 08:49:37 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            let wait = asked_for(&headers, now).map(|wait| wait.as_secs());
            assert_eq!(wait, seconds, "{value}");
        }
    }

    #[test]
    fn pauses_double_and_end() {
        let mut retries = Retries::default();
        let pauses: Vec<_> = std::iter::from_fn(|| retries.next()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16].map(|n| FIRST * n));
    }
}
