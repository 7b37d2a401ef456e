//! One repository of a registry: connection, requests, errors; `login.rs` answers challenges.
//!
//! Phases of [`Session::connect`]: `GET /v2/` over HTTPS; for registries listed as insecure, without
//! verification, then over HTTP → on 401 the challenge is answered: `Basic` with the credentials, `Bearer` with
//! a token from the realm in the challenge (docker token spec; OAuth2 refresh for identity tokens). A later 401
//! is answered once in the same way, because tokens expire. A 401 of another origin is never answered.

mod login;

pub(super) use login::token_in;

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use pcocc_core::cancel::Cancel;
use pcocc_core::progress::Reporter;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, Identity, Method, Response, StatusCode, Url};
use tokio::runtime::Runtime;

use super::Access;
use super::authorities;
use super::credentials::{self, Credentials};
use super::failure::{chain, is_about_tls, message};
use super::plain::PlainPasswords;
use super::redirects;
use super::retries::{MOST, Retries};
use pcocc_image::oci::MAX_DOCUMENT;
use pcocc_image::transfer::Context;
use pcocc_image::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest silence of a registry before it counts as gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Interval at which a waiting request checks the cancel flag.
const TICK: Duration = Duration::from_millis(100);

/// Most bytes of an error page that are read.
const MAX_ERROR: u64 = 64 << 10;

/// The HTTP clients for an origin.
#[derive(Clone)]
struct Clients {
    any: Client,
    /// For requests that prove who the user is: it leaves no origin.
    login: Client,
}

/// A connection to one repository of a registry.
pub(super) struct Session {
    runtime: Runtime,
    /// For the registry's own origin; these show the user's certificate, if there is one.
    own: Clients,
    /// For all else that the registry names.
    others: Clients,
    /// `https://HOST`
    base: String,
    host: String,
    repository: String,
    push: bool,
    /// The first folder for a certificate of this registry.
    certificates: Option<PathBuf>,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<HeaderValue>>,
    progress: Reporter,
    passwords: PlainPasswords,
    cancel: Cancel,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("base", &self.base)
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Connects to `host` and logs in.
    pub(super) fn connect(
        host: &str,
        repository: &str,
        push: bool,
        access: &Access,
        context: &Context,
    ) -> Result<Self> {
        let failed = |why: String| Error::Registry {
            registry: host.to_owned(),
            action: "connect".to_owned(),
            message: why,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let bare = host.split_once(':').map_or(host, |(name, _)| name);
        let insecure = access.insecure_registries.iter().any(|listed| {
            let listed = listed.trim_end_matches('/');
            listed == host || listed == bare
        });
        // The whole program has one TLS implementation: ring. Another caller may have set it already.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let trust = authorities::of(host, &access.certificate_folders)?;
        let client = |policy, identity: Option<&Identity>| {
            let builder = Client::builder();
            let builder = match identity {
                Some(identity) => builder.identity(identity.clone()),
                None => builder,
            };
            builder
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .user_agent(concat!("pcocc/", env!("CARGO_PKG_VERSION")))
                .tls_danger_accept_invalid_certs(insecure)
                .tls_certs_merge(trust.authorities.clone())
                .redirect(policy)
                // An address may be signed, and is for its own server alone.
                .referer(false)
                .build()
                .map_err(|error| failed(chain(&error)))
        };
        let others = Clients {
            any: client(redirects::anywhere_safe(), None)?,
            login: client(redirects::same_origin(), None)?,
        };
        let own = match &trust.identity {
            None => others.clone(),
            identity => Clients {
                any: client(redirects::until_elsewhere(), identity.as_ref())?,
                login: client(redirects::same_origin(), identity.as_ref())?,
            },
        };
        let api = if host == "docker.io" {
            "registry-1.docker.io"
        } else {
            host
        };
        let mut session = Self {
            runtime,
            own,
            others,
            base: format!("https://{api}"),
            host: host.to_owned(),
            repository: repository.to_owned(),
            push,
            certificates: access.certificate_folders.first().map(|dir| dir.join(host)),
            credentials: None,
            authorization: Mutex::new(None),
            progress: context.progress.clone(),
            passwords: PlainPasswords::new(&context.progress),
            cancel: context.cancel.clone(),
        };
        let mut answer = session.ping();
        if insecure && matches!(answer, Err(Error::Registry { .. })) {
            session.base = format!("http://{api}");
            answer = session.ping();
        }
        let answer = answer?;
        let find = || credentials::find(&access.credentials, host, repository, context);
        match answer.status() {
            StatusCode::UNAUTHORIZED => {
                session.credentials = find()?;
                session.log_in(&answer)?;
            }
            status if status.is_success() => {
                // The registry lets anybody read, but may want to know the writer.
                if push {
                    session.credentials = find()?;
                }
            }
            StatusCode::NOT_FOUND => {
                return Err(failed(
                    "it is no registry (no API version 2 there)".to_owned(),
                ));
            }
            _ => {
                session.successful(answer, "connect")?;
            }
        }
        Ok(session)
    }

    /// Host and port, as the user knows it.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    fn ping(&self) -> Result<Response> {
        let url = format!("{}/v2/", self.base);
        self.repeat(|| self.own.any.get(&url).send(), false, "connect")
    }

