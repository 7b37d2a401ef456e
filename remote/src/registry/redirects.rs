//! Where the answers of a registry may lead.
//!
//! Credentials are of one origin: scheme, host and port. Blobs may be elsewhere, and registries send their clients there
//! without credentials; but nothing goes from TLS to none, and a request with credentials of its own stays where it is.

use reqwest::redirect::{Attempt, Policy};

/// Most redirects of one request.
const MOST: usize = 10;

/// Redirects of requests for documents and blobs. The client takes the `Authorization` off at a change of origin.
pub(super) fn anywhere_safe() -> Policy {
    Policy::custom(|attempt| match refusal(&attempt) {
        Some(why) => attempt.error(why),
        None => attempt.follow(),
    })
}

/// The same for a client with a certificate of the user's, which is for one origin: a redirect to another is left to the caller.
pub(super) fn until_elsewhere() -> Policy {
    Policy::custom(|attempt| {
        let to = attempt.url().origin();
        if attempt.previous().iter().any(|url| url.origin() != to) {
            return attempt.stop();
        }
        match refusal(&attempt) {
            Some(why) => attempt.error(why),
            None => attempt.follow(),
        }
    })
}

/// Redirects of requests that have credentials in their body as well.
pub(super) fn same_origin() -> Policy {
    Policy::custom(|attempt| {
        let elsewhere = attempt
            .previous()
            .iter()
            .any(|url| url.origin() != attempt.url().origin());
        let why = elsewhere.then(|| {
            format!(
                "a redirect leads to {}, where no credentials are sent",
                attempt.url().origin().ascii_serialization()
            )
        });
        match why.or_else(|| refusal(&attempt)) {
            Some(why) => attempt.error(why),
            None => attempt.follow(),
        }
    })
}

/// Why a redirect is not followed.
fn refusal(attempt: &Attempt<'_>) -> Option<String> {
    let to = attempt.url();
    let had_tls = attempt.previous().iter().any(|url| url.scheme() == "https");
    if had_tls && to.scheme() != "https" {
        let to = to.origin().ascii_serialization();
        return Some(format!("a redirect leads from https to {to}, without TLS"));
    }
    (attempt.previous().len() > MOST).then(|| format!("it redirects more than {MOST} times"))
}
