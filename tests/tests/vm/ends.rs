//! How machines end, and that nothing of them is left.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pcocc_core::cancel::Cancel;
use pcocc_guest::protocol::Service;
use pcocc_tests::{TestVm, hypervisor, run, scratch, vm_spec, wait_until};
use pcocc_vm::machine::{Exit, Hypervisor as _, MachineError, MachineEvent, MachineSpec, Stage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Runs `script` in a root shell of the guest itself and gives what it said.
pub(crate) fn in_guest(vm: &TestVm, script: &str) -> String {
    let client = vm.client();
    let service = Service::Shell {
        term: "dumb".into(),
        rows: 24,
        columns: 200,
        command: Some(format!("stty -onlcr -echo\n{script}")),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut stream = client.open(&service).await.expect("a shell in the guest");
        let mut said = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(120), stream.read_to_end(&mut said));
        read.await
            .expect("the guest answers in time")
            .expect("a whole answer");
        String::from_utf8_lossy(&said).into_owned()
    })
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn assert_gone(processes: &[u32]) {
    wait_until(
        "all processes of the VM are gone",
        Duration::from_secs(10),
        || !processes.iter().any(|pid| alive(*pid)),
    );
}

#[test]
fn strangers_are_refused_and_services_served() {
    let folder = scratch();
    let mut vm = TestVm::start(vm_spec(folder.path()));
    let endpoint = vm.machine.endpoint();
    // Another job's certificates, and none.
    let other = vm_spec(folder.path());
    let stranger =
        pcocc_vm::service::EndpointClient::new(endpoint, &vm.spec.identity.ca_pem, &other.client);
    assert!(stranger.expect("a client").ping().is_err());
    vm.client().ping().expect("our own client");
    let bare = run(Command::new("curl").args(["-sk", &format!("https://{endpoint}/_ping")]));
    assert_ne!(bare.status.code(), Some(0), "{bare}");
    // A published port, through the agent; what one end says last still arrives.
    vm.load_busybox();
    vm.run(&[
        "run", "-d", "-p", "8080:80", "bb", "nc", "-ll", "-p", "80", "-e", "cat",
    ]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = vm.client();
    let echoed = runtime.block_on(async {
        let service = Service::Connect { port: 8080 };
        let mut stream = client.open(&service).await.expect("the port");
        stream.write_all(b"echo").await.expect("write");
        stream.shutdown().await.expect("half close");
        let mut said = String::new();
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut said));
        read.await.expect("an answer in time").expect("an answer");
        let refused = client
            .open(&Service::Connect { port: 9 })
            .await
            .expect_err("nobody listens");
        assert!(
            refused.to_string().contains("cannot reach its port 9"),
            "{refused}"
        );
        said
    });
    assert_eq!(echoed, "echo");
    // Standard input ends, output goes on: `docker run -i` needs both directions.
    let mut cat = vm.docker(&["run", "-i", "--rm", "bb", "sh", "-c", "cat; echo end"]);
    let mut cat = cat
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("docker");
    cat.stdin
        .take()
        .expect("a pipe")
        .write_all(b"through\n")
        .expect("write");
    let output = cat.wait_with_output().expect("docker's end");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through\nend\n");
    // dockerd dies: it is started again, and told.
    in_guest(&vm, "kill -9 $(cat /run/docker.pid)");
    let mut events = Vec::new();
    wait_until("dockerd is back", Duration::from_secs(150), || {
        events.extend(vm.machine.events());
        !events.is_empty()
    });
    let [MachineEvent::DaemonRestarted { how }] = &events[..] else {
        panic!("not a restart: {events:?}");
    };
    assert_eq!(how, "dockerd was killed by signal 9");
    vm.client().ping().expect("dockerd answers again");
    assert_eq!(
        vm.run(&["ps", "-q"]),
        "",
        "containers end with their dockerd"
    );
    // Later than its certificates are good for, by the guest's clock: the agent refuses them.
    in_guest(&vm, "date -s @$(($(date +%s) + 400 * 86400))");
    let expired = vm.client().ping().expect_err("a certificate that is over");
    assert!(expired.to_string().contains("xpired"), "{expired}");
    // A stop with nothing running is quick, and leaves nothing.
    let processes = vm.machine.processes();
    assert_eq!(processes.len(), 2);
    vm.machine.stop(Duration::from_secs(10)).expect("stop");
    assert_eq!(
        vm.machine.wait(Duration::ZERO).expect("an end"),
        Some(Exit::ShutDown)
    );
    assert_gone(&processes);
    TcpListener::bind(endpoint).expect("the port is free again");
    assert!(!vm.spec.plan.scratch.join("data.qcow2").exists());
}

