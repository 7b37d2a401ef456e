//! Disks that are full, and homes that cannot be written: what is said, and that nothing is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pcocc_tests::{Pcocc, fill, in_own_namespace, small_disk};

use crate::home::{BUSYBOX, SOON, Stop, assert_nothing_left, home, left, quoted, record, wait_for};

#[track_caller]
fn refused(pcocc: &Pcocc, parts: &[&str]) {
    let outcome = pcocc.try_run(&["docker", "alloc", "-E", "true"]);
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    for part in parts {
        assert!(outcome.failed().contains(part), "{part}: {outcome}");
    }
    assert_nothing_left(pcocc);
}

fn names_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn the_nodes_disk_is_full_as_root() {
    if !in_own_namespace("disks::the_nodes_disk_is_full_as_root") {
        return;
    }
    let pcocc = home(Pcocc::new(), "local", "");
    // Outside of the home, whose mounts are looked for afterwards.
    let outside = pcocc_tests::scratch();
    let scratch = outside.path().join("disk");
    small_disk(&scratch, "400m");
    let batch = format!("type: local\ndocker_scratch: {}\n", scratch.display());
    fs::write(pcocc.home().join(".pcocc/batch.yaml"), batch).unwrap();
    let place = scratch.to_string_lossy().into_owned();
    // Not even the guest image fits.
    let filler = fill(&scratch, 10 << 20);
    refused(&pcocc, &[&place, "No space left on device"]);
    let private = scratch.join("pcocc-0");
    let rest = names_in(&private.join("guest/images"));
    assert!(rest.is_empty(), "half an image: {rest:?}");
    fs::remove_file(filler).unwrap();
    // The image does, the VM's disk does not.
    refused(&pcocc, &[&place, "MiB free and the VM needs"]);
    let rest = names_in(&private);
    assert_eq!(rest, [private.join("guest")], "the VM's folder stays");
}

/// Fails when anything of a home's jobs stays but the mount of the test's own.
#[track_caller]
fn assert_nothing_but_the_disk(pcocc: &Pcocc, disk: &Path) {
    // There is room again for what could not be written down.
    pcocc.run(&["docker", "ls", "-a"]);
    let mut rest = Vec::new();
    let disk = disk.to_string_lossy();
    let begun = Instant::now();
    while begun.elapsed() < SOON {
        rest = left(pcocc);
        rest.retain(|line| *line != disk);
        if rest.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("left behind: {rest:?}");
}

#[test]
fn the_home_is_full_as_root() {
    if !in_own_namespace("disks::the_home_is_full_as_root") {
        return;
    }
    let pcocc = Pcocc::new();
    let conf = pcocc.home().join(".pcocc");
    small_disk(&conf, "16m");
    let pcocc = home(pcocc, "local", "");
    let _stop = Stop(&pcocc);
    let filler = fill(&conf, 0);
    let outcome = pcocc.try_run(&["docker", "alloc", "-E", "true"]);
    assert!(
        outcome.failed().contains("No space left on device"),
        "{outcome}"
    );
    assert!(
        outcome.failed().contains(&*conf.to_string_lossy()),
        "{outcome}"
    );
    fs::remove_file(&filler).unwrap();
    assert_nothing_but_the_disk(&pcocc, &conf);

    // It fills up while a VM runs: the VM goes on, and ends when it is asked to.
    let submitted = pcocc.run(&["docker", "batch"]);
    let job = submitted.trim_start_matches("Submitted batch job ");
    let job = job.parse().unwrap();
    wait_for(&pcocc, job, "ready");
    let filler = fill(&conf, 0);
    let os = pcocc.run(&["docker", "shell", "-E", "docker version -f {{.Server.Os}}"]);
    assert_eq!(os, "linux");
    pcocc.try_run(&["docker", "stop"]);
    assert!(!pcocc.run(&["docker", "ls"]).contains("local"));
    fs::remove_file(&filler).unwrap();
    assert_nothing_but_the_disk(&pcocc, &conf);
}

#[test]
fn dockers_disk_is_full() {
    let pcocc = home(Pcocc::new(), "local", "");
    let _stop = Stop(&pcocc);
    pcocc.run(&["docker", "batch"]);
    wait_for(&pcocc, 1, "ready");
    let shell = |script: &str| {
        let script = format!("bash -c {}", quoted(script));
        pcocc.try_run(&["docker", "shell", "-E", &script])
    };
    let guest = |script: &str| pcocc.run(&["docker", "guest", "shell", "-E", script]);
    shell(BUSYBOX).ok();
    let by_itself = |arguments: &[&str]| {
        let mut command = pcocc.command(arguments);
        pcocc_tests::run(command.env_remove("DOCKER_HOST"))
    };
    by_itself(&["docker", "import", "bb", "kept"]).ok();
    shell("docker rmi bb").ok();
    guest("fallocate -l $(($(df -k /data | awk 'END {print $4}') - 64))k /data/filler; sync");
    // Docker's own words come through, for docker's client and for ours.
    let full = "no space left on device";
    let outcome = shell(BUSYBOX);
    assert!(outcome.failed().contains(full), "{outcome}");
    let outcome = by_itself(&["docker", "export", "kept", "bb"]);
    assert!(outcome.failed().contains(full), "{outcome}");
    let list = pcocc.run(&["docker", "shell", "-E", "docker images -q"]);
    assert_eq!(list, "", "half an image");
    assert!(pcocc.run(&["docker", "ls"]).contains("ready"));
    guest("rm /data/filler; sync");
    by_itself(&["docker", "export", "kept", "bb"]).ok();
    let said = shell("docker run --rm bb sh -c 'cat /proc/self/comm'");
    assert_eq!(said.ok(), "cat");
    pcocc.run(&["docker", "stop"]);
    assert_nothing_left(&pcocc);
    assert_eq!(record(&pcocc, 1)["state"], "ended");
}
