//! Images that move without a daemon: what progress, results and interruptions look like.

mod sandbox;

use std::fs;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use pcocc_layers::Digest;
use sandbox::Sandbox;

/// Puts `bb.tar` into the home, as docker saves an image of one empty layer.
fn archive(sandbox: &Sandbox) {
    let layer = [0; 1024];
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
    });
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": ["bb:latest"], "Layers": ["one/layer.tar"]}
    ]);
    sandbox.write("saved/one/layer.tar", layer);
    sandbox.write("saved/config.json", config.to_string());
    sandbox.write("saved/manifest.json", manifest.to_string());
    let packed = Command::new("tar")
        .args([
            "-cf",
            "bb.tar",
            "-C",
            "saved",
            "one",
            "config.json",
            "manifest.json",
        ])
        .current_dir(sandbox.home())
        .status();
    assert!(packed.unwrap().success());
}

#[test]
fn an_archive_is_imported_copied_and_exported() {
    let sandbox = Sandbox::new();
    archive(&sandbox);
    assert_snapshot!(sandbox.run(&["image", "import", "docker-archive:bb.tar", "bb"]).all(), @r"
    Imported image: user:bb (sha256:18e3ae56f8739829b07afd641d8af034f2f2a1d0abcbb71d0d036d51616fd28a)
    --- stderr
    Copying blob sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
    Copied blob sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef: 1.00 KB
    Copying config sha256:18e3ae56f8739829b07afd641d8af034f2f2a1d0abcbb71d0d036d51616fd28a
    Copied config sha256:18e3ae56f8739829b07afd641d8af034f2f2a1d0abcbb71d0d036d51616fd28a: 177 B
    Generating squashfs image ...
    Writing manifest to image destination
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "import", "bb.tar", "bb2"]).all(), @r"
    Imported image: user:bb2 (sha256:18e3ae56f8739829b07afd641d8af034f2f2a1d0abcbb71d0d036d51616fd28a)
    --- stderr
    Skipping config sha256:18e3ae56f8739829b07afd641d8af034f2f2a1d0abcbb71d0d036d51616fd28a (already there)
    Writing manifest to image destination
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["-q", "image", "copy", "bb", "bb3"]).all(), @r"
    Copied image: user:bb3 (sha256:18e3ae56f8739829b07afd641d8af034f2f2a1d0abcbb71d0d036d51616fd28a)
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "export", "bb", "oci:out:1"]).all(), @r"
    Exported image: out:1 (sha256:18e3ae56f8739829b07afd641d8af034f2f2a1d0abcbb71d0d036d51616fd28a)
    --- stderr
    Copying blob sha256:0bb1559fb4775b3689777dabfb110f027dc0eef3c0c9df8538e04389ae195b95
    Copied blob sha256:0bb1559fb4775b3689777dabfb110f027dc0eef3c0c9df8538e04389ae195b95: 48 B
    Copying config sha256:18e3ae56f8739829b07afd641d8af034f2f2a1d0abcbb71d0d036d51616fd28a
    Copied config sha256:18e3ae56f8739829b07afd641d8af034f2f2a1d0abcbb71d0d036d51616fd28a: 177 B
    Writing manifest to image destination
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["-q", "image", "export", "bb", "docker-archive:out.tar"]).all(), @r"
    Exported image: out.tar (sha256:18e3ae56f8739829b07afd641d8af034f2f2a1d0abcbb71d0d036d51616fd28a)
    --- exit 0
    ");
    let again = sandbox.run(&["-q", "image", "import", "oci:out:1", "back"]);
    assert_snapshot!(again.all(), @r"
    Imported image: user:back (sha256:18e3ae56f8739829b07afd641d8af034f2f2a1d0abcbb71d0d036d51616fd28a)
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "repo", "verify", "user"]).all(), @r"
    Checked 4 image revisions, 3 blobs, 625 B: all intact
    --- stderr
    Checking 4 image revisions and 3 blobs
    Checking repository user
    Checked repository user: 625 B
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "repo", "gc", "user"]).all(), @r"
    Freed 0 B (0 blobs, 0 temporary files)
    --- stderr
    Looking for unused blobs in repository user
    --- exit 0
    ");
    let cache = sandbox
        .run(&["image", "cache", "list", "--format", "json"])
        .ok();
    assert_eq!(cache.matches("\"repo\": \"user\"").count(), 4, "{cache}");
    assert_snapshot!(sandbox.run(&["image", "cache", "gc"]).all(), @r"
    Freed 0 B (0 root filesystems, 0 temporary files)
    --- exit 0
    ");
    for name in ["bb", "bb2", "bb3", "back"] {
        sandbox.run(&["image", "delete", name]).ok();
    }
    let collected = sandbox.run(&["image", "repo", "gc", "user", "--grace", "0"]);
    assert_snapshot!(collected.all(), @r"
    Freed 625 B (3 blobs, 0 temporary files)
    --- stderr
    Looking for unused blobs in repository user
    Deleting unused blobs 1 to 3 of 3
    --- exit 0
    ");
}

#[test]
fn what_exists_is_never_overwritten() {
    let sandbox = Sandbox::new();
    archive(&sandbox);
    sandbox.run(&["-q", "image", "import", "bb.tar", "bb"]).ok();
    assert_snapshot!(sandbox.run(&["image", "import", "bb.tar", "bb"]).all(), @r"
    --- stderr
    pcocc: failed to import bb.tar as bb: image user:bb already exists
    hint: choose another name, or delete the old image first (pcocc image delete)
    --- exit 1
    ");
    assert_snapshot!(sandbox.run(&["image", "export", "bb", "docker-archive:bb.tar"]).all(), @r"
    --- stderr
    pcocc: failed to export image bb to docker-archive:bb.tar: bb.tar already exists
    hint: choose another name, or remove it first
    --- exit 1
    ");
}

#[test]
fn a_truncated_archive_changes_nothing() {
    let sandbox = Sandbox::new();
    archive(&sandbox);
    let whole = fs::read(sandbox.home().join("bb.tar")).unwrap();
    sandbox.write("bb.tar", &whole[..2000]);
    assert_snapshot!(sandbox.run(&["image", "import", "bb.tar", "bb"]).all(), @r"
    --- stderr
    pcocc: failed to import bb.tar as bb: bb.tar is truncated; copy or download it again
    --- exit 1
    ");
    assert_snapshot!(sandbox.run(&["image", "list"]).all(), @r"
    NAME  TYPE  REVISION  REPO  OWNER  DATE  SIZE
    --- exit 0
    ");
}

#[test]
fn a_signal_ends_the_wait_for_a_daemon() {
    let sandbox = Sandbox::new();
    let socket = sandbox.home().join("deaf.sock");
    // Connections are queued and never answered.
    let _listener = UnixListener::bind(&socket).unwrap();
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let child = sandbox
            .command(&["docker", "import", "bb", "newbb"])
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        // Long enough for the handlers to be there.
        std::thread::sleep(Duration::from_millis(1000));
        let start = Instant::now();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(start.elapsed() < Duration::from_secs(5), "{signal}");
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "pcocc: failed to import docker image bb as newbb: interrupted\n"
        );
    }
}

#[test]
fn a_failed_background_mount_says_why_and_fails() {
    let sandbox = Sandbox::new();
    sandbox.write("full/file", "");
    let shown = sandbox.run(&["docker", "mount", "full"]);
    assert_snapshot!(shown.all(), @r"
    --- stderr
    pcocc: failed to mount [ROOT]/home/full: mount point [ROOT]/home/full is not empty; choose an empty folder
    --- exit 1
    ");
    assert_snapshot!(sandbox.run(&["docker", "umount", "full"]).all(), @r"
    --- stderr
    pcocc: failed to unmount full: mount point [ROOT]/home/full has nothing mounted on it
    --- exit 1
    ");
}
