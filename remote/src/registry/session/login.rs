//! Answers to the challenges of a registry: a password, or a token of the server that it names.

use base64::Engine as _;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, Url};
use serde::Deserialize;

use super::super::challenge::Challenge;
use super::super::credentials::Credentials;
use super::Session;
use pcocc_image::{Error, Result};

impl Session {
    /// Answers the challenge of a 401, if the registry itself asks: what it redirects to gets no credentials, and names
    /// no realm that does.
    pub(super) fn log_in(&self, response: &Response) -> Result<()> {
        if !self.is_own(response.url()) {
            return Err(Error::Denied {
                what: format!("registry {}", self.host),
                why: format!(
                    "redirects to {}, which wants credentials; they are for the registry alone",
                    response.url().origin().ascii_serialization()
                ),
            });
        }
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let headers = headers.filter_map(|value| value.to_str().ok());
        let mut challenges: Vec<_> = headers.flat_map(Challenge::parse).collect();
        // Tokens come first, as for docker: nobody needs a password for an anonymous one.
        challenges.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
        let mut refused = None;
        for challenge in &challenges {
            match self.answer(challenge) {
                Ok(value) => {
                    let mut value = HeaderValue::from_str(&value)
                        .map_err(|_| self.failed("log in", "its token is malformed".to_owned()))?;
                    value.set_sensitive(true);
                    *self.authorization.lock() = Some(value);
                    return Ok(());
                }
                Err(error @ Error::Cancelled) => return Err(error),
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
        Err(refused.unwrap_or_else(|| self.failed("log in", "it names no way to do so".to_owned())))
    }

    /// The `Authorization` that answers a challenge.
    fn answer(&self, challenge: &Challenge) -> Result<String> {
        match (challenge, &self.credentials) {
            (Challenge::Basic, Some(Credentials::Password { user, password })) => {
                self.passwords.sent_to(&self.parse(&self.base)?);
                Ok(basic(user, password))
            }
            (Challenge::Basic, _) => Err(Error::Denied {
                what: format!("registry {}", self.host),
                why: format!(
                    "wants a user name and password; log in first: docker login {}",
                    self.host
                ),
            }),
            (Challenge::Bearer { .. }, Some(Credentials::RegistryToken(token))) => {
                self.passwords.sent_to(&self.parse(&self.base)?);
                Ok(format!("Bearer {token}"))
            }
            (Challenge::Bearer { realm, service }, _) => {
                Ok(format!("Bearer {}", self.token(realm, service.as_deref())?))
            }
        }
    }

    /// Gets a bearer token from the realm of a challenge.
    fn token(&self, realm: &str, service: Option<&str>) -> Result<String> {
        let url = self.parse(realm)?;
        match url.scheme() {
            "https" => {}
            "http" if self.base.starts_with("http:") => {}
            "http" => {
                return Err(self.failed("log in", format!("its token server {url} has no TLS")));
            }
            _ => return Err(self.failed("log in", format!("its token server {url} is none"))),
        }
        if let Some(Credentials::IdentityToken(_) | Credentials::Password { .. }) =
            &self.credentials
        {
            self.passwords.sent_to(&url);
        }
        let action = "issue a token";
        let request = || self.token_request(&url, service).send();
        let response = self.repeat(request, true, action)?;
        let response = self.successful(response, "log in")?;
        let bytes = self.document(response, "token")?;
        token_in(&bytes)
            .map_err(|error| self.failed("issue a token", format!("it does not parse: {error}")))?
            .ok_or_else(|| self.failed("issue a token", "there is none in its answer".to_owned()))
    }

    /// Asks the token server at `url` for the rights this session needs (docker's token specification).
    fn token_request(&self, url: &Url, service: Option<&str>) -> RequestBuilder {
        let actions = if self.push { "pull,push" } else { "pull" };
        let scope = format!("repository:{}:{actions}", self.repository);
        let mut fields = vec![("scope", scope.as_str())];
        fields.extend(service.map(|service| ("service", service)));
        let (clients, mut url) = (self.clients(url), url.clone());
        match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                fields.push(("grant_type", "refresh_token"));
                fields.push(("refresh_token", token));
                fields.push(("client_id", "pcocc"));
                let mut form = url.clone();
                form.set_query(None);
                form.query_pairs_mut().extend_pairs(&fields);
                clients
                    .login
                    .post(url)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.query().unwrap_or_default().to_owned())
            }
            Some(Credentials::Password { user, password }) => {
                fields.push(("account", user));
                url.query_pairs_mut().extend_pairs(&fields);
                clients
                    .login
                    .get(url)
                    .header(AUTHORIZATION, basic(user, password))
            }
            Some(Credentials::RegistryToken(_)) | None => {
                url.query_pairs_mut().extend_pairs(&fields);
                clients.any.get(url)
            }
        }
    }
}

/// The token in the answer of a token server (docker's token specification).
pub(in crate::registry) fn token_in(answer: &[u8]) -> serde_json::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(answer)?;
    let tokens = [answer.token, answer.access_token].into_iter().flatten();
    Ok(tokens.into_iter().find(|token| !token.is_empty()))
}

fn basic(user: &str, password: &str) -> String {
    let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {both}")
}
