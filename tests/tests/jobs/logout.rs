//! VMs in the background of a machine without Slurm: after a logout, at their time limit, and after a reboot.

use std::fs;
use std::path::PathBuf;

use pcocc_tests::{Pcocc, Terminal, binary, guest_scratch, wait_until};
use rustix::process::Signal;

use crate::home::{
    BOOT, SOON, Stop, assert_nothing_left, find, home, record, signal, stale_folders, wait_for,
};

/// What /proc tells of a process: its session, and the number of its terminal.
fn session_and_terminal(pid: u64) -> (u64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    (fields[3].parse().unwrap(), fields[4].parse().unwrap())
}

#[test]
fn a_vm_outlives_the_login_that_asked_for_it_and_not_its_time() {
    let pcocc = home(Pcocc::new(), "local", "");
    let _stop = Stop(&pcocc);
    // The time limit counts from when it is asked for: the snapshot is there before.
    let first = pcocc.try_run(&["docker", "alloc", "-E", "true"]);
    assert!(first.status.success(), "{first}");
    let mut login = pcocc.any("bash");
    login
        .args(["--norc", "--noprofile", "-i"])
        .env("PS1", "here$ ");
    let mut login = Terminal::start(&login);
    login.wait_for("here$ ");
    login.keys(&format!(
        "ps -o sid= $$; {} docker batch -t 1\r",
        binary().display()
    ));
    login.wait_for("Submitted batch job 2");
    login.wait_for("here$ ");
    // Its window is closed while the VM still starts.
    login.hang_up();
    login.end();
    wait_for(&pcocc, 2, "ready");
    let record = record(&pcocc, 2);
    let keeper = record["keeper"]["pid"].as_u64().unwrap();
    let launcher = record["launcher"]["pid"].as_u64().unwrap();
    let qemu = find(&pcocc, "qemu-system").unwrap();
    for pid in [keeper, launcher, qemu] {
        assert_eq!(session_and_terminal(pid), (keeper, 0), "process {pid}");
    }
    let name = pcocc.run(&["docker", "shell", "-E", "docker info -f {{.Name}}"]);
    assert_eq!(name, "docker-2");
    // A minute after it was asked for it ends, whoever is logged in.
    wait_until("its time is up", BOOT, || {
        crate::home::record(&pcocc, 2)["state"] == "ended"
    });
    let record = crate::home::record(&pcocc, 2);
    assert_eq!(record["error"], "the time limit was reached");
    assert_nothing_left(&pcocc);
}

#[test]
fn what_is_left_of_before_a_reboot_is_known_and_cleaned() {
    let pcocc = home(Pcocc::new(), "local", "");
    let _stop = Stop(&pcocc);
    pcocc.run(&["docker", "batch", "-J", "before"]);
    wait_for(&pcocc, 1, "ready");
    // As when the power fails: all of it is gone at once, and nothing is written any more.
    let written = record(&pcocc, 1);
    let pids = ["launcher", "keeper"].map(|name| written[name]["pid"].as_u64().unwrap());
    let qemu = find(&pcocc, "qemu-system").unwrap();
    for asked in [Signal::STOP, Signal::KILL] {
        for pid in pids {
            signal(pid, asked);
        }
    }
    wait_until("the VM is gone", SOON, || {
        !PathBuf::from(format!("/proc/{qemu}/exe")).exists()
    });
    // The machine is booted again, and its numbers belong to others: here to this test.
    let mut after = written.clone();
    let ours = std::process::id();
    for name in ["launcher", "keeper"] {
        after[name]["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
        after[name]["pid"] = ours.into();
    }
    let folder = pcocc.home().join(".pcocc/job_1");
    fs::write(folder.join("job.json"), after.to_string()).unwrap();
    let user = rustix::process::geteuid().as_raw();
    let mut renamed = Vec::new();
    for place in [guest_scratch(), PathBuf::from("/tmp")] {
        let private = place.join(format!("pcocc-{user}"));
        let keeper = &written["keeper"];
        let old = format!("vm-{}.{}-1", keeper["pid"], keeper["started"]);
        let new = private.join(format!("vm-{ours}.{}-1", keeper["started"]));
        fs::rename(private.join(old), &new).unwrap();
        renamed.push(new);
    }
    // Nobody believes it.
    let list = pcocc.run(&["docker", "ls"]);
    assert!(!list.contains("before"), "{list}");
    let status = pcocc.run(&["docker", "status", "-j", "1"]);
    assert!(
        status.contains("failed") && status.contains("booted again"),
        "{status}"
    );
    let shell = pcocc.try_run(&["docker", "shell", "-j", "1"]);
    assert!(shell.failed().contains("booted again"), "{shell}");
    // The next start takes away what is there: folders, certificates, and what the record says.
    let next = pcocc.try_run(&["docker", "alloc", "-E", "true"]);
    assert!(next.status.success(), "{next}");
    for folder in renamed {
        assert!(!folder.exists(), "{}", folder.display());
    }
    assert_eq!(record(&pcocc, 1)["state"], "failed");
    assert_eq!(record(&pcocc, 2)["state"], "ended");
    assert_nothing_left(&pcocc);
    assert_eq!(stale_folders(&pcocc), Vec::<PathBuf>::new());
}
