//! The warning that others can read a password.
//!
//! Docker sends passwords without TLS to registries that are listed as insecure, and so do we: the list says so. Who
//! wrote it may have thought of images alone.

use std::net::IpAddr;
use std::sync::Once;

use pcocc_core::progress::Reporter;
use reqwest::Url;

/// Warns once for each connection to a registry.
pub(super) struct PlainPasswords {
    progress: Reporter,
    told: Once,
}

impl PlainPasswords {
    pub(super) fn new(progress: &Reporter) -> Self {
        Self {
            progress: progress.clone(),
            told: Once::new(),
        }
    }

    /// Notes that a password or a token that stands for it goes to `url`.
    pub(super) fn sent_to(&self, url: &Url) {
        if is_seen(url) {
            self.told.call_once(|| {
                let origin = url.origin().ascii_serialization();
                self.progress.warn(format!(
                    "your password goes to {origin} without TLS, and everybody between can read it"
                ));
            });
        }
    }
}

/// Whether others see what is sent: it leaves this machine without TLS.
fn is_seen(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => bare == "localhost" || bare.ends_with(".localhost"),
    };
    url.scheme() != "https" && !is_loopback
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_on_the_machine_is_not_seen() {
        for (url, seen) in [
            ("http://registry.site/v2/", true),
            ("http://10.0.0.1:5000/v2/", true),
            ("http://[2001:db8::1]:5000/v2/", true),
            ("http://0.0.0.0:5000/v2/", true),
            ("http://localhost.site/", true),
            ("https://registry.site/v2/", false),
            ("http://127.0.0.1:5000/v2/", false),
            ("http://127.1.2.3/v2/", false),
            ("http://[::1]:5000/v2/", false),
            ("http://localhost:5000/v2/", false),
        ] {
            assert_eq!(is_seen(&Url::parse(url).unwrap()), seen, "{url}");
        }
    }
}