    /// The URL of something in this repository.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.parse(&format!("{}/v2/{}/{path}", self.base, self.repository))
    }

    fn parse(&self, url: &str) -> Result<Url> {
        Url::parse(url).map_err(|error| self.failed("give a usable address", error.to_string()))
    }

    /// The URL at which an upload or a download continues: the `Location` of an answer.
    pub(super) fn location(&self, response: &Response) -> Result<Url> {
        let location = response
            .headers()
            .get(reqwest::header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| self.failed("say where it goes on", "no Location header".into()))?;
        let url = response
            .url()
            .join(location)
            .map_err(|error| self.failed("say where it goes on", error.to_string()))?;
        if self.base.starts_with("https:") && url.scheme() != "https" {
            return Err(self.failed(
                "go on",
                format!("it wants to continue without TLS, at {url}"),
            ));
        }
        Ok(url)
    }

    /// Sends one request and waits for the head of the answer; answers a challenge once. A request that failed for the
    /// moment is repeated; after a broken connection, only a request that changes nothing.
    pub(super) fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &[(HeaderName, HeaderValue)],
        body: Option<Bytes>,
        action: &str,
    ) -> Result<Response> {
        let request = || {
            let mut request = self.clients(url).any.request(method.clone(), url.clone());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            if let Some(value) = self.authorization_for(url) {
                request = request.header(AUTHORIZATION, value);
            }
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            request.send()
        };
        let mut response = self.repeat(request, method.is_safe(), action)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.log_in(&response)?;
            response = self.repeat(request, method.is_safe(), action)?;
        }
        if !(response.status().is_redirection() && method.is_safe()) {
            return Ok(response);
        }
        // The user's certificate stays here.
        let elsewhere = self.location(&response)?;
        let request = || {
            let mut request = self.others.any.request(method.clone(), elsewhere.clone());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            request.send()
        };
        self.repeat(request, true, action)
    }

    /// The clients for an address.
    fn clients(&self, url: &Url) -> &Clients {
        match self.is_own(url) {
            true => &self.own,
            false => &self.others,
        }
    }

    /// Waits for the answer of the request that `start` sends, which is repeated while it fails for the moment; `on_errors`
    /// says whether also after a broken connection.
    fn repeat<F: Future<Output = reqwest::Result<Response>>>(
        &self,
        start: impl Fn() -> F,
        on_errors: bool,
        action: &str,
    ) -> Result<Response> {
        let mut retries = Retries::default();
        loop {
            let (why, pause) = match self.attempt(&start)? {
                Ok(response) => match retries.after_answer(&response) {
                    Some(pause) => (format!("answered {}", response.status()), pause),
                    None => return Ok(response),
                },
                Err(error) => match retries.after_error(&error).filter(|_| on_errors) {
                    Some(pause) => ("broke the connection".to_owned(), pause),
                    None => return Err(self.explain(action, &error)),
                },
            };
            self.rest(&why, &retries, pause)?;
        }
    }

    /// Pauses before a request is repeated, and says so.
    pub(super) fn rest(&self, why: &str, retries: &Retries, pause: Duration) -> Result<()> {
        self.progress.stage(format!(
            "Registry {} {why}; trying again in {:.1}s ({} of {MOST})",
            self.host,
            pause.as_secs_f64(),
            retries.number(),
        ));
        match self.attempt(|| tokio::time::sleep(pause)) {
            Err(error) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// Sends a request whose body exists only once.
    pub(super) fn send_stream(
        &self,
        method: &Method,
        url: &Url,
        body: reqwest::Body,
    ) -> Result<reqwest::Result<Response>> {
        let mut request = self
            .clients(url)
            .any
            .request(method.clone(), url.clone())
            .header(CONTENT_TYPE, "application/octet-stream");
        if let Some(value) = self.authorization_for(url) {
            request = request.header(AUTHORIZATION, value);
        }
        self.attempt(|| request.body(body).send())
    }

    /// The `Authorization` header, for the registry's own origin only.
    fn authorization_for(&self, url: &Url) -> Option<HeaderValue> {
        let authorization = self.authorization.lock();
        authorization.clone().filter(|_| self.is_own(url))
    }

    /// Whether an address is of the registry's own scheme, host and port.
    fn is_own(&self, url: &Url) -> bool {
        Url::parse(&self.base).is_ok_and(|own| own.origin() == url.origin())
    }

    /// Waits for the future of `start`, unless the operation is cancelled.
    pub(super) fn attempt<F: Future>(&self, start: impl FnOnce() -> F) -> Result<F::Output> {
        let outcome = self.runtime.block_on(async {
            // Requests use the runtime's clock when they are made.
            let mut future = pin!(start());
            loop {
                if self.cancel.is_cancelled() {
                    return None;
                }
                if let Ok(outcome) = tokio::time::timeout(TICK, &mut future).await {
                    return Some(outcome);
                }
            }
        });
        outcome.ok_or(Error::Cancelled)
    }

    /// As [`Session::attempt`], for a request that is made once.
    pub(super) fn wait<T, F: Future<Output = reqwest::Result<T>>>(
        &self,
        start: impl FnOnce() -> F,
        action: &str,
    ) -> Result<T> {
        self.attempt(start)?
            .map_err(|error| self.explain(action, &error))
    }

    /// Why `action` failed, and what helps.
    pub(super) fn explain(&self, action: &str, error: &reqwest::Error) -> Error {
        let words = chain(error);
        let mut hint = String::new();
        if is_about_tls(error) && self.base.starts_with("https:") {
            if let Some(folder) = &self.certificates {
                let file = folder.join("ca.crt");
                hint += "; if its certificate is of an authority this machine does not know, ";
                hint += &format!("put the authority's into {}", file.display());
            }
            hint += "; if it has no TLS, list it under insecure_registries in containers.yaml";
        }
        self.failed(action, format!("{words}{hint}"))
    }

    /// Fails with the registry's message unless the answer is a success.
    pub(super) fn successful(&self, response: Response, action: &str) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.read(response, MAX_ERROR).unwrap_or_default();
        let words = message(&body).unwrap_or_else(|| format!("HTTP status {status}"));
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(Error::Denied {
                what: format!("registry {}", self.host),
                why: format!(
                    "does not allow to {action} in {}: {words}; {}",
                    self.repository,
                    match self.credentials {
                        Some(_) => "check the rights of the user logged in there".to_owned(),
                        None => format!("log in first: docker login {}", self.host),
                    }
                ),
            });
        }
        Err(self.failed(action, words))
    }

    /// Reads a small answer.
    pub(super) fn document(&self, response: Response, what: &str) -> Result<Vec<u8>> {
        let bytes = self.read(response, MAX_DOCUMENT + 1)?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(Error::invalid(
                what,
                format!("is larger than {MAX_DOCUMENT} bytes"),
            ));
        }
        Ok(bytes)
    }

    /// Reads at most about `most` bytes of an answer.
    fn read(&self, mut response: Response, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < most {
            match self.wait(|| response.chunk(), "answer")? {
                Some(chunk) => bytes.extend_from_slice(&chunk),
                None => break,
            }
        }
        Ok(bytes)
    }

    fn failed(&self, action: &str, message: String) -> Error {
        Error::Registry {
            registry: self.host.clone(),
            action: action.to_owned(),
            message,
        }
    }
}
