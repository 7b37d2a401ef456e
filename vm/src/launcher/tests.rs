//! A launcher's life, with machines in memory.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use pcocc_core::batch::Ports;

use super::*;
use crate::guest_image::{GuestDisk, Manifest};
use crate::job::{Backend, JobId, Jobs};
use crate::machine::{GuestEnvironment, GuestUser, NetworkPolicy};
use crate::testing::{Fault, Strings, TestHypervisor};

/// Clocks that a test sets.
#[derive(Default)]
struct TestClock {
    unix: Cell<u64>,
    boot: Cell<f64>,
    step: Cell<f64>,
}

impl Clock for TestClock {
    fn unix(&self) -> u64 {
        self.unix.get()
    }

    fn boot(&self) -> f64 {
        self.boot.set(self.boot.get() + self.step.get());
        self.boot.get()
    }
}

struct Bench {
    conf: tempfile::TempDir,
    hypervisor: TestHypervisor,
    cancel: Cancel,
    clock: TestClock,
    deadline: Option<u64>,
    ports: Option<Ports>,
    reports: Vec<Report>,
    superseded: bool,
}

impl Bench {
    fn new(fault: Fault) -> Self {
        Self {
            conf: tempfile::tempdir().unwrap(),
            hypervisor: TestHypervisor {
                fault,
                strings: Strings::default(),
            },
            cancel: Cancel::new(),
            clock: TestClock {
                unix: Cell::new(1000),
                ..TestClock::default()
            },
            deadline: None,
            ports: None,
            reports: Vec::new(),
            superseded: false,
        }
    }

    fn folder(&self) -> JobFolder {
        let jobs = Jobs::open(self.conf.path()).unwrap();
        jobs.folder(JobId::new(1).unwrap())
    }

