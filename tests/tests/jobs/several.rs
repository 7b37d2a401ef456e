//! Several jobs of one user at once, and the addresses by which Slurm's sites have them reached.

use pcocc_tests::{run, wait_until};

use crate::cluster::Cluster;
use crate::home::{record, wait_for};

#[test]
fn several_jobs_at_once_as_root() {
    // The endpoint is told by name; see below for the address.
    let cluster = Cluster::start_with(
        &[],
        "docker_address: localhost\ndocker_resolve_address: false\ndocker_ports: 42000-42999\n",
    );
    let (slurm, pcocc) = (&cluster.slurm, &cluster.pcocc);
    let jobs = ["one", "two", "three"].map(|name| (name, cluster.submit(&["-J", name])));
    for (name, job) in jobs {
        wait_for(pcocc, job, "ready");
        assert_eq!(cluster.guest_of(job), format!("docker-{job}"));
        let line = cluster.listed(job);
        assert_eq!(line["name"], name);
        let endpoint = line["endpoint"].as_str().unwrap();
        let port = endpoint.strip_prefix("tcp://localhost:");
        let port: u16 = port
            .unwrap_or_else(|| panic!("{endpoint}"))
            .parse()
            .unwrap();
        assert!((42000..43000).contains(&port), "{endpoint}");
    }
    // Which one is meant has to be said, and can be in two ways.
    let unsaid = pcocc.try_run(&["docker", "shell", "-E", "true"]);
    let list = jobs.map(|(name, job)| format!("{job} ({name})")).join(", ");
    assert!(unsaid.failed().contains(&list), "{unsaid}");
    let info = "docker info -f {{.Name}}";
    let named = pcocc.run(&["docker", "shell", "-J", "two", "-E", info]);
    assert_eq!(named, format!("docker-{}", jobs[1].1));
    // Those of one do not open another's.
    let [first, second] = [jobs[0].1, jobs[1].1].map(|job| record(pcocc, job));
    let certificates = pcocc
        .home()
        .join(format!(".pcocc/job_{}/vmcerts/client", jobs[0].1));
    let crossed = run(pcocc
        .any("docker")
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", certificates)
        .env("DOCKER_HOST", second["endpoint"].as_str().unwrap())
        .arg("version"));
    assert!(!crossed.status.success(), "{crossed}");
    assert_ne!(first["endpoint"], second["endpoint"]);
    // One goes, the others stay.
    pcocc.run(&["docker", "stop", "two"]);
    assert!(cluster.listed(jobs[1].1).is_null());
    assert_eq!(cluster.guest_of(jobs[2].1), format!("docker-{}", jobs[2].1));
    let stopped = pcocc.run(&["docker", "stop", "--all"]);
    assert_eq!(stopped.lines().count(), 2, "{stopped}");
    cluster.assert_nothing_left();

    // By its address: a name that stands for several is told as the one that is listened at.
    let batch = pcocc.home().join(".pcocc/batch.yaml");
    let text = std::fs::read_to_string(&batch).unwrap();
    std::fs::write(&batch, text.replace("address: false", "address: true")).unwrap();
    let job = cluster.submit(&[]);
    assert_eq!(cluster.guest_of(job), format!("docker-{job}"));
    let endpoint = record(pcocc, job)["endpoint"].as_str().unwrap().to_owned();
    assert!(endpoint.starts_with("tcp://127.0.0.1:42"), "{endpoint}");
    pcocc.run(&["docker", "stop"]);
    cluster.assert_nothing_left();

    // Arrays are refused in every way in which one can ask for them.
    for words in [&["-a", "1-3"][..], &["--array=1-3"], &["--arr", "1-3"]] {
        let refused = pcocc.try_run(&[&["docker", "batch"], words].concat());
        assert_eq!(refused.status.code(), Some(2), "{refused}");
    }
    let refused = run(pcocc
        .command(&["docker", "batch"])
        .env("SBATCH_ARRAY_INX", "1-3"));
    assert!(refused.failed().contains("SBATCH_ARRAY_INX"), "{refused}");
    wait_until("nothing was submitted", crate::home::SOON, || {
        slurm.jobs().is_empty()
    });
}
