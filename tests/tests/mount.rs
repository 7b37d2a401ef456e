//! What tools do to the mounted tree: copies between repositories, to and from plain folders, refusals, and
//! the life of the mount. The docker side of the same promises is in `main_job.rs` and `kill.rs`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pcocc_tests::{Mount, Outcome, Pcocc, run};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Writes a blob into the OCI layout at `folder`; gives its descriptor.
fn blob(folder: &Path, media_type: &str, content: &[u8]) -> serde_json::Value {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fs::write(folder.join("blobs/sha256").join(&hex), content).unwrap();
    json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": content.len()})
}

/// Makes an OCI layout with one image of two small layers.
fn layout(folder: &Path) {
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let layers: Vec<_> = ["hello", "world"]
        .iter()
        .map(|name| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(200_000);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, format!("etc/{name}"), &vec![7; 200_000][..])
                .unwrap();
            let content = tar.into_inner().unwrap();
            blob(folder, "application/vnd.oci.image.layer.v1.tar", &content)
        })
        .collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = blob(
        folder,
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config,
        "layers": layers});
    let manifest = blob(folder, media_type, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    let marker = json!({"imageLayoutVersion": "1.0.0"});
    fs::write(folder.join("oci-layout"), marker.to_string()).unwrap();
}

/// A repository with the image `hello`, and the same image as the folder `plain` in the home.
fn with_image(pcocc: Pcocc) -> (Pcocc, String) {
    let scratch = pcocc_tests::scratch();
    let made = scratch.path().join("made");
    layout(&made);
    run(Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(scratch.path()))
    .ok();
    let plain = pcocc.home().join("plain");
    pcocc.run_any("cp", &["-r", text(&made), text(&plain)]);
    pcocc.run(&["image", "import", "-t", "oci", text(&plain), "hello"]);
    let id = pcocc.image_id("hello");
    (pcocc, id)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a line of shell in the mount point.
fn shell(pcocc: &Pcocc, mount: &Mount, line: &str) -> Outcome {
    let script = format!("set -eu -o pipefail; cd \"$1\"; home=$2; {line}");
    run(pcocc.any("bash").arg("-c").arg(script).args([
        "bash",
        text(mount.path()),
        text(pcocc.home()),
    ]))
}

/// Every tool, as it is used: into the repository from the repository, and from a plain folder.
const TOOLS: &[(&str, &str)] = &[
    ("cp-r", "cp -r $from $to"),
    ("cp-a", "cp -a $from $to"),
    ("cp-T", "cp -rT $from $to"),
    ("cp-reflink", "cp -r --reflink=auto $from $to"),
    ("busybox", "busybox cp -r $from $to"),
    ("rsync-a", "rsync -a $from/ $to/"),
    ("rsync-inplace", "rsync -a --inplace $from/ $to/"),
    ("tar", "mkdir $to; tar -C $from -cf - . | tar -C $to -xf -"),
    (
        "python",
        "python3 -c 'import shutil,sys; shutil.copytree(*sys.argv[1:])' $from $to",
    ),
    ("skopeo", "skopeo copy -q oci:$from oci:$to"),
    (
        "install",
        "mkdir -p $to; cd $from; find . -type f ! -name index.json -exec install -D {} $to/{} \\; ; \
         install index.json $to/index.json",
    ),
    (
        "dd",
        "mkdir -p $to/blobs/sha256; cd $from; for f in oci-layout blobs/sha256/* index.json; do \
         dd status=none if=$f of=$to/$f; done",
    ),
    (
        "cat",
        "mkdir -p $to/blobs/sha256; cd $from; for f in index.json blobs/sha256/* oci-layout; do \
         cat $f > $to/$f; done",
    ),
    ("mv", "cp -r $from $home/moved; mv $home/moved $to"),
];

fn every_tool(pcocc: Pcocc) {
    let (pcocc, id) = with_image(pcocc);
    let mount = Mount::new(&pcocc);
    for from in ["$PWD/repo/user/hello", "$home/plain"] {
        for (name, line) in TOOLS {
            let image = format!("{name}-{}", if from.contains("plain") { "p" } else { "m" });
            let line = format!("from={from} to=$PWD/repo/user/{image}; {line}");
            shell(&pcocc, &mount, &line).ok();
            assert_eq!(pcocc.image_id(&image), id, "{line}");
        }
    }
    let listed = shell(&pcocc, &mount, "ls repo/user").ok().lines().count();
    assert_eq!(listed, 1 + 2 * TOOLS.len());
    let status = shell(&pcocc, &mount, "cat .pcocc/status.json");
    let status: serde_json::Value = serde_json::from_str(status.ok()).unwrap();
    let copies = status["transfers"].as_array().unwrap();
    assert_eq!(copies.len(), 2 * TOOLS.len(), "{status:#}");
    assert!(copies.iter().all(|copy| copy["state"] == "done"));
    // And out of the mount, into the same bytes.
    shell(
        &pcocc,
        &mount,
        "cp -a repo/user/cp-a-p $home/out; diff -r repo/user/cp-a-p $home/out; \
         rsync -a repo/user/cp-a-p/ $home/out2/; diff -r $home/out $home/out2; rm -rf $home/out; \
         umoci ls --layout repo/user/hello; cmp rootfs/repo/user/hello/etc/hello \
         rootfs/repo/user/cp-r-m/etc/world",
    )
    .ok();
    mount.end();
    pcocc.verify();
}

#[test]
fn every_tool_copies_an_image() {
    every_tool(Pcocc::new());
}

/// As root this runs everything as `nobody`.
#[test]
fn every_tool_copies_an_image_for_an_ordinary_user() {
    every_tool(Pcocc::as_ordinary_user());
}

#[test]
fn what_cannot_be_an_image_is_refused() {
    let (pcocc, _) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    for (line, message) in [
        ("rsync -r repo/user/hello repo/user/new", "Invalid argument"),
        ("cp -r $home/plain 'repo/user/a b'", "Invalid argument"),
        ("cp -r $home/plain repo/user/a:b", "Invalid argument"),
        (
            "mkdir $home/folder; touch $home/folder/x; cp -r $home/folder repo/user/",
            "Invalid argument",
        ),
        ("cp -r $home/plain repo/user/hello", "Read-only"),
        ("echo > repo/user/hello/index.json", "Read-only"),
        ("echo > repo/user/file", "not permitted"),
        ("mkdir repo/user/hello", "File exists"),
        ("rm -r repo/user/hello", "not permitted"),
        ("ls docker", "not connected"),
        (
            "cp -r $home/plain $home/bad; for f in $home/bad/blobs/sha256/*; do \
             truncate -s -1 $f; done; cp -r $home/bad repo/user/bad",
            "Input/output error",
        ),
    ] {
        let outcome = shell(&pcocc, &mount, line);
        let stderr = outcome.failed();
        assert!(stderr.contains(message), "{line}: {stderr}");
    }
    assert_eq!(
        shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
        "hello"
    );
    mount.end();
}

#[test]
fn images_are_renamed_and_deleted_where_that_is_allowed() {
    let (pcocc, id) = with_image(Pcocc::new());
    let mount = Mount::with(&pcocc, "mnt", &["--allow-delete"]);
    shell(
        &pcocc,
        &mount,
        "mv repo/user/hello repo/user/renamed; cp -r repo/user/renamed repo/user/other; \
         rm -r repo/user/other",
    )
    .ok();
    assert_eq!(
        shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
        "renamed"
    );
    assert_eq!(pcocc.image_id("renamed"), id);
    // An import by another process shows up without a new mount.
    let plain = pcocc.home().join("plain");
    pcocc.run(&["image", "import", "-t", "oci", text(&plain), "late"]);
    assert_eq!(
        shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
        "late\nrenamed"
    );
    mount.end();
    pcocc.verify();
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

#[test]
fn a_stale_mount_is_replaced_and_a_busy_one_ends() {
    let (pcocc, _) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    let status = fs::read_to_string(mount.join(".pcocc/status.json")).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let process = status["pid"].to_string();
    run(Command::new("kill").args(["-9", &process])).ok();
    let until = Instant::now() + Duration::from_secs(10);
    while fs::read_dir(mount.path()).is_ok() {
        assert!(Instant::now() < until, "still answers after SIGKILL");
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = pcocc.run(&["docker", "mount", text(mount.path())]);
    assert!(second.contains("Mounted"), "{second}");
    assert_eq!(
        shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
        "hello"
    );
    pcocc
        .try_run(&["docker", "mount", text(mount.path())])
        .failed();
    // Someone sits in it.
    let mut sitter = pcocc
        .any("sleep")
        .arg("60")
        .current_dir(mount.join("repo/user"))
        .spawn()
        .unwrap();
    pcocc.run(&["docker", "umount", text(mount.path())]);
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
    sitter.kill().unwrap();
    sitter.wait().unwrap();
    pcocc
        .try_run(&["docker", "umount", text(mount.path())])
        .failed();
}
