//! How a mount begins and ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use pcocc_tests::{Mount, Pcocc, jobs, leaks, run, wait_until};
use pcocc_vm::job::State;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::hello::{shell, text, with_image};

/// How soon a mount is gone after whatever ends it.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_mount_whose_process_is_killed_is_unmounted_by_its_guard() {
    let (pcocc, _) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    let behind = Background::new(&pcocc, "behind");
    let mut sitter = sit_in(&pcocc, mount.join("repo/user"));
    // A mount beside it is none of its business.
    let beside = Mount::with(&pcocc, "beside", &[]);
    for (point, pid) in [
        (mount.path(), server(&mount)),
        (&behind.point, behind.server()),
    ] {
        kill(pid, Signal::KILL);
        wait_until("the guard unmounts", SOON, || {
            !leaks::mounts_below(pcocc.home()).contains(&text(point).to_owned())
        });
        assert_eq!(fs::read_dir(point).unwrap().count(), 0);
    }
    wait_until("the guards end", SOON, || guards(&pcocc).len() == 1);
    let log = fs::read_dir(pcocc.home().join(".pcocc/log")).unwrap();
    let log = fs::read_to_string(log.last().unwrap().unwrap().path()).unwrap();
    for log in [mount.log(), log] {
        assert!(log.contains("was killed: unmounted"), "{log}");
    }
    shell(&pcocc, &beside, "ls repo/user/hello").ok();
    beside.end();
    sitter.kill().unwrap();
    sitter.wait().unwrap();
    assert_eq!(guards(&pcocc), [0; 0]);
    mount.end();
    assert_nothing_runs(&pcocc);
}

#[test]
fn a_guard_leaves_a_newer_mount_alone() {
    let (pcocc, _) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    let guard = guards(&pcocc)[0];
    kill(guard, Signal::STOP);
    kill(server(&mount), Signal::KILL);
    wait_until("nobody answers", SOON, || {
        fs::read_dir(mount.path()).is_err()
    });
    let newer = Background::new(&pcocc, "mnt");
    kill(guard, Signal::CONT);
    wait_until("the old guard ends", SOON, || {
        !guards(&pcocc).contains(&guard)
    });
    assert_eq!(guards(&pcocc).len(), 1);
    shell(&pcocc, &mount, "ls repo/user/hello").ok();
    newer.end(&pcocc);
}

#[test]
fn a_stale_mount_is_replaced_and_a_busy_one_ends() {
    let (pcocc, _) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    kill(guards(&pcocc)[0], Signal::KILL);
    kill(server(&mount), Signal::KILL);
    wait_until("nobody answers", SOON, || {
        fs::read_dir(mount.path()).is_err()
    });
    let second = pcocc.run(&["docker", "mount", text(mount.path())]);
    assert!(second.contains("Mounted"), "{second}");
    assert_eq!(
        shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
        "hello"
    );
    let refused = pcocc.try_run(&["docker", "mount", text(mount.path())]);
    let said = refused.failed();
    assert!(said.contains("is mounted already"), "{said}");
    let mut sitter = sit_in(&pcocc, mount.join("repo/user"));
    pcocc.run(&["docker", "umount", text(mount.path())]);
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
    // Its process does not wait for whoever sits in there.
    assert_eq!(guards(&pcocc), [0; 0]);
    sitter.kill().unwrap();
    sitter.wait().unwrap();
    let refused = pcocc.try_run(&["docker", "umount", text(mount.path())]);
    let said = refused.failed();
    assert!(said.contains("nothing mounted"), "{said}");
}

#[test]
fn doctor_finds_a_stale_mount_and_what_it_says_mends_it() {
    let (pcocc, _) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    kill(guards(&pcocc)[0], Signal::KILL);
    kill(server(&mount), Signal::KILL);
    wait_until("nobody answers", SOON, || {
        fs::read_dir(mount.path()).is_err()
    });
    let look = || {
        let outcome = pcocc.try_run(&["doctor"]);
        let line = outcome
            .stdout
            .lines()
            .find(|line| line.contains(" mounts "));
        line.map(str::to_owned)
            .unwrap_or_else(|| panic!("{outcome}"))
    };
    let line = look();
    let path = text(mount.path());
    assert!(line.starts_with("warning "), "{line}");
    assert!(
        line.contains(&format!("pcocc docker umount {path}")),
        "{line}"
    );
    pcocc.run(&["docker", "umount", path]);
    // Other tests may have stale mounts at the same time.
    assert!(!look().contains(path), "{}", look());
}

