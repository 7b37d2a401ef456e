//! What docker is told when a job starts, and the images that `batch` shows.

use std::fs;
use std::time::Duration;

use pcocc_tests::{Pcocc, run, wait_until};

use crate::home::{BUSYBOX, Stop, assert_nothing_left, home, left, quoted};

#[test]
fn a_job_has_docker_settings_and_a_mount_of_its_own() {
    let pcocc = home(Pcocc::new(), "local", "");
    let file = |name: &str, text: &str| {
        let path = pcocc.home().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    };
    file("daemon.json", r#"{"labels": ["of=the-job"]}"#);
    file(".config/containers/certs.d/reg:5000/ca.crt", "authority\n");
    // Relative, as one types them.
    let words = "docker batch --mount mnt --docker-daemon-json daemon.json --no-snapshot";
    let mut batch = pcocc.command(&words.split(' ').collect::<Vec<_>>());
    batch
        .env("https_proxy", "http://doe:password@127.0.0.1:3128")
        .env("NO_PROXY", "example.org");
    run(&mut batch).ok();
    let _stop = Stop(&pcocc);
    let script =
        format!("{BUSYBOX} docker info -f '{{{{.Labels}}}} {{{{.HTTPSProxy}}}} {{{{.NoProxy}}}}'");
    let script = format!("bash -c {}", quoted(&script));
    let info = pcocc.run(&["docker", "shell", "-E", &script]);
    assert!(info.starts_with("[of=the-job] http://"), "{info}");
    assert!(info.ends_with("@127.0.0.1:3128 example.org"), "{info}");
    // Passwords are on nobody's command line.
    let lines = left(&pcocc);
    assert!(
        lines.iter().any(|line| line.contains("docker launch"))
            && !lines.iter().any(|line| line.contains("password")),
        "{lines:?}"
    );
    let log = pcocc.run(&["docker", "logs", "--launcher"]);
    assert!(log.contains("own loopback"), "{log}");
    let cat = "cat /etc/docker/certs.d/reg:5000/ca.crt";
    let inside = pcocc.run(&["docker", "guest", "shell", "-E", cat]);
    assert_eq!(inside.trim(), "authority");
    let point = pcocc.home().join("mnt");
    wait_until("batch shows the images", Duration::from_secs(30), || {
        point.join("docker/bb/index.json").exists()
    });
    run(std::process::Command::new("cp")
        .arg("-r")
        .arg(point.join("docker/bb"))
        .arg(point.join("repo/user/kept")))
    .ok();
    pcocc.run(&["docker", "stop"]);
    assert!(pcocc.run(&["image", "list"]).contains("kept"));
    assert!(
        fs::read_dir(&point).map_or(0, Iterator::count) == 0,
        "the mount stays"
    );
    assert_nothing_left(&pcocc);

    // What cannot be: said before anything starts, or by the job that fails.
    for (content, why) in [
        (r#"{"hosts": ["tcp://0.0.0.0:1"]}"#, "sets \"hosts\""),
        ("{", "/daemon.json: EOF while parsing"),
    ] {
        file("daemon.json", content);
        let words = [
            "docker",
            "alloc",
            "--docker-daemon-json",
            "daemon.json",
            "-E",
            "true",
        ];
        let refused = pcocc.try_run(&words);
        assert!(refused.failed().contains(why), "{refused}");
    }
    assert_nothing_left(&pcocc);
}
