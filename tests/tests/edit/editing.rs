//! Edits that succeed.

use std::io::Write as _;
use std::process::Stdio;

use pcocc_tests::{Docker, Mount, Pcocc, Proxy, leaks};

use crate::site::{Site, history, run_config};

/// The manual's session, on a busybox image.
#[test]
fn docker_manual_session() {
    let site = Site::new();
    let watch = leaks::Watch::new(site.pcocc.home());
    let new = site.name("new");
    let mut terminal = site.terminal(&["docker", "edit", &site.image, &new]);
    terminal.wait_for("###########################################\r\n");
    terminal.wait_for("# You are now editing your image          #\r\n");
    terminal.wait_for("# Hit CTRL + D to save your modifications #\r\n");
    terminal.wait_for("###########################################\r\n");
    terminal.wait_for("# ");
    terminal.keys("touch /newfile\r");
    terminal.wait_for("# ");
    // CTRL + D, as the banner says.
    terminal.keys("\x04");
    terminal.wait_for("# Saving modified image ...               #\r\n");
    assert!(terminal.end().success(), "{}", terminal.shown());
    assert!(
        terminal
            .shown()
            .contains(&format!("Edited image: user:{new} (sha256:")),
        "{}",
        terminal.shown()
    );
    site.assert_nothing_left();
    watch.assert_clean();

    assert_eq!(site.in_docker(&new, "ls /newfile"), "/newfile");
    let (before, after) = (site.config(&site.image), site.config(&new));
    assert_eq!(run_config(&before), run_config(&after));
    assert_eq!(history(&before) + 1, history(&after));
    // The root filesystem is ready, too.
    let mount = Mount::new(&site.pcocc);
    assert!(
        mount
            .join(&format!("rootfs/repo/user/{new}/newfile"))
            .exists()
    );
    assert!(
        !mount
            .join(&format!("rootfs/repo/user/{}/newfile", site.image))
            .exists()
    );
    mount.end();
    site.pcocc.verify();
}

#[test]
fn docker_terminal_is_the_users_own() {
    let site = Site::new();
    let mut terminal = site.edit(&site.name("new"));
    // busybox's stty looks at the terminal itself.
    terminal.keys("busybox stty size </dev/tty\r");
    terminal.wait_for("24 80");
    terminal.resize(133, 44);
    terminal.keys("sleep 1; busybox stty size </dev/tty\r");
    terminal.wait_for("44 133");
    // Ctrl-C and Ctrl-P are the shell's.
    terminal.keys("sleep 1000\r");
    terminal.wait_for("sleep 1000");
    std::thread::sleep(std::time::Duration::from_millis(300));
    terminal.keys("\x03");
    terminal.keys("echo $((40 + 2)); exit 0\r");
    terminal.wait_for("42");
    terminal.wait_for("Saving modified image");
    assert!(terminal.end().success(), "{}", terminal.shown());
    site.assert_nothing_left();
}

