//! What cannot be an image is refused at the first step.

use pcocc_tests::{Mount, Pcocc};

use crate::hello::{shell, with_image};

#[test]
fn what_cannot_be_an_image_is_refused() {
    let (pcocc, _) = with_image(Pcocc::as_ordinary_user());
    let mount = Mount::new(&pcocc);
    for (line, message) in [
        ("rsync -r repo/user/hello repo/user/new", "Invalid argument"),
        ("cp -r $home/plain 'repo/user/a b'", "Invalid argument"),
        ("cp -r $home/plain repo/user/a:b", "Invalid argument"),
        (
            "mkdir $home/folder; touch $home/folder/x; cp -r $home/folder repo/user/",
            "Invalid argument",
        ),
        ("cp -r $home/plain repo/user/hello", "File exists"),
        ("mv $home/plain repo/user/hello", "File exists"),
        ("cp -rT $home/plain repo/user/hello", "Read-only"),
        ("echo > repo/user/hello/index.json", "Read-only"),
        ("echo > repo/user/file", "not permitted"),
        ("mkdir repo/user/hello", "File exists"),
        ("rm -r repo/user/hello", "not permitted"),
        ("ls docker", "not connected"),
        ("ln -s x repo/user/link", "not permitted"),
        ("ln README repo/user/link", "not permitted"),
        ("mkfifo repo/user/pipe", "not permitted"),
        ("touch rootfs/repo/user/x", "Read-only"),
        ("mkdir rootfs/repo/user/x", "Read-only"),
        ("mv rootfs/repo/user/hello/etc/0 $home/0", "Read-only"),
        ("echo x | cat > rootfs/repo/user/hello/etc/0", "Read-only"),
        ("rm rootfs/repo/user/hello/etc/0", "Read-only"),
        (
            "mkdir -p repo/user/part/blobs; python3 -c 'import os; \
             os.rename(\"repo/user/part/blobs\", \"repo/user/part/.x\")'",
            "cross-device",
        ),
        (
            "ls repo/user/part; rm -r repo/user/part; ls repo/user/part",
            "No such file",
        ),
        (
            "chmod a-w $home/.pcocc/images/.tmp; trap 'chmod u+w $home/.pcocc/images/.tmp' EXIT; \
             mkdir repo/user/unwritable",
            "Permission denied",
        ),
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