#[test]
fn each_signal_that_ends_a_program_unmounts() {
    let (pcocc, _) = with_image(Pcocc::new());
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mount = Background::new(&pcocc, "mnt");
        kill(mount.server(), signal);
        wait_until("the mount is gone", SOON, || {
            leaks::mounts_below(pcocc.home()).is_empty()
        });
        assert_nothing_runs(&pcocc);
    }
}

#[test]
fn the_end_of_its_job_unmounts() {
    let (pcocc, _) = with_image(Pcocc::new());
    let conf = jobs::conf(&pcocc);
    for number in [7, 8] {
        jobs::write(&conf, number, State::Ready, None);
    }
    let mount = |folder: &str, host: &str| {
        let point = pcocc.home().join(folder);
        let mut command = pcocc.command(&["docker", "mount", text(&point)]);
        command.env("PCOCC_JOBID", "7").env("DOCKER_HOST", host);
        run(&mut command).ok();
        point
    };
    let its = mount("its", "tcp://127.0.0.7:2376");
    // In a shell of the job, with docker elsewhere.
    let other = mount("other", "tcp://127.0.0.8:2376");
    assert!(its.join("repo/user/hello").exists());
    jobs::write(&conf, 7, State::Ended, None);
    wait_until("the mount is gone", SOON, || {
        leaks::mounts_below(pcocc.home()) == [text(&other)]
    });
    let logs = fs::read_dir(pcocc.home().join(".pcocc/log")).unwrap();
    let logs = logs.map(|log| fs::read_to_string(log.unwrap().path()).unwrap());
    let logs = logs.collect::<String>();
    assert!(logs.contains("job 7 has ended"), "{logs}");
    pcocc.run(&["docker", "umount", text(&other)]);
    assert_nothing_runs(&pcocc);
}

