//! Who waits for what: nobody for another one's copy, and nobody for long for a daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use pcocc_tests::{Docker, Pcocc, Proxy, wait_until};

use crate::hello::Site;

/// How long a daemon that does not answer may be waited for.
const PATIENCE: Duration = Duration::from_secs(5);

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

fn list(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_commit_of_ten_seconds_to_docker_holds_up_nobody() {
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), Some(docker), &[]);
    let image = site.name("slow");
    list(&site.mount.join("rootfs/repo/user/hello/etc"));
    proxy.hold("/images/load");
    let mut looks = Vec::new();
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| site.copy("cp -r $from $to", "$home/plain", "docker", &image));
        proxy.wait_until_held();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            for folder in [
                "docker",
                "repo/user",
                "repo/user/hello",
                "rootfs/repo/user/hello/etc",
            ] {
                let folder = site.mount.join(folder);
                looks.push(timed(|| assert!(!list(&folder).is_empty())).1);
            }
            let document = site.mount.join("repo/user/hello/index.json");
            looks.push(timed(|| std::fs::read(&document).unwrap()).1);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!copying.is_finished());
        // Another copy is through while the first one waits.
        site.copy("cp -r $from $to", "$home/plain", "repo/user", "beside")
            .ok();
        assert!(!copying.is_finished());
        proxy.release();
        copying.join().unwrap().ok();
    });
    assert_eq!(site.id_of("docker", &image).as_ref(), Some(&site.id));
    // A machine with other work now and then lets anybody wait.
    looks.sort();
    let nearly_all = looks[looks.len() * 95 / 100];
    assert!(nearly_all < Duration::from_millis(50), "{nearly_all:?}");
    assert!(looks[looks.len() - 1] < Duration::from_secs(2), "{looks:?}");
    site.docker.as_ref().unwrap().run(&["rmi", &image]);
    site.end();
}

#[test]
fn a_docker_daemon_that_goes_is_told_at_once_and_one_that_comes_back_is_used() {
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), Some(docker), &[]);
    let image = site.name("a");
    site.copy("cp -r $from $to", "$home/plain", "docker", &image)
        .ok();
    for round in 0..2 {
        let other = site.name(&format!("other{round}"));
        proxy.die();
        // What was listed a moment ago may be shown once more.
        wait_until("it is told", PATIENCE, || {
            site.shell("ls docker").stderr.contains("not connected")
        });
        let line = format!("ls docker/{image}/blobs/sha256 || ls docker/other");
        let (said, later) = timed(|| site.shell(&line));
        assert!(said.failed().contains("not connected"), "{said}");
        assert!(later < Duration::from_secs(2), "{later:?}");
        let copied = site.copy("cp -r $from $to", "$home/plain", "docker", &other);
        assert!(copied.failed().contains("not connected"), "{copied}");
        // The rest goes on.
        let (said, rest) = timed(|| {
            site.shell("ls . repo/user rootfs/repo/user/hello/etc; cat repo/user/hello/index.json")
        });
        said.ok();
        assert!(rest < Duration::from_secs(2), "{rest:?}");
        proxy.revive();
        wait_until("docker is back", Duration::from_secs(10), || {
            let listed = site.shell("ls docker");
            listed.status.success() && listed.stdout.contains(&image)
        });
        // The name that failed is free.
        site.copy("cp -rT $from $to", "$home/plain", "docker", &other)
            .ok();
        assert_eq!(site.id_of("docker", &other).as_ref(), Some(&site.id));
    }
    site.end();
}

#[test]
fn a_docker_daemon_that_hangs_is_given_five_seconds() {
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), Some(docker), &[]);
    site.shell("ls docker").ok();
    // Whatever it is asked from now on; and other tests' events are no sign of life.
    proxy.hang();
    std::thread::sleep(Duration::from_millis(2100));
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| timed(|| site.shell("ls docker/none-such")));
        proxy.wait_until_held();
        while !looking.is_finished() {
            let (_, beside) = timed(|| list(&site.mount.join("repo/user")));
            assert!(beside < Duration::from_secs(1), "{beside:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let (said, waited) = looking.join().unwrap();
        assert!(said.failed().contains("not connected"), "{said}");
        assert!(waited < PATIENCE + Duration::from_secs(1), "{waited:?}");
    });
    proxy.release();
    wait_until("docker is back", Duration::from_secs(10), || {
        site.shell("ls docker").status.success()
    });
    site.end();
}
