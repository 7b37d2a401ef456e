//! VMs through a real Slurm, as an ordinary user: a cluster of two nodes on this machine.

use pcocc_tests::wait_until;
use rustix::process::Signal;

use crate::cluster::{Cluster, SIZE, granted};
use crate::home::{SOON, end, record, said, signal, start};

#[test]
fn vms_through_slurm_as_root() {
    let cluster = Cluster::start();
    let pcocc = &cluster.pcocc;

    // What the manual shows; and the shell's exit code comes through salloc and back.
    let outcome = pcocc.try_run(&Cluster::alloc(&[
        "-p",
        "sandy",
        "-E",
        "sh -c 'docker version -f {{.Server.Os}}; exit 7'",
    ]));
    assert_eq!(outcome.status.code(), Some(7), "{outcome}");
    assert_eq!(outcome.stdout.trim_end(), "linux", "{outcome}");
    let job = granted(&outcome.stderr).unwrap_or_else(|| panic!("no allocation: {outcome}"));
    let words: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(
        words[..4],
        [
            "Starting the docker VM ...",
            &format!("salloc: Granted job allocation {job}"),
            "Configuring hosts... (done)",
            "Waiting for docker VM to start ...",
        ],
        "{outcome}"
    );
    cluster.assert_nothing_left();

    // In the background, until it is stopped.
    let batch = [
        &["docker", "batch"],
        &SIZE[..],
        &["-J", "work", "-t", "60", "-p", "sandy"],
    ]
    .concat();
    let submitted = pcocc.run(&batch);
    let id = submitted
        .strip_prefix("Submitted batch job ")
        .unwrap_or_else(|| panic!("{submitted}"))
        .to_owned();
    let job: u32 = id.parse().unwrap();
    let version = "docker version -f {{.Server.Os}}";
    assert_eq!(
        pcocc.run(&["docker", "shell", "-j", &id, "-E", version]),
        "linux"
    );
    let left = record(pcocc, job)["deadline"].as_u64().unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    assert!((now + 3000..now + 3700).contains(&left), "{left} {now}");
    assert_eq!(
        pcocc.run(&["docker", "stop", "work"]),
        format!("Stopped job {id}")
    );
    cluster.assert_nothing_left();
}

#[test]
fn ends_of_vms_through_slurm_as_root() {
    let cluster = Cluster::start();
    let Cluster { slurm, pcocc } = &cluster;
    // Slurm's warning (`--signal`) reaches every process of the job, and ends none.
    let (mut command, job) = cluster.running("warned");
    slurm.run("scancel", &["--signal=USR1", &job.to_string()]);
    wait_until("the warning is told", SOON, || {
        said(pcocc, "warned").contains("SIGUSR1: its time is nearly over")
    });
    let kept = pcocc.run(&["docker", "logs", "--launcher"]);
    assert!(kept.contains("SIGUSR1: its time is nearly over"), "{kept}");
    let os = pcocc.run(&["docker", "shell", "-E", "docker version -f {{.Server.Os}}"]);
    assert_eq!(os, "linux");
    slurm.run("scancel", &[&job.to_string()]);
    assert!(!end(&mut command, "warned").success());
    cluster.assert_nothing_left();

    // Killed at either end of salloc.
    for victim in ["command", "launcher"] {
        let (mut command, job) = cluster.running(victim);
        signal(
            match victim {
                "command" => u64::from(command.id()),
                name => record(pcocc, job)[name]["pid"].as_u64().unwrap(),
            },
            Signal::KILL,
        );
        let status = end(&mut command, victim);
        assert!(!status.success(), "{}", said(pcocc, victim));
        cluster.assert_nothing_left();
    }
}

#[test]
fn jobs_in_slurms_queue_as_root() {
    let cluster = Cluster::start();
    let Cluster { slurm, pcocc } = &cluster;
    let later = |name: &str| {
        let command = start(
            pcocc,
            name,
            &Cluster::alloc(&["--begin=now+1hour", "-E", "true"]),
        );
        wait_until("the job is queued", SOON, || !slurm.jobs().is_empty());
        command
    };
    let queued = || {
        let jobs = slurm.jobs();
        jobs[0].split(' ').next().unwrap().to_owned()
    };
    // Given up.
    let arguments = Cluster::alloc(&["-T", "1", "--begin=now+1hour", "-E", "true"]);
    let outcome = pcocc.try_run(&arguments);
    assert_eq!(outcome.status.code(), Some(124), "{outcome}");
    cluster.assert_nothing_left();
    // Interrupted, cancelled, and killed: the command, or salloc.
    let mut command = later("interrupted");
    signal(u64::from(command.id()), Signal::INT);
    assert_eq!(end(&mut command, "interrupted").code(), Some(130));
    cluster.assert_nothing_left();
    let mut command = later("cancelled");
    slurm.run("scancel", &[&queued()]);
    assert_eq!(end(&mut command, "cancelled").code(), Some(1));
    cluster.assert_nothing_left();
    let mut command = later("killed");
    signal(u64::from(command.id()), Signal::KILL);
    end(&mut command, "killed");
    cluster.assert_nothing_left();
    let mut command = later("salloc");
    let salloc = crate::home::find(pcocc, "salloc ").expect("salloc runs");
    signal(salloc, Signal::KILL);
    assert_eq!(
        end(&mut command, "salloc").code(),
        Some(137),
        "{}",
        said(pcocc, "salloc")
    );
    cluster.assert_nothing_left();

    // In the background.
    pcocc.run(&["docker", "batch", "--begin=now+1hour", "-J", "later"]);
    let list = || pcocc.run(&["docker", "ls"]);
    assert!(list().contains("queued"), "{}", list());
    slurm.run("scancel", &[&queued()]);
    wait_until("the job is known to be over", SOON, || {
        !list().contains("later")
    });
    let refused = pcocc.try_run(&["docker", "batch", "-a", "1-3"]);
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    let refused = pcocc.try_run(&["docker", "alloc", "--bogus"]);
    assert!(refused.failed().contains("bogus"), "{refused}");
    assert!(slurm.jobs().is_empty());
}
