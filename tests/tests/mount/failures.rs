//! Copies that fail or are given up: the tool is told, nothing is left, and the next try works.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pcocc_tests::{
    Docker, Dockerd, Mount, Outcome, Pcocc, Proxy, fill, in_own_namespace, layout, small_disk,
    wait_until,
};

use crate::copiers::{TOOLS, Tool};
use crate::hello::{Site, shell, text, with_image};

const FULL: &str = "No space left on device";
const GONE: &str = "not connected";
const TAKEN: &str = "File exists";

/// Runs every tool where it must fail, as `fails` arranges for the image it is given, and once more after
/// `mended` has seen to it that it can work.
fn every_tool_fails(
    site: &Site,
    to: &str,
    errno: &str,
    fails: impl Fn(&str),
    mended: impl Fn(&str),
) {
    for copier in TOOLS {
        let tool = copier.name;
        let image = site.name(tool);
        let source = copier.source(site, "$home/plain", &image);
        fails(&image);
        assert_says(&copier.run(site, &source, to, &image), errno);
        mended(&image);
        assert_eq!(site.id_of(to, &image), None, "{tool}");
        assert_works(site, copier, to, &image);
        forget(site, to, &image);
    }
}

/// Checks that a tool failed with that text; Go writes it in small letters.
#[track_caller]
fn assert_says(outcome: &Outcome, errno: &str) {
    let said = outcome.failed().to_lowercase();
    assert!(said.contains(&errno.to_lowercase()), "{outcome}");
}

/// Checks that a tool that failed works now: the same image, by one transfer.
#[track_caller]
fn assert_works(site: &Site, copier: &Tool, to: &str, image: &str) {
    let tool = copier.name;
    let source = copier.source(site, "$home/plain", image);
    copier.run(site, &source, to, image).ok();
    assert_eq!(site.id_of(to, image).as_ref(), Some(&site.id), "{tool}");
    let states = site.transfers(image);
    assert_eq!(states.iter().filter(|s| *s == "done").count(), 1, "{tool}");
}

/// Takes an image away with its blobs: what is there already would not be written again.
fn forget(site: &Site, to: &str, image: &str) {
    if let (Some(docker), "docker") = (&site.docker, to) {
        docker.run(&["rmi", image]);
    } else {
        site.pcocc.run(&["image", "delete", image]);
        site.pcocc
            .run(&["image", "repo", "gc", "--grace", "0", "user"]);
    }
}

#[test]
fn a_daemon_that_goes_during_the_transfer() {
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), Some(docker), &[]);
    let dies = |_: &str| proxy.die_at("/images/load");
    every_tool_fails(&site, "docker", GONE, dies, |_| proxy.revive());
    site.end();
}

#[test]
fn a_name_in_docker_that_is_taken_during_the_transfer() {
    let docker = Docker::shared();
    let other = docker.build("other", "FROM scratch\nENV other=1\n", &[]);
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), Some(docker), &[]);
    let docker = site.docker.as_ref().unwrap();
    for copier in TOOLS {
        let image = site.name(copier.name);
        let source = copier.source(&site, "$home/plain", &image);
        // Between the folder and the transfer.
        proxy.hold(&format!("/images/{image}:latest/json"));
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                proxy.wait_until_held();
                docker.run(&["tag", &other, &image]);
                proxy.release();
            });
            assert_says(&copier.run(&site, &source, "docker", &image), TAKEN);
            taker.join().unwrap();
        });
        assert_eq!(docker.image_id(&image), docker.image_id(&other), "{image}");
        docker.run(&["rmi", &image]);
        assert_works(&site, copier, "docker", &image);
        docker.run(&["rmi", &image]);
    }
    site.end();
}

/// The name is in the archive's end: until then another tag is seen.
#[test]
fn a_name_in_docker_that_is_taken_while_layers_are_sent() {
    let docker = Docker::shared();
    let other = docker.build("other", "FROM scratch\nENV other=1\n", &[]);
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), Some(docker), &[]);
    let docker = site.docker.as_ref().unwrap();
    let image = site.name("late");
    // More than all buffers on the way take.
    layout::write(&site.pcocc.home().join("large"), &[&vec![7; 32 << 20]]);
    proxy.hold("/images/load");
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| site.copy("cp -r $from $to", "$home/large", "docker", &image));
        proxy.wait_until_held();
        let changed = site.shell(&format!("echo x | cat >> docker/{image}/oci-layout"));
        assert!(changed.failed().contains("busy"), "{changed}");
        docker.run(&["tag", &other, &image]);
        proxy.release();
        let outcome = copying.join().unwrap();
        assert!(outcome.failed().contains(TAKEN), "{outcome}");
    });
    let told = site.shell("getfattr --only-values -n user.pcocc.error docker");
    assert!(told.ok().contains("already exists"), "{told}");
    assert_eq!(docker.image_id(&image), docker.image_id(&other));
    site.end();
}

