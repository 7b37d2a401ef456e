//! A VM that lives as long as its shell: `pcocc docker alloc`.

use std::fs;
use std::time::Duration;

use pcocc_tests::{Pcocc, Terminal, binary, run, wait_until};
use rustix::process::Signal;

use crate::home::{BUSYBOX, assert_nothing_left, home, quoted, record, wait_for};

#[test]
fn a_vm_lives_as_long_as_its_script() {
    let pcocc = home(Pcocc::new(), "local", "");
    let data = pcocc.home().join("d");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("in"), "from the home\n").unwrap();
    let script = format!(
        "{BUSYBOX} docker run --rm -v $HOME/d:/d bb sh -c 'cat /d/in; echo out >/d/out; exit 3' && exit 1
         test $? = 3 || exit 1
         pcocc docker import bb kept && pcocc docker export kept again || exit 1
         docker image inspect -f '{{{{.RepoTags}}}}' again || exit 1
         cp -r mnt/docker/bb mnt/repo/user/copied || exit 1
         docker network create -d bridge --internal net >&2 || exit 1
         echo $PCOCC_JOBID $DOCKER_TLS_VERIFY; exit 7"
    );
    let script = format!("bash -c {}", quoted(&script));
    let path = std::env::var("PATH").unwrap();
    let program = binary();
    let folder = program.parent().unwrap().display();
    let mut command = pcocc.command(&[
        "docker", "alloc", "-c", "2", "--mount", "mnt", "-E", &script,
    ]);
    command.env("PATH", format!("{folder}:{path}"));
    let outcome = run(&mut command);
    assert_eq!(outcome.status.code(), Some(7), "{outcome}");
    assert!(outcome.stdout.starts_with("from the home\n"), "{outcome}");
    assert!(outcome.stdout.contains("again:latest"), "{outcome}");
    assert!(outcome.stdout.trim_end().ends_with("\n1 1"), "{outcome}");
    let words: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(words[0], "Starting the docker VM ...", "{outcome}");
    assert_eq!(words[1], "Waiting for docker VM to start ...", "{outcome}");
    // The log of the mount, which ends with the script, is nobody's to read.
    assert!(!outcome.stderr.contains("the mount ends"), "{outcome}");
    // What the guest wrote is the user's own.
    use std::os::unix::fs::MetadataExt as _;
    let written = fs::metadata(data.join("out")).unwrap();
    assert_eq!(written.uid(), rustix::process::geteuid().as_raw());
    let images = pcocc.run(&["image", "list"]);
    assert!(
        images.contains("kept") && images.contains("copied"),
        "{images}"
    );
    pcocc.verify();
    assert_nothing_left(&pcocc);
    assert_eq!(record(&pcocc, 1)["state"], "ended");
    let over = pcocc.try_run(&["docker", "shell", "-j", "1"]);
    assert!(over.failed().contains("job 1 has ended"), "{over}");
}

#[test]
fn a_shell_on_a_terminal_and_its_ends() {
    let pcocc = home(Pcocc::new(), "local", "");
    let start = |arguments: &[&str]| {
        let mut command = pcocc.command(arguments);
        command.env("SHELL", "/bin/bash").env("PS1", "here$ ");
        Terminal::start(&command)
    };
    let alloc = ["--progress=plain", "docker", "alloc"];
    // The user's own shell, left with exit.
    let mut terminal = start(&alloc);
    wait_for(&pcocc, 1, "ready");
    terminal.wait_for("Starting the docker VM ...");
    terminal.wait_for("Waiting for docker VM to start ...");
    terminal.wait_for("Starting the docker shell ...");
    terminal.wait_for("(pcocc/1) ");
    // Ctrl-C is the shell's, and ends nothing.
    terminal.keys("\x03");
    terminal.wait_for("(pcocc/1) ");
    terminal.keys("docker version -f '{{.Server.Os}}'_$((40+2))\r");
    terminal.wait_for("linux_42");
    terminal.wait_for("(pcocc/1) ");
    terminal.keys("exit 5\r");
    assert_eq!(terminal.end().code(), Some(5), "{}", terminal.shown());
    assert_nothing_left(&pcocc);

    // Interrupted while it starts.
    let mut terminal = start(&alloc);
    wait_for(&pcocc, 2, "booting");
    terminal.keys("\x03");
    assert_eq!(terminal.end().code(), Some(130), "{}", terminal.shown());
    assert_nothing_left(&pcocc);

    // The terminal is closed: while a command runs in the shell.
    let mut terminal = start(&alloc);
    wait_for(&pcocc, 3, "ready");
    terminal.wait_for("(pcocc/3) ");
    terminal.keys("sleep 985\r");
    wait_until("the command runs", Duration::from_secs(20), || {
        crate::home::find(&pcocc, "sleep 985").is_some()
    });
    terminal.hang_up();
    terminal.end();
    assert_nothing_left(&pcocc);
    assert_eq!(record(&pcocc, 3)["state"], "ended");
}

#[test]
fn a_time_limit_ends_a_vm_and_its_shell() {
    let pcocc = home(Pcocc::new(), "local", "");
    // The limit counts from here; the snapshot is there before.
    assert!(
        pcocc
            .try_run(&["docker", "alloc", "-E", "true"])
            .status
            .success()
    );
    let outcome = pcocc.try_run(&["docker", "alloc", "-t", "0:40", "-E", "sleep 300"]);
    assert!(!outcome.status.success(), "{outcome}");
    let over = record(&pcocc, 2);
    assert_eq!(over["error"], "the time limit was reached", "{outcome}");
    assert_eq!(over["state"], "ended", "{outcome}");
    assert!(
        outcome.stderr.contains("the time limit was reached"),
        "{outcome}"
    );
    assert_nothing_left(&pcocc);
}

#[test]
fn a_start_that_is_interrupted_or_takes_too_long() {
    let pcocc = home(Pcocc::new(), "local", "");
    for (job, (asked, code)) in
        (1..).zip([(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)])
    {
        let name = format!("interrupted{job}");
        let mut command = crate::home::start(&pcocc, &name, &["docker", "alloc", "-E", "true"]);
        wait_for(&pcocc, job, "booting");
        crate::home::signal(u64::from(command.id()), asked);
        let status = crate::home::end(&mut command, &name);
        let said = crate::home::said(&pcocc, &name);
        assert_eq!(status.code(), Some(code), "{said}");
        assert_nothing_left(&pcocc);
    }
    let arguments = ["docker", "alloc", "--no-snapshot", "-T", "10", "-E", "true"];
    let outcome = pcocc.try_run(&arguments);
    assert_eq!(outcome.status.code(), Some(124), "{outcome}");
    assert!(
        outcome.stderr.contains("not ready within 10 seconds"),
        "{outcome}"
    );
    // Where the guest has not come so far there is nothing to show.
    let console = fs::read(pcocc.home().join(".pcocc/job_4/console.log")).unwrap_or_default();
    let shown = outcome.stderr.contains("Last lines of the VM's console:");
    assert_eq!(
        shown,
        console.iter().any(|byte| byte.is_ascii_graphic()),
        "{outcome}"
    );
    assert_nothing_left(&pcocc);
}
