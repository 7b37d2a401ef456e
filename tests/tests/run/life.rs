//! Signals, and every kind of death: nothing stays.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use pcocc_tests::wait_until;
use rustix::process::{Pid, Signal, kill_process};

use crate::busybox::Busybox;

/// The processes that have `argument` in their command line, with their parents: pid, parent, command line.
pub fn processes(argument: &str) -> Vec<(i32, i32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        if words.contains(&argument.as_bytes()) {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat
                .rsplit(") ")
                .next()
                .and_then(|rest| rest.split(' ').nth(1));
            let parent = parent.and_then(|parent| parent.parse().ok()).unwrap_or(0);
            found.push((
                pid,
                parent,
                String::from_utf8_lossy(&line).replace('\0', " "),
            ));
        }
    }
    found
}

/// A container that sleeps, with its three processes: the one that serves, the first one inside, the command.
struct Sleeping {
    child: Child,
    seconds: String,
}

impl Sleeping {
    fn start(image: &Busybox, number: usize) -> Self {
        // No other test's, and none that a run before left behind.
        let seconds = &format!("9{}{number}", std::process::id());
        let mut command = image
            .pcocc
            .command(&["run", "-s", "-I", "bb", "sleep", seconds]);
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let sleeping = Self {
            child,
            seconds: seconds.to_owned(),
        };
        wait_until("the command sleeps", Duration::from_secs(20), || {
            sleeping
                .all()
                .iter()
                .any(|(_, _, line)| line.starts_with("sleep"))
        });
        sleeping
    }

    fn all(&self) -> Vec<(i32, i32, String)> {
        processes(&self.seconds)
    }

    /// Server, first process inside, command.
    fn three(&self) -> [i32; 3] {
        let all = self.all();
        let command = all
            .iter()
            .find(|(_, _, line)| line.starts_with("sleep"))
            .unwrap();
        let first = all.iter().find(|(pid, ..)| *pid == command.1).unwrap();
        [first.1, first.0, command.0]
    }

    fn ends(mut self) -> Option<i32> {
        let status = self.child.wait().unwrap();
        wait_until("all processes end", Duration::from_secs(10), || {
            self.all().is_empty()
        });
        status.code()
    }
}

/// Images on the folders of the machine that containers begin on. Mounted trees are elsewhere.
fn images_that_show() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let on_base = |line: &&str| {
        let place = line.split(' ').nth(4).unwrap_or_default();
        line.contains("fuse.pcocc")
            && ["/tmp", "/mnt", "/media", "/opt", "/srv", "/"].contains(&place)
    };
    table.lines().filter(on_base).map(str::to_owned).collect()
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn whichever_process_is_killed_nothing_stays() {
    let image = Busybox::plain();
    for (victim, code) in [(0, None), (1, Some(137)), (2, Some(137))] {
        let sleeping = Sleeping::start(&image, victim);
        send(sleeping.three()[victim], Signal::KILL);
        let found = sleeping.ends();
        // When pcocc itself is killed, who started it (setpriv, for one) tells how.
        if victim != 0 {
            assert_eq!(found, code, "{victim}");
        }
    }
    image.end();
}

/// At any moment: while the image is opened, mounts are made, the command starts or runs.
#[test]
fn killed_at_any_moment_nothing_stays() {
    let image = Busybox::plain();
    let seconds = format!("8{}", std::process::id());
    for round in 0..25 {
        let mut command = image
            .pcocc
            .command(&["run", "-s", "-I", "bb", "sleep", &seconds]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round as u64 * 5));
        // Whichever of those that there are: the one that serves, the first one inside, the command.
        let all = processes(&seconds);
        let victim = all.get(round % all.len().max(1)).map(|(pid, ..)| *pid);
        let victim = victim.unwrap_or(child.id() as i32);
        // One that has just become another's is gone; then the whole is killed.
        if kill_process(Pid::from_raw(victim).unwrap(), Signal::KILL).is_err() {
            child.kill().unwrap();
        }
        child.wait().unwrap();
        wait_until("all processes end", Duration::from_secs(20), || {
            processes(&seconds).is_empty()
        });
    }
    assert_eq!(images_that_show(), Vec::<String>::new());
    image.end();
}