#[test]
fn a_repository_without_room_as_root() {
    if !in_own_namespace("failures::a_repository_without_room_as_root") {
        return;
    }
    let pcocc = Pcocc::new();
    let disk = pcocc.home().join(".pcocc");
    small_disk(&disk, "16m");
    let site = Site::with(pcocc, None, &[]);
    site.pcocc.run(&["image", "delete", "hello"]);
    site.pcocc
        .run(&["image", "repo", "gc", "--grace", "0", "user"]);
    let fails = |_: &str| drop(fill(&disk, 100_000));
    let mended = |_: &str| fs::remove_file(disk.join("filler")).unwrap();
    every_tool_fails(&site, "repo/user", FULL, fails, mended);
    site.end();
}

#[test]
fn a_staging_folder_without_room_as_root() {
    if !in_own_namespace("failures::a_staging_folder_without_room_as_root") {
        return;
    }
    let pcocc = Pcocc::new();
    let staging = pcocc.home().join("tmp");
    small_disk(&staging, "16m");
    let site = Site::with(pcocc, None, &[]);
    let fails = |_: &str| drop(fill(&staging, 100_000));
    let mended = |_: &str| fs::remove_file(staging.join("filler")).unwrap();
    every_tool_fails(&site, "repo/user", FULL, fails, mended);
    site.end();
}

#[test]
fn a_daemon_without_room_as_root() {
    if !in_own_namespace("failures::a_daemon_without_room_as_root") {
        return;
    }
    let scratch = pcocc_tests::scratch();
    small_disk(scratch.path(), "48m");
    let root = format!("--data-root={}", scratch.path().join("data").display());
    let docker = Docker::of(Arc::new(Dockerd::start_with(&[&root])));
    let site = Site::new(Pcocc::new(), Some(docker));
    let fails = |_: &str| drop(fill(scratch.path(), 100_000));
    let mended = |_: &str| fs::remove_file(scratch.path().join("filler")).unwrap();
    every_tool_fails(&site, "docker", FULL, fails, mended);
    site.end();
}

#[test]
fn a_daemon_that_is_killed_as_root() {
    let daemon = Arc::new(Dockerd::start());
    let docker = Docker::of(Arc::clone(&daemon));
    let site = Site::new(Pcocc::new(), Some(docker));
    // The folder is made, then the daemon dies, then the files come.
    let line = "mkfifo $home/go; (read -r _ < $home/go; cp -rT $home/plain docker/x) & p=$!; \
                mkdir docker/x; kill -9 $(cat $home/pid); echo > $home/go; wait $p";
    fs::write(site.pcocc.home().join("pid"), daemon.pid().to_string()).unwrap();
    let started = Instant::now();
    assert!(site.shell(line).failed().contains(GONE));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(site.shell("ls docker").failed().contains(GONE));
    site.copy("cp -r $from $to", "$home/plain", "repo/user", "goes-on")
        .ok();
    site.end();
}

/// Lets whoever opens the file argv[1] wait for the command in the rest of argv.
const HELD: &str = r#"
import fcntl, os, signal, subprocess, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
file = os.open(sys.argv[1], os.O_RDONLY)
# A lease: who opens the file sleeps until it is given back, and the kernel tells us.
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
signal.sigwait({signal.SIGIO})
try:
    subprocess.run(sys.argv[2:], check=True, capture_output=True)
finally:
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
"#;

