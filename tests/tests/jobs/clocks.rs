//! A VM whose processes are stopped for a while, as on a machine that sleeps, and one whose clock is set.

use std::time::{Duration, SystemTime};

use pcocc_tests::{Pcocc, wait_until};
use rustix::process::Signal;

use crate::home::{Stop, assert_nothing_left, find, home, record, signal, wait_for};

/// How long a guest may have another time: it is told ours every 30 seconds.
const TOLD: Duration = Duration::from_secs(90);

/// How far the guest's clock is from ours, in seconds; `None` where its docker does not answer.
fn error_of_clock(pcocc: &Pcocc) -> Option<u64> {
    let outcome = pcocc.try_run(&["docker", "guest", "shell", "-E", "date +%s"]);
    let guest: u64 = outcome.stdout.trim().parse().ok()?;
    let ours = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    Some(guest.abs_diff(ours))
}

#[test]
fn a_vm_that_sleeps_or_whose_clock_is_set_comes_back() {
    let pcocc = home(Pcocc::new(), "local", "");
    let _stop = Stop(&pcocc);
    pcocc.run(&["docker", "batch"]);
    wait_for(&pcocc, 1, "ready");
    let written = record(&pcocc, 1);
    let processes = [
        written["keeper"]["pid"].as_u64().unwrap(),
        written["launcher"]["pid"].as_u64().unwrap(),
        find(&pcocc, "qemu-system").unwrap(),
        find(&pcocc, "slirp4netns").unwrap_or(0),
    ];
    let all = |asked: Signal| {
        for pid in processes.into_iter().filter(|pid| *pid > 0) {
            signal(pid, asked);
        }
    };
    // Asked before, answered after; nothing is taken for dead meanwhile.
    all(Signal::STOP);
    let words = ["docker", "shell", "-E", "docker info -f {{.Name}}"];
    let mut waiting = crate::home::start(&pcocc, "waiting", &words);
    std::thread::sleep(Duration::from_secs(40));
    assert!(pcocc.run(&["docker", "ls"]).contains("ready"));
    assert!(
        waiting.try_wait().unwrap().is_none(),
        "{}",
        crate::home::said(&pcocc, "waiting")
    );
    all(Signal::CONT);
    assert!(crate::home::end(&mut waiting, "waiting").success());
    wait_until("its clock is right again", TOLD, || {
        error_of_clock(&pcocc).is_some_and(|error| error < 5)
    });

    // The guest's clock is set to where the job's certificates are not good yet.
    let outcome = pcocc.try_run(&[
        "docker",
        "guest",
        "shell",
        "-E",
        "date -s @1000000000; date +%s",
    ]);
    assert!(outcome.stdout.contains("1000000000"), "{outcome}");
    let refused = pcocc.try_run(&words);
    assert!(!refused.status.success(), "{refused}");
    wait_until("its clock is set right", TOLD, || {
        error_of_clock(&pcocc).is_some_and(|error| error < 5)
    });
    assert_eq!(pcocc.run(&words), "docker-1");
    pcocc.run(&["docker", "stop"]);
    assert_nothing_left(&pcocc);
}
