//! Daemons that say more than any caller could hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::archive::Sample;
use super::fake::{Exchange, Fake};
use pcocc_image::Error;
use pcocc_layers::Digest;
use serde_json::json;

/// Bytes that such a daemon would send.
const FLOOD: u64 = 700 << 20;

/// Sends spaces without an end behind `head`, and counts what was taken.
fn flood(exchange: &mut Exchange, head: &str, sent: &AtomicU64) {
    let head =
        format!("HTTP/1.1 {head}\r\nApi-Version: 1.41\r\nTransfer-Encoding: chunked\r\n\r\n");
    if exchange.try_raw(head.as_bytes()).is_err() {
        return;
    }
    let chunk = [b"100000\r\n".as_slice(), &[b' '; 1 << 20], b"\r\n"].concat();
    while sent.load(Ordering::Acquire) < FLOOD && exchange.try_raw(&chunk).is_ok() {
        sent.fetch_add(1 << 20, Ordering::AcqRel);
    }
}

/// Asks a daemon that floods every answer but those it needs to be taken for one.
#[track_caller]
fn asked<T: std::fmt::Debug>(
    head: &'static str,
    wanted: &'static str,
    ask: impl Fn(&super::super::Daemon) -> Result<T, Error>,
) -> (String, u64) {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let fake = Fake::start(Sample::new().inspected, move |path, exchange| {
        let floods = path.contains(wanted);
        if floods {
            flood(exchange, head, &counted);
        }
        floods
    });
    let error = ask(&fake.daemon()).unwrap_err().to_string();
    (error, sent.load(Ordering::Acquire))
}

#[test]
fn an_answer_of_any_length_costs_no_more_than_its_kind() {
    let inspect = |daemon: &super::super::Daemon| daemon.inspect("bb");
    let list = |daemon: &super::super::Daemon| daemon.list();
    let info = |daemon: &super::super::Daemon| daemon.info();
    // What is in the sockets between is sent as well.
    let most = |mib: u64| (mib + 4) << 20;
    let (error, sent) = asked("200 OK", "/images/bb/json", inspect);
    assert!(error.contains("answer of more than 8 MiB"), "{error}");
    assert!(sent <= most(8), "{sent}");
    let (error, sent) = asked("200 OK", "/info", info);
    assert!(error.contains("answer of more than 1 MiB"), "{error}");
    assert!(sent <= most(1), "{sent}");
    let (error, sent) = asked("200 OK", "/images/json", list);
    assert!(error.contains("answer of more than 64 MiB"), "{error}");
    assert!(sent <= most(64), "{sent}");
    for status in ["500 Oh", "404 Not Found", "302 Found"] {
        let (error, sent) = asked(status, "/images/bb/json", inspect);
        assert!(error.contains("error of more than 64 KiB"), "{error}");
        assert!(sent <= most(1), "{sent}");
    }
    let (error, sent) = asked("200 OK", "/containers/json", |daemon| {
        daemon.containers_labelled("x")
    });
    assert!(error.contains("answer of more than 64 MiB"), "{error}");
    assert!(sent <= most(64), "{sent}");
}

#[test]
fn a_flood_behind_a_load_is_an_error() {
    let (error, sent) = asked("200 OK", "/images/load", |daemon| {
        super::super::stream::LoadStream::open(daemon, "bb", &pcocc_core::cancel::Cancel::new())?
            .finish()
    });
    assert!(error.contains("answer of more than 1 MiB"), "{error}");
    assert!(sent <= 5 << 20, "{sent}");
}

#[test]
fn an_error_in_the_place_of_an_archive_is_bounded() {
    use super::super::DaemonSource;
    use super::Memory;
    use pcocc_image::transfer::{Context, copy};
    let (error, sent) = asked("500 Oh", "/get", |daemon| {
        let source = DaemonSource::new(daemon.clone(), "bb");
        copy(&source, &Memory::default(), &Context::silent())
    });
    assert!(error.contains("error of more than 64 KiB"), "{error}");
    assert!(sent <= 5 << 20, "{sent}");
}

