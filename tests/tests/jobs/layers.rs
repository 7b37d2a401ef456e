//! Images out of a VM, layer by layer: nothing is saved in the guest, and known layers do not move.

use std::fs;

use pcocc_tests::{Pcocc, binary, run};

use crate::home::{BUSYBOX, assert_nothing_left, home, quoted};

/// Lines of `log` with `words`.
fn lines<'l>(log: &'l str, words: &str) -> Vec<&'l str> {
    log.lines().filter(|line| line.contains(words)).collect()
}

/// Runs `script` in a VM.
#[track_caller]
fn alloc(pcocc: &Pcocc, options: &[&str], script: &str) {
    let path = std::env::var("PATH").unwrap();
    let program = binary();
    let folder = program.parent().unwrap().display();
    let words = format!("bash -c {}", quoted(script));
    let words = ["-E", &words];
    let mut command = pcocc.command(&[&["docker", "alloc"], options, &words].concat());
    command.env("PATH", format!("{folder}:{path}"));
    run(&mut command).ok();
}

#[test]
fn images_come_out_of_a_vm_layer_by_layer() {
    let pcocc = home(Pcocc::new(), "local", "");
    // $used are the kibibytes of docker's disk; the guest's own log goes elsewhere.
    let script = format!(
        r#"set -e; {BUSYBOX}
        used() {{ pcocc docker guest shell -E 'du -ks /data/docker | cut -f 1' </dev/null | tr -dc 0-9; }}
        docker events --filter event=save --filter event=tag --format '{{{{.Action}}}}' >events & events=$!
        mkdir context; head -c 3000000 /dev/urandom >context/new
        printf 'FROM bb\nCOPY new /new\nRUN echo ran >/ran; rm /bin/wget\n' >context/Dockerfile
        DOCKER_BUILDKIT=0 docker build -q -t top context >&2
        before=$(used)
        pcocc --debug docker import bb base 2>base.log
        pcocc --debug docker import top top 2>top.log
        cp -r mnt/docker/top mnt/repo/user/copied
        echo "$before $(used)" >used
        # Another image takes the name between two imports.
        docker tag bb top
        pcocc docker import top moved
        # A name that stands for nothing.
        pcocc docker import nothing nothing 2>nothing.log && exit 1
        # An edit that cannot be made of the changed files alone.
        many='for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $n >/$n; done'
        pcocc --debug docker edit -E "$many" base edited 2>edit.log
        docker tag bb last; sleep 1; kill $events
        docker save bb >/dev/null"#
    );
    alloc(&pcocc, &["--mount", "mnt"], &script);
    let read = |name: &str| fs::read_to_string(pcocc.home().join(name)).unwrap();
    let log = read("base.log");
    assert_eq!(lines(&log, "the VM hands out layers").len(), 1, "{log}");
    assert_eq!(lines(&log, "layers=1 missing=1").len(), 1, "{log}");
    let log = read("top.log");
    assert_eq!(lines(&log, "layers=3 missing=2").len(), 1, "{log}");
    assert_eq!(lines(&log, "docker save").len(), 0, "{log}");
    let log = read("edit.log");
    assert_eq!(lines(&log, "layers=2 missing=1").len(), 1, "{log}");
    assert_eq!(lines(&log, "docker save").len(), 0, "{log}");
    let events = read("events");
    assert!(events.contains("tag"), "no events of docker: {events:?}");
    assert!(!events.contains("save"), "docker saved: {events:?}");
    let used = read("used");
    let (before, after) = used.trim().split_once(' ').unwrap();
    let [before, after]: [u64; 2] = [before, after].map(|text| text.parse().unwrap());
    assert!(after <= before + 100, "{before} KiB before, {after} after");
    assert!(read("nothing.log").contains("nothing"), "no reason");
    // They are the images that docker has.
    assert_eq!(pcocc.image_id("top"), pcocc.image_id("copied"));
    assert_eq!(pcocc.image_id("base"), pcocc.image_id("moved"));
    assert_ne!(pcocc.image_id("base"), pcocc.image_id("top"));
    pcocc.verify();
    assert_nothing_left(&pcocc);
}

#[test]
fn images_of_containerds_store_come_out_of_a_vm_as_they_are_stored() {
    let pcocc = home(Pcocc::new(), "local", "");
    let conf = pcocc.home().join(".pcocc");
    let daemon_json = pcocc.home().join("daemon.json");
    fs::write(
        &daemon_json,
        r#"{"features": {"containerd-snapshotter": true}}"#,
    )
    .unwrap();
    let templates = fs::read_to_string(conf.join("templates.yaml")).unwrap();
    let with = format!("closed, daemon_json: {}}}", daemon_json.display());
    fs::write(
        conf.join("templates.yaml"),
        templates.replace("closed}", &with),
    )
    .unwrap();
    let script = format!(
        r#"set -e; {BUSYBOX}
        docker info -f '{{{{.DriverStatus}}}}' >driver
        docker events --filter event=save --filter event=tag --format '{{{{.Action}}}}' >events & events=$!
        docker run --name changed bb sh -c 'echo new >/new'; docker commit changed top >&2
        docker image inspect -f '{{{{.Id}}}}' top >id
        pcocc --debug docker import bb base 2>base.log
        pcocc --debug docker import top top 2>top.log
        docker tag bb last; sleep 1; kill $events"#
    );
    alloc(&pcocc, &[], &script);
    let read = |name: &str| fs::read_to_string(pcocc.home().join(name)).unwrap();
    assert!(
        read("driver").contains("io.containerd.snapshotter"),
        "{}",
        read("driver")
    );
    for log in ["base.log", "top.log"] {
        let log = read(log);
        assert_eq!(lines(&log, "the VM hands out blobs").len(), 1, "{log}");
        assert_eq!(lines(&log, "docker save").len(), 0, "{log}");
    }
    let events = read("events");
    assert!(
        events.contains("tag") && !events.contains("save"),
        "{events:?}"
    );
    // Docker's ID is that of the manifest, which the repository has as a blob.
    let id = read("id");
    let id = id.trim().trim_start_matches("sha256:");
    let blob = pcocc.repository().join("data").join(&id[..2]).join(id);
    assert!(blob.exists(), "no {}", blob.display());
    pcocc.verify();
    assert_nothing_left(&pcocc);
}
