//! Images read from docker: exported once, kept within a bound, and nothing left of what was stopped.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pcocc_tests::{Docker, Dockerd, Mount, Pcocc, run, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::hello::{shell, text};

/// How soon what is told to end ends.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn docker_image_is_exported_once_for_all_readers() {
    let docker = Docker::shared();
    let image = random_image(&docker, "read", 16);
    let other = docker.name("same");
    docker.run(&["tag", &image, &other]);
    let pcocc = Pcocc::new().with(&docker).with_own_temporary();
    let mount = Mount::new(&pcocc);
    let line = format!(
        "cat docker/{image}/index.json >$home/1 & p1=$!; sha256sum docker/{other}/blobs/sha256/* >$home/2 & p2=$!; \
         sha256sum rootfs/docker/{image}/random >$home/3 & p3=$!; ls -l docker/{image}/blobs/sha256 >$home/4 & p4=$!; \
         wait $p1; wait $p2; wait $p3; wait $p4; grep -q schemaVersion $home/1; \
         while read -r sum file; do [ $sum = ${{file##*/}} ]; done <$home/2"
    );
    shell(&pcocc, &mount, &line).ok();
    let exports = [&image, &other].map(|name| mount.transfers(name));
    assert_eq!(exports.concat().len(), 1, "{exports:?}");
    assert_eq!(exports.concat()[0]["state"], "done", "{exports:?}");
    assert_eq!(spooled(&pcocc).len(), 1);
    // It is there for the next mount as well.
    let second = Mount::with(&pcocc, "second", &[]);
    let line = format!(
        "cat docker/{image}/blobs/sha256/* | cmp - <(cat $home/mnt/docker/{image}/blobs/sha256/*)"
    );
    shell(&pcocc, &second, &line).ok();
    assert_eq!(second.transfers(&image).len(), 0);
    second.end();
    mount.end();
}

#[test]
fn docker_images_used_least_recently_go_first_and_none_that_is_open() {
    let docker = Docker::shared();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| random_image(&docker, name, 4));
    let pcocc = Pcocc::new().with(&docker).with_own_temporary();
    // Each takes twice its size: layers and root file system. Two fit.
    let mount = Mount::with(&pcocc, "mnt", &["--spool-size", "20M"]);
    let read = |image: &str| {
        let folder = mount.join(&format!("docker/{image}/blobs/sha256"));
        let blob = fs::read_dir(folder)
            .unwrap()
            .map(|blob| blob.unwrap().path());
        let blob = blob
            .max_by_key(|blob| fs::metadata(blob).unwrap().len())
            .unwrap();
        let mut file = File::open(blob).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        // What was used a moment ago counts as in use.
        thread::sleep(Duration::from_millis(600));
        (file, content)
    };
    let ids = |images: &[&String]| {
        let mut ids: Vec<_> = images
            .iter()
            .map(|image| docker.image_id(image).unwrap()["sha256:".len()..].to_owned())
            .collect();
        ids.sort();
        ids
    };
    let (mut open, content) = read(&a);
    read(&b);
    assert_eq!(spooled(&pcocc), ids(&[&a, &b]));
    read(&c);
    assert_eq!(
        spooled(&pcocc),
        ids(&[&a, &c]),
        "b is the oldest nobody has open"
    );
    let mut again = Vec::new();
    open.rewind().unwrap();
    open.read_to_end(&mut again).unwrap();
    assert!(again == content, "an open file keeps its content");
    drop(open);
    thread::sleep(Duration::from_millis(600));
    read(&d);
    assert_eq!(
        spooled(&pcocc),
        ids(&[&c, &d]),
        "a is closed and the oldest"
    );
    // What went comes back when it is asked for.
    assert!(read(&a).1 == content);
    assert_eq!(mount.transfers(&a).len(), 2);
    mount.end();
}