#[test]
fn headers_are_counted() {
    let fake = Fake::start(Sample::new().inspected, |path, exchange| {
        if path == "/info" {
            let many: String = (0..5000).map(|n| format!("X-{n}: y\r\n")).collect();
            exchange.raw(format!("HTTP/1.1 200 OK\r\n{many}\r\n{{}}").as_bytes());
        }
        path == "/info"
    });
    let error = fake.daemon().info().unwrap_err().to_string();
    assert!(error.contains("message head is too large"), "{error}");
    // Answers before the answer count, too.
    let fake = Fake::start(Sample::new().inspected, |path, exchange| {
        while path == "/info"
            && exchange
                .try_raw(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                .is_ok()
        {}
        path == "/info"
    });
    let error = fake.daemon().info().unwrap_err().to_string();
    assert!(error.contains("answer of more than 1 MiB"), "{error}");
}

#[test]
fn more_containers_than_fit_are_refused() {
    let fake = Fake::start(Sample::new().inspected, |path, exchange| {
        let asked = path.starts_with("/containers/json");
        if asked {
            exchange.answer("200 OK", &format!("[{}{{}}]", "{},".repeat(1_000_000)));
        }
        asked
    });
    let error = fake
        .daemon()
        .containers_labelled("x")
        .unwrap_err()
        .to_string();
    assert!(error.contains("more than 100000 items"), "{error}");
}

#[test]
fn names_in_an_archive_are_bounded() {
    use super::super::DaemonSource;
    use super::Memory;
    use super::archive::{Part, pack};
    use pcocc_image::transfer::{Context, copy};
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let fake = Fake::start(Sample::new().inspected, move |path, exchange| {
        if !path.ends_with("/get") {
            return false;
        }
        exchange.raw(b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nTransfer-Encoding: chunked\r\n\r\n");
        for number in 0.. {
            let name = format!("{number}/{}", "x".repeat(900_000));
            let entry = pack(&[Part::Link(name, "target".to_owned())]);
            // What ends an archive is left out.
            let entry = &entry[..entry.len() - 1024];
            let size = format!("{:x}\r\n", entry.len());
            let chunk = [size.as_bytes(), entry, b"\r\n"].concat();
            if counted.load(Ordering::Acquire) > FLOOD || exchange.try_raw(&chunk).is_err() {
                break;
            }
            counted.fetch_add(chunk.len() as u64, Ordering::AcqRel);
        }
        true
    });
    let source = DaemonSource::new(fake.daemon(), "bb");
    let copied = copy(&source, &Memory::default(), &Context::silent());
    let error = copied.unwrap_err().to_string();
    assert!(error.contains("bytes of documents and names"), "{error}");
    let sent = sent.load(Ordering::Acquire);
    assert!(sent < 100 << 20, "{sent}");
}

#[test]
fn what_is_no_name_of_an_image_is_not_listed() {
    let named = |name: &str| {
        json!({"Id": Digest::of(name.as_bytes()).to_string(), "ParentId": "", "RepoTags": [name],
               "RepoDigests": [], "Created": 1, "Size": 1, "SharedSize": 0, "Containers": 0, "Labels": {}})
    };
    let evil = [
        "-rf:1",
        "zz$(touch x):1",
        "a\u{1b}[2J:1",
        "x\nhint: run it:1",
        "../../etc:1",
        "a/../b:1",
        "@",
        "",
        "<none>:<none>",
    ];
    let good = ["busybox:1", "ghcr.io/org/app:latest"];
    let list: Vec<_> = evil.iter().chain(&good).map(|name| named(name)).collect();
    let images = serde_json::from_value(json!(list)).unwrap();
    let listed = crate::docker::client::entries(images).unwrap();
    let names: Vec<String> = listed.into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, good);
}
