//! What `docs/GUIDE.md` says of docker VMs is true: the commands of its session, typed into `alloc`'s shell by way of a pipe,
//! print what it shows.

use std::fs;

use pcocc_tests::guide::{Step, all_lasting, guide, steps};
use pcocc_tests::{Pcocc, binary, run};

use crate::home::{assert_nothing_left, home};

/// Goes before what a command prints.
const MARK: &str = "=== ";

/// Stages of a start: which there are depends on whether there is a snapshot already.
const STAGES: [&str; 6] = [
    "Trying",
    "Booting",
    "Starting the docker daemon",
    "Saving a snapshot",
    "Resuming",
    "Configuring",
];

#[track_caller]
fn assert_same(command: &str, printed: &str, shown: &[String], home: &str) {
    let printed = printed.replace(home, "~");
    let without_stages = |line: &&str| !STAGES.iter().any(|stage| line.starts_with(stage));
    assert_eq!(
        all_lasting(printed.lines().filter(without_stages)),
        all_lasting(shown.iter().map(String::as_str).filter(without_stages)),
        "$ {command}\n{printed}"
    );
}

#[test]
fn the_guides_vm_is_true() {
    let pcocc = home(Pcocc::new(), "local", "");
    let folder = pcocc.home().to_string_lossy().into_owned();
    let repositories = pcocc.home().join(".pcocc/repos.yaml");
    let with_cache = format!(
        "{}cache: {{path: {folder}/.pcocc/cache}}\n",
        fs::read_to_string(&repositories).unwrap()
    );
    fs::write(&repositories, with_cache).unwrap();
    let program = binary();
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let bash = |script: &str| {
        let mut bash = pcocc.any("bash");
        bash.args(["-c", &format!("exec 2>&1\n{script}")]);
        bash.env("PATH", &path);
        run(&mut bash).ok().to_owned()
    };
    // The session goes on with a folder that was made before.
    for step in steps(&guide(), "console").iter().take(2) {
        bash(&step.command);
    }
    let session = steps(&guide(), "shell-session");
    let (inside, outside): (Vec<Step>, Vec<Step>) =
        session.into_iter().partition(|step| step.in_vm);
    assert!(inside.len() > 4, "{inside:?}");
    assert!(outside[0].command.starts_with("pcocc docker alloc"));

    let mut typed = String::new();
    for step in &inside {
        // What follows is not the command's to read.
        let command = &step.command;
        typed += &match command.as_str() {
            "exit" => "exit\n".to_owned(),
            command => format!("echo '{MARK}'\n{{ {command}\n}} </dev/null 2>&1\n"),
        };
    }
    let keys = pcocc.home().join("keys");
    fs::write(&keys, typed).unwrap();
    let mut alloc = pcocc.any("bash");
    alloc
        .args(["-c", &format!("exec {} <keys", outside[0].command)])
        .env("SHELL", "/bin/bash")
        .env("PATH", &path)
        .env("DOCKER_BUILDKIT", "0")
        .env("DOCKER_CLI_HINTS", "false");
    let outcome = run(&mut alloc);
    assert!(outcome.status.success(), "{outcome}");
    assert_same(
        &outside[0].command,
        &outcome.stderr,
        &outside[0].shown,
        &folder,
    );
    let mut printed = outcome.stdout.split(MARK).skip(1);
    for step in inside.iter().filter(|step| step.command != "exit") {
        let printed = printed
            .next()
            .unwrap_or_else(|| panic!("no {}: {outcome}", step.command));
        assert_same(&step.command, printed, &step.shown, &folder);
    }
    for step in &outside[1..] {
        let printed = bash(&step.command);
        assert_same(&step.command, &printed, &step.shown, &folder);
    }
    pcocc.verify();
    assert_nothing_left(&pcocc);
}
