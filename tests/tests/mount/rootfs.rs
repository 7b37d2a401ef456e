//! Root file systems: what the kernel shows of the same squashfs file, without asking twice.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pcocc_tests::{Mount, Outcome, Pcocc, in_own_namespace, layout, run, wait_until};

use crate::hello::{Site, shell, text, with_image};

/// How soon the names of images are right, where the kernel keeps them for a second.
const SOON: Duration = Duration::from_millis(2500);

/// Makes everything a file can be, and a folder of many.
const SAMPLE: &str = r#"
    set -e
    mkdir -p d/e many nodes && cd d
    cp /bin/busybox big && ln big hard && ln -s "../else where" soft
    head -c 5000 /dev/zero >zeros && truncate -s 3M holey && echo end >>holey
    : >empty && echo small >small
    mkfifo ../nodes/fifo && mknod ../nodes/null c 1 3 && mknod ../nodes/disk b 259 70000
    chmod 4755 big && chown 1000:4000000000 small && chmod 1777 e && touch -d 2001-02-03 small
    ln -s "$(head -c 600 /dev/zero | tr '\0' x)" long-link
    echo latin >"$(printf 'caf\351')"
    setfattr -n user.note -v value small && setfattr -h -n trusted.t -v v soft
    setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= empty
    cd ../many && seq -f 'a-name-%.0f' 100000 | xargs touch
"#;

/// Imports an image whose one layer is what the script makes in an empty folder.
fn import(pcocc: &Pcocc, script: &str, name: &str) {
    let folder = pcocc_tests::scratch();
    let (source, made) = (folder.path().join("source"), folder.path().join("made"));
    std::fs::create_dir(&source).unwrap();
    run(Command::new("bash")
        .args(["-c", script])
        .current_dir(&source))
    .ok();
    let tar = folder.path().join("layer.tar");
    run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--sparse", "--format=pax"])
        .arg("-cf")
        .args([&tar, Path::new("-C"), &source, Path::new(".")]))
    .ok();
    layout::write_layers(&made, &[std::fs::read(tar).unwrap()]);
    pcocc.run(&["image", "import", "-t", "oci", text(&made), name]);
}

/// The squashfs file of the only image there is.
fn squashfs_file(pcocc: &Pcocc) -> PathBuf {
    let found = run(Command::new("find").arg(pcocc.cache()).args(["-type", "f"]));
    PathBuf::from(found.ok().lines().next().expect("a squashfs file"))
}

/// Runs a line of shell in two folders: it has to say the same in both.
#[track_caller]
fn assert_same(pcocc: &Pcocc, folders: [&Path; 2], line: &str) -> String {
    let [ours, theirs] = folders.map(|folder| -> Outcome {
        let line = format!("set -eu -o pipefail; {line}");
        let mut bash = pcocc.any("bash");
        run(bash.args(["-c", &line]).current_dir(folder))
    });
    let differ = ours.ok().lines().zip(theirs.ok().lines());
    if let Some((ours, theirs)) = differ.into_iter().find(|(ours, theirs)| ours != theirs) {
        panic!("{line}\n  ours:     {ours}\n  kernel's: {theirs}");
    }
    assert_eq!(ours.ok().len(), theirs.ok().len(), "{line}");
    ours.ok().to_owned()
}

