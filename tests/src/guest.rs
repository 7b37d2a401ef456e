//! Docker VMs without jobs: the guest image, and machines on QEMU that tests start themselves.
//!
//! `scripts/test-guest` builds the image once; `PCOCC_TEST_GUEST` names the folder it printed. All machines of a user,
//! those of jobs included, share one cache, so the guest boots once and every test resumes it in seconds.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pcocc_core::cancel::Cancel;
use pcocc_vm::guest_image::{GuestDisk, GuestImage};
use pcocc_vm::job::JobId;
use pcocc_vm::machine::{
    GuestEnvironment, GuestFiles, GuestUser, Hypervisor, Machine, MachineError, MachinePlan,
    MachineSpec, NetworkPolicy, Share, Stage,
};
use pcocc_vm::qemu::{Accelerator, Qemu};
use pcocc_vm::service::EndpointClient;
use pcocc_vm::tls::{Identities, Validity, endpoint_names};

use crate::children::{Outcome, run};

/// Gives the folder with the guest image, which is built if `PCOCC_TEST_GUEST` does not name it.
#[track_caller]
pub fn guest_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("PCOCC_TEST_GUEST").filter(|value| !value.is_empty()) {
        return folder.into();
    }
    let script = crate::workspace().join("scripts/test-guest");
    run(&mut Command::new(script)).ok().into()
}

/// Gives the folder that all VMs of the tests have as their `docker_scratch`, open to everybody as such folders are.
#[track_caller]
pub fn guest_scratch() -> PathBuf {
    let folder = guest_folder();
    let name = folder.file_name().expect("a folder").to_string_lossy();
    let scratch = std::env::temp_dir().join(format!("pcocc-t-guest-{name}"));
    if fs::create_dir(&scratch).is_ok() {
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o1777))
            .expect("open the scratch folder");
    }
    scratch
}

/// Gives the guest's files, unpacked in the cache of whoever runs the tests: where jobs of that user have it, too.
#[track_caller]
pub fn guest_files() -> (GuestFiles, PathBuf) {
    let folder = guest_folder();
    let user = rustix::process::getuid().as_raw();
    let cache = guest_scratch().join(format!("pcocc-{user}/guest"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&cache)
        .expect("make the cache");
    let meta = fs::read(folder.join("repo/meta/docker-vm@0")).expect("the image's record");
    let meta: serde_json::Value = serde_json::from_slice(&meta).expect("JSON");
    let digest = meta["data_blobs"][0].as_str().expect("a disk");
    let hex = digest.trim_start_matches("sha256:");
    let disk = folder.join("repo/data").join(&hex[..2]).join(hex);
    let image = GuestImage {
        disk: GuestDisk::in_file(disk),
        folder: cache.join("images").join(hex),
        id: hex.to_owned(),
    };
    let files = image
        .unpack()
        .unwrap_or_else(|error| panic!("unpack the guest image: {error}"));
    (files, cache)
}

/// A machine of a test's own; ends when dropped.
pub struct TestVm {
    /// The machine.
    pub machine: Box<dyn Machine>,
    /// What it was made from.
    pub spec: MachineSpec,
    /// The stages of its start, and when each began.
    pub stages: Vec<(Duration, Stage)>,
    folder: PathBuf,
}

/// Prepares a machine in `folder`, whose path is short: a snapshot, no shares, and nothing outside within reach.
#[track_caller]
pub fn vm_spec(folder: &Path) -> MachineSpec {
    let (image, cache) = guest_files();
    let listen = free_address();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    let names = endpoint_names("node", listen.ip(), None);
    let id: JobId = "1".parse().expect("a job number");
    let identities =
        Identities::issue(id, &names, Validity::of_job(now, None)).expect("make certificates");
    let own = folder.join(format!("vm{}", listen.port()));
    let client = own.join("client");
    fs::create_dir_all(&client).expect("make folders");
    for (name, content) in [
        ("ca.pem", &identities.server.ca_pem),
        ("cert.pem", &identities.client.cert_pem),
        ("key.pem", &identities.client.key_pem),
    ] {
        fs::write(client.join(name), content).expect("write certificates");
    }
    let plan = MachinePlan {
        hostname: format!("docker-{}", listen.port()),
        cpus: 2,
        memory_mib: 1024,
        disk_bytes: 8 << 30,
        scratch: own.clone(),
        sockets: own.clone(),
        console_log: own.join("console.log"),
        console_bytes: 16 << 20,
        user: GuestUser {
            name: "doe".into(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            home: "/home/doe".into(),
        },
        shares: Vec::new(),
        environment: GuestEnvironment::default(),
        network: NetworkPolicy::Closed,
        reachable: Vec::new(),
        snapshot: true,
        cache,
        deadline: Duration::from_secs(400),
    };
    MachineSpec {
        plan,
        image,
        listen,
        identity: identities.server,
        client: identities.client,
    }
}

/// Makes a share at the same path.
pub fn share(source: &Path, read_only: bool) -> Share {
    Share {
        source: source.to_owned(),
        dest: source.to_owned(),
        read_only,
    }
}

/// Starts QEMU with the emulator: what KVM is worth here is another test's.
pub fn hypervisor() -> Qemu {
    Qemu {
        accelerator: Some(Accelerator::Tcg),
        ..Qemu::default()
    }
}

/// An address of this machine at which nobody listens now.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("find a free port");
    listener.local_addr().expect("its address")
}

impl std::fmt::Debug for TestVm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TestVm({})", self.machine.endpoint())
    }
}

