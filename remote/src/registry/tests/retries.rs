//! Registries that fail for a moment.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::retries::MOST;
use super::server::{Reply, Request, Server, reply};
use super::{access, honest, is_blob, lying, pull, push, sample};
use pcocc_layers::Digest;

/// Fails the first `times` of the requests that `meant` picks, each by `failure` with its number.
fn failing(
    times: usize,
    meant: impl Fn(&Request) -> bool + Send + Sync + 'static,
    failure: impl Fn(usize) -> Reply + Send + Sync + 'static,
) -> Server {
    let failures = AtomicUsize::new(0);
    lying(move |request| {
        let number = meant(request).then(|| failures.fetch_add(1, Ordering::SeqCst))?;
        (number < times).then(|| failure(number))
    })
}

#[test]
fn what_fails_for_a_moment_is_asked_for_again() {
    let most = usize::try_from(MOST).unwrap();
    for status in [429, 502, 503, 504] {
        for part in ["/v2/ ", "/manifests/", "/blobs/"] {
            let meant = move |request: &Request| format!("{} ", request.line).contains(part);
            let busy = move |_| reply(status, b"{}").with("retry-after", "0");
            let server = failing(most, meant, busy);
            assert_eq!(
                pull(&server, access(&server)).unwrap(),
                sample().image,
                "{status} {part}"
            );
            let server = failing(most + 20, meant, busy);
            pull(&server, access(&server)).unwrap_err();
        }
    }
    // A wait of hours is not for a program to sit out.
    let server = failing(
        1,
        |request| request.line.contains("/manifests/"),
        |_| reply(429, b"{}").with("retry-after", "7200"),
    );
    let error = pull(&server, access(&server)).unwrap_err().to_string();
    assert!(error.contains("429"), "{error}");
    // What is wrong stays wrong.
    let server = failing(
        1,
        |request| request.line.contains("/manifests/"),
        |_| reply(500, b"{}"),
    );
    pull(&server, access(&server)).unwrap_err();
    let asked = server
        .seen()
        .iter()
        .filter(|r| r.line.contains("/manifests/"))
        .count();
    assert_eq!(asked, 1);
}

/// A registry that breaks the connection after a third of the layer, `times` times.
fn breaking(times: usize, ranges: bool) -> Server {
    let image = sample();
    let layer = image.image.layers()[1].digest;
    let breaks = AtomicUsize::new(0);
    Server::start(move |request| {
        if !is_blob(request, layer) {
            return honest(&image, request);
        }
        let blob = &image.blobs[&layer];
        let from = request.range.filter(|_| ranges).unwrap_or(0);
        let rest = &blob[from..];
        let status = if from > 0 { 206 } else { 200 };
        let number = breaks.fetch_add(1, Ordering::SeqCst);
        let sent = if number < times {
            rest.len() / 3
        } else {
            rest.len()
        };
        reply(status, &rest[..sent]).with("content-length", rest.len().to_string())
    })
}

#[test]
fn a_broken_download_goes_on_from_the_same_byte() {
    for ranges in [true, false] {
        let server = breaking(3, ranges);
        assert_eq!(pull(&server, access(&server)).unwrap(), sample().image);
        let layer = sample().image.layers()[1].digest;
        let seen = server.seen();
        let from: Vec<_> = seen
            .iter()
            .filter(|r| is_blob(r, layer))
            .map(|r| r.range)
            .collect();
        assert_eq!(from.len(), 4);
        assert_eq!(from[0], None);
        assert!(from[1] > Some(0), "{from:?}");
        assert_eq!(from[2] > from[1], ranges, "{from:?}");
    }
    let server = breaking(100, false);
    let error = pull(&server, access(&server)).unwrap_err().to_string();
    assert!(error.contains("send a blob"), "{error}");
}

/// Takes uploads, the first of each with 503 after `kept` bytes.
fn losing(kept: Option<usize>) -> Server {
    let patches = AtomicUsize::new(0);
    Server::start(
        move |request| match request.line.split(' ').next().unwrap() {
            "HEAD" => reply(404, b""),
            "POST" => reply(202, b"").with("location", "/v2/app/blobs/uploads/1"),
            "GET" if request.line.contains("/uploads/") => match kept {
                Some(kept) => reply(204, b"")
                    .with("location", "/v2/app/blobs/uploads/1?again")
                    .with("range", format!("0-{}", kept - 1)),
                None => reply(404, b"{}"),
            },
            "GET" => reply(200, b"{}"),
            "PATCH" if patches.fetch_add(1, Ordering::SeqCst) == 0 => {
                reply(503, b"{}").with("retry-after", "0")
            }
            "PATCH" => reply(202, b"").with("location", "/v2/app/blobs/uploads/1"),
            _ => reply(201, b""),
        },
    )
}

#[test]
fn a_broken_upload_goes_on_where_the_registry_has_it() {
    let image = sample();
    let layer = &image.blobs[&image.image.layers()[0].digest];
    for kept in [Some(10), None] {
        let server = losing(kept);
        push(&server, &image).unwrap();
        let seen = server.seen();
        let patches: Vec<_> = seen
            .iter()
            .filter(|r| r.line.starts_with("PATCH"))
            .collect();
        assert_eq!(patches[0].body, *layer);
        assert_eq!(patches[1].body, layer[kept.unwrap_or(0)..]);
        assert_eq!(patches[1].line.contains("again"), kept.is_some());
    }
}

#[test]
fn a_registry_that_refuses_ocis_manifest_gets_dockers() {
    let image = sample();
    for status in [400, 415] {
        let server = Server::start(
            move |request| match request.line.split(' ').next().unwrap() {
                "HEAD" => reply(200, b""),
                "GET" => reply(200, b"{}"),
                _ if String::from_utf8_lossy(&request.body).contains("vnd.oci") => {
                    reply(status, br#"{"errors":[{"code":"MANIFEST_INVALID"}]}"#)
                }
                _ => reply(201, b""),
            },
        );
        push(&server, &image).unwrap();
        let last = server.seen().pop().unwrap();
        assert_eq!(last.body, image.image.docker_manifest().unwrap().unwrap());
        assert_ne!(Digest::of(&last.body), image.image.manifest_digest());
    }
    let server = Server::start(|request| match request.line.split(' ').next().unwrap() {
        "HEAD" => reply(200, b""),
        "GET" => reply(200, b"{}"),
        _ => reply(
            400,
            br#"{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}"#,
        ),
    });
    let error = push(&server, &image).unwrap_err().to_string();
    assert!(error.contains("MANIFEST_INVALID"), "{error}");
}
