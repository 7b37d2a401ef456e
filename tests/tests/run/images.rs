//! What images say of themselves, and images of odd shapes.

use pcocc_tests::layout::Entry;
use serde_json::json;

use crate::busybox::{Busybox, refused, text};

#[test]
fn entrypoint_command_environment_and_directory() {
    let image = Busybox::with(
        json!({"Entrypoint": ["/bin/sh", "-c", "echo $0 $*; pwd; echo $GREETING"], "Cmd": ["one", "two"],
            "Env": ["PATH=/bin", "GREETING=hello you"], "WorkingDir": "/made/for it"}),
        &[],
    );
    let run = |arguments: &[&str]| image.try_run(arguments).ok().to_owned();
    assert_eq!(run(&["-I", "bb"]), "one two\n/made/for it\nhello you");
    assert_eq!(
        run(&["-I", "bb", "other"]),
        "other\n/made/for it\nhello you"
    );
    assert_eq!(run(&["--cwd", "/", "-I", "bb", "x"]), "x\n/\nhello you");
    assert_eq!(
        run(&["--cwd", "-", "-I", "bb", "x"]),
        "x\n/made/for it\nhello you"
    );
    image.end();
}

/// The manual: `pcocc run -s --cwd / -I new-centos ls /newfile`, and the Dockerfile of "Hello Pcocc".
#[test]
fn the_manuals_own_lines() {
    let image = Busybox::with(
        json!({"Env": ["PATH=/bin"], "Cmd": ["echo", "Hello Pcocc"]}),
        &[Entry::File("newfile", 0o644, b"")],
    );
    let found = image.try_run(&["--cwd", "/", "-I", "bb", "ls", "/newfile"]);
    assert_eq!(found.ok(), "/newfile");
    assert_eq!(
        image.try_run(&["--cwd", "/", "-I", "bb"]).ok(),
        "Hello Pcocc"
    );
    image.end();
}

#[test]
fn an_image_runs_from_an_oci_layout() {
    let image = Busybox::plain();
    let layout = image.pcocc.home().join("bb.oci");
    let name = format!("oci:{}", text(&layout));
    assert_eq!(image.try_run(&["-I", &name, "echo", "hello"]).ok(), "hello");
    // The repository is asked for nothing.
    image.pcocc.run(&["image", "delete", "bb"]);
    image.pcocc.run(&["image", "cache", "gc"]);
    assert_eq!(image.try_run(&["-I", &name, "echo", "again"]).ok(), "again");
    image.end();
}

#[test]
fn odd_images() {
    let image = Busybox::with(
        json!({"Env": ["PATH=/bin"], "User": "4711:4711", "Volumes": {"/data": {}}, "WorkingDir": "/srv"}),
        &[
            Entry::Link("home", "/usr/home"),
            Entry::Link("tmp", "var/tmp"),
            Entry::Folder("var", 0o755),
            Entry::Folder("closed", 0o700),
            Entry::File("closed/secret", 0o600, b"mine"),
            Entry::File("entry", 0o755, b"echo I am $1\n"),
            Entry::File("broken", 0o755, b"\x7fELF not really"),
            Entry::File("lost", 0o755, b"#!/usr/bin/python\n"),
        ],
    );
    let script = image.try_run(&["-I", "bb", "/entry", "a script"]);
    assert_eq!(script.ok(), "I am a script");
    for (program, code, part) in [
        ("/broken", 126, "not a program for this machine"),
        (
            "/lost",
            127,
            "the program or loader that runs it is not in the image",
        ),
        ("/closed", 126, "is a folder"),
        (
            "nothing",
            127,
            "there is no \"nothing\" in the image's PATH (/bin)",
        ),
        ("/nothing", 127, "there is no /nothing in the container"),
    ] {
        let (found, words) = refused(&image.try_run(&["-I", "bb", program]));
        assert_eq!(found, code, "{words}");
        assert!(words.contains(part), "{words}");
    }
    // The user has a name although the image has no passwd file, and is nobody else.
    let me = pcocc_tests::run(image.pcocc.any("id").arg("-u"))
        .ok()
        .to_owned();
    assert_eq!(
        image.shell(&[], "id -u; test $(whoami) != 4711 && pwd"),
        format!("{me}\n/srv")
    );
    // Nobody is kept from what is in an image that is theirs, and setuid has no effect.
    assert_eq!(image.shell(&[], "cat /closed/secret"), "mine");
    assert_eq!(
        image.shell(&[], "grep NoNewPrivs /proc/self/status"),
        "NoNewPrivs:\t1"
    );
    let caps = image.shell(
        &[],
        "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f 2",
    );
    assert!(
        caps.lines().all(|line| line == "0000000000000000"),
        "{caps}"
    );
    assert_eq!(
        image.shell(&[], "touch /new 2>&1; true"),
        "touch: /new: Read-only file system"
    );
    image.end();
}

/// A home that cannot be written to: the image is there, and nothing has to be made for it.
#[test]
fn a_home_that_is_read_only_as_root() {
    if !pcocc_tests::in_own_namespace("images::a_home_that_is_read_only_as_root") {
        return;
    }
    for pcocc in [
        pcocc_tests::Pcocc::new(),
        pcocc_tests::Pcocc::as_ordinary_user(),
    ] {
        let image = Busybox::of(pcocc, json!({"Env": ["PATH=/bin"]}), &[]);
        // Its root file system is made when it is imported, and nothing later.
        let home = text(image.pcocc.home()).to_owned();
        let mount = |arguments: &[&str]| {
            pcocc_tests::run(std::process::Command::new("mount").args(arguments)).ok();
        };
        mount(&["--bind", &home, &home]);
        mount(&["-o", "remount,bind,ro", &home]);
        assert_eq!(
            image.shell(&["--cwd", "/"], "echo hello; cd; pwd"),
            format!("hello\n{home}")
        );
        let words = image.shell(&[], "touch $HOME/new 2>&1; true");
        assert!(words.contains("Read-only file system"), "{words}");
        pcocc_tests::run(std::process::Command::new("umount").args(["-l", &home])).ok();
        image.end();
    }
}

#[test]
fn exit_codes_are_the_commands() {
    let image = Busybox::plain();
    for (line, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 125", 125),
        ("kill -9 $$", 137),
        ("kill $$", 143),
    ] {
        let outcome = image.try_run(&["-I", "bb", "sh", "-c", line]);
        assert_eq!(
            outcome.status.code(),
            Some(code),
            "{line}: {}",
            outcome.stderr
        );
    }
    image.end();
}

/// A container is not told from the outside by processes it left running: they end with it.
#[test]
fn processes_in_the_background_end_with_the_command() {
    let image = Busybox::plain();
    let seconds = format!("9{}", std::process::id());
    image.shell(&[], &format!("(sleep {seconds} &) ; true"));
    let left = crate::life::processes(&seconds);
    assert!(left.is_empty(), "{left:?}");
    image.end();
}