#[test]
fn a_name_in_a_repository_that_is_taken_during_the_copy() {
    let site = Site::new(Pcocc::as_ordinary_user(), None);
    site.pcocc.run(&["image", "delete", "hello"]);
    let scratch = pcocc_tests::scratch();
    let other = scratch.path().join("other");
    layout::write(&other, &[b"other"]);
    let other = text(&other).to_owned();
    let line = "cd $home/plain/blobs/sha256; ls -S | head -1";
    let layer = site.shell(line).ok().to_owned();
    for copier in TOOLS {
        let image = copier.name;
        let source = copier.source(&site, "$home/plain", image);
        if image == "tar" {
            // It does not wait for a file that is held.
            site.shell("mkdir repo/user/tar").ok();
            site.pcocc
                .run(&["image", "import", "-t", "oci", &other, image]);
            assert_says(&copier.run(&site, &source, "repo/user", image), TAKEN);
        } else {
            let file = format!("{source}/blobs/sha256/{layer}");
            let file = file.replace("$home", text(site.pcocc.home()));
            let mut held = site.pcocc.any("bash");
            held.args(["-c", "exec python3 -c \"$0\" \"$@\"", HELD, &file])
                .arg(site.pcocc.home().join("bin/pcocc"));
            held.args(["image", "import", "-t", "oci", &other, image]);
            let mut held = held.stdout(Stdio::piped()).spawn().unwrap();
            let mut ready = String::new();
            let mut said = BufReader::new(held.stdout.take().unwrap());
            said.read_line(&mut ready).unwrap();
            assert_eq!(ready, "held\n");
            assert_says(&copier.run(&site, &source, "repo/user", image), TAKEN);
            assert!(held.wait().unwrap().success(), "{image}");
        }
        // The other one's image is what stands there.
        let there = site.id_of("repo/user", image).unwrap();
        assert_ne!(there, site.id, "{image}");
        site.pcocc.run(&["image", "delete", image]);
        assert_works(&site, copier, "repo/user", image);
        forget(&site, "repo/user", image);
    }
    site.end();
}

/// Copies from a daemon that goes when it is asked for the image.
#[test]
fn a_daemon_that_goes_while_docker_images_are_read() {
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), Some(docker), &[]);
    let docker = site.docker.as_ref().unwrap();
    for copier in TOOLS.iter().filter(|copier| copier.reads_its_source()) {
        let tool = copier.name;
        // One that nobody has exported yet.
        let dockerfile = format!("FROM scratch\nCOPY f /{tool}\n");
        let from = docker.build(tool, &dockerfile, &[("f", Path::new("/etc/hostname"))]);
        let source = format!("$PWD/docker/{from}");
        wait_until("it is shown", Duration::from_secs(5), || {
            site.shell(&format!("ls docker/{from}")).status.success()
        });
        proxy.die_at("/get");
        assert_says(&copier.run(&site, &source, "repo/user", tool), GONE);
        proxy.revive();
        assert_eq!(site.id_of("repo/user", tool), None);
        wait_until("docker is back", Duration::from_secs(10), || {
            site.shell(&format!("ls docker/{from}")).status.success()
        });
        copier.run(&site, &source, "repo/user", tool).ok();
        assert_eq!(site.id_of("repo/user", tool), docker.image_id(&from));
    }
    site.end();
}

/// Writes the layout `$home/plain` to argv[1], one byte of a blob wrong; says what came of it; mends the blob.
const MENDING: &str = r#"
import os, shutil, sys
source, to = sys.argv[1:]
layer = max(os.scandir(source + "/blobs/sha256"), key=lambda blob: blob.stat().st_size).name
good = open(f"{source}/blobs/sha256/{layer}", "rb").read()
os.makedirs(to + "/blobs/sha256")
open(f"{to}/blobs/sha256/{layer}", "wb").write(b"X" + good[1:])
for name in os.listdir(source + "/blobs/sha256"):
    if name != layer:
        shutil.copy(f"{source}/blobs/sha256/{name}", to + "/blobs/sha256")
shutil.copy(source + "/oci-layout", to)
try:
    shutil.copy(source + "/index.json", to)
except OSError as error:
    print(error.strerror)
print(os.getxattr(to, "user.pcocc.error").decode())
print(os.getxattr(os.path.dirname(to), "user.pcocc.error").decode())
file = open(f"{to}/blobs/sha256/{layer}", "r+b")
file.write(good[:1])
file.close()
"#;

#[test]
fn the_reason_is_told_and_the_files_can_be_mended() {
    let (pcocc, id) = with_image(Pcocc::as_ordinary_user());
    let mount = Mount::new(&pcocc);
    let line = format!("python3 -c '{MENDING}' $home/plain $PWD/repo/user/mended");
    let outcome = shell(&pcocc, &mount, &line);
    let said: Vec<&str> = outcome.ok().lines().collect();
    assert_eq!(said[0], "Input/output error");
    for told in &said[1..] {
        assert!(
            told.contains("is corrupt: its content is sha256:"),
            "{told}"
        );
    }
    assert_eq!(said.len(), 3);
    let status = shell(&pcocc, &mount, "cat .pcocc/status.json");
    let status: serde_json::Value = serde_json::from_str(status.ok()).unwrap();
    assert_eq!(status["transfers"][0]["message"], said[1]);
    assert_eq!(status["transfers"][0]["state"], "failed");
    assert!(mount.log().contains(said[1]), "{}", mount.log());
    assert_eq!(pcocc.image_id("mended"), id);
    mount.end();
    pcocc.verify();
}