/// Without a process namespace somebody has to end what the command left running.
#[test]
fn whichever_is_killed_nothing_stays_without_a_process_namespace_either() {
    let image = Busybox::plain();
    let yaml = "containers: {default: {ns: [mount]}}";
    image.write(".pcocc/containers.yaml", yaml);
    // One process that lost its parent, one that waits with it, and one that turns its back on the terminal.
    let line = "(sleep $0 &); (trap '' HUP TERM; sleep $0; :) & sleep $0; :";
    for victim in 0..4 {
        let marker = format!("7{}{victim}", std::process::id());
        let mut command = image.pcocc.command(&["run", "-s", "-I", "bb"]);
        command.args(["sh", "-c", line, &marker]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let sleeping = || {
            let all = processes(&marker);
            all.iter()
                .filter(|(.., line)| line.starts_with("sleep"))
                .count()
        };
        wait_until("three sleep", Duration::from_secs(20), || sleeping() == 3);
        let all = processes(&marker);
        let parent = |pid: i32| all.iter().find(|(other, ..)| *other == pid).unwrap().1;
        // The command is the shell whose parent is no shell.
        let shells: Vec<_> = all
            .iter()
            .filter(|(.., line)| line.starts_with("sh "))
            .collect();
        let command = shells
            .iter()
            .find(|(_, parent, _)| shells.iter().all(|(shell, ..)| shell != parent))
            .unwrap()
            .0;
        let first = parent(command);
        match victim {
            0 => send(parent(first), Signal::KILL),
            1 => send(first, Signal::KILL),
            2 => send(command, Signal::KILL),
            // The command ends by itself.
            _ => all
                .iter()
                .filter(|(_, parent, line)| *parent == command && line.starts_with("sleep"))
                .for_each(|(sleep, ..)| send(*sleep, Signal::KILL)),
        }
        let code = child.wait().unwrap().code();
        if victim != 0 {
            assert_eq!(code, Some([0, 137, 137, 0][victim]), "{victim}");
        }
        wait_until("all processes end", Duration::from_secs(10), || {
            processes(&marker).is_empty()
        });
    }
    image.end();
}

#[test]
fn signals_reach_the_command() {
    let image = Busybox::plain();
    for (number, (signal, code)) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::USR1, 138)]
        .into_iter()
        .enumerate()
    {
        let sleeping = Sleeping::start(&image, number);
        send(sleeping.three()[0], signal);
        assert_eq!(sleeping.ends(), Some(code));
    }
    image.end();
}

/// Ctrl-C twice at a program that does something about it: it is told twice, and nobody else minds.
#[test]
fn what_is_typed_is_the_commands_business() {
    let image = Busybox::plain();
    let line = "trap 'n=$((n+1)); echo got $n' INT; echo ready; while [ ${n:-0} -lt 2 ]; do sleep 0.1; done; exit 9";
    let arguments = ["--cwd", "/", "-I", "bb", "sh", "-c", line];
    let steps = [("ready", "\x03"), ("got 1", "\x03"), ("got 2", "")];
    let (code, seen) = image.in_terminal(&arguments, &steps);
    assert_eq!(code, 9, "{seen}");
    assert_eq!(seen.matches("got").count(), 2, "{seen}");
    image.end();
}

#[test]
fn what_is_ignored_stays_ignored() {
    let image = Busybox::plain();
    let pcocc = image.pcocc.command(&[
        "run",
        "-s",
        "-I",
        "bb",
        "grep",
        "SigIgn",
        "/proc/self/status",
    ]);
    let mut command = image.pcocc.any("sh");
    command
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(pcocc.get_program())
        .args(pcocc.get_args());
    let mask = |text: &str| {
        let mask = text.strip_prefix("SigIgn:\t").expect("a mask of signals");
        let mask = u64::from_str_radix(mask, 16).expect("a mask of signals");
        // Real-time signals are the C library's to play with.
        mask & 0x7fff_ffff
    };
    // Who runs the tests may ignore some as well.
    let host = pcocc_tests::run(
        image
            .pcocc
            .any("grep")
            .args(["SigIgn", "/proc/self/status"]),
    );
    let host = mask(host.ok());
    assert_eq!(mask(pcocc_tests::run(&mut command).ok()), host | 1);
    let plain = image.try_run(&["-I", "bb", "grep", "SigIgn", "/proc/self/status"]);
    assert_eq!(mask(plain.ok()), host);
    image.end();
}

/// Nothing of a container shows on the host while it runs.
#[test]
fn mounts_are_nobody_elses_to_see() {
    let image = Busybox::plain();
    let sleeping = Sleeping::start(&image, 0);
    assert_eq!(images_that_show(), Vec::<String>::new());
    send(sleeping.three()[0], Signal::TERM);
    sleeping.ends();
    image.end();
}
