//! `docs/GUIDE.md` is true: its commands, run in their order by an ordinary user, print what it shows.

use pcocc_tests::guide::{all_lasting, guide, steps};
use pcocc_tests::{Docker, Pcocc, leaks, run};

/// Takes away what a guide that broke off leaves: its mount, and its images in a daemon that others use as well.
struct Traces<'t>(&'t Pcocc, &'t Docker);

impl Drop for Traces<'_> {
    fn drop(&mut self) {
        let point = self.0.home().join("img");
        self.0
            .try_run(&["docker", "umount", &point.to_string_lossy()]);
        self.1
            .try_run(&["rmi", "-f", "hello", "hello-back", "hello-evening"]);
    }
}

#[test]
fn the_guide_is_true_with_docker() {
    let docker = Docker::shared();
    let pcocc = Pcocc::as_ordinary_user().with(&docker);
    let watch = leaks::Watch::new(pcocc.home());
    let traces = Traces(&pcocc, &docker);
    let path = format!(
        "{}/bin:{}",
        pcocc.home().display(),
        std::env::var("PATH").expect("PATH")
    );
    let steps = steps(&guide(), "console");
    assert!(steps.len() > 10, "the guide has {} commands", steps.len());
    for step in steps {
        let mut bash = pcocc.any("bash");
        bash.args(["-c", &format!("exec 2>&1\n{}", step.command)])
            .env("PATH", &path)
            // What builds is in every docker, and says the same in all of them.
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CLI_HINTS", "false");
        let outcome = run(&mut bash);
        let home = pcocc.home().to_string_lossy();
        let printed = outcome.stdout.replace(&*home, "~");
        assert_eq!(
            all_lasting(printed.lines()),
            all_lasting(step.shown.iter().map(String::as_str)),
            "$ {}\n{printed}",
            step.command
        );
    }
    pcocc.verify();
    drop(traces);
    watch.assert_clean();
}