impl TestVm {
    /// Starts the machine, whatever comes of it; at another port when somebody was faster, as the launcher does.
    pub fn try_start(mut spec: MachineSpec) -> Result<Self, MachineError> {
        let begun = Instant::now();
        let mut stages = Vec::new();
        let machine = loop {
            let started = hypervisor().start(&spec, &Cancel::new(), &mut |stage| {
                stages.push((begun.elapsed(), stage));
            });
            match started {
                Err(MachineError::PortTaken(_)) => spec.listen = free_address(),
                started => break started?,
            }
        };
        Ok(Self {
            machine,
            folder: spec.plan.scratch.clone(),
            spec,
            stages,
        })
    }

    /// Starts the machine; panics with its console when it does not start.
    #[track_caller]
    pub fn start(spec: MachineSpec) -> Self {
        let console = spec.plan.console_log.clone();
        Self::try_start(spec).unwrap_or_else(|error| {
            let text = fs::read(console).unwrap_or_default();
            panic!("no VM: {error}\n{}", String::from_utf8_lossy(&text))
        })
    }

    /// A docker command for its daemon.
    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", format!("tcp://{}", self.machine.endpoint()))
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", self.folder.join("client"))
            .args(arguments);
        command
    }

    /// Runs docker; panics when it fails.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        run(&mut self.docker(arguments)).ok().to_owned()
    }

    /// Runs docker, whatever comes of it.
    #[track_caller]
    pub fn try_run(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.docker(arguments))
    }

    /// Loads the image `bb`: busybox and nothing else.
    #[track_caller]
    pub fn load_busybox(&self) {
        let script = r#"set -e; cd "$1"; mkdir -p bb/bin bb/tmp; cp /bin/busybox bb/bin/
            for name in $(bb/bin/busybox --list); do [ $name = busybox ] || ln -sf busybox bb/bin/$name; done
            tar -C bb -c . | docker import - bb"#;
        let docker = self.docker(&[]);
        let mut shell = Command::new("bash");
        shell.args(["-c", script, "load"]).arg(&self.folder);
        shell.envs(
            docker
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        run(&mut shell).ok();
    }

    /// Runs `script` as root in a container, with docker options before the image.
    #[track_caller]
    pub fn container(&self, options: &[&str], script: &str) -> Outcome {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(options);
        arguments.extend(["bb", "sh", "-c", script]);
        self.try_run(&arguments)
    }

    /// A client of the agent's services.
    #[track_caller]
    pub fn client(&self) -> EndpointClient {
        let spec = &self.spec;
        EndpointClient::new(spec.listen, &spec.identity.ca_pem, &spec.client).expect("a client")
    }
}
