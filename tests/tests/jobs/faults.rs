//! Whoever is killed, nothing is left.

use std::fs;

use pcocc_tests::{Pcocc, wait_until};
use rustix::process::Signal;

use crate::home::{
    SOON, assert_nothing_left, end, find, home, record, said, signal, stale_folders, start,
    wait_for,
};

#[test]
fn whatever_is_killed_nothing_stays() {
    let pcocc = home(Pcocc::new(), "local", "");
    let _stop = crate::home::Stop(&pcocc);
    for (job, victim) in (1..).zip(["launcher", "keeper", "hypervisor", "command", "script"]) {
        let mut command = start(&pcocc, victim, &["docker", "alloc", "-E", "sleep 987"]);
        wait_for(&pcocc, job, "ready");
        let script = || find(&pcocc, "sleep 987");
        wait_until("the script runs", SOON, || script().is_some());
        let record = record(&pcocc, job);
        let pid = |name: &str| record[name]["pid"].as_u64().unwrap();
        let killed = match victim {
            "launcher" | "keeper" => pid(victim),
            "hypervisor" => find(&pcocc, "qemu-system").unwrap(),
            "command" => u64::from(command.id()),
            _ => script().unwrap(),
        };
        signal(killed, Signal::KILL);
        let status = end(&mut command, victim);
        assert!(!status.success(), "{victim}: {}", said(&pcocc, victim));
        assert_nothing_left(&pcocc);
        assert_eq!(
            stale_folders(&pcocc),
            Vec::<std::path::PathBuf>::new(),
            "{victim}"
        );
        let state = crate::home::record(&pcocc, job)["state"].clone();
        let expected = match victim {
            "launcher" | "hypervisor" => "failed",
            _ => "ended",
        };
        assert_eq!(state, expected, "{victim}: {}", said(&pcocc, victim));
    }
}

#[test]
fn a_job_both_of_whose_processes_are_killed_is_not_believed() {
    let pcocc = home(Pcocc::new(), "local", "");
    let _stop = crate::home::Stop(&pcocc);
    // Both processes of a job in the background at once: nobody is left to write it down, and nobody believes it.
    pcocc.run(&["docker", "batch"]);
    wait_for(&pcocc, 1, "ready");
    let record = record(&pcocc, 1);
    let qemu = find(&pcocc, "qemu-system").unwrap();
    let pids = ["launcher", "keeper"].map(|name| record[name]["pid"].as_u64().unwrap());
    // Stopped first, so that neither sees the other's end.
    for asked in [Signal::STOP, Signal::KILL] {
        for pid in pids {
            signal(pid, asked);
        }
    }
    wait_until("the VM is gone", SOON, || {
        !std::path::Path::new(&format!("/proc/{qemu}/exe")).exists()
    });
    let status = pcocc.run(&["docker", "status", "-j", "1"]);
    assert!(status.contains("failed"), "{status}");
    // The next start takes its folders away.
    let outcome = pcocc.try_run(&["docker", "alloc", "-E", "true"]);
    assert!(outcome.status.success(), "{outcome}");
    assert_eq!(stale_folders(&pcocc), Vec::<std::path::PathBuf>::new());
    assert_nothing_left(&pcocc);
}

#[test]
fn a_vm_that_stands_still_is_waited_for_until_it_ends() {
    let pcocc = home(Pcocc::new(), "local", "");
    let _stop = crate::home::Stop(&pcocc);
    pcocc.run(&["docker", "batch"]);
    wait_for(&pcocc, 1, "ready");
    let qemu = find(&pcocc, "qemu-system").unwrap();
    let ask = |name: &str| {
        let log = fs::File::create(pcocc.home().join(format!("{name}.log"))).unwrap();
        let mut command = pcocc.command(&["--progress=plain", "docker", "import", "nothing", "x"]);
        // The only job there is.
        command
            .env_remove("DOCKER_HOST")
            .stderr(log)
            .spawn()
            .unwrap()
    };
    // Longer than a daemon is waited for that is nobody's job.
    signal(qemu, Signal::STOP);
    let mut patient = ask("patient");
    std::thread::sleep(std::time::Duration::from_secs(15));
    assert!(
        patient.try_wait().unwrap().is_none(),
        "{}",
        said(&pcocc, "patient")
    );
    signal(qemu, Signal::CONT);
    assert_eq!(end(&mut patient, "the import").code(), Some(1));
    let words = said(&pcocc, "patient");
    assert!(
        words.contains("Waiting for the docker daemon at tcp://"),
        "{words}"
    );
    assert!(
        words.contains("image nothing in the docker daemon"),
        "{words}"
    );
    // The VM ends instead.
    signal(qemu, Signal::STOP);
    let mut vain = ask("vain");
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert!(
        vain.try_wait().unwrap().is_none(),
        "{}",
        said(&pcocc, "vain")
    );
    signal(qemu, Signal::KILL);
    assert_eq!(end(&mut vain, "the import").code(), Some(1));
    assert!(
        said(&pcocc, "vain").contains("docker daemon at tcp://"),
        "{}",
        said(&pcocc, "vain")
    );
    assert_nothing_left(&pcocc);
}
