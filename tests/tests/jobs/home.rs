//! A home with a guest image, and the question what a job left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pcocc_tests::{Pcocc, guest_folder, guest_scratch, leaks, run};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for a VM: the first one boots and makes the snapshot.
pub const BOOT: Duration = Duration::from_secs(400);
/// How soon nothing is left of a job.
pub const SOON: Duration = Duration::from_secs(15);

/// Makes a home whose jobs run by `kind` (of `batch.yaml`, which may say `more`), and resume the tests' one snapshot.
#[track_caller]
pub fn home(pcocc: Pcocc, kind: &str, more: &str) -> Pcocc {
    let own = pcocc.home().join(".pcocc/images");
    let guest = pcocc.home().join("guest");
    // Where it was built may be closed to the user who runs the jobs.
    let source = guest_folder().join("repo");
    run(Command::new("cp").arg("-r").arg(source).arg(&guest)).ok();
    pcocc.configure_repositories(&format!(
        "repos:\n  - {{name: user, path: {}}}\n  - {{name: guest, path: {}}}\n",
        own.display(),
        guest.display()
    ));
    let scratch = guest_scratch();
    let conf = pcocc.home().join(".pcocc");
    for (name, text) in [
        (
            "batch.yaml",
            format!(
                "type: {kind}\ndocker_scratch: {}\n{more}",
                scratch.display()
            ),
        ),
        // What `vm_spec` has; and no packet of a guest leaves this machine.
        (
            "templates.yaml",
            "test: {cpus: 2, memory: 1G, disk: 8G, reach: closed}\n".to_owned(),
        ),
        (
            "containers.yaml",
            "runtime: {docker_template: test}\n".to_owned(),
        ),
    ] {
        fs::write(conf.join(name), text).unwrap();
    }
    pcocc
}

/// A job's record.
#[track_caller]
pub fn record(pcocc: &Pcocc, job: u32) -> serde_json::Value {
    let path = pcocc.home().join(format!(".pcocc/job_{job}/job.json"));
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

/// Starts a command in the background; its words go to `<name>.log` in the home.
pub fn start(pcocc: &Pcocc, name: &str, arguments: &[&str]) -> Child {
    let log = fs::File::create(pcocc.home().join(format!("{name}.log"))).unwrap();
    pcocc
        .command(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// What such a command said.
pub fn said(pcocc: &Pcocc, name: &str) -> String {
    fs::read_to_string(pcocc.home().join(format!("{name}.log"))).unwrap_or_default()
}

/// Waits until a job is in a state.
#[track_caller]
pub fn wait_for(pcocc: &Pcocc, job: u32, state: &str) {
    let path = pcocc.home().join(format!(".pcocc/job_{job}/state"));
    let begun = Instant::now();
    loop {
        let now = fs::read_to_string(&path).unwrap_or_default();
        if now.starts_with(state) {
            return;
        }
        let over = now.starts_with("failed") || now.starts_with("ended");
        assert!(
            !over && begun.elapsed() < BOOT,
            "job {job} is not {state} but {now}: {:?}",
            record(pcocc, job)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a process.
pub fn signal(pid: u64, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Waits for a child's end.
#[track_caller]
pub fn end(child: &mut Child, what: &str) -> std::process::ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(begun.elapsed() < BOOT, "{what} does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The names of the folders that this home's VMs have on their node.
fn node_folders(pcocc: &Pcocc) -> Vec<String> {
    let entries = fs::read_dir(pcocc.home().join(".pcocc")).into_iter();
    entries
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("job.json")).ok())
        .filter_map(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
        .map(|record| {
            let id = record["id"].as_str().expect("a job's number");
            let keeper = &record["keeper"];
            format!("vm-{}.{}-{id}", keeper["pid"], keeper["started"])
        })
        .collect()
}

/// What is there of a home's jobs: processes, mounts, records that say they live.
pub fn left(pcocc: &Pcocc) -> Vec<String> {
    let home = format!("HOME={}", pcocc.home().display());
    let mut found = leaks::mounts_below(pcocc.home());
    // QEMU and slirp4netns have no HOME, but sockets.
    let folders: Vec<String> = node_folders(pcocc)
        .iter()
        .map(|name| format!("/{name}/"))
        .collect();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let ours = environment
            .split(|byte| *byte == 0)
            .any(|name| name == home.as_bytes())
            || folders.iter().any(|name| line.contains(name));
        if ours && !line.is_empty() {
            found.push(format!("process {} {line}", entry.file_name().display()));
        }
    }
    let jobs = fs::read_dir(pcocc.home().join(".pcocc"))
        .into_iter()
        .flatten()
        .flatten();
    for entry in jobs {
        let Some(job) = entry.file_name().to_str().and_then(|name| {
            let number = name.strip_prefix("job_")?;
            number.parse::<u32>().ok()
        }) else {
            continue;
        };
        let state = record(pcocc, job)["state"].clone();
        if state != "ended" && state != "failed" {
            found.push(format!("job {job} says it is {state}"));
        }
        if entry.path().join("vmcerts").exists() {
            found.push(format!("job {job} has certificates"));
        }
    }
    found
}

/// The folders on this node of this home's VMs.
pub fn stale_folders(pcocc: &Pcocc) -> Vec<PathBuf> {
    let list = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let keepers = node_folders(pcocc);
    assert!(!keepers.is_empty(), "no job of this home has a keeper");
    [guest_scratch(), PathBuf::from("/tmp")]
        .iter()
        .flat_map(|folder| list(folder))
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("pcocc-"))
        .flat_map(|entry| list(&entry.path()))
        .filter(|entry| keepers.iter().any(|name| *entry.file_name() == **name))
        .map(|entry| entry.path())
        .collect()
}

/// Fails when anything of a home's jobs stays.
#[track_caller]
pub fn assert_nothing_left(pcocc: &Pcocc) {
    let begun = Instant::now();
    loop {
        let found = left(pcocc);
        if found.is_empty() {
            return;
        }
        assert!(begun.elapsed() < SOON, "left behind:\n{}", found.join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The process of this home whose command line starts with `text`.
pub fn find(pcocc: &Pcocc, text: &str) -> Option<u64> {
    left(pcocc).iter().find_map(|line| {
        let (pid, words) = line.strip_prefix("process ")?.split_once(' ')?;
        words.starts_with(text).then(|| pid.parse().ok())?
    })
}

/// Makes an image of busybox in docker, as `bb`: the beginning of a shell script.
pub const BUSYBOX: &str = "mkdir -p bb/bin; cp /bin/busybox bb/bin; \
    for name in sh cat httpd wget sleep; do ln -sf busybox bb/bin/$name; done; tar -C bb -c . | docker import - bb >&2;";

/// Quotes a word for a shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Ends a home's jobs when a test fails before it comes to that itself.
pub struct Stop<'a>(pub &'a Pcocc);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.command(&["docker", "stop", "--all"]).status();
        }
    }
}
