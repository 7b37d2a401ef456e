//! Images out of a VM, layer by layer: nothing is saved in the guest, and known layers do not move.

use std::fs;

use pcocc_tests::{Pcocc, binary, run};

use crate::home::{BUSYBOX, assert_nothing_left, home, quoted};

/// Lines of `log` with `words`.
fn lines<'l>(log: &'l str, words: &str) -> Vec<&'l str> {
    log.lines().filter(|line| line.contains(words)).collect()
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
    let path = std::env::var("PATH").unwrap();
    let program = binary();
    let folder = program.parent().unwrap().display();
    let words = format!("bash -c {}", quoted(&script));
    let mut command = pcocc.command(&["docker", "alloc", "--mount", "mnt", "-E", &words]);
    command.env("PATH", format!("{folder}:{path}"));
    run(&mut command).ok();

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
