//! Credentials belong to one origin, and nothing goes from TLS to none.

use super::*;
use pcocc_core::progress::{Event, Progress, Reporter};

/// A registry with TLS that lies when `lie` has something to say, and is honest else.
fn lying_tls(lie: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Server {
    let image = sample();
    Server::start_tls(move |request| lie(request).unwrap_or_else(|| honest(&image, request)))
}

/// Folders by which a registry's authority is known, and those of `others` that it leads to.
struct Trust(tempfile::TempDir);

impl Trust {
    fn new(server: &Server, others: &[&Server]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for other in std::iter::once(&server).chain(others) {
            other.trust(folder.path(), &server.address);
        }
        Self(folder)
    }

    fn access(&self, credentials: Vec<CredentialFile>) -> Access {
        Access {
            certificate_folders: vec![self.0.path().to_owned()],
            credentials,
            ..Access::default()
        }
    }
}

fn redirect(to: &Server, request: &Request) -> Reply {
    let path = request.line.split(' ').nth(1).unwrap_or_default();
    reply(307, b"").with("location", format!("{}{path}", to.origin()))
}

fn password_for(server: &Server) -> Vec<CredentialFile> {
    let auth = base64::engine::general_purpose::STANDARD.encode("me:secret");
    config_with(json!({server.address.clone(): {"auth": auth}}))
}

/// Asks for a token of a realm at `realm`, unless there is one.
fn challenge(realm: &str, request: &Request) -> Option<Reply> {
    request.authorization.is_none().then(|| {
        reply(401, b"").with(
            "www-authenticate",
            format!("Bearer realm=\"{realm}/token\",service=\"reg\""),
        )
    })
}

/// No request had credentials, in a header or in a body.
#[track_caller]
fn got_no_credentials(server: &Server) {
    for request in server.seen() {
        assert_eq!(request.authorization, None, "{}", request.line);
        let body = String::from_utf8_lossy(&request.body);
        assert!(!body.contains("id%2Ftoken"), "{}: {body}", request.line);
    }
}

#[test]
fn tls_never_leads_to_none() {
    type Asks = fn(&Request) -> bool;
    let layer = |request: &Request| request.line.contains("/blobs/");
    let ping = |request: &Request| request.line == "GET /v2/";
    let cases: [(&str, Asks); 3] = [("manifest", is_manifest), ("blob", layer), ("ping", ping)];
    for (what, asks) in cases {
        let plain = Arc::new(lying(|_| None));
        let to = Arc::clone(&plain);
        let server = lying_tls(move |request| asks(request).then(|| redirect(&to, request)));
        let trust = Trust::new(&server, &[]);
        let error = pull(&server, trust.access(Vec::new()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("without TLS"), "{what}: {error}");
        assert!(error.contains(&plain.origin()), "{what}: {error}");
        assert!(plain.seen().is_empty(), "{what}");
    }
    // By way of a third server that has TLS.
    let plain = Arc::new(lying(|_| None));
    let to = Arc::clone(&plain);
    let between = Arc::new(lying_tls(move |request| Some(redirect(&to, request))));
    let to = Arc::clone(&between);
    let server = lying_tls(move |r| is_manifest(r).then(|| redirect(&to, r)));
    let trust = Trust::new(&server, &[&between]);
    let error = pull(&server, trust.access(Vec::new()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("without TLS"), "{error}");
    assert!(!between.seen().is_empty() && plain.seen().is_empty());
}

#[test]
fn tls_is_kept_where_a_registry_may_do_without() {
    let plain = Arc::new(lying(|_| None));
    let to = Arc::clone(&plain);
    let server = lying_tls(move |request| is_manifest(request).then(|| redirect(&to, request)));
    let error = pull(&server, access(&server)).unwrap_err().to_string();
    assert!(error.contains("without TLS"), "{error}");
    assert!(plain.seen().is_empty());
}

#[test]
fn blobs_may_be_elsewhere_and_are_fetched_without_credentials() {
    let store = Arc::new(lying_tls(|_| None));
    let to = Arc::clone(&store);
    let server = lying_tls(move |request| {
        let is_token = request.line.starts_with("GET /token");
        if is_token {
            return Some(reply(200, br#"{"token":"somebody"}"#));
        }
        if request.authorization.is_none() {
            return Some(reply(401, b"").with("www-authenticate", "Basic realm=\"test\""));
        }
        request
            .line
            .contains("/blobs/")
            .then(|| redirect(&to, request))
    });
    let trust = Trust::new(&server, &[&store]);
    pull(&server, trust.access(password_for(&server))).unwrap();
    assert!(!store.seen().is_empty());
    got_no_credentials(&store);
}

#[test]
fn what_a_registry_redirects_to_names_no_realm() {
    for basic in [true, false] {
        let realm = Arc::new(Server::start_tls(|_| reply(200, br#"{"token":"t"}"#)));
        let named = Arc::clone(&realm);
        let evil = Arc::new(lying_tls(move |request| match basic {
            true => Some(reply(401, b"").with("www-authenticate", "Basic realm=\"x\"")),
            false => challenge(&named.origin(), request),
        }));
        for step in ["/manifests/", "/blobs/", "GET /v2/"] {
            let to = Arc::clone(&evil);
            let server = lying_tls(move |request| {
                let leads = match step {
                    "GET /v2/" => request.line == step,
                    step => request.line.contains(step),
                };
                leads.then(|| redirect(&to, request))
            });
            let trust = Trust::new(&server, &[&evil, &realm]);
            let login = trust.access(password_for(&server));
            let error = pull(&server, login).unwrap_err().to_string();
            assert!(error.contains(&evil.origin()), "{step}: {error}");
            assert!(error.contains("registry alone"), "{step}: {error}");
            assert!(realm.seen().is_empty(), "{step}: the realm was asked");
            got_no_credentials(&evil);
        }
    }
}

#[test]
fn an_upload_elsewhere_gets_no_credentials() {
    let evil = Arc::new(Server::start(|_| {
        reply(401, b"").with("www-authenticate", "Basic realm=\"x\"")
    }));
    let to = Arc::clone(&evil);
    let server = Server::start(move |request| {
        if request.authorization.is_none() {
            return reply(401, b"").with("www-authenticate", "Basic realm=\"x\"");
        }
        match request.line.split(' ').next() {
            Some("GET") => reply(200, b"{}"),
            Some("HEAD") => reply(404, b""),
            _ => reply(202, b"").with("location", format!("{}/upload", to.origin())),
        }
    });
    let login = Access {
        credentials: password_for(&server),
        ..access(&server)
    };
    let pushed = copy(&sample(), &remote(&server, login), &Context::silent());
    let error = pushed.unwrap_err().to_string();
    assert!(!evil.seen().is_empty(), "{error}");
    got_no_credentials(&evil);
}

#[test]
fn a_token_server_passes_no_credentials_on() {
    let entries = [
        json!({"auth": base64::engine::general_purpose::STANDARD.encode("me:secret")}),
        json!({"identitytoken": "id/token"}),
    ];
    for entry in entries {
        for status in [302, 307, 308] {
            let evil = Arc::new(Server::start(|_| reply(200, br#"{"token":"t"}"#)));
            let to = Arc::clone(&evil);
            let own = Arc::new(Mutex::new(String::new()));
            let realm = Arc::clone(&own);
            let server = lying(move |request| {
                if request.line.contains("/token") {
                    let location = format!("{}/token", to.origin());
                    return Some(reply(status, b"").with("location", location));
                }
                challenge(&realm.lock(), request)
            });
            own.lock().clone_from(&server.origin());
            let login = Access {
                credentials: config_with(json!({server.address.clone(): entry.clone()})),
                ..access(&server)
            };
            let error = pull(&server, login).unwrap_err().to_string();
            assert!(
                error.contains("no credentials are sent"),
                "{status}: {error}"
            );
            assert!(evil.seen().is_empty(), "{status}");
        }
    }
}

#[test]
fn the_digest_of_a_manifest_is_compared_whatever_its_media_type() {
    for media_type in [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
        "application/vnd.docker.distribution.manifest.v2+json",
        // It says so of what is none.
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
        "",
    ] {
        refused("is corrupt", move |request| {
            let promised = Digest::of(b"another").to_string();
            is_manifest(request).then(|| {
                reply(200, sample().image.manifest())
                    .with("content-type", media_type)
                    .with("docker-content-digest", promised)
            })
        });
    }
    refused("digest", |request| {
        is_manifest(request).then(|| {
            reply(200, sample().image.manifest()).with("docker-content-digest", "sha256:beef")
        })
    });
    // The digest of a signed manifest is one of its text without the signatures.
    refused("schema 1", |request| {
        let promised = Digest::of(b"unsigned").to_string();
        is_manifest(request).then(|| {
            reply(200, br#"{"schemaVersion":1,"name":"app"}"#)
                .with(
                    "content-type",
                    "application/vnd.docker.distribution.manifest.v1+prettyjws",
                )
                .with("docker-content-digest", promised)
        })
    });
}

/// Remembers warnings.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn event(&self, event: Event) {
        if let Event::Warning(text) = event {
            self.0.lock().push(text);
        }
    }
}

#[test]
fn a_password_that_others_can_read_is_told_once() {
    let warned = |host: &str, server: &Server, docker_config: Value| {
        let address = server.address.replace("127.0.0.1", host);
        let access = Access {
            insecure_registries: vec![address.clone()],
            credentials: config_with(json!({address.clone(): docker_config})),
            ..Access::default()
        };
        let warnings = Arc::new(Warnings::default());
        let context = Context {
            progress: Reporter::new(Arc::clone(&warnings) as Arc<dyn Progress>),
            ..Context::silent()
        };
        let image = RegistryImage::new(&format!("{address}/app:1"), access).unwrap();
        let store = MemoryStore::temporary().unwrap();
        let sink = store.sink("image", None).unwrap();
        copy(&image, &*sink, &context).unwrap();
        std::mem::take(&mut *warnings.0.lock())
    };
    let auth = base64::engine::general_purpose::STANDARD.encode("me:secret");
    let password = json!({"auth": auth});
    let basic = lying(|request| {
        request
            .authorization
            .is_none()
            .then(|| reply(401, b"").with("www-authenticate", "Basic realm=\"test\""))
    });
    // This machine by a number that is none of its loopback's.
    let told = warned("0.0.0.0", &basic, password.clone());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("http://0.0.0.0:") && told[0].contains("without TLS"),
        "{told:?}"
    );
    assert_eq!(warned("127.0.0.1", &basic, password.clone()), [""; 0]);
    let open = lying(|_| None);
    assert_eq!(warned("0.0.0.0", &open, password), [""; 0]);
    let identity = json!({"identitytoken": "id/token"});
    // Its realm is on the loopback, but what stands for the password goes to the registry in none of its requests.
    assert_eq!(warned("0.0.0.0", &with_tokens(), identity), [""; 0]);
    let token = json!({"registrytoken": "somebody"});
    assert_eq!(warned("0.0.0.0", &with_tokens(), token).len(), 1);
}

#[test]
fn a_token_server_is_asked_by_http_alone() {
    for realm in [
        "file:///etc/passwd",
        "unix:///run/docker.sock",
        "ftp://127.0.0.1/t",
    ] {
        let server = lying(move |request| {
            request.authorization.is_none().then(|| {
                reply(401, b"").with("www-authenticate", format!("Bearer realm=\"{realm}\""))
            })
        });
        let login = Access {
            credentials: password_for(&server),
            ..access(&server)
        };
        let error = pull(&server, login).unwrap_err().to_string();
        assert!(
            error.contains(realm) && error.contains("is none"),
            "{error}"
        );
    }
}
