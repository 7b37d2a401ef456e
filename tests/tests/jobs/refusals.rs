//! VMs that cannot be: what is said, and that nothing is left. None of these boots one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use pcocc_tests::Pcocc;

use crate::home::{assert_nothing_left, home, record};

#[track_caller]
fn refused(pcocc: &Pcocc, arguments: &[&str], code: i32, part: &str) {
    let mut all = vec!["docker", "alloc", "-E", "true"];
    all.extend(arguments);
    let outcome = pcocc.try_run(&all);
    assert_eq!(outcome.status.code(), Some(code), "{outcome}");
    assert!(outcome.failed().contains(part), "{part}: {outcome}");
    assert_nothing_left(pcocc);
}

#[test]
fn each_says_why() {
    let pcocc = home(Pcocc::new(), "local", "");
    let conf = pcocc.home().join(".pcocc");
    refused(&pcocc, &["bash"], 2, "\"bash\" is no option");
    refused(&pcocc, &["-c", "many"], 2, "is no number of CPUs");
    refused(&pcocc, &["--template", "huge"], 1, "no template \"huge\"");
    refused(&pcocc, &["--mem", "100"], 1, "a docker daemon needs 512");
    refused(&pcocc, &["--disk", "1000T"], 1, "too large");
    let templates = "test: {image: nothing}\nwrong: {image: wrong}\n";
    fs::write(conf.join("templates.yaml"), templates).unwrap();
    refused(&pcocc, &[], 1, "guest build");
    // A disk that is none of ours.
    let disk = pcocc.home().join("disk.raw");
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    pcocc.run(&[
        "image",
        "import",
        &format!("raw:{}", disk.display()),
        "wrong",
    ]);
    refused(&pcocc, &["--template", "wrong"], 1, "is not a guest image");
    fs::write(conf.join("templates.yaml"), "test: {cpus: 0}\n").unwrap();
    refused(
        &pcocc,
        &[],
        1,
        "templates.yaml:1:14: template \"test\": cpus must be at least 1",
    );
    let failed = record(&pcocc, 1);
    assert_eq!(failed["state"], "failed");
    assert!(failed["error"].as_str().unwrap().contains("no template"));
}

#[test]
fn homes_that_cannot_be_written() {
    let pcocc = home(Pcocc::as_ordinary_user(), "local", "");
    let conf = pcocc.home().join(".pcocc");
    let close = |mode| fs::set_permissions(&conf, fs::Permissions::from_mode(mode)).unwrap();
    close(0o555);
    for verb in ["alloc", "batch"] {
        let outcome = pcocc.try_run(&["docker", verb]);
        assert_eq!(outcome.status.code(), Some(1), "{outcome}");
        let why = format!("create {}/job_1: Permission denied", conf.display());
        assert!(outcome.failed().contains(&why), "{outcome}");
    }
    assert_eq!(pcocc.run(&["docker", "ls", "--format", "json"]), "[]");
    close(0o755);
    assert_nothing_left(&pcocc);
}

#[test]
fn ports_that_are_taken() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let pcocc = home(
        Pcocc::new(),
        "local",
        &format!("docker_ports: {port}-{port}\n"),
    );
    refused(&pcocc, &[], 1, &format!("in {port}-{port} is free"));
}

#[test]
fn scripts_that_cannot_be_run_start_nothing() {
    let pcocc = home(Pcocc::new(), "local", "");
    for (script, part) in [
        ("", "names no program"),
        ("'x", "a quote that is not closed"),
    ] {
        let outcome = pcocc.try_run(&["docker", "alloc", "-E", script]);
        assert_eq!(outcome.status.code(), Some(2), "{outcome}");
        assert!(outcome.failed().contains(part), "{outcome}");
    }
    assert!(!pcocc.home().join(".pcocc/job_1").exists());
}