#[test]
fn a_mount_in_the_background_outlives_its_shell_and_one_in_front_ends_with_its_terminal() {
    let (pcocc, _) = with_image(Pcocc::new());
    let program = pcocc.command(&[]).get_program().to_owned();
    let mounts = || leaks::mounts_below(pcocc.home()).len();
    let start = |line: &str| {
        let mut command = pcocc.any("setsid");
        command.args(["bash", "-c", line, "bash"]).arg(&program);
        command.args(["docker", "mount"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().unwrap()
    };
    let mut shell = start(r#"mkdir -p back; "$@" back; touch started; sleep 60"#);
    wait_until("it is mounted", SOON, || {
        pcocc.home().join("started").exists()
    });
    assert_eq!(mounts(), 1);
    kill_process_group(Pid::from_child(&shell), Signal::KILL).unwrap();
    shell.wait().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        pcocc
            .home()
            .join("back/repo/user/hello/oci-layout")
            .exists()
    );
    pcocc.run(&["docker", "umount", "back"]);

    // script(1) makes a terminal; when it is killed, the terminal is gone.
    let mut terminal = start(r#"mkdir -p front; exec script -qec "$* -f front" /dev/null"#);
    wait_until("it is mounted", SOON, || mounts() == 1);
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    wait_until("it is unmounted", SOON, || mounts() == 0);
    assert_nothing_runs(&pcocc);
}

#[test]
fn a_place_that_is_no_mount_point_is_refused_with_the_reason() {
    let pcocc = Pcocc::as_ordinary_user();
    let home = pcocc.home().to_owned();
    pcocc.run_any("sh", &["-c", "mkdir full; touch full/x file"]);
    let others = pcocc_tests::scratch();
    fs::set_permissions(others.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut table = vec![
        (home.join("full"), "is not empty"),
        (home.join("file"), "is not a folder"),
        ("/proc".into(), "holds another file system (proc)"),
        (home.join("file/below"), "Not a directory"),
        ("/proc/none".into(), "create the folder /proc/none"),
    ];
    if pcocc_tests::is_root() {
        table.push((others.path().to_owned(), "belongs to another user"));
    }
    for (place, why) in table {
        for front in [true, false] {
            let mut arguments = vec!["docker", "mount", text(&place)];
            arguments.extend(front.then_some("-f"));
            let refused = pcocc.try_run(&arguments);
            let said = refused.failed();
            assert!(said.contains(why) && said.contains(text(&place)), "{said}");
        }
    }
    assert!(leaks::mounts_below(&home).is_empty());
    // One that is missing is made.
    let made = Background::new(&pcocc, "not/yet/there");
    made.end(&pcocc);
}

#[test]
fn without_fusermount_the_package_is_named() {
    let pcocc = Pcocc::as_ordinary_user();
    let program = pcocc.command(&[]);
    let program = program.get_args().last().unwrap_or(program.get_program());
    let refused = run(pcocc
        .any("env")
        .arg("PATH=/nonexistent")
        .arg(program)
        .args(["docker", "mount", "mnt"]));
    let said = refused.failed();
    assert!(said.contains("fusermount3 was not found"), "{said}");
    assert!(said.contains("install the package fuse3"), "{said}");
}

#[test]
fn two_mounts_at_once_share_the_stores() {
    let (pcocc, id) = with_image(Pcocc::new());
    let first = Mount::new(&pcocc);
    let second = Mount::with(&pcocc, "second", &[]);
    let line = "for i in 1 2 3 4; do cp -r repo/user/hello repo/user/a$i & \
                cp -r repo/user/hello $home/second/repo/user/b$i & done; wait; \
                cp -r $home/second/repo/user/a1 repo/user/c; ls repo/user";
    let names = "a1\na2\na3\na4\nb1\nb2\nb3\nb4\nc\nhello";
    assert_eq!(shell(&pcocc, &first, line).ok().trim_end(), names);
    assert_eq!(
        shell(&pcocc, &second, "ls repo/user").ok().trim_end(),
        names
    );
    assert_eq!(pcocc.image_id("c"), id);
    first.end();
    shell(&pcocc, &second, "ls rootfs/repo/user/b4/etc/0").ok();
    second.end();
    pcocc.verify();
}

/// A mount in the background, ended with the test.
struct Background {
    point: PathBuf,
}

impl Background {
    fn new(pcocc: &Pcocc, folder: &str) -> Self {
        let point = pcocc.home().join(folder);
        let said = pcocc.run(&["docker", "mount", text(&point)]);
        assert!(said.contains("Mounted at"), "{said}");
        Self { point }
    }

    fn server(&self) -> u32 {
        let status = fs::read(self.point.join(".pcocc/status.json")).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        number(&status["pid"])
    }

    fn end(self, pcocc: &Pcocc) {
        pcocc.run(&["docker", "umount", text(&self.point)]);
        assert_eq!(guards(pcocc), [0; 0]);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if table.contains(&format!(" {} ", self.point.display())) {
            run(std::process::Command::new("fusermount3")
                .arg("-uz")
                .arg(&self.point));
        }
    }
}

fn server(mount: &Mount) -> u32 {
    number(&mount.status()["pid"])
}

fn number(value: &serde_json::Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

/// The guards of mounts in the home.
fn guards(pcocc: &Pcocc) -> Vec<u32> {
    leaks::processes_naming(pcocc.home())
        .iter()
        .filter(|line| line.contains("--guard"))
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

fn assert_nothing_runs(pcocc: &Pcocc) {
    wait_until("nothing is left", SOON, || {
        leaks::mounts_below(pcocc.home()).is_empty()
            && leaks::processes_naming(pcocc.home()).is_empty()
    });
}

fn sit_in(pcocc: &Pcocc, folder: PathBuf) -> Child {
    let mut command = pcocc.any("sleep");
    command.arg("60").current_dir(folder).spawn().unwrap()
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}
