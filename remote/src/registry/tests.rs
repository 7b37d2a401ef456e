mod logins;
mod mirrors;
mod origins;
mod pushing;
mod retries;
mod server;

use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::*;
use pcocc_image::store::Store;
use pcocc_image::testing::MemoryStore;
use pcocc_image::testing::memory::MemoryImage;
use pcocc_image::transfer::copy;
use pcocc_layers::Compression;
use server::{Reply, Request, Server, reply};

fn access(server: &Server) -> Access {
    Access {
        insecure_registries: vec![server.address.clone()],
        ..Access::default()
    }
}

fn remote(server: &Server, access: Access) -> RegistryImage {
    RegistryImage::new(&format!("{}/app:1", server.address), access).unwrap()
}

fn pull(server: &Server, access: Access) -> Result<Image> {
    let store = MemoryStore::temporary()?;
    let sink = store.sink("image", None)?;
    let pulled = copy(&remote(server, access), &*sink, &Context::silent());
    assert_eq!(store.get("image").is_some(), pulled.is_ok());
    pulled
}

/// Serves an image as a registry without passwords does.
fn honest(image: &MemoryImage, request: &Request) -> Reply {
    let path = request.line.strip_prefix("GET /v2/").unwrap_or_default();
    let digest = path.rsplit('/').next().unwrap_or_default();
    match path {
        "" => reply(200, b"{}"),
        "app/manifests/1" => reply(200, image.image.manifest()),
        _ if digest == image.image.manifest_digest().to_string() => {
            reply(200, image.image.manifest())
        }
        _ if digest == image.image.id().to_string() => reply(200, image.image.config()),
        _ => match digest
            .parse()
            .ok()
            .and_then(|d: Digest| image.blobs.get(&d))
        {
            Some(blob) => reply(200, blob),
            None => reply(
                404,
                br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"unknown"}]}"#,
            ),
        },
    }
}

fn sample() -> MemoryImage {
    MemoryImage::new(&[b"first", &[3; 300_000]], Compression::Gzip)
}

/// A registry that lies when `lie` has something to say, and is honest else.
fn lying(lie: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Server {
    let image = sample();
    Server::start(move |request| lie(request).unwrap_or_else(|| honest(&image, request)))
}

/// Pulls from such a registry, which must fail with these words.
fn refused(words: &str, lie: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) {
    let server = lying(lie);
    let error = pull(&server, access(&server)).unwrap_err().to_string();
    assert!(error.contains(words), "{error:?} lacks {words:?}");
    assert!(error.len() < 1200, "{error}");
}

fn is_manifest(request: &Request) -> bool {
    request.line.contains("/manifests/")
}

fn is_blob(request: &Request, digest: Digest) -> bool {
    request.line.ends_with(&format!("/blobs/{digest}"))
}

#[test]
fn an_image_is_pulled_by_tag_and_by_digest() {
    let server = lying(|_| None);
    let image = sample().image;
    assert_eq!(pull(&server, access(&server)).unwrap(), image);
    let name = format!("{}/app@{}", server.address, image.manifest_digest());
    let by_digest = RegistryImage::new(&name, access(&server)).unwrap();
    assert_eq!(by_digest.image(&Context::silent()).unwrap(), image);
    let name = format!("{}/app@{}", server.address, Digest::of(b"other"));
    let other = RegistryImage::new(&name, access(&server)).unwrap();
    assert!(matches!(
        other.image(&Context::silent()),
        Err(Error::NotFound(_))
    ));
}

#[test]
fn plain_http_is_for_listed_registries_only() {
    let server = lying(|_| None);
    let error = pull(&server, Access::default()).unwrap_err().to_string();
    assert!(error.contains("insecure_registries"), "{error}");
    assert!(server.seen().is_empty());
    let host_only = Access {
        insecure_registries: vec!["127.0.0.1".to_owned()],
        ..Access::default()
    };
    assert!(pull(&server, host_only).is_ok());
}

#[test]
fn the_default_registry_takes_the_place_of_docker_hub() {
    let access = || Access {
        default_registry: Some("reg.site:5000".to_owned()),
        ..Access::default()
    };
    for (text, name) in [
        ("centos", "reg.site:5000/library/centos:latest"),
        ("org/app:1", "reg.site:5000/org/app:1"),
        ("docker.io/centos", "docker.io/library/centos:latest"),
        ("ghcr.io/org/app", "ghcr.io/org/app:latest"),
        ("localhost/app", "localhost/app:latest"),
    ] {
        assert_eq!(RegistryImage::new(text, access()).unwrap().name(), name);
    }
    assert_eq!(
        RegistryImage::new("centos", Access::default())
            .unwrap()
            .name(),
        "docker.io/library/centos:latest"
    );
    assert!(RegistryImage::new(&"x".repeat(4096), access()).is_err());
}

#[test]
fn lies_about_manifests_are_refused() {
    refused("not found", |r| is_manifest(r).then(|| reply(404, b"")));
    refused("does not parse", |r| {
        is_manifest(r).then(|| reply(200, b"<html>"))
    });
    refused("is corrupt", |r| {
        let promised = Digest::of(b"x").to_string();
        is_manifest(r)
            .then(|| reply(200, sample().image.manifest()).with("docker-content-digest", promised))
    });
    refused("schema 1", |r| {
        is_manifest(r).then(|| reply(200, br#"{"schemaVersion":1,"name":"app"}"#))
    });
    refused("does not parse", |r| {
        is_manifest(r).then(|| reply(200, "[".repeat(100_000).as_bytes()))
    });
    refused("larger than", |r| {
        is_manifest(r).then(|| Reply {
            endless: true,
            ..reply(200, &[b' '; 65536])
        })
    });
    refused("no image for this machine", |r| {
        let entry = |arch: &str| {
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 5,
                   "digest": Digest::of(b"x").to_string(),
                   "platform": {"os": "linux", "architecture": arch}})
        };
        let list = json!({"schemaVersion": 2, "manifests": [entry("mips"), entry("s390x")]});
        is_manifest(r).then(|| reply(200, list.to_string().as_bytes()))
    });
    refused("overloaded (TOOMANYREQUESTS)", |r| {
        let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"overloaded"}]}"#;
        is_manifest(r).then(|| reply(429, body))
    });
    refused("no registry", |_| Some(reply(404, b"")));
    refused("HTTP status 500", |_| Some(reply(500, b"oops")));
}

