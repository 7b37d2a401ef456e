//! `pcocc doctor`: each thing that is missing is found, with what to do about it.

mod sandbox;

use std::collections::BTreeMap;
use std::process::Command;

use pcocc_vm::job::{Here, State};
use sandbox::Sandbox;

/// The findings by check: state, and what was found.
fn findings(command: &mut Command) -> (BTreeMap<String, (String, String)>, Option<i32>) {
    let output = command
        .args(["doctor", "--format", "json"])
        .output()
        .unwrap();
    let rows: Vec<BTreeMap<String, Option<String>>> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let rows = rows.into_iter().map(|mut row| {
        let mut take = |key: &str| row.remove(key).unwrap();
        let (check, state) = (take("check").unwrap(), take("state").unwrap());
        // Whatever is wrong comes with what to do about it.
        assert_eq!(take("fix").is_some(), state != "ok", "{check}");
        (check, (state, take("found").unwrap()))
    });
    (rows.collect(), output.status.code())
}

#[test]
fn without_any_program_no_daemon_can_be_had() {
    let sandbox = Sandbox::new();
    let (found, code) = findings(sandbox.command(&[]).env("PATH", sandbox.home()));
    assert_eq!(code, Some(1), "{found:?}");
    for (check, state) in [
        ("configuration", "ok"),
        ("repository", "ok"),
        ("docker daemon", "failed"),
        ("qemu", "failed"),
        ("docker command", "warning"),
        ("guest image", "failed"),
        ("slurm", "ok"),
        ("jobs", "ok"),
        ("clock", "ok"),
        ("proxy", "ok"),
    ] {
        assert_eq!(found[check].0, state, "{check}: {}", found[check].1);
    }
    assert!(found["docker daemon"].1.contains("no.sock"), "{found:?}");
    // Other tests have mounts as well.
    let home = sandbox.home().to_string_lossy().into_owned();
    assert!(!found["mounts"].1.contains(&home), "{found:?}");
}

#[test]
fn a_job_whose_launcher_died_is_found() {
    let sandbox = Sandbox::new();
    let folder = sandbox.job("docker", State::Ready);
    assert_eq!(findings(&mut sandbox.command(&[])).0["jobs"].0, "ok");
    let mut launcher = Command::new("sleep").arg("60").spawn().unwrap();
    let mut record = folder.read().unwrap();
    record.launcher = Some(Here::read().unwrap().holder(launcher.id()).unwrap());
    folder.write(&record).unwrap();
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    let (found, _) = findings(&mut sandbox.command(&[]));
    assert_eq!(found["jobs"].0, "warning", "{found:?}");
    assert_eq!(
        found["jobs"].1,
        format!("ended without a word: {}", record.id)
    );
    // What the fix says.
    std::fs::remove_dir_all(folder.path()).unwrap();
    let (found, _) = findings(&mut sandbox.command(&[]));
    assert_eq!(found["jobs"].1, "0 running or waiting");
}

#[test]
fn what_is_configured_wrongly_is_found() {
    let sandbox = Sandbox::new();
    sandbox.write(
        ".pcocc/repos.yaml",
        "repos:\n  - {name: a, path: /proc/images}\n",
    );
    let (found, code) = findings(&mut sandbox.command(&[]));
    assert_eq!(code, Some(1));
    assert_eq!(found["repository"].0, "failed", "{found:?}");
    sandbox.write(".pcocc/repos.yaml", "repos: 7\n");
    let (found, _) = findings(&mut sandbox.command(&[]));
    assert_eq!(found["configuration"].0, "failed");
    assert!(
        found["configuration"].1.contains("repos.yaml:1:8"),
        "{found:?}"
    );
    let (found, _) = findings(sandbox.command(&[]).env("TMPDIR", "/nonexistent"));
    assert_eq!(found["temporary files"].0, "failed", "{found:?}");
}

#[test]
fn a_proxy_in_the_way_is_found_and_its_password_is_not_told() {
    let sandbox = Sandbox::new();
    let run = |spared: &str| {
        let mut command = sandbox.command(&[]);
        command
            .env("DOCKER_HOST", "tcp://127.0.0.1:1")
            .env("https_proxy", "http://me:secret@proxy:3128")
            .env("no_proxy", spared);
        findings(&mut command).0
    };
    let found = run("example.org");
    assert_eq!(found["proxy"].0, "warning");
    assert!(!found["proxy"].1.contains("secret"), "{found:?}");
    assert_eq!(run("localhost, 127.0.0.1")["proxy"].0, "ok");
}

#[test]
fn lines_are_for_people() {
    let shown = Sandbox::new().run(&["doctor"]);
    let first = shown.out.lines().next().unwrap();
    assert_eq!(
        first,
        "ok       configuration    [ROOT]/home/.pcocc and [ROOT]/etc have no mistake"
    );
    assert_eq!(shown.out.lines().count(), 17, "{}", shown.all());
    assert_eq!(shown.err, "");
}