/// All that docker's own commit gets wrong or cannot do.
#[test]
fn docker_script_changes_files_and_nothing_else() {
    let site = Site::new();
    let new = site.name("new");
    let script = "id -u; pwd; echo $GREETING; echo text >/volume/file; rm /data/two.hard; \
                  rm -r /data/old; mkdir /data/old; echo 7 >/data/old/seven; chown 5:6 /data/two";
    let edited = site
        .pcocc
        .try_run(&["docker", "edit", "-E", script, &site.image, &new]);
    let said: Vec<&str> = edited.ok().lines().collect();
    assert_eq!(said[..3], ["0", "/data", "hello world"]);
    let id = site.pcocc.image_id(&new);
    assert_eq!(said[3..], [format!("Edited image: user:{new} ({id})")]);
    assert!(!edited.stderr.contains("Hit CTRL + D"), "{edited}");
    site.assert_nothing_left();
    let (before, after) = (site.config(&site.image), site.config(&new));
    assert_eq!(run_config(&before), run_config(&after));
    for part in [
        "Entrypoint",
        "Healthcheck",
        "Volumes",
        "ExposedPorts",
        "StopSignal",
        "odd",
    ] {
        assert!(run_config(&after).contains(part), "{part} in {after}");
    }
    let look = "cat /volume/file; ls /data/old /data/two.hard 2>&1; stat -c %u:%g /data/two";
    assert_eq!(
        site.in_docker(&new, look),
        "text\nls: /data/two.hard: No such file or directory\n/data/old:\nseven\n5:6"
    );

    // Only the new layer is stored, and it says what it is.
    let shown = site.pcocc.run(&["image", "show", "--format", "json", &new]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let old = site
        .pcocc
        .run(&["image", "show", "--format", "json", &site.image]);
    let old: serde_json::Value = serde_json::from_str(&old).expect("JSON");
    let layers = |image: &serde_json::Value| image["layers"].as_array().expect("layers").clone();
    assert_eq!(layers(&shown)[..layers(&old).len()], layers(&old)[..]);
    assert_eq!(layers(&shown).len(), layers(&old).len() + 1);
    let origin = &shown["origin"];
    assert_eq!(origin["made_by"], "pcocc docker edit");
    assert_eq!(origin["daemon"], site.docker.host());
    assert_eq!(origin["parent"]["name"], format!("user:{}", site.image));
    assert_eq!(origin["parent"]["id"], site.pcocc.image_id(&site.image));
    assert_eq!(old["origin"]["made_by"], "pcocc docker import");
    assert_eq!(old["origin"]["source"], format!("{}:latest", site.image));
    let text = site.pcocc.run(&["image", "show", &new]);
    assert!(
        text.contains("\nMade by:      pcocc docker edit\n"),
        "{text}"
    );

    // Edited once more, and with no change at all.
    let third = site.name("third");
    site.pcocc
        .run(&["-q", "docker", "edit", "-E", "true", &new, &third]);
    assert_eq!(history(&site.config(&third)), history(&after) + 1);
    let text = site
        .pcocc
        .run(&["image", "show", "--format", "json", &third]);
    let text: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(layers(&text), layers(&shown));
    // A copy still says where it came from.
    site.pcocc.run(&["-q", "image", "copy", &new, "copy"]);
    let copy = site
        .pcocc
        .run(&["image", "show", "--format", "json", "copy"]);
    let copy: serde_json::Value = serde_json::from_str(&copy).expect("JSON");
    assert_eq!(copy["origin"], shown["origin"]);
    site.pcocc.verify();
}

/// A layer put together from the changed files is the one docker makes of a commit.
#[test]
fn docker_small_changes_need_no_commit() {
    const LIST: &str = "cd / && find . \\( -path ./proc -o -path ./sys -o -path ./dev \\) -prune -o -print | \
        sort | while read -r file; do \
        if [ -L \"$file\" ]; then stat -c '%N %f %u %g' \"$file\"; \
        elif [ -d \"$file\" ]; then stat -c '%n %f %u %g' \"$file\"; \
        elif [ -f \"$file\" ]; then stat -c '%n %f %u %g %s %h' \"$file\"; md5sum \"$file\"; \
        else stat -c '%n %f %u %g %t %T' \"$file\"; fi; done | grep -v /etc/host";
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), docker);
    let changes = "sleep 1; rm -r /data/old; mkdir /data/old; echo n >/data/old/n; rm /data/two.hard; \
        mkdir -p /n/a; echo yyy >/n/a/y; ln /n/a/y /n/a/z; ln -s ../y /n/a/s; mkfifo /n/p; mknod /n/c c 7 8; \
        chmod 4711 /n/a/y; chown 70000:4 /n/a; echo text >'/n/a sp\u{e4}ce'; chmod 711 /root; rm /data/fifo; \
        mkdir /data/fifo; mkdir /n/$(printf '%0150d' 7)";
    // Whole, in parts, and with links that lead from one part to another.
    for (what, more, commits) in [
        ("small", "", false),
        ("linked", "; ln /n/a/y /data/linked", true),
        ("old", "; ln /bin/busybox /data/linked", true),
        (
            "large",
            "; dd if=/dev/zero of=/data/large bs=1048576 count=40",
            true,
        ),
        (
            "many",
            "; for i in 1 2 3 4 5 6 7 8 9; do echo $i >/data/$i; done",
            true,
        ),
        ("only less", "; rm -r /data /n", false),
    ] {
        let script = format!("{changes}{more}");
        let new = site.name("new");
        proxy.take_requests("");
        site.pcocc
            .run(&["-q", "docker", "edit", "-E", &script, &site.image, &new]);
        let commit = proxy.take_requests("/commit");
        assert_eq!(commit.is_empty(), !commits, "{what}: {commit:?}");
        let (name, peer) = (site.name("peer"), site.name("peer-image"));
        let sh = ["--user=0", "--entrypoint=/bin/sh", "--network=none"];
        let run = [
            &["run", "--name", &name][..],
            &sh,
            &[&site.image, "-c", &script],
        ]
        .concat();
        site.docker.run(&run);
        site.docker.run(&["commit", &name, &peer]);
        site.docker.run(&["rm", "-v", &name]);
        let run = [&["run", "--rm"][..], &sh, &[&peer, "-c", LIST]].concat();
        let expected = site.docker.run(&run);
        assert!(expected.lines().count() > 100, "{expected}");
        let found = site.in_docker(&new, LIST);
        let differ = |left: &str, right: &str| -> Vec<String> {
            let right: std::collections::BTreeSet<&str> = right.lines().collect();
            let only = left.lines().filter(|line| !right.contains(line));
            only.map(str::to_owned).collect()
        };
        let none = Vec::<String>::new();
        assert_eq!(differ(&expected, &found), none, "{what}: only in docker's");
        assert_eq!(differ(&found, &expected), none, "{what}: only in ours");
        site.docker.run(&["rmi", &peer]);
        site.pcocc.run(&["image", "delete", &new]);
        site.assert_nothing_left();
    }
    site.pcocc.verify();
}

