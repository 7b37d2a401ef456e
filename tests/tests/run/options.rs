//! The options, one by one.

use pcocc_tests::layout::Entry;
use serde_json::json;

use crate::busybox::{Busybox, text};

#[test]
fn variables() {
    let image = Busybox::plain();
    // Nothing of ours is in there but what belongs to being there.
    assert_eq!(
        image.shell(&[], "env | cut -d= -f1 | sort"),
        "HOME
PATH
PWD
SHLVL"
    );
    let mut command = image.pcocc.command(&[
        "run",
        "-s",
        "-e",
        "TWO",
        "-e",
        "A=b=c",
        "-e",
        "LINES=first\nLINES=second\n",
        "-e",
        "re(SLURM_.*)",
    ]);
    command.args([
        "--path-prefix",
        "PATH=/first",
        "--path-suffix",
        "PATH=/last",
        "-I",
        "bb",
    ]);
    command.args(["sh", "-c", "echo \"$TWO|$A|$LINES|$SLURM_X|$OTHER|$PATH\""]);
    command
        .env("TWO", "one\nand two")
        .env("SLURM_X", "x")
        .env("OTHER", "no");
    let outcome = pcocc_tests::run(&mut command);
    assert_eq!(
        outcome.ok(),
        "one\nand two|b=c|first\nLINES=second\n|x||/first:/bin:/last"
    );
    let mut command = image
        .pcocc
        .command(&["run", "-s", "--mirror-env", "-I", "bb", "/bin/env"]);
    command.env("OTHER", "yes");
    assert!(pcocc_tests::run(&mut command).ok().contains("OTHER=yes"));
    image.end();
}

#[test]
fn mounts() {
    let image = Busybox::with(
        json!({"Env": ["PATH=/bin"]}),
        &[Entry::Link("home", "/usr/home")],
    );
    let home = image.pcocc.home().join("shared");
    image.pcocc.run_any("mkdir", &[text(&home)]);
    image.pcocc.run_any(
        "sh",
        &["-c", &format!("echo content > {}/file", text(&home))],
    );
    let shared = text(&home);
    // Where the image has nothing, and where it has a link.
    for place in ["/new/place", "/home/doe", "/etc/passwd.d"] {
        let mount = format!("{shared}:{place}");
        let line = format!("cat {place}/file; echo x > {place}/written && rm {place}/written");
        assert_eq!(image.shell(&["--mount", &mount], &line), "content");
    }
    let read_only = format!("{shared}:/data:ro");
    let words = image.shell(
        &["--mount", &read_only],
        "echo x 2>&1 >/data/x; cat /data/file",
    );
    assert!(
        words.contains("Read-only file system") && words.ends_with("content"),
        "{words}"
    );
    let file = format!("{shared}/file:/etc/some/file");
    assert_eq!(
        image.shell(&["--mount", &file], "cat /etc/some/file"),
        "content"
    );
    let long = format!("src={shared},dest=/data,opt=ro");
    assert_eq!(
        image.shell(&["--mount", &long], "cat /data/file"),
        "content"
    );
    // On a file system in memory mount points are made; and one mount in another.
    let tmpfs = [
        "--mount",
        "dest=/t,type=tmpfs,opt=size=1m",
        "--mount",
        &format!("{shared}:/t/a/b"),
    ];
    assert_eq!(
        image.shell(&tmpfs, "cat /t/a/b/file; echo y > /t/y; ls /t"),
        "content\na\ny"
    );
    image.end();
}

#[test]
fn home_and_user() {
    let image = Busybox::plain();
    let me = pcocc_tests::run(image.pcocc.any("id").arg("-un"))
        .ok()
        .to_owned();
    assert_eq!(image.shell(&[], "whoami"), me);
    // A home that lies in a folder that is there is there, and others are empty folders in memory.
    let mut command = image.pcocc.command(&[
        "run",
        "-s",
        "-I",
        "bb",
        "sh",
        "-c",
        "cd; pwd; echo x > x; ls -A",
    ]);
    command
        .env("HOME", "/home/somebody")
        .env("PCOCC_USER_CONF_DIR", image.pcocc.home().join(".pcocc"));
    image.pcocc.configure_repositories(&format!(
        "repos: [{{name: user, path: {}}}]\ncache: {{path: {}}}\n",
        text(&image.pcocc.repository()),
        text(&image.pcocc.cache())
    ));
    assert_eq!(pcocc_tests::run(&mut command).ok(), "/home/somebody\nx");
    assert_eq!(
        image.shell(
            &["--no-user"],
            "echo ${HOME:-none}; ls /etc/passwd; wc -c </etc/passwd"
        ),
        "none\n/etc/passwd\n0"
    );
    image.end();
}

#[test]
fn entry_points_and_scripts() {
    let image = Busybox::with(
        json!({"Env": ["PATH=/bin"], "Entrypoint": ["echo", "entry"], "Cmd": ["cmd"]}),
        &[],
    );
    let run = |arguments: &[&str]| image.try_run(arguments).ok().to_owned();
    assert_eq!(run(&["-I", "bb"]), "entry cmd");
    assert_eq!(run(&["--entry-point", "echo 'a b'", "-I", "bb"]), "a b cmd");
    assert_eq!(run(&["--entry-point", "", "-I", "bb", "echo", "-s"]), "-s");
    let script = image.write("job.sh", "#!/bin/sh\necho script $1 in $(pwd)\n");
    let arguments = [
        "--entry-point=",
        "--cwd",
        "/",
        "--script",
        &script,
        "-I",
        "bb",
        "x",
    ];
    assert_eq!(run(&arguments), "script x in /");
    image.end();
}

#[test]
fn where_the_command_starts() {
    let image = Busybox::plain();
    // The home is in /tmp, which containers share.
    assert_eq!(image.shell(&[], "pwd"), text(image.pcocc.home()));
    let mut command = image.pcocc.command(&["run", "-s", "-I", "bb", "pwd"]);
    let outcome = pcocc_tests::run(command.current_dir("/usr"));
    assert_eq!(outcome.ok(), "/");
    assert!(
        outcome
            .stderr
            .contains("/usr is not in the container: the command starts in /")
    );
    image.end();
}

#[test]
fn a_terminal_of_its_own() {
    let image = Busybox::plain();
    let line = "test -t 0 -a -t 1 && tty && stty size && cat && trap 'stty size; exit 3' WINCH; \
                echo waiting; while true; do sleep 0.1; done";
    let arguments = ["--pty", "--cwd", "/", "-I", "bb", "sh", "-c", line];
    let steps = [
        ("/dev/pts/0\n33 77\n", "typed\n"),
        ("typed\ntyped\n", "\x04"),
        ("waiting\n", "resize 44 88"),
        ("44 88\n", ""),
    ];
    let (code, seen) = image.in_terminal(&arguments, &steps);
    assert_eq!(code, 3, "{seen}");
    image.end();
}

#[test]
fn without_an_image_the_command_runs_as_it_is() {
    let image = Busybox::plain();
    let mut command = image.pcocc.command(&[
        "run",
        "-s",
        "-e",
        "A=1",
        "--cwd",
        "/usr",
        "/bin/sh",
        "-c",
        "pwd; echo $A$HOME",
    ]);
    assert_eq!(pcocc_tests::run(&mut command).ok(), "/usr\n1");
    image.end();
}
