//! The fixtures themselves: what they start answers, and what they start ends.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pcocc_tests::{Docker, Dockerd, OrdinaryUser, Registry, Slurm, leaks, run, wait_until};

#[test]
fn a_docker_image_is_built_and_removed() {
    let docker = Docker::shared();
    let name = docker.busybox_image("bb");
    assert!(
        docker
            .image_id(&name)
            .is_some_and(|id| id.starts_with("sha256:"))
    );
    let layers = docker.run(&[
        "image",
        "inspect",
        "--format",
        "{{len .RootFS.Layers}}",
        &name,
    ]);
    assert_eq!(layers, "4");
    docker.remove_images();
    assert_eq!(docker.image_id(&name), None);
}

#[test]
fn a_private_daemon_ends_with_its_fixture_as_root() {
    let daemon = Arc::new(Dockerd::start());
    let folder = daemon
        .socket()
        .parent()
        .expect("the daemon's folder")
        .to_owned();
    let pid = daemon.pid();
    let docker = Docker::of(Arc::clone(&daemon));
    docker.busybox_image("bb");
    drop(docker);
    drop(daemon);
    assert!(!folder.exists());
    assert_eq!(leaks::mounts_below(&folder), Vec::<String>::new());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_killed_daemon_leaves_nothing_as_root() {
    let daemon = Dockerd::start();
    let folder = daemon
        .socket()
        .parent()
        .expect("the daemon's folder")
        .to_owned();
    daemon.kill();
    drop(daemon);
    assert!(!folder.exists());
    let ours = |entry: &std::fs::DirEntry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*folder.to_string_lossy()))
    };
    wait_until("containerd is gone too", Duration::from_secs(10), || {
        !std::fs::read_dir("/proc")
            .expect("read /proc")
            .flatten()
            .any(|entry| ours(&entry))
    });
}

#[test]
fn a_registry_asks_for_its_password() {
    let registry = Registry::with_password();
    let url = format!("http://{}/v2/", registry.address());
    let code = |arguments: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", &url])
            .args(arguments);
        run(&mut curl).ok().to_owned()
    };
    assert_eq!(code(&[]), "401");
    let known = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    assert_eq!(code(&["-u", &known]), "200");
    assert_eq!(code(&["-u", "tester:wrong"]), "401");
}

#[test]
fn an_ordinary_user_is_no_root() {
    let user = OrdinaryUser::new();
    assert_ne!(run(user.command("id").arg("-u")).ok(), "0");
    run(user.command("touch").arg("file")).ok();
    run(user.command("sh").args(["-c", "exec 3<>/dev/fuse"])).ok();
    run(user.command("touch").arg("/etc/pcocc-test")).failed();
}

#[test]
fn a_slurm_cluster_runs_jobs_and_ends_with_them_as_root() {
    let slurm = Slurm::start();
    assert_eq!(
        slurm.run("srun", &["-p", "sandy", "-n1", "echo", "hello"]),
        "hello"
    );
    let user = OrdinaryUser::new();
    let mut salloc = user.command("salloc");
    salloc.env("SLURM_CONF", slurm.configuration());
    let out = run(salloc.args(["-Q", "srun", "-n1", "id", "-u"]));
    assert_ne!(out.ok(), "");
    slurm.run("sbatch", &["--output=/dev/null", "--wrap=sleep 1000"]);
    wait_until("the job runs", Duration::from_secs(10), || {
        slurm.jobs().iter().any(|job| job.ends_with("RUNNING"))
    });
    let folder = slurm
        .configuration()
        .parent()
        .expect("its folder")
        .to_owned();
    drop(slurm);
    assert!(!folder.exists());
    let named = format!("SLURM_CONF={}/", folder.display());
    let left: Vec<_> = std::fs::read_dir("/proc")
        .expect("read /proc")
        .flatten()
        .filter(|entry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&named)
        })
        .map(|entry| entry.file_name())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