#[test]
fn docker_script_on_standard_input() {
    let site = Site::new();
    let new = site.name("new");
    let mut command = site.pcocc.command(&["docker", "edit", &site.image, &new]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("start pcocc");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(b"echo one; echo two >&2; touch /newfile\n")
        .expect("write a script");
    drop(stdin);
    let output = child.wait_with_output().expect("wait for pcocc");
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        stdout.starts_with("one\n") && !stdout.contains("two"),
        "{stdout}"
    );
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("two\n"),
        "{output:?}"
    );
    assert_eq!(site.in_docker(&new, "ls /newfile"), "/newfile");

    // What comes to a script of -E is the script's.
    let other = site.name("other");
    let edit = [
        "-q",
        "docker",
        "edit",
        "-E",
        "cat >/data/big",
        &site.image,
        &other,
    ];
    let mut command = site.pcocc.command(&edit);
    command.stdin(Stdio::piped());
    let mut child = command.spawn().expect("start pcocc");
    let mut stdin = child.stdin.take().expect("a pipe");
    let big = vec![b'x'; 3 << 20];
    stdin.write_all(&big).expect("write a file");
    drop(stdin);
    assert!(child.wait().expect("wait for pcocc").success());
    assert_eq!(site.in_docker(&other, "stat -c %s /data/big"), "3145728");
    site.assert_nothing_left();
}

#[test]
fn docker_image_without_a_shell() {
    let site = Site::new();
    let file = site.pcocc.home().join("file");
    std::fs::write(&file, site.image.as_bytes()).expect("write a file");
    let bare = site.docker.build(
        "bare",
        "FROM scratch\nCOPY file /file\n",
        &[("file", &file)],
    );
    site.import(&bare);
    let new = site.name("new");
    let refused = site
        .pcocc
        .try_run(&["docker", "edit", "-E", "true", &bare, &new]);
    assert!(refused.failed().contains("--shell"), "{refused}");
    assert!(refused.stderr.contains("--with-tools DIR"), "{refused}");
    site.assert_nothing_left();

    let tools = site.pcocc.home().join("tools");
    std::fs::create_dir(&tools).expect("make a folder");
    std::fs::copy("/bin/busybox", tools.join("busybox")).expect("copy busybox");
    let folder = tools.to_string_lossy();
    let script = "busybox rm /file; busybox touch /newfile";
    let edit = [
        "-q",
        "docker",
        "edit",
        "--with-tools",
        &folder,
        "-E",
        script,
        &bare,
        &new,
    ];
    site.pcocc.run(&edit);
    // Of the tools nothing stays in the image, not even the place where they were.
    let mount = Mount::new(&site.pcocc);
    let files = std::fs::read_dir(mount.join(&format!("rootfs/repo/user/{new}")));
    let mut files: Vec<_> = files
        .expect("read the image")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    // etc is added to every image, for what a container's own files are bound to.
    assert_eq!(files, ["etc", "newfile"]);
    mount.end();
    site.assert_nothing_left();
}

#[test]
fn docker_edit_as_an_ordinary_user_as_root() {
    let docker = Docker::shared();
    let pcocc = Pcocc::as_ordinary_user().with(&docker);
    let site = Site::with(pcocc, docker);
    let new = site.name("new");
    let mut terminal = site.edit(&new);
    terminal.keys("touch /newfile; exit\r");
    assert!(terminal.end().success(), "{}", terminal.shown());
    assert_eq!(site.in_docker(&new, "ls /newfile"), "/newfile");
    site.assert_nothing_left();
}
