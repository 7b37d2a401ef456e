//! Jobs that Slurm takes their node from, to give them another one later.

use std::time::Duration;

use pcocc_tests::wait_until;
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::home::{BOOT, SOON, end, find, record, said, signal, wait_for};

/// Lets a job that was put back into the queue start now: Slurm lets it wait for minutes.
fn hurry(cluster: &Cluster, job: u32) {
    // By the second Slurm tells the credentials of the job's lives apart; it never restarts one that fast by itself.
    std::thread::sleep(Duration::from_secs(2));
    let id = format!("JobId={job}");
    cluster
        .slurm
        .run("scontrol", &["update", &id, "StartTime=now"]);
}

/// Waits until `ls` says that a job waits, and has neither node nor endpoint.
#[track_caller]
fn wait_until_queued(cluster: &Cluster, job: u32) {
    wait_until("it waits again", Duration::from_secs(60), || {
        cluster.listed(job)["state"] == "queued"
    });
    let line = cluster.listed(job);
    assert!(
        line["node"].is_null() && line["endpoint"].is_null(),
        "{line}"
    );
}

#[test]
fn a_job_that_is_put_back_into_the_queue_as_root() {
    let cluster = Cluster::start();
    let (slurm, pcocc) = (&cluster.slurm, &cluster.pcocc);
    let job = cluster.submit(&["--requeue", "-J", "again"]);
    wait_for(pcocc, job, "ready");
    let first = record(pcocc, job)["endpoint"].clone();
    slurm.run("scontrol", &["requeue", &job.to_string()]);
    wait_until("it waits again", SOON, || {
        slurm.jobs() == [format!("{job} PENDING")]
    });
    // Nobody stands for it, and still it is not over.
    wait_until_queued(&cluster, job);
    let table = pcocc.run(&["docker", "ls"]);
    assert!(
        table.contains("again") && table.contains("queued"),
        "{table}"
    );
    // Whoever wants a shell waits with it, for the VM it will have.
    let words = [
        "docker",
        "shell",
        "-J",
        "again",
        "-E",
        "docker info -f {{.Name}}",
    ];
    let mut shell = crate::home::start(pcocc, "shell", &words);
    wait_until("the shell waits", SOON, || {
        said(pcocc, "shell").contains("waits in the queue")
    });
    hurry(&cluster, job);
    assert!(
        end(&mut shell, "shell").success(),
        "{}",
        said(pcocc, "shell")
    );
    let shown = said(pcocc, "shell");
    assert!(shown.contains(&format!("docker-{job}")), "{shown}");
    assert_ne!(record(pcocc, job)["endpoint"], first);
    assert_eq!(record(pcocc, job)["name"], "again");
    // Ended while it waits once more.
    slurm.run("scontrol", &["requeue", &job.to_string()]);
    wait_until_queued(&cluster, job);
    pcocc.run(&["docker", "stop", "again"]);
    assert!(cluster.listed(job).is_null());
    cluster.assert_nothing_left();
    assert_eq!(record(pcocc, job)["state"], "ended");
}

#[test]
fn jobs_that_give_way_to_more_urgent_ones_as_root() {
    let cluster = Cluster::start_with(
        &[
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            "PartitionName=urgent Nodes=n1,n2 PriorityTier=10",
        ],
        "docker_address: 127.0.0.1\n",
    );
    let (slurm, pcocc) = (&cluster.slurm, &cluster.pcocc);
    let submitted = cluster.submit(&["--requeue"]);
    wait_for(pcocc, submitted, "ready");
    let (mut command, allocated) = cluster.running("alloc");
    let urgent = slurm.run(
        "sbatch",
        &[
            "-p",
            "urgent",
            "-N2",
            "--exclusive",
            "--parsable",
            "-o/dev/null",
            "--wrap=sleep 600",
        ],
    );
    // What salloc was granted is gone for good.
    assert!(
        !end(&mut command, "alloc").success(),
        "{}",
        said(pcocc, "alloc")
    );
    wait_until("the allocated job is over", SOON, || {
        cluster.listed(allocated).is_null()
    });
    wait_until_queued(&cluster, submitted);
    wait_until("nothing of either VM is left", SOON, || {
        find(pcocc, "qemu-system").is_none()
    });
    slurm.run("scancel", &[&urgent]);
    hurry(&cluster, submitted);
    let log = pcocc.home().join(format!(".pcocc/log/job-{submitted}.out"));
    wait_until("it runs again, or has failed to", BOOT, || {
        record(pcocc, submitted)["state"] == "ready" || slurm.jobs().is_empty()
    });
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(record(pcocc, submitted)["state"], "ready", "{log}");
    assert_eq!(cluster.guest_of(submitted), format!("docker-{submitted}"));
    pcocc.run(&["docker", "stop"]);
    cluster.assert_nothing_left();
}

#[test]
fn jobs_whose_node_fails_as_root() {
    let cluster = Cluster::start_with(&["SlurmdTimeout=6"], "docker_address: 127.0.0.1\n");
    let (slurm, pcocc) = (&cluster.slurm, &cluster.pcocc);
    // Declared down by the administrator: what runs there is ended.
    let job = cluster.submit(&["--requeue", "-w", "n1"]);
    wait_for(pcocc, job, "ready");
    slurm.run(
        "scontrol",
        &["update", "NodeName=n1", "State=DOWN", "Reason=test"],
    );
    wait_until_queued(&cluster, job);
    wait_until("nothing of the VM is left", SOON, || {
        find(pcocc, "qemu-system").is_none()
    });
    pcocc.run(&["docker", "stop"]);
    cluster.assert_nothing_left();

    // Lost: its daemon is gone, and the VM's processes go on where nobody reaches them.
    wait_until("the node is back", Duration::from_secs(60), || {
        // It may be back by itself.
        let resume = ["update", "NodeName=n1", "State=RESUME"];
        let _ = slurm.command("scontrol").args(resume).output();
        let idle = ["--noheader", "--nodes=n1", "--format=%t"];
        slurm.run("sinfo", &idle).trim() == "idle"
    });
    let job = cluster.submit(&["--requeue"]);
    wait_for(pcocc, job, "ready");
    let first = record(pcocc, job);
    let node = slurm.run("squeue", &["--noheader", "--format=%N"]);
    signal(slurm.node_daemon(node.trim()).into(), Signal::KILL);
    wait_until("Slurm has given the node up", BOOT, || {
        slurm.jobs() == [format!("{job} PENDING")]
    });
    hurry(&cluster, job);
    wait_until("it is ready on the other node", BOOT, || {
        let now = record(pcocc, job);
        now["state"] == "ready" && now["endpoint"] != first["endpoint"]
    });
    // The old VM sees that the job is another's, ends, and leaves the new one's record and certificates alone.
    let launcher = first["launcher"]["pid"].as_u64().unwrap();
    wait_until(
        "the lost VM has ended itself",
        Duration::from_secs(30),
        || !std::path::Path::new(&format!("/proc/{launcher}/exe")).exists(),
    );
    assert_eq!(cluster.guest_of(job), format!("docker-{job}"));
    assert_eq!(cluster.listed(job)["state"], "ready");
    pcocc.run(&["docker", "stop"]);
    cluster.assert_nothing_left();
}