#[test]
fn lies_about_blobs_are_refused() {
    let image = sample().image;
    let (config, layer) = (image.id(), image.layers()[1].clone());
    let digest = layer.digest;
    let blob = sample().blobs[&digest].clone();
    let short = blob[..blob.len() - 7].to_vec();
    let long = [&blob[..], b"more"].concat();
    let mut flipped = blob.clone();
    flipped[50] ^= 1;
    refused("corrupt", move |r| {
        is_blob(r, config).then(|| reply(200, b"{}"))
    });
    refused("not found", move |r| {
        is_blob(r, config).then(|| reply(404, b""))
    });
    refused("not found", move |r| {
        is_blob(r, digest).then(|| reply(404, b""))
    });
    refused("bytes instead of", {
        let short = short.clone();
        move |r| is_blob(r, digest).then(|| reply(200, &short))
    });
    refused("bytes instead of", {
        let long = long.clone();
        move |r| is_blob(r, digest).then(|| reply(200, &long))
    });
    refused("is corrupt", {
        let flipped = flipped.clone();
        move |r| is_blob(r, digest).then(|| reply(200, &flipped))
    });
    // It promises all and hangs up.
    refused("send a blob", {
        let length = blob.len().to_string();
        move |r| {
            is_blob(r, digest).then(|| reply(200, &short).with("content-length", length.clone()))
        }
    });
    refused("more than the", move |r| {
        is_blob(r, digest).then(|| Reply {
            endless: true,
            ..reply(200, &[0; 65536])
        })
    });
    refused("denied (DENIED); log in first", move |r| {
        let body = br#"{"errors":[{"code":"DENIED","message":"denied"}]}"#;
        is_blob(r, digest).then(|| reply(403, body))
    });
}