    /// Runs a launcher to its end; `when_ready` is called in another thread once the machine runs.
    fn run(&mut self, when_ready: impl FnOnce(&Strings, &Cancel) + Send) -> Record {
        let folder = self.folder();
        folder.create().unwrap();
        let mut record = Record::new(folder.id(), "docker", Backend::Local, "doe", 1000);
        record.deadline = self.deadline;
        let scratch = self.conf.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        fs::write(scratch.join("data.qcow2"), "disk").unwrap();
        let strings = self.hypervisor.strings.clone();
        let cancel = self.cancel.clone();
        let mut reports = Vec::new();
        let over = Cancel::new();
        let last = std::thread::scope(|scope| {
            let (watched, ended) = (strings.clone(), over.clone());
            scope.spawn(move || {
                while watched.running() == 0 {
                    if ended.is_cancelled() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                // Ready is written right after the machine has started.
                std::thread::sleep(Duration::from_millis(50));
                when_ready(&watched, &cancel);
            });
            let last = Launch {
                folder: &folder,
                record,
                endpoint: EndpointSpec {
                    node: "n1".into(),
                    address: IpAddr::from([127, 0, 0, 1]),
                    name: None,
                    ports: self.ports,
                },
                plan: plan(&scratch),
                image: image(self.conf.path()),
                hypervisor: &self.hypervisor,
                cancel: &self.cancel,
                report: &mut |report| reports.push(report),
                clock: &self.clock,
            }
            .run()
            .unwrap();
            over.cancel();
            last
        });
        self.reports = reports;
        assert_eq!(strings.running(), 0);
        assert_eq!(folder.read().unwrap() == last, !self.superseded);
        assert_eq!(folder.client_certificates().exists(), self.superseded);
        last
    }

    fn states(&self) -> Vec<State> {
        let mut states: Vec<_> = self
            .reports
            .iter()
            .filter_map(|report| match report {
                Report::Record(record) => Some(record.state),
                _ => None,
            })
            .collect();
        states.dedup();
        states
    }
}

fn plan(scratch: &Path) -> MachinePlan {
    MachinePlan {
        hostname: "docker".into(),
        cpus: 1,
        memory_mib: 1024,
        disk_bytes: 1 << 30,
        scratch: scratch.to_owned(),
        sockets: scratch.to_owned(),
        console_log: scratch.join("console"),
        console_bytes: 1 << 20,
        user: GuestUser {
            name: "doe".into(),
            uid: 1,
            gid: 1,
            home: "/home/doe".into(),
        },
        shares: Vec::new(),
        environment: GuestEnvironment::default(),
        network: NetworkPolicy::Closed,
        reachable: Vec::new(),
        snapshot: false,
        cache: scratch.to_owned(),
        deadline: Duration::from_secs(5),
    }
}

/// An image that was unpacked before.
fn image(folder: &Path) -> GuestImage {
    let folder = folder.join("image");
    fs::create_dir(&folder).unwrap();
    let manifest = Manifest::new("6.12".into(), BTreeMap::new(), BTreeMap::new());
    let text = serde_json::to_vec(&manifest).unwrap();
    fs::write(folder.join("guest.json"), text).unwrap();
    GuestImage {
        disk: GuestDisk::in_file(folder.join("disk")),
        folder,
        id: "0".into(),
    }
}

const WHOLE_LIFE: [State; 5] = [
    State::Starting,
    State::Booting,
    State::Ready,
    State::Stopping,
    State::Ended,
];

#[test]
fn a_vm_that_is_let_go_has_ended() {
    let mut bench = Bench::new(Fault::None);
    let (conf, folder) = (bench.conf.path().to_owned(), bench.folder());
    let last = bench.run(|strings, cancel| {
        let record = folder.read().unwrap();
        assert_eq!(record.state, State::Ready);
        let endpoint = format!("tcp://{}", strings.started()[0].listen);
        assert_eq!(record.endpoint, Some(endpoint));
        assert!(folder.client_certificates().join("key.pem").exists());
        // Whoever kills the launcher now, no disk stays.
        assert!(!conf.join("scratch/data.qcow2").exists());
        cancel.cancel();
    });
    assert_eq!((last.state, last.error), (State::Ended, None));
    assert_eq!(bench.states(), WHOLE_LIFE);
}

#[test]
fn a_job_that_was_started_again_elsewhere_is_left_alone() {
    let mut bench = Bench::new(Fault::None);
    bench.superseded = true;
    let (conf, folder) = (bench.conf.path().to_owned(), bench.folder());
    let later = Mutex::new(None);
    let last = bench.run(|_, _| {
        let mut record = folder.read().unwrap();
        let here = Jobs::open(&conf).unwrap().here().clone();
        record.launcher = Some(here.holder(std::process::id()).unwrap());
        folder.write(&record).unwrap();
        *later.lock().unwrap() = Some(record);
    });
    assert_eq!(last.state, State::Ended);
    assert!(last.error.unwrap().contains("started again"));
    assert_eq!(
        bench.folder().read().ok(),
        later.into_inner().unwrap(),
        "the later life's record"
    );
}

#[test]
fn every_end_is_told_apart() {
    for (exit, state, word) in [
        (Exit::ShutDown, State::Ended, "the guest shut down"),
        (Exit::Panicked, State::Failed, "kernel panicked"),
        (Exit::Died("signal 9".into()), State::Failed, "signal 9"),
    ] {
        let mut bench = Bench::new(Fault::None);
        let last = bench.run(|strings, _| strings.end(exit));
        assert_eq!(last.state, state);
        assert!(last.error.unwrap().contains(word));
    }
    // A signal to the whole job reaches the hypervisor and us, in any order.
    let mut bench = Bench::new(Fault::None);
    let last = bench.run(|strings, cancel| {
        strings.end(Exit::Died("signal 15".into()));
        std::thread::sleep(Duration::from_millis(100));
        cancel.cancel();
    });
    assert_eq!((last.state, last.error), (State::Ended, None));
}

#[test]
fn a_start_that_fails_says_why() {
    let mut bench = Bench::new(Fault::Start("is out of breath".into()));
    let last = bench.run(|_, _| {});
    assert_eq!(last.state, State::Failed);
    assert!(last.error.unwrap().contains("is out of breath"));
    let mut bench = Bench::new(Fault::Stop("sulks".into()));
    let last = bench.run(|_, cancel| cancel.cancel());
    assert_eq!(last.state, State::Ended);
}

#[test]
fn a_start_that_is_cancelled_has_not_failed() {
    let mut bench = Bench::new(Fault::Hang);
    let cancel = bench.cancel.clone();
    let started = std::time::Instant::now();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        cancel.cancel();
    });
    let last = bench.run(|_, _| {});
    assert_eq!((last.state, last.error), (State::Ended, None));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn the_time_limit_ends_it_and_the_clock_does_not() {
    let mut bench = Bench::new(Fault::None);
    bench.deadline = Some(1060);
    bench.clock.step.set(10.0);
    let last = bench.run(|_, _| {});
    assert_eq!(last.state, State::Ended);
    assert_eq!(last.error.unwrap(), "the time limit was reached");

    let mut deadline = Deadline::new(Some(1060), &bench.clock);
    bench.clock.step.set(0.0);
    assert!(!deadline.is_over(&bench.clock));
    // The clock is set an hour ahead: the job keeps its minute.
    bench.clock.unix.set(1000 + 3600);
    assert!(!deadline.is_over(&bench.clock));
    let moved = deadline.moved(&bench.clock).unwrap();
    assert!((4650..=4660).contains(&moved), "{moved}");
    assert_eq!(deadline.moved(&bench.clock), None);
    // The machine slept for a day.
    bench.clock.boot.set(bench.clock.boot.get() + 86400.0);
    assert!(deadline.is_over(&bench.clock));
    assert!(!Deadline::new(None, &bench.clock).is_over(&bench.clock));
}

#[test]
fn ports_are_those_of_the_site() {
    let mut bench = Bench::new(Fault::None);
    // Not in use by anybody else, but for bad luck.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    bench.ports = Some(Ports {
        first: port,
        last: port,
    });
    let last = bench.run(|_, _| {});
    assert_eq!(last.state, State::Failed);
    assert!(last.error.unwrap().contains("is free"));
    drop(held);
    let mut bench = Bench::new(Fault::None);
    bench.ports = Some(Ports {
        first: port,
        last: port,
    });
    let seen = Mutex::new(None);
    bench.run(|strings, cancel| {
        *seen.lock().unwrap() = Some(strings.started()[0].listen.port());
        cancel.cancel();
    });
    assert_eq!(seen.into_inner().unwrap(), Some(port));
}

#[test]
fn a_name_takes_the_addresss_place() {
    let endpoint = EndpointSpec {
        node: "n1".into(),
        address: IpAddr::from([127, 0, 0, 1]),
        name: Some("n1-ib".into()),
        ports: None,
    };
    let found = SocketAddr::from(([127, 0, 0, 1], 99));
    assert_eq!(endpoint.url(found), "tcp://n1-ib:99");
}
