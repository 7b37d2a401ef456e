//! Jobs of Slurm that are ended from outside, at every stage and at every one of their processes.

use pcocc_tests::wait_until;
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::home::{BOOT, SOON, end, find, record, said, signal, stale_folders, start, wait_for};

#[test]
fn cancelled_at_every_stage_as_root() {
    let cluster = Cluster::start();
    let (slurm, pcocc) = (&cluster.slurm, &cluster.pcocc);
    for stage in ["queued", "starting", "booting", "ready", "stopping"] {
        // Booted, so that there is time for it while it boots.
        let more: &[&str] = match stage {
            "booting" => &["--no-snapshot"],
            "queued" => &["--begin=now+1hour"],
            _ => &[],
        };
        let job = cluster.submit(more);
        let id = job.to_string();
        match stage {
            "stopping" => {
                wait_for(pcocc, job, "ready");
                slurm.run("scancel", &[&id]);
            }
            // It may be further by now: not to be told from here.
            "starting" => wait_until("its launcher is there", BOOT, || {
                record(pcocc, job)["state"] != "queued"
            }),
            stage => wait_for(pcocc, job, stage),
        }
        slurm.run("scancel", &[&id]);
        cluster.assert_over(job);
        assert_eq!(record(pcocc, job)["state"], "ended", "{stage}");
    }
    for stage in ["booting", "ready"] {
        let (mut command, job) = cluster.allocated(stage, &["--no-snapshot"]);
        wait_for(pcocc, job, stage);
        slurm.run("scancel", &[&job.to_string()]);
        let status = end(&mut command, stage);
        assert!(!status.success(), "{stage}: {}", said(pcocc, stage));
        cluster.assert_nothing_left();
    }
    assert_eq!(stale_folders(pcocc), Vec::<std::path::PathBuf>::new());
}

#[test]
fn whichever_process_is_killed_as_root() {
    let cluster = Cluster::start();
    let pcocc = &cluster.pcocc;
    for victim in [
        "srun ",
        "salloc ",
        "session",
        "keeper",
        "qemu-system",
        "sleep 986",
    ] {
        let (mut command, job) = cluster.running(victim);
        let killed = match victim {
            "keeper" => record(pcocc, job)["keeper"]["pid"].as_u64().unwrap(),
            "session" => {
                let program = pcocc.home().join("bin/pcocc");
                let words = format!("{} docker session", program.display());
                find(pcocc, &words).expect("the session runs")
            }
            words => find(pcocc, words).expect("it runs"),
        };
        signal(killed, Signal::KILL);
        let status = end(&mut command, victim);
        assert!(!status.success(), "{victim}: {}", said(pcocc, victim));
        cluster.assert_nothing_left();
    }
    // Of a job in the background there are the keeper, the worker, and the srun that is its script.
    for victim in ["srun ", "launcher", "keeper"] {
        let job = cluster.submit(&[]);
        wait_for(pcocc, job, "ready");
        let killed = match victim {
            "srun " => find(pcocc, victim).expect("it runs"),
            name => record(pcocc, job)[name]["pid"].as_u64().unwrap(),
        };
        signal(killed, Signal::KILL);
        cluster.assert_over(job);
    }
    assert_eq!(stale_folders(pcocc), Vec::<std::path::PathBuf>::new());
}

/// Slurm's time limit ends the VM of a shell and one in the background; a minute is the least there is.
#[test]
fn jobs_whose_time_is_up_as_root() {
    let cluster = Cluster::start();
    let pcocc = &cluster.pcocc;
    // The snapshot is made before: a minute is not enough for a boot.
    let first = cluster.submit(&[]);
    wait_for(pcocc, first, "ready");
    cluster.slurm.run("scancel", &[&first.to_string()]);
    cluster.assert_over(first);
    let (mut command, allocated) = cluster.allocated("limited", &["-t1"]);
    let submitted = cluster.submit(&["-t1"]);
    for job in [allocated, submitted] {
        wait_for(pcocc, job, "ready");
        assert!(!record(pcocc, job)["deadline"].is_null(), "{job}");
    }
    wait_until(
        "the time is up",
        std::time::Duration::from_secs(150),
        || cluster.slurm.jobs().is_empty(),
    );
    let status = end(&mut command, "limited");
    assert!(!status.success(), "{}", said(pcocc, "limited"));
    for job in [allocated, submitted] {
        cluster.assert_over(job);
        assert_eq!(record(pcocc, job)["state"], "ended", "{job}");
    }
}

#[test]
fn suspended_by_slurm_as_root() {
    let cluster = Cluster::start();
    let (slurm, pcocc) = (&cluster.slurm, &cluster.pcocc);
    let job = cluster.submit(&[]);
    wait_for(pcocc, job, "ready");
    let id = job.to_string();
    slurm.run("scontrol", &["suspend", &id]);
    wait_until("it is suspended", SOON, || {
        slurm.jobs() == [format!("{job} SUSPENDED")]
    });
    // What waits for the VM meanwhile gets its answer later.
    let words = ["docker", "shell", "-E", "docker info -f {{.Name}}"];
    let mut shell = start(pcocc, "shell", &words);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(
        shell.try_wait().unwrap().is_none(),
        "{}",
        said(pcocc, "shell")
    );
    slurm.run("scontrol", &["resume", &id]);
    assert!(
        end(&mut shell, "shell").success(),
        "{}",
        said(pcocc, "shell")
    );
    // A job that is suspended can be cancelled, too.
    slurm.run("scontrol", &["suspend", &id]);
    wait_until("it is suspended", SOON, || {
        slurm.jobs() == [format!("{job} SUSPENDED")]
    });
    slurm.run("scancel", &[&id]);
    cluster.assert_over(job);
}
