//! Every tool, as it is used, copies an image.

use pcocc_tests::{Mount, Pcocc};

use crate::common::{shell, with_image};

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