#[test]
fn docker_export_ends_with_its_last_reader_and_leaves_nothing_as_root() {
    let daemon = Arc::new(Dockerd::start());
    let docker = Docker::of(Arc::clone(&daemon));
    let image = random_image(&docker, "slow", 64);
    let pcocc = Pcocc::new().with(&docker).with_own_temporary();
    let mount = Mount::new(&pcocc);
    let last = |image: &str| mount.transfers(image).pop();
    let state = |image: &str| last(image).map(|t| t["state"].as_str().unwrap().to_owned());
    let under_way = |image: &str| {
        wait_until("an export is under way", Duration::from_secs(10), || {
            state(image).as_deref() == Some("running")
        });
        daemon.pause()
    };

    let folder = File::open(mount.join(&format!("docker/{image}"))).unwrap();

    // The only reader is killed.
    let mut reader = read_in_background(&pcocc, &folder);
    let paused = under_way(&image);
    end(&mut reader, Signal::KILL);
    wait_until("the export ends", SOON, || {
        state(&image).as_deref() == Some("failed") && spooled(&pcocc).is_empty()
    });
    assert_eq!(last(&image).unwrap()["message"], "interrupted");
    drop(paused);

    // One of two is interrupted: the other gets its image.
    let mut first = read_in_background(&pcocc, &folder);
    let paused = under_way(&image);
    let second = read_in_background(&pcocc, &folder);
    thread::sleep(Duration::from_millis(200));
    end(&mut first, Signal::INT);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(
        state(&image).as_deref(),
        Some("running"),
        "{:?}",
        mount.transfers(&image)
    );
    drop(paused);
    let output = second.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(mount.transfers(&image).len(), 2);
    assert_eq!(spooled(&pcocc).len(), 1);

    // The daemon dies in the middle.
    let other = random_image(&docker, "unlucky", 64);
    let folder = File::open(mount.join(&format!("docker/{other}"))).unwrap();
    let reader = read_in_background(&pcocc, &folder);
    let paused = under_way(&other);
    daemon.kill();
    drop(paused);
    let output = reader.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("endpoint is not connected"), "{said}");
    let message = last(&other).unwrap()["message"].to_string();
    assert!(message.contains("docker daemon at unix://"), "{message}");
    assert_eq!(spooled(&pcocc).len(), 1);
    mount.end();
}

#[test]
fn docker_export_onto_a_full_disk_says_which_as_root() {
    let docker = Docker::shared();
    let [large, small] =
        [("large", 16), ("small", 1)].map(|(name, mb)| random_image(&docker, name, mb));
    let pcocc = Pcocc::new().with(&docker).with_own_temporary();
    let disk = Tmpfs::new(&pcocc.home().join("tmp"), "size=12m");
    let mount = Mount::with(&pcocc, "mnt", &["--spool-size", "1G"]);
    let refused = shell(&pcocc, &mount, &format!("cat docker/{large}/index.json"));
    let said = refused.failed();
    assert!(said.contains("No space left on device"), "{said}");
    let message = mount.transfers(&large)[0]["message"].to_string();
    for word in [text(&disk.0), "TMPDIR", "No space left"] {
        assert!(message.contains(word), "{message}");
        assert!(mount.log().contains(word), "{}", mount.log());
    }
    assert!(spooled(&pcocc).is_empty());
    let said = shell(
        &pcocc,
        &mount,
        "getfattr -n user.pcocc.error --only-values docker",
    );
    assert!(said.ok().contains("TMPDIR"), "{said}");
    shell(
        &pcocc,
        &mount,
        &format!("sha256sum docker/{small}/blobs/sha256/* >/dev/null"),
    )
    .ok();
    // What nobody uses makes room.
    let medium = random_image(&docker, "medium", 4);
    thread::sleep(Duration::from_millis(600));
    shell(
        &pcocc,
        &mount,
        &format!("sha256sum docker/{medium}/blobs/sha256/* >/dev/null"),
    )
    .ok();
    mount.end();
}

/// An image of one layer with one file of random bytes.
fn random_image(docker: &Docker, name: &str, megabytes: u64) -> String {
    let scratch = pcocc_tests::scratch();
    let archive = scratch.path().join("layer.tar");
    let mut tar = tar::Builder::new(File::create(&archive).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(megabytes << 20);
    header.set_mode(0o644);
    let random = File::open("/dev/urandom").unwrap().take(megabytes << 20);
    tar.append_data(&mut header, "random", random).unwrap();
    tar.into_inner().unwrap();
    let full = docker.name(name);
    docker.run(&["import", text(&archive), &full]);
    full
}

/// What is in the spool, but for what the spool itself keeps there.
fn spooled(pcocc: &Pcocc) -> Vec<String> {
    let private: PathBuf = fs::read_dir(pcocc.home().join("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("spool").exists())
        .expect("a spool");
    let entries = fs::read_dir(private.join("spool")).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock" && name != "boot")
        .collect();
    names.sort();
    names
}

/// Reads from an image folder that was looked up before, so that only the export needs the daemon.
fn read_in_background(pcocc: &Pcocc, folder: &File) -> Child {
    let folder = format!("/proc/{}/fd/{}", std::process::id(), folder.as_raw_fd());
    pcocc
        .any("cat")
        .arg(format!("{folder}/index.json"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends a signal, which must end the process soon.
fn end(child: &mut Child, signal: Signal) {
    let start = Instant::now();
    kill_process(Pid::from_child(child), signal).unwrap();
    wait_until("the reader ends", SOON, || {
        child.try_wait().unwrap().is_some()
    });
    println!("ended {:?} after the signal", start.elapsed());
}

/// A small disk, for as long as the test lives.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(at: &Path, options: &str) -> Self {
        run(std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(at))
        .ok();
        Self(at.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        run(std::process::Command::new("umount").arg("-l").arg(&self.0));
    }
}
