//! Requests to a daemon: the API version in front of the path, and signs of life during the wait.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bollard::BollardRequest;
use hyper::body::Body as _;
use pcocc_core::cancel::Cancel;
use serde::de::DeserializeOwned;

use super::connection::{Connector, root_cause};
use super::endpoint::Endpoint;
use pcocc_image::{Error, Result};

/// How long a daemon may be silent before it is asked for a sign of life, and how long the answer may take.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pause: Duration,
    answer: Duration,
}

/// For requests that a daemon answers at once.
pub(super) const QUICK: Patience = Patience {
    pause: Duration::from_secs(2),
    answer: Duration::from_secs(3),
};

/// For transfers, which keep a daemon in a small virtual machine busy.
pub(super) const TRANSFER: Patience = Patience {
    pause: Duration::from_secs(2),
    answer: Duration::from_secs(20),
};

/// A connector and the API version its daemon speaks.
pub(super) struct Link {
    pub(super) endpoint: Endpoint,
    pub(super) connector: Connector,
    pub(super) prefix: OnceLock<String>,
}

impl Link {
    /// Sends a request; the first request negotiates the API version.
    pub(super) async fn send(
        &self,
        request: BollardRequest,
    ) -> Result<hyper::Response<hyper::body::Incoming>> {
        let prefix = match self.prefix.get() {
            Some(prefix) => prefix,
            None => {
                self.ping().await?;
                self.prefix.get().map_or("", String::as_str)
            }
        };
        self.connector.send(request, prefix).await
    }

    /// Asks for a sign of life; the answer has the API version.
    pub(super) async fn ping(&self) -> Result<()> {
        let answer = self.connector.send(get("/_ping")?, "").await?;
        let header = |name| answer.headers().get(name).and_then(|v| v.to_str().ok());
        let Some(version) = header("api-version").and_then(parse_version) else {
            return Err(self.connector.unreachable(format!(
                "is not a docker daemon: it answers /_ping with status {} and no API version{}",
                answer.status(),
                self.connector.tls_hint()
            )));
        };
        if !answer.status().is_success() {
            return Err(self
                .connector
                .unreachable(format!("is not well: it answers with {}", answer.status())));
        }
        let newest = bollard::API_DEFAULT_VERSION;
        let (major, minor) = version.min((newest.major_version, newest.minor_version));
        // Another thread may have set the same value.
        let _ = self.prefix.set(format!("/v{major}.{minor}"));
        Ok(())
    }

    /// Resolves when the daemon gives no more signs of life.
    pub(super) async fn silence(&self, patience: Patience) -> Error {
        loop {
            tokio::time::sleep(patience.pause).await;
            let asked = Instant::now();
            let connector = &self.connector;
            match tokio::time::timeout(patience.answer, self.ping()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                // The daemon is busy, perhaps with other transfers.
                Err(_) if connector.liveness.since(asked) || connector.lives().await => {}
                Err(_) => return connector.unreachable("does not answer any more"),
            }
        }
    }

    /// Converts bollard's error; `action` completes "refused to …".
    pub(super) fn explain(&self, action: &str, error: bollard::errors::Error) -> Error {
        use bollard::errors::Error as Bollard;
        match error {
            Bollard::IOError { err } => match err.downcast::<Error>() {
                Ok(error) => error,
                Err(error) => self.connector.broken_stream(&error.to_string()),
            },
            Bollard::HyperResponseError { err } => self.connector.broken(&err),
            Bollard::DockerResponseServerError { message, .. }
            | Bollard::DockerStreamError { error: message } => Error::Daemon {
                action: action.to_owned(),
                message: one_line(&message),
            },
            Bollard::JsonDataError { .. } | Bollard::JsonSerdeError { .. } => self
                .connector
                .unreachable(format!("gave an answer that makes no sense: {error}")),
            error => self.connector.unreachable(format!(
                "cannot be asked to {action}: {}",
                root_cause(&error)
            )),
        }
    }
}

impl Link {
    /// Reads a JSON document, which bounds its own items; `action` is as in [`Link::explain`].
    pub(super) async fn json<T: DeserializeOwned>(&self, path: &str, action: &str) -> Result<T> {
        let answer = self.send(get(path)?).await?;
        let status = answer.status();
        let mut body = Box::pin(answer.into_body());
        let mut bytes = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let frame = frame.map_err(|error| self.connector.broken(&error))?;
            bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        if !status.is_success() {
            #[derive(serde::Deserialize)]
            struct Refusal {
                message: String,
            }
            let words = match serde_json::from_slice(&bytes) {
                Ok(Refusal { message }) => message,
                Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
            };
            return Err(Error::Daemon {
                action: action.to_owned(),
                message: one_line(&words),
            });
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            self.connector
                .unreachable(format!("gave an answer that makes no sense: {error}"))
        })
    }
}

/// A request without a body.
pub(super) fn get(path: &str) -> Result<BollardRequest> {
    hyper::Request::get(path)
        .body(bollard::body_full(bytes::Bytes::new()))
        .map_err(|error| Error::invalid(format!("docker request {path:?}"), error.to_string()))
}

fn parse_version(text: &str) -> Option<(usize, usize)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The daemon's message on one line, shortened, without control characters.
pub(super) fn one_line(text: &str) -> String {
    let line: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(1000)
        .collect();
    if line.is_empty() {
        "it gives no reason".to_owned()
    } else {
        line
    }
}

/// Resolves when `cancel` is raised.
pub(super) async fn cancelled(cancel: &Cancel) -> Error {
    while !cancel.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Error::Cancelled
}