#[test]
fn a_silent_registry_is_left_when_cancelled() {
    let server = lying(|request| {
        request.line.contains("/blobs/").then(|| Reply {
            hang: true,
            ..reply(200, b"").with("content-length", "5000")
        })
    });
    let context = Context::silent();
    let cancel = context.cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        cancel.cancel();
    });
    let start = Instant::now();
    let remote = remote(&server, access(&server));
    let layer = sample().image.layers()[0].clone();
    let stuck = remote.session_to_read(&context).and_then(|session| {
        let mut blob = get_blob(&session, layer.digest, None)?;
        blob.read(&mut [0; 10]).map_err(Error::io("read", "blob"))
    });
    assert!(matches!(stuck, Err(Error::Cancelled)), "{stuck:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// Docker's `config.json` with these `auths`.
fn config_with(entries: Value) -> Vec<CredentialFile> {
    vec![file_of(&json!({"auths": entries}))]
}

fn file_of(config: &Value) -> CredentialFile {
    CredentialFile {
        path: "/home/me/.docker/config.json".into(),
        text: config.to_string(),
    }
}

#[test]
fn passwords_go_to_the_registry_that_asks() {
    let server = lying(|request| {
        let expected = base64::engine::general_purpose::STANDARD.encode("me:se:cret");
        (request.authorization != Some(format!("Basic {expected}")))
            .then(|| reply(401, b"").with("www-authenticate", "Basic realm=\"test\""))
    });
    let error = pull(&server, access(&server)).unwrap_err().to_string();
    assert!(error.contains("docker login"), "{error}");
    let auth = base64::engine::general_purpose::STANDARD.encode("me:se:cret");
    let login = Access {
        credentials: config_with(json!({server.address.clone(): {"auth": auth}})),
        ..access(&server)
    };
    assert!(pull(&server, login.clone()).is_ok());
    assert!(!format!("{login:?}").contains(&auth));
    let broken = Access {
        credentials: config_with(json!({server.address.clone(): {"auth": "???"}})),
        ..access(&server)
    };
    assert!(
        pull(&server, broken)
            .unwrap_err()
            .to_string()
            .contains("docker login")
    );
}

/// A registry that wants a token from a realm of its own.
fn with_tokens() -> Server {
    let own = Arc::new(Mutex::new(String::new()));
    let address = Arc::clone(&own);
    let server = lying(move |request| {
        if request.line.starts_with("GET /token") && request.line.contains("pull") {
            let who = match request.authorization.as_deref() {
                None => "nobody",
                Some(_) => "somebody",
            };
            return Some(reply(200, format!(r#"{{"token":"{who}"}}"#).as_bytes()));
        }
        if request.line.starts_with("POST /token") {
            let body = String::from_utf8_lossy(&request.body);
            let right = body.contains("refresh_token=id%2Ftoken") && body.contains("service=reg");
            return Some(match right {
                true => reply(200, br#"{"access_token":"somebody"}"#),
                false => reply(400, b"{}"),
            });
        }
        let address = address.lock().clone();
        (request.authorization.as_deref() != Some("Bearer somebody")).then(|| {
            reply(
                401,
                br#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#,
            )
            .with(
                "www-authenticate",
                format!("Bearer realm=\"http://{address}/token\",service=\"reg\""),
            )
        })
    });
    own.lock().clone_from(&server.address);
    server
}

#[test]
fn tokens_are_fetched_with_a_password_or_an_identity_token() {
    let server = with_tokens();
    let error = pull(&server, access(&server)).unwrap_err().to_string();
    assert!(error.contains("who are you"), "{error}");
    let password = base64::engine::general_purpose::STANDARD.encode("me:secret");
    for entry in [
        json!({"auth": password}),
        json!({"identitytoken": "id/token"}),
    ] {
        let login = Access {
            credentials: config_with(json!({server.address.clone(): entry})),
            ..access(&server)
        };
        assert!(pull(&server, login).is_ok());
    }
}

/// Takes uploads; what was refused or accepted is in the requests it saw.
fn taking(refuse: &'static str) -> Server {
    Server::start(move |request| {
        let words: Vec<&str> = request.line.split(' ').collect();
        if !refuse.is_empty() && request.line.contains(refuse) {
            return reply(
                500,
                br#"{"errors":[{"code":"UNKNOWN","message":"disk full"}]}"#,
            );
        }
        match words[0] {
            "GET" => reply(200, b"{}"),
            "HEAD" => reply(404, b""),
            "POST" => reply(202, b"").with("location", "/v2/app/blobs/uploads/1?state=a"),
            "PATCH" => reply(202, b"").with("location", "/v2/app/blobs/uploads/1?state=b"),
            _ => reply(201, b""),
        }
    })
}

fn push(server: &Server, image: &MemoryImage) -> Result<Image> {
    push_with(server, image, access(server))
}

fn push_with(server: &Server, image: &MemoryImage, access: Access) -> Result<Image> {
    copy(image, &remote(server, access), &Context::silent())
}

#[test]
fn an_image_is_pushed_with_its_manifest_last() {
    let server = taking("");
    let image = sample();
    push(&server, &image).unwrap();
    let seen = server.seen();
    let last = seen.last().unwrap();
    assert_eq!(last.line, "PUT /v2/app/manifests/1");
    assert_eq!(last.body, image.image.manifest());
    for layer in image.image.layers() {
        let patched = seen
            .iter()
            .any(|r| r.line.starts_with("PATCH") && r.body == image.blobs[&layer.digest]);
        assert!(patched);
        let closed = format!("digest=sha256%3A{}", layer.digest.hex());
        assert!(
            seen.iter()
                .any(|r| r.line.contains("state=b") && r.line.contains(&closed))
        );
    }
}

#[test]
fn a_push_that_fails_sends_no_manifest() {
    for refuse in ["POST", "PATCH", "PUT /v2/app/blobs", "HEAD"] {
        let server = taking(refuse);
        let error = push(&server, &sample()).unwrap_err().to_string();
        let words = if refuse == "HEAD" {
            "HTTP status 500"
        } else {
            "disk full"
        };
        assert!(error.contains(words), "{refuse}: {error}");
        assert!(
            !server
                .seen()
                .iter()
                .any(|r| r.line.contains("PUT /v2/app/manifests"))
        );
    }
    let server = taking("");
    let mut broken = sample();
    broken.breaks = Some((1, 100));
    let error = push(&server, &broken).unwrap_err().to_string();
    assert!(error.contains("the source broke"), "{error}");
    let mut lying = sample();
    for blob in lying.blobs.values_mut() {
        *blob.last_mut().unwrap() ^= 1;
    }
    assert!(matches!(push(&server, &lying), Err(Error::Corrupt { .. })));
    assert!(
        !server
            .seen()
            .iter()
            .any(|r| r.line.starts_with("PUT /v2/app/manifests"))
    );
    let pinned = format!("{}/app@{}", server.address, Digest::of(b"x"));
    let pinned = RegistryImage::new(&pinned, access(&server)).unwrap();
    assert!(copy(&sample(), &pinned, &Context::silent()).is_err());
}