#[test]
fn panics_and_kills_are_told_apart_and_leave_nothing() {
    let folder = scratch();
    let mut vm = TestVm::start(vm_spec(folder.path()));
    let processes = vm.machine.processes();
    let client = vm.client();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let command = Some("echo c > /proc/sysrq-trigger".to_owned());
    let service = Service::Shell {
        term: "dumb".into(),
        rows: 24,
        columns: 80,
        command,
    };
    let _shell = runtime
        .block_on(async { client.open(&service).await })
        .expect("a shell");
    let exit = vm.machine.wait(Duration::from_secs(60)).expect("an end");
    assert_eq!(exit, Some(Exit::Panicked));
    assert_gone(&processes);
    let console = fs::read_to_string(&vm.spec.plan.console_log).expect("a console");
    assert!(console.contains("sysrq triggered crash"), "{console}");

    let mut vm = TestVm::start(vm_spec(folder.path()));
    let processes = vm.machine.processes();
    run(Command::new("kill").args(["-9", &processes[0].to_string()])).ok();
    let exit = vm.machine.wait(Duration::from_secs(20)).expect("an end");
    assert_eq!(exit, Some(Exit::Died("was killed by signal 9".into())));
    assert_gone(&processes);

    let vm = TestVm::start(vm_spec(folder.path()));
    let processes = vm.machine.processes();
    drop(vm);
    assert_gone(&processes);
}

#[test]
fn what_cannot_start_says_why_and_leaves_nothing() {
    let folder = scratch();
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let taken = listener.local_addr().expect("an address");
    let mut spec = vm_spec(folder.path());
    spec.listen = taken;
    let error = hypervisor()
        .start(&spec, &Cancel::new(), &mut |_| {})
        .err()
        .expect("a failure");
    assert!(
        matches!(error, MachineError::PortTaken(port) if port == taken),
        "{error}"
    );

    let mut nothing = hypervisor();
    nothing.program = "qemu-that-is-not-there".into();
    let spec = vm_spec(folder.path());
    let error = nothing
        .start(&spec, &Cancel::new(), &mut |_| {})
        .err()
        .expect("a failure");
    assert!(
        error.to_string().contains("Debian package qemu-system-x86"),
        "{error}"
    );

    let cancel = Cancel::new();
    let spec = vm_spec(folder.path());
    let begun = Instant::now();
    let error = hypervisor()
        .start(&spec, &cancel, &mut |stage| {
            if stage == Stage::Configuring {
                cancel.cancel();
            }
        })
        .err()
        .expect("a failure");
    assert!(
        matches!(error, MachineError::Cancelled),
        "{error} after {:?}",
        begun.elapsed()
    );

    let mut spec = vm_spec(folder.path());
    spec.plan.snapshot = false;
    spec.plan.deadline = Duration::from_millis(1500);
    let error = hypervisor()
        .start(&spec, &Cancel::new(), &mut |_| {})
        .err()
        .expect("a failure");
    assert!(matches!(error, MachineError::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("the VM was booting"), "{error}");
    let needle = folder.path().to_string_lossy().into_owned();
    wait_until("no QEMU is left", Duration::from_secs(10), || {
        let list = run(Command::new("ps").args(["-eo", "args"]));
        !list
            .stdout
            .lines()
            .any(|line| line.starts_with("qemu-system") && line.contains(&needle))
    });
}

/// A VM with the snapshots that the other tests share, in a cache of its own.
pub(crate) fn with_own_snapshots(folder: &Path) -> MachineSpec {
    let mut spec = vm_spec(folder);
    let shared = std::mem::replace(&mut spec.plan.cache, folder.join("cache"));
    // They are there once a VM has run.
    drop(TestVm::start(vm_spec(folder)));
    fs::create_dir(&spec.plan.cache).expect("make a folder");
    run(Command::new("cp")
        .args(["-a", "--sparse=always"])
        .arg(shared.join("snapshots"))
        .arg(&spec.plan.cache))
    .ok();
    spec
}

#[test]
fn a_bad_snapshot_is_told_and_made_anew() {
    let folder = scratch();
    let spec = with_own_snapshots(folder.path());
    let snapshots = fs::read_dir(spec.plan.cache.join("snapshots"))
        .expect("snapshots")
        .flatten();
    for entry in snapshots.filter(|entry| entry.path().is_dir()) {
        let mut state = fs::read(entry.path().join("state")).expect("a state");
        let middle = state.len() / 2;
        state[middle] ^= 0xff;
        fs::write(entry.path().join("state"), state).expect("damage it");
    }
    let vm = TestVm::start(spec);
    let words: Vec<String> = vm
        .stages
        .iter()
        .map(|(_, stage)| stage.to_string())
        .collect();
    assert!(
        words
            .iter()
            .any(|word| word.contains("is not as it was saved; it is made anew")),
        "{words:?}"
    );
    assert!(
        words.contains(&Stage::SavingSnapshot.to_string()),
        "{words:?}"
    );
    vm.client().ping().expect("it works all the same");
}
