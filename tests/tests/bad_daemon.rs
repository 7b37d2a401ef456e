//! Daemons that are absent, refuse us, or die in mid-stream: a clear error, and nothing changed on either side.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pcocc_tests::{Docker, Dockerd, Guarded, Pcocc, certificates, leaks, run, wait_until};

/// Checks that import and export fail, soon and in words, and change nothing.
#[track_caller]
fn both_fail(pcocc: &Pcocc, settings: &[(&str, &str)], expect: &str) {
    let verbs = [
        ["docker", "import", "bb", "bb"],
        ["docker", "export", "there", "bb"],
    ];
    for verb in verbs {
        let start = Instant::now();
        let outcome = run(pcocc.command(&verb).envs(settings.iter().copied()));
        let said = outcome.failed();
        assert!(said.contains(expect), "'{expect}' is not in:\n{outcome}");
        assert!(outcome.stdout.is_empty(), "{outcome}");
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it took {:?}",
            start.elapsed()
        );
    }
    assert!(!pcocc.repository().join("meta/bb@0").exists());
    assert_eq!(
        leaks::unfinished_in(&pcocc.repository()),
        Vec::<String>::new()
    );
}

/// Makes an environment with an image `there`, so that an export has something to send.
fn with_an_image() -> Pcocc {
    let pcocc = Pcocc::new();
    let layout = pcocc.home().join("layout");
    run(Command::new("umoci")
        .arg("init")
        .arg("--layout")
        .arg(&layout))
    .ok();
    run(Command::new("umoci")
        .args(["new", "--image"])
        .arg(format!("{}:x", layout.display())))
    .ok();
    pcocc.run(&[
        "image",
        "import",
        "-t",
        "oci",
        &layout.to_string_lossy(),
        "there",
    ]);
    pcocc
}

#[test]
fn an_absent_daemon_is_named() {
    let pcocc = with_an_image();
    let socket = format!("unix://{}/no.sock", pcocc.home().display());
    both_fail(&pcocc, &[("DOCKER_HOST", &socket)], "no.sock");

    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    both_fail(
        &pcocc,
        &[("DOCKER_HOST", &format!("tcp://{address}"))],
        &address,
    );

    // A socket that nobody listens on any more.
    let stale = pcocc.home().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("bind"));
    both_fail(
        &pcocc,
        &[("DOCKER_HOST", &format!("unix://{}", stale.display()))],
        "stale.sock",
    );
}

#[test]
fn a_daemon_that_does_not_speak_tls_is_named() {
    let pcocc = with_an_image();
    let certificates = certificates_in(&pcocc.home().join("certs"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        }
    });
    let settings = [
        ("DOCKER_HOST", &*format!("tcp://{address}")),
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_CERT_PATH", &*certificates),
    ];
    both_fail(&pcocc, &settings, &address);
}

#[test]
fn missing_certificates_are_named_with_the_variable() {
    let pcocc = with_an_image();
    let settings = [
        ("DOCKER_HOST", "tcp://127.0.0.1:1"),
        ("DOCKER_TLS_VERIFY", "1"),
    ];
    both_fail(&pcocc, &settings, ".docker/ca.pem");
    both_fail(&pcocc, &settings, "DOCKER_CERT_PATH");
}

#[test]
fn a_daemon_of_another_authority_is_refused() {
    let pcocc = with_an_image();
    let ours = certificates_in(&pcocc.home().join("ours"));
    let theirs = certificates_in(&pcocc.home().join("theirs"));
    let address = free_address();
    let mut server = Command::new("openssl");
    server.args([
        "s_server",
        "-accept",
        &address,
        "-quiet",
        "-Verify",
        "1",
        "-verify_return_error",
    ]);
    for (option, file) in [
        ("-CAfile", "ca.pem"),
        ("-cert", "cert.pem"),
        ("-key", "key.pem"),
    ] {
        server.args([option, &format!("{theirs}/{file}")]);
    }
    let _server = Guarded::watch(&server, &pcocc.home().join("server.log"));
    wait_until("the TLS server listens", Duration::from_secs(10), || {
        std::net::TcpStream::connect(&address).is_ok()
    });
    let settings = [
        ("DOCKER_HOST", &*format!("tcp://{address}")),
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_CERT_PATH", &*ours),
    ];
    both_fail(&pcocc, &settings, &address);
}

#[test]
fn a_daemon_that_dies_during_an_import_leaves_nothing_as_root() {
    let daemon = Arc::new(Dockerd::start());
    let docker = Docker::of(Arc::clone(&daemon));
    let base = docker.busybox_image("base");
    let image = docker.layer_on(&base, "image", 96);
    let pcocc = Pcocc::new().with(&docker);
    pcocc.run(&["image", "list"]);
    let mut command = pcocc.command(&["docker", "import", &image, "half"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("start the import");
    wait_until("the image streams", Duration::from_secs(60), || {
        assert!(
            matches!(child.try_wait(), Ok(None)),
            "the import ended before its time"
        );
        leaks::unfinished_in(&pcocc.repository())
            .iter()
            .any(|path| size_below(Path::new(path)) > 1 << 20)
    });
    daemon.kill();
    let output = child.wait_with_output().expect("wait for the import");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && output.status.code().is_some(),
        "{said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    assert!(!pcocc.repository().join("meta/half@0").exists());
    assert_eq!(
        leaks::unfinished_in(&pcocc.repository()),
        Vec::<String>::new(),
        "{said}"
    );
    pcocc.verify();
}

#[test]
fn a_daemon_that_dies_during_an_export_is_told_as_root() {
    let daemon = Arc::new(Dockerd::start());
    let docker = Docker::of(Arc::clone(&daemon));
    let base = docker.busybox_image("base");
    let image = docker.layer_on(&base, "image", 96);
    let pcocc = Pcocc::new().with(&docker);
    pcocc.run(&["docker", "import", &image, "whole"]);
    docker.run(&["rmi", "-f", &image]);
    let mut command = pcocc.command(&["docker", "export", "whole", "half"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("start the export");
    // The daemon unpacks what it receives below its data root.
    let receiving = daemon.socket().parent().expect("a folder").join("data/tmp");
    wait_until("the daemon receives", Duration::from_secs(60), || {
        assert!(
            matches!(child.try_wait(), Ok(None)),
            "the export ended before its time"
        );
        size_below(&receiving) > 1 << 20
    });
    daemon.kill();
    let output = child.wait_with_output().expect("wait for the export");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && output.status.code().is_some(),
        "{said}"
    );
    assert!(
        !said.contains("panicked") && !said.trim().is_empty(),
        "{said}"
    );
    pcocc.verify();
}

/// Adds up the sizes of all files at or below `path`; what vanishes meanwhile counts nothing.
fn size_below(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size_below(&entry.path())).sum()
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("an address").to_string()
}

fn certificates_in(folder: &Path) -> String {
    certificates(folder);
    folder.to_string_lossy().into_owned()
}
