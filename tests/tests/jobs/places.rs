//! What is wrong in a configuration file and shows only on the VM's node is answered with file, line and column.

use std::fs;

use pcocc_tests::{Pcocc, Slurm, wait_until};

use crate::home::{BOOT, assert_nothing_left, home, record};

#[test]
fn what_only_the_node_finds_wrong_has_its_place() {
    let pcocc = home(Pcocc::new(), "local", "");
    let conf = pcocc.home().join(".pcocc");
    let bad = pcocc.home().join("bad.json");
    fs::write(&bad, "{\"a\": }").unwrap();
    let bad = bad.display();
    let template = "test: {cpus: 2, memory: 1G, disk: 8G, reach: closed}\n";
    for (file, text, place, why) in [
        (
            "templates.yaml",
            "test:\n  ca_certificates:\n    - /nowhere/ca.pem\n".to_owned(),
            "templates.yaml:3:7: ",
            "read /nowhere/ca.pem: No such file",
        ),
        (
            "templates.yaml",
            "test: {daemon_json: /nowhere/daemon.json}\n".to_owned(),
            "templates.yaml:1:21: ",
            "read /nowhere/daemon.json: No such file",
        ),
        (
            "templates.yaml",
            format!("test:\n  daemon_json:  {bad}\n"),
            "templates.yaml:2:17: ",
            "expected value at line 1 column 7",
        ),
        (
            "templates.yaml",
            "test: {image: nothing-like-it}\n".to_owned(),
            "templates.yaml:1:15: ",
            "nothing-like-it",
        ),
        (
            "containers.yaml",
            "runtime:\n  docker_template: nope\n".to_owned(),
            "containers.yaml:2:3: ",
            "no template \"nope\"",
        ),
        (
            "batch.yaml",
            "type: local\ndocker_scratch: '%{env:NOWHERE_SET}/x'\n".to_owned(),
            "batch.yaml:2:17: ",
            "NOWHERE_SET, which is not set",
        ),
    ] {
        let path = conf.join(file);
        let before = fs::read(&path).unwrap();
        fs::write(&path, &text).unwrap();
        let outcome = pcocc.try_run(&["docker", "alloc", "-E", "true"]);
        let words = outcome.failed();
        let place = conf.join(place).display().to_string();
        assert!(words.contains(&place), "{place}{text}{outcome}");
        assert!(words.contains(why), "{why}: {outcome}");
        fs::write(&path, before).unwrap();
        assert_nothing_left(&pcocc);
    }
    // An option is no line of a file.
    fs::write(conf.join("templates.yaml"), template).unwrap();
    let outcome = pcocc.try_run(&["docker", "alloc", "--template", "nope", "-E", "true"]);
    assert!(!outcome.failed().contains("containers.yaml:"), "{outcome}");
}

#[test]
fn an_address_that_the_node_cannot_expand_as_root() {
    let slurm = Slurm::start();
    let user = Pcocc::as_ordinary_user()
        .with_variable("SLURM_CONF", &slurm.configuration().to_string_lossy());
    let pcocc = home(
        user,
        "slurm",
        "docker_address:   '%{env:NOWHERE_SET}-ib0'\n",
    );
    let submitted = pcocc.run(&["docker", "batch", "-c2", "--mem=1500"]);
    let id = submitted.trim_start_matches("Submitted batch job ");
    let job = id.parse().expect("a job number");
    wait_until("the job has failed", BOOT, || {
        record(&pcocc, job)["state"] == "failed"
    });
    let error = record(&pcocc, job)["error"].clone();
    let place = pcocc.home().join(".pcocc/batch.yaml:3:19: ");
    let error = error.as_str().expect("an error");
    assert!(error.contains(&place.display().to_string()), "{error}");
    slurm.wait_until_empty();
    assert_nothing_left(&pcocc);
}
