//! The guest image: how it is built, and that it moves as other images do.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use pcocc_tests::{Pcocc, guest_folder, run};

/// A home with a repository `user` of its own, whose VMs are all its own, too.
fn site() -> Pcocc {
    let pcocc = Pcocc::new();
    let conf = pcocc.home().join(".pcocc");
    let home = pcocc.home().display();
    pcocc.configure_repositories(&format!(
        "repos:\n  - {{name: user, path: {home}/images}}\n"
    ));
    fs::write(
        conf.join("batch.yaml"),
        format!("type: local\ndocker_scratch: {home}/scratch\n"),
    )
    .unwrap();
    fs::create_dir(pcocc.home().join("scratch")).unwrap();
    // No packet of a guest leaves this machine.
    fs::write(
        conf.join("templates.yaml"),
        "test: {cpus: 2, memory: 1G, disk: 8G, reach: closed}\n",
    )
    .unwrap();
    fs::write(
        conf.join("containers.yaml"),
        "runtime: {docker_template: test}\n",
    )
    .unwrap();
    pcocc
}

/// The digest of the guest image's disk.
fn digest(pcocc: &Pcocc) -> String {
    let meta = fs::read(pcocc.home().join("images/meta/docker-vm@0")).expect("the image's record");
    let meta: serde_json::Value = serde_json::from_slice(&meta).expect("JSON");
    let digest = meta["data_blobs"][0].as_str().expect("a disk");
    digest.trim_start_matches("sha256:").to_owned()
}

#[test]
fn it_moves_to_another_site() {
    let (here, there) = (site(), site());
    let guest = here.home().join("guest");
    run(Command::new("cp")
        .arg("-r")
        .arg(guest_folder().join("repo"))
        .arg(&guest))
    .ok();
    here.configure_repositories(&format!(
        "repos:\n  - {{name: user, path: {0}/images}}\n  - {{name: guest, path: {0}/guest}}\n",
        here.home().display()
    ));
    here.run(&["image", "copy", "guest:docker-vm", "user:docker-vm"]);
    let file = here.home().join("docker-vm.qcow2");
    let file = file.to_string_lossy();
    here.run(&["image", "export", "docker-vm", &file]);
    there.run(&["image", "import", &file, "docker-vm"]);
    let list = there.run(&["image", "list"]);
    assert!(list.contains("docker-vm") && list.contains("vm"), "{list}");
    let made_of = |pcocc: &Pcocc| pcocc.run(&["docker", "guest", "show", "--files"]);
    assert_eq!(made_of(&here), made_of(&there));
    for part in [
        "docker.io ",
        "containerd ",
        "/usr/sbin/dockerd 0755 sha256:",
    ] {
        assert!(made_of(&there).contains(part), "no {part}");
    }
    there.run(&["docker", "alloc", "--no-snapshot", "-E", "docker info"]);
    let none = there.try_run(&["docker", "guest", "show", "nothing"]);
    assert!(none.failed().contains("guest build"), "{none}");
}

#[test]
fn two_builds_make_the_same_image() {
    let pcocc = site();
    let agent = guest_folder().join("pcocc-guest");
    let agent = agent.to_string_lossy();
    let build = |more: &[&str]| {
        let begun = Instant::now();
        let words = ["docker", "guest", "build", "--agent", &agent];
        pcocc.run(&[&words[..], more].concat());
        (begun.elapsed(), digest(&pcocc))
    };
    let (took, first) = build(&[]);
    assert!(took < Duration::from_secs(180), "a build took {took:?}");
    let disk = pcocc
        .home()
        .join("images/data")
        .join(&first[..2])
        .join(&first);
    let size = fs::metadata(&disk).expect("the disk").len();
    assert!(size < 150_000_000, "the image has {size} bytes");
    let files = pcocc.run(&["docker", "guest", "show", "--files"]);
    let (_, second) = build(&["--replace", "--snapshot"]);
    assert_eq!(
        pcocc.run(&["docker", "guest", "show", "--files"]),
        files,
        "not the same files"
    );
    assert_eq!(first, second, "the same files, but not the same image");
    // The snapshot is there: the first job does not boot.
    let outcome = pcocc.try_run(&["docker", "alloc", "-E", "true"]);
    outcome.ok();
    assert!(!outcome.stderr.contains("Booting"), "{outcome}");
}
