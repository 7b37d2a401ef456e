//! `pcocc doctor` where the main job can run, and what it asks of a Slurm cluster.

use std::collections::BTreeMap;

use pcocc_tests::{Docker, Outcome, Pcocc, Slurm, run};

/// State, what was found and the fix, by check.
fn findings(outcome: &Outcome) -> BTreeMap<String, [String; 3]> {
    let rows: Vec<BTreeMap<String, serde_json::Value>> =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"));
    let of = |row: &BTreeMap<String, serde_json::Value>, key: &str| {
        row[key].as_str().unwrap_or_default().to_owned()
    };
    rows.iter()
        .map(|row| {
            let words = ["state", "found", "fix"].map(|key| of(row, key));
            (of(row, "check"), words)
        })
        .collect()
}

#[test]
fn where_a_docker_daemon_answers_all_is_well() {
    let docker = Docker::shared();
    let pcocc = Pcocc::as_ordinary_user().with(&docker);
    let outcome = pcocc.try_run(&["doctor", "--format", "json"]);
    let found = findings(&outcome);
    assert!(outcome.status.success(), "{outcome}");
    for check in [
        "configuration",
        "repository",
        "cache",
        "temporary files",
        "fuse",
        "user namespaces",
        "docker daemon",
        "docker command",
        "clock",
    ] {
        assert_eq!(found[check][0], "ok", "{check}: {:?}", found[check]);
    }
    assert!(
        found["docker daemon"][1].contains(docker.host()),
        "{outcome}"
    );
    // Two lines can be warnings only because there is a daemon.
    assert_eq!(found["guest image"][2], "pcocc docker guest build");
    let lines = pcocc.run(&["doctor"]);
    assert_eq!(lines.lines().count(), found.len());
    assert!(!lines.contains("FAILED"), "{lines}");
}

#[test]
fn a_node_is_asked_whether_it_sees_the_home_as_root() {
    let cluster = Slurm::start();
    let pcocc = Pcocc::new();
    let conf = pcocc.home().join(".pcocc");
    let ask = |conf: &std::path::Path| {
        let mut command = pcocc.command(&["doctor", "--on-node", "--format", "json"]);
        command
            .env("SLURM_CONF", cluster.configuration())
            .env("PCOCC_USER_CONF_DIR", conf)
            .env("HOME", conf);
        findings(&run(&mut command))
    };
    std::fs::create_dir(&conf).expect("make the configuration folder");
    let found = ask(&conf);
    assert_eq!(found["slurm"][0], "ok", "{:?}", found["slurm"]);
    let [state, words, _] = &found["home on nodes"];
    assert_eq!(state, "ok", "{words}");
    assert_eq!(
        *words,
        format!("{} can be written on a node", conf.display())
    );
    // A folder that is not there, and cannot be made.
    let found = ask(std::path::Path::new("/proc/no-home"));
    let [state, words, fix] = &found["home on nodes"];
    assert_eq!(state, "warning", "{words}");
    assert!(words.starts_with("/proc/no-home on a node: "), "{words}");
    assert!(fix.contains("file system that nodes share"), "{fix}");
    cluster.wait_until_empty();
}
