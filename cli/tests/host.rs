//! What a run finds out about its surroundings, it finds out once.

mod sandbox;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use pcocc_vm::job::{Backend, Here, Jobs, Record, State};
use sandbox::Sandbox;

#[test]
fn one_import_asks_slurm_once_which_job_is_meant() {
    let sandbox = Sandbox::new();
    // A squeue that counts its calls, and has job 7 running.
    sandbox.write(
        "bin/squeue",
        "#!/bin/sh\necho asked >>\"$HOME/asked\"\necho '7|RUNNING|1:00:00'\n",
    );
    let squeue = sandbox.home().join("bin/squeue");
    fs::set_permissions(&squeue, fs::Permissions::from_mode(0o755)).unwrap();
    // Job 7 runs on another node, which only Slurm can see; nothing listens at its endpoint.
    let jobs = Jobs::open(&sandbox.home().join(".pcocc")).unwrap();
    let id = "7".parse().unwrap();
    let folder = jobs.create_slurm(id, false).unwrap();
    let mut record = Record::new(id, "docker", Backend::Slurm, "doe", 1_767_323_045);
    record.state = State::Ready;
    record.endpoint = Some("tcp://127.0.0.1:1".to_owned());
    let here = Here::read().unwrap();
    let mut launcher = here.holder(std::process::id()).unwrap();
    launcher.host = "node7".to_owned();
    launcher.boot_id = "another".to_owned();
    record.launcher = Some(launcher);
    folder.write(&record).unwrap();

    let mut command = sandbox.command(&["docker", "import", "bb", "newbb"]);
    let path = format!("{}:/usr/bin:/bin", sandbox.home().join("bin").display());
    let output = command.env_remove("DOCKER_HOST").env("PATH", path).output();
    let output = output.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let asked = fs::read_to_string(sandbox.home().join("asked")).expect(&text);
    assert_eq!(asked, "asked\n");
    let failed = "pcocc: failed to import docker image bb as newbb: ";
    assert!(
        text.starts_with(failed) && !output.status.success(),
        "{text}"
    );
}