#[test]
fn it_is_what_the_kernel_shows_of_the_same_squashfs_as_root() {
    if !in_own_namespace("rootfs::it_is_what_the_kernel_shows_of_the_same_squashfs_as_root") {
        return;
    }
    let pcocc = Pcocc::new();
    import(&pcocc, SAMPLE, "sample");
    let kernel = pcocc.home().join("kernel");
    std::fs::create_dir(&kernel).unwrap();
    run(Command::new("mount")
        .args(["-o", "loop,ro"])
        .args([&squashfs_file(&pcocc), &kernel]))
    .ok();
    let mount = Mount::new(&pcocc);
    let (ours, theirs) = (mount.join("rootfs/repo/user/sample"), kernel.join("rootfs"));
    let both = [ours.as_path(), theirs.as_path()];
    // Kind, mode, owner, size, names, time to the second, target.
    let line = "find . -mindepth 1 -printf '%P %y %m %U:%G %s %n %T+ %A+ %l\\n' | LC_ALL=C sort";
    let seen = assert_same(&pcocc, both, line);
    assert!(seen.lines().count() > 100_000, "{}", seen.len());
    let line = |name: &str| seen.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(
        line("d/big ").contains(" f 4755 0:0 "),
        "{}",
        line("d/big ")
    );
    assert!(line("d/small ").contains(" 1000:4000000000 6 1 "));
    assert!(line("d/small ").contains("2001-02-03+"));
    for line in [
        "stat -c '%n %t:%T %F' nodes/*",
        "find d -samefile d/big | sort; stat -c %h d/big; [ $(stat -c %i d/big) = $(stat -c %i d/hard) ]",
        "getfattr -R -h -d -m - -e hex d nodes",
        "getfattr -n security.capability -e hex d/empty",
        // So that `ls -l` asks for one file, and not for every one.
        "! getfattr -n system.posix_acl_access d/big 2>&1",
        "[ $(stat -c %b d/holey) -lt 100 ]; stat -c %s d/holey; sha256sum d/holey",
        "ls -f many | LC_ALL=C sort | sha256sum; ls many | wc -l",
        "for n in 1 5000 99999 100000; do stat -c %n many/a-name-$n; done; ! stat many/a-name-100001",
        "tar -cf - d many | wc -c",
    ] {
        assert_same(&pcocc, both, line);
    }
    run(Command::new("diff")
        .args(["-r", "--no-dereference", "-x", "nodes"])
        .args(both))
    .ok();
    // A folder of 100 000 names is listed as fast as anyone would wish.
    let start = Instant::now();
    shell(&pcocc, &mount, "ls -l rootfs/repo/user/sample/many | wc -l").ok();
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    // Devices are shown, and that is all; setuid has no effect.
    for node in ["null", "disk"] {
        let refused = shell(
            &pcocc,
            &mount,
            &format!("cat rootfs/repo/user/sample/nodes/{node}"),
        );
        assert!(refused.failed().contains("Permission denied"), "{refused}");
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines = table
        .lines()
        .filter(|line| line.contains(text(mount.path())));
    let mut count = 0;
    for line in lines {
        assert!(line.contains("nosuid") && line.contains("nodev"), "{line}");
        count += 1;
    }
    assert_eq!(count, 2, "the tree, and its root file systems");
    mount.end();
    run(Command::new("umount").arg(&kernel)).ok();
}

#[test]
fn any_user_reads_all_of_it_and_tools_that_look_twice_see_no_change() {
    let (pcocc, _) = with_image(Pcocc::as_ordinary_user());
    let mount = Mount::new(&pcocc);
    // The very first look: nobody had the image open yet.
    shell(
        &pcocc,
        &mount,
        "tar -C rootfs/repo/user/hello -cf - . | tar -t > $home/names; grep -qx ./etc/0 $home/names",
    )
    .ok();
    let refused = shell(&pcocc, &mount, "touch rootfs/repo/user/hello/etc/0");
    assert!(refused.failed().contains("Read-only"), "{refused}");
    shell(
        &pcocc,
        &mount,
        "cmp <(tar -xOf $home/plain/blobs/sha256/$(ls -S $home/plain/blobs/sha256 | head -1) etc/0) \
         rootfs/repo/user/hello/etc/0; getfattr -d -m - rootfs/repo/user/hello/etc/0; ls -la rootfs/repo/user",
    )
    .ok();
    mount.end();
}

/// An ordinary user's mount asks once more for each file that is opened.
#[test]
fn what_was_read_once_is_not_asked_for_again_as_root() {
    let (pcocc, _) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    // With the process stopped, whatever has to be asked for waits.
    shell(
        &pcocc,
        &mount,
        "pid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p' .pcocc/status.json); \
         look() { stat *; cat *; ls -f; test ! -e nothing; sha256sum 0; }; \
         cd rootfs/repo/user/hello/etc; look > $home/first; trap 'kill -CONT $pid' EXIT; kill -STOP $pid; \
         look > $home/second & \
         for i in $(seq 100); do kill -0 $! 2> /dev/null || break; sleep 0.1; done; \
         if kill -0 $! 2> /dev/null; then echo it waits >&2; exit 1; fi; cmp $home/first $home/second",
    )
    .ok();
    mount.end();
}

#[test]
fn names_of_images_follow_their_stores() {
    let site = Site::that_deletes();
    let docker = site.docker.as_ref().unwrap();
    let image = docker.name("r");
    assert_eq!(site.names("rootfs/repo/user"), ["hello"]);
    site.shell(&format!(
        "cp -r repo/user/hello repo/user/new; cp -r repo/user/hello docker/{image}"
    ))
    .ok();
    wait_until("they are listed", SOON, || {
        site.names("rootfs/repo/user") == ["hello", "new"]
            && site.names("rootfs/docker").contains(&image)
    });
    for folder in ["repo/user/new", &format!("docker/{image}")] {
        site.shell(&format!(
            "cmp rootfs/{folder}/etc/0 rootfs/repo/user/hello/etc/0; ls rootfs/{folder}/etc/1"
        ))
        .ok();
    }
    docker.run(&["rmi", &image]);
    site.shell("rm -r repo/user/new").ok();
    wait_until("they are gone", SOON, || {
        site.names("rootfs/repo/user") == ["hello"] && !site.names("rootfs/docker").contains(&image)
    });
    // Gone is gone, and what takes the name is another image.
    wait_until("it is not found", SOON, || {
        !site.shell("ls rootfs/repo/user/new").status.success()
    });
    layout::write(&site.pcocc.home().join("other"), &[b"other content"]);
    site.shell(
        "cp -r $home/other repo/user/new; grep -qx 'other content' rootfs/repo/user/new/etc/0",
    )
    .ok();
    site.end();
}

#[test]
fn the_squashfs_is_made_once_for_all_who_wait() {
    let site = Site::new(Pcocc::as_ordinary_user(), None);
    site.shell("rm -rf $home/.pcocc/cache").ok();
    site.shell(
        "for i in 1 2 3 4; do cat rootfs/repo/user/hello/etc/0 > $home/$i & done; wait; \
         for i in 2 3 4; do cmp $home/1 $home/$i; done; test -s $home/1",
    )
    .ok();
    assert_eq!(site.transfers_of("hello", "rootfs"), ["done"]);
    site.end();
}
