//! How often a docker daemon is asked.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use pcocc_tests::{Docker, Dockerd, Mount, Pcocc, Proxy};

use crate::hello::shell;

/// Images in the daemon.
const IMAGES: usize = 200;

/// Gives an image one more name; a `docker tag` for each would take longer than all the rest.
fn tag(daemon: &Dockerd, id: &str, name: &str, tag: usize) {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let line = format!("POST /images/{id}/tag?repo={name}&tag={tag} HTTP/1.0\r\n\r\n");
    stream.write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 201 "), "{answer}");
}

#[test]
fn docker_folder_of_200_images_costs_one_request_and_no_export_as_root() {
    // Its own, so that nobody else's images change the list meanwhile.
    let daemon = Arc::new(Dockerd::start());
    let docker = Docker::of(Arc::clone(&daemon));
    let first = docker.build("many:0", "FROM scratch\nLABEL a=b\n", &[]);
    let id = docker.image_id(&first).unwrap();
    for number in 1..IMAGES {
        tag(&daemon, &id, &docker.name("many"), number);
    }
    let proxy = Proxy::before(&docker);
    let pcocc = Pcocc::new().through(&proxy);
    let mount = Mount::new(&pcocc);
    proxy.take_requests("");
    for look in [
        "ls -l docker",
        "ls -l docker rootfs/docker",
        "find docker -maxdepth 1 -printf '%p %s %T@\\n'; getfattr -d docker/* 2>&1",
    ] {
        let start = Instant::now();
        let listed = shell(&pcocc, &mount, look);
        let names = listed.ok().lines().filter(|line| line.contains("many:"));
        assert!(names.count() >= IMAGES, "{look}: {listed}");
        // What does not announce its changes is looked at again after two seconds.
        let most = 1 + start.elapsed().as_secs() as usize / 2;
        let mut asked = proxy.take_requests("");
        asked.retain(|line| !line.contains("/events") && !line.contains("/_ping"));
        assert!(asked.len() <= most, "{look}: {asked:?}");
        let lists = |line: &String| line.contains("/images/json");
        assert!(asked.iter().all(lists), "{asked:?}");
    }
    assert_eq!(mount.status()["transfers"], serde_json::json!([]));
    mount.end();
}