#[test]
fn a_copy_that_was_never_complete_is_dropped() {
    let (pcocc, id) = with_image(Pcocc::as_ordinary_user());
    let mount = Mount::new(&pcocc);
    let message = || {
        let status = shell(&pcocc, &mount, "cat .pcocc/status.json");
        let status: serde_json::Value = serde_json::from_str(status.ok()).unwrap();
        let last = status["transfers"].as_array().unwrap().last().cloned();
        last.map_or(String::new(), |last| {
            last["message"].as_str().unwrap_or("").to_owned()
        })
    };
    shell(
        &pcocc,
        &mount,
        "cp -r $home/plain $home/part; rm $home/part/oci-layout",
    )
    .ok();
    // Nothing was wrong yet, so that cp could not be told anything.
    shell(&pcocc, &mount, "cp -r $home/part repo/user/part").ok();
    wait_until("the copy is dropped", Duration::from_secs(2), || {
        shell(&pcocc, &mount, "ls repo/user").ok() == "hello"
    });
    assert_eq!(
        message(),
        "the copy ended before it was complete: oci-layout is missing"
    );
    // The name is free at once.
    shell(
        &pcocc,
        &mount,
        "cp -r $home/part repo/user/x; cp -r $home/plain repo/user/x",
    )
    .ok();
    assert_eq!(pcocc.image_id("x"), id);
    // A folder that mkdir made is kept, and may be removed at any time.
    shell(
        &pcocc,
        &mount,
        "mkdir -p repo/user/kept/blobs; cp $home/plain/index.json repo/user/kept",
    )
    .ok();
    std::thread::sleep(Duration::from_millis(500));
    shell(
        &pcocc,
        &mount,
        "test -f repo/user/kept/index.json; rm -r repo/user/kept",
    )
    .ok();
    assert_eq!(shell(&pcocc, &mount, "ls repo/user").ok(), "hello\nx");
    mount.end();
    pcocc.verify();
}

#[test]
fn a_signal_during_the_transfer_to_docker_stops_it() {
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), Some(docker), &[]);
    for signal in ["TERM", "INT", "KILL"] {
        let image = site.name("stopped");
        proxy.hold("/images/load");
        std::thread::scope(|scope| {
            let copying = scope.spawn(|| {
                // A job control shell leaves SIGINT alone for what it starts in the background.
                let line = "set -m; cp -r $from $to & echo $! > $home/pid; wait $!";
                let status = site.copy(line, "$home/plain", "docker", &image).status;
                (status, Instant::now())
            });
            proxy.wait_until_held();
            let told = Instant::now();
            site.shell(&format!("kill -{signal} $(cat $home/pid)")).ok();
            let (status, ended) = copying.join().unwrap();
            assert!(!status.success());
            assert!(
                ended - told < Duration::from_millis(1300),
                "{:?}",
                ended - told
            );
        });
        proxy.release();
        assert_eq!(site.id_of("docker", &image), None);
        site.copy("cp -r $from $to", "$home/plain", "docker", &image)
            .ok();
        assert_eq!(site.id_of("docker", &image).as_ref(), Some(&site.id));
        site.docker.as_ref().unwrap().run(&["rmi", &image]);
    }
    site.end();
}

#[test]
fn a_killed_copy_leaves_nothing_behind() {
    let (pcocc, id) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    for round in 0..10 {
        // The fifo holds the copy up in the middle of a blob.
        let line = format!(
            "rm -rf $home/part; cp -r $home/plain $home/part; rm $home/part/index.json; \
             mkfifo $home/part/index.json; cp -r --copy-contents $home/part repo/user/killed & \
             p=$!; sleep 0.0{round}; kill -9 $p; wait $p || true"
        );
        shell(&pcocc, &mount, &line).ok();
        assert_eq!(
            shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
            "hello"
        );
    }
    shell(&pcocc, &mount, "cp -r $home/plain repo/user/killed").ok();
    assert_eq!(pcocc.image_id("killed"), id);
    mount.end();
    pcocc.verify();
}
