//! Starts that come one after the other, and two people's at once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use pcocc_tests::{Pcocc, run};

use crate::home::{Stop, assert_nothing_left, home, left, record, stale_folders, wait_for};

#[test]
fn twenty_allocations_in_a_row() {
    let pcocc = home(Pcocc::new(), "local", "");
    let mut times: Vec<Duration> = Vec::new();
    for job in 1..=20 {
        let begun = Instant::now();
        let outcome = pcocc.try_run(&["docker", "alloc", "-E", "docker version -f {{.Server.Os}}"]);
        assert_eq!(outcome.ok(), "linux", "{outcome}");
        times.push(begun.elapsed());
        // At once, not sooner or later.
        let rest = left(&pcocc);
        assert!(rest.is_empty(), "after job {job}: {rest:?}");
        assert_eq!(record(&pcocc, job)["state"], "ended");
    }
    assert_eq!(stale_folders(&pcocc), Vec::<std::path::PathBuf>::new());
    times.sort_unstable();
    println!(
        "from command to end: median {:?}, slowest {:?}",
        times[10], times[19]
    );
}

#[test]
fn two_users_on_one_machine_as_root() {
    // Both have job 1, at the same time, with the same scratch disk.
    let people = [
        home(Pcocc::new(), "local", ""),
        home(Pcocc::as_ordinary_user(), "local", ""),
    ];
    let _stops = [Stop(&people[0]), Stop(&people[1])];
    for person in &people {
        person.run(&["docker", "batch"]);
    }
    for person in &people {
        wait_for(person, 1, "ready");
    }
    let [mine, theirs] = [&people[0], &people[1]].map(|person| record(person, 1));
    assert_ne!(mine["endpoint"], theirs["endpoint"]);
    for person in &people {
        let name = person.run(&["docker", "shell", "-E", "docker info -f {{.Name}}"]);
        assert_eq!(name, "docker-1");
        let list = person.run(&["docker", "ls", "--format", "json"]);
        let list: Vec<serde_json::Value> = serde_json::from_str(&list).unwrap();
        assert_eq!(list.len(), 1, "{list:?}");
    }
    // What is one's is closed to the other: the job's folder, the node's folders, the docker daemon.
    let scratch = pcocc_tests::guest_scratch().join("pcocc-0");
    let socket = "/tmp/pcocc-0".to_owned();
    let folder = people[0].home().join(".pcocc/job_1");
    for path in [
        scratch.to_string_lossy().into_owned(),
        socket,
        folder.to_string_lossy().into_owned(),
    ] {
        let listed = run(people[1].any("ls").arg(&path));
        assert!(listed.failed().contains("Permission denied"), "{listed}");
    }
    let endpoint = mine["endpoint"].as_str().unwrap();
    let reached = run(people[1]
        .any("docker")
        .env("DOCKER_TLS_VERIFY", "1")
        .env(
            "DOCKER_CERT_PATH",
            people[1].home().join(".pcocc/job_1/vmcerts/client"),
        )
        .env("DOCKER_HOST", endpoint)
        .arg("version"));
    assert!(!reached.status.success(), "{reached}");
    // Nor is one's ended with the other's.
    people[1].run(&["docker", "stop", "--all"]);
    assert_nothing_left(&people[1]);
    let name = people[0].run(&["docker", "shell", "-E", "docker info -f {{.Name}}"]);
    assert_eq!(name, "docker-1");
    people[0].run(&["docker", "stop"]);
    assert_nothing_left(&people[0]);
}

#[test]
fn a_private_folder_that_is_somebody_elses_is_passed_by_as_root() {
    let pcocc = home(Pcocc::as_ordinary_user(), "local", "");
    let scratch = pcocc.home().join("scratch");
    fs::create_dir(&scratch).unwrap();
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o1777)).unwrap();
    let batch = format!("type: local\ndocker_scratch: {}\n", scratch.display());
    fs::write(pcocc.home().join(".pcocc/batch.yaml"), batch).unwrap();
    // Root's, or a link to where others read.
    let private = scratch.join("pcocc-65534");
    let behind = scratch.join("behind");
    fs::create_dir(&private).unwrap();
    fs::create_dir(&behind).unwrap();
    for link in [false, true] {
        if link {
            fs::remove_dir(&private).unwrap();
            std::os::unix::fs::symlink(&behind, &private).unwrap();
        }
        pcocc.run(&["docker", "alloc", "-E", "true"]);
        assert_eq!(fs::read_dir(&private).unwrap().count(), 0);
        let names = fs::read_dir(&scratch).unwrap().flatten();
        let own = names.filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("pcocc-65534.")
        });
        assert_eq!(own.count(), 1);
        assert_nothing_left(&pcocc);
    }
}
