//! A docker context of a job opens its daemon from anywhere, and goes with the job: with the shell of `alloc`, or when Slurm
//! ends it.

use pcocc_tests::{Pcocc, Slurm, binary, wait_until};

use crate::home::{SOON, Stop, assert_nothing_left, home, quoted, wait_for};

/// The contexts in docker's store of this home, but docker's own.
fn contexts(pcocc: &Pcocc) -> Vec<String> {
    let names = pcocc.run_any("docker", &["context", "ls", "--quiet"]);
    let names = names.lines().filter(|name| *name != "default");
    names.map(str::to_owned).collect()
}

#[test]
fn the_context_of_a_shells_vm_goes_with_the_shell() {
    let pcocc = home(Pcocc::new(), "local", "");
    let script = format!(
        "name=$({} docker env --context) || exit 1
         docker context ls --quiet
         unset DOCKER_HOST DOCKER_TLS_VERIFY DOCKER_CERT_PATH
         docker --context $name version -f '{{{{.Server.Os}}}}'",
        quoted(&binary().to_string_lossy())
    );
    let script = format!("sh -c {}", quoted(&script));
    let said = pcocc.run(&["docker", "alloc", "-E", &script]);
    assert_eq!(said, "default\npcocc-1\nlinux");
    assert_eq!(contexts(&pcocc), [""; 0]);
    assert_nothing_left(&pcocc);
}

#[test]
fn the_context_of_a_job_goes_when_slurm_ends_it_as_root() {
    let slurm = Slurm::start();
    let user = Pcocc::as_ordinary_user()
        .with_variable("SLURM_CONF", &slurm.configuration().to_string_lossy());
    let pcocc = home(user, "slurm", "docker_address: 127.0.0.1\n");
    let submitted = pcocc.run(&["docker", "batch", "-c2", "--mem=1500"]);
    let _stop = Stop(&pcocc);
    let id = submitted.trim_start_matches("Submitted batch job ");
    let job = id.parse().expect("a job number");
    wait_for(&pcocc, job, "ready");
    let name = pcocc.run(&["docker", "env", "--context"]);
    assert_eq!(name, format!("pcocc-{id}"));
    assert_eq!(contexts(&pcocc), [&*name]);
    let version = ["--context", &name, "version", "-f", "{{.Server.Os}}"];
    assert_eq!(pcocc.run_any("docker", &version), "linux");
    slurm.run("scancel", &[id]);
    wait_until("the context is gone", SOON, || contexts(&pcocc).is_empty());
    slurm.wait_until_empty();
    assert_nothing_left(&pcocc);
}
