//! The worker: everything the VM is made of, put together on its node, and the launcher run with it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcocc_core::containers::Runtime;
use pcocc_core::template;
use pcocc_core::templates::{Reach, Template, Templates};
use pcocc_vm::clock::{Clock as _, SystemClock};
use pcocc_vm::guest_image::{self, IMAGE_NAME};
use pcocc_vm::job::{Backend, Job, JobFolder, Jobs, Record, State};
use pcocc_vm::launch::{Launch, Place};
use pcocc_vm::machine::{
    GuestFiles, GuestUser, Hypervisor, MAX_SHARES, MachineError, MachineSpec, NetworkPolicy, Share,
};
use pcocc_vm::report::Report;
use pcocc_vm::slurm::{Resources, Squeue};

use super::folders::NodeFolders;
use super::node::Node;
use super::settings::Settings;
use super::{Assignment, MachineArgs};
use crate::app::Invocation;
use crate::errors::{Failure, Outcome, While as _};
use crate::mounted;
use crate::stores;
use crate::verbs::docker::guest;

/// Size of the docker daemon's disk unless something says otherwise; only what is used takes room.
const DISK: u64 = 50 << 30;
/// Memory of the VM unless something says otherwise, in MiB.
const MEMORY: u64 = 2048;
/// Least memory a docker daemon lives in, in MiB.
const LEAST_MEMORY: u64 = 512;
/// What the hypervisor takes itself of an allocation's memory, in MiB, and one part in so many besides.
const OVERHEAD: (u64, u64) = (200, 20);
/// CPUs of a local VM unless something says otherwise.
const CPUS: u32 = 2;
/// Longest a VM may take to start.
const START: Duration = Duration::from_secs(300);

pub(super) fn run(invocation: &Invocation, assignment: &Assignment, keeper: u32) -> Outcome {
    let action = format!("launch the VM of job {}", assignment.id);
    die_with(keeper, &action)?;
    let (folder, mut record) = take_over(invocation, assignment, keeper, &action)?;
    let prepared = prepare(invocation, assignment, keeper, &folder, &action);
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            record.state = State::Failed;
            record.error = Some(failure.why_and_hint(&action));
            folder.write(&record).when(|| &*action)?;
            assignment.report(&Report::Record(Box::new(record)));
            return Err(failure);
        }
    };
    record.node = Some(prepared.place.node.clone());
    let hypervisor = hypervisor();
    let place = prepared.place.clone();
    let mut mounted = None;
    let last = Launch {
        folder: &folder,
        record,
        place,
        specify: &mut |listen, identities, _| {
            let mut spec = prepared.spec.clone();
            spec.listen = listen;
            spec.identity = identities.server.clone();
            spec.client = identities.client.clone();
            // Once on a node; its files are taken as they are from then on.
            let image = &prepared.image;
            spec.image = image.unpacked()?;
            Ok(spec)
        },
        hypervisor: &*hypervisor,
        cancel: &invocation.cancel,
        report: &mut |report| {
            if let (Some(point), Report::Record(record)) = (&assignment.request.mount, &report) {
                follow(invocation, &folder, record, point, &mut mounted);
            }
            assignment.report(&report);
        },
        clock: &SystemClock,
    }
    .run()
    .when(|| &*action)?;
    if !is_child_of(keeper) {
        // The keeper's work is ours, then.
        prepared.folders.remove().when(|| &*action)?;
    }
    match last.state {
        State::Failed => {
            let why = last.error.unwrap_or_default();
            Err(Failure::message(action, why))
        }
        _ => Ok(()),
    }
}

/// Has the images shown at `point` while the VM is ready.
fn follow(
    invocation: &Invocation,
    folder: &JobFolder,
    record: &Record,
    point: &Path,
    mounted: &mut Option<mounted::Mounted>,
) {
    if record.state != State::Ready {
        *mounted = None;
    } else if mounted.is_none() {
        let job = Job {
            folder: folder.clone(),
            record: record.clone(),
            confirmed: true,
        };
        // The VM is of use without; what the mount said is in the launcher's log, as this is.
        match mounted::mount(invocation, &job, point) {
            Ok(new) => *mounted = Some(new),
            Err(failure) => tracing::warn!("no images at {}: {}", point.display(), failure.why()),
        }
    }
}

/// Has the kernel send us SIGTERM when the keeper is gone.
fn die_with(keeper: u32, action: &str) -> Outcome {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(io::Error::from)
        .when(|| action)?;
    match is_child_of(keeper) {
        true => Ok(()),
        false => Err(Failure::message(
            action,
            "the process that started it is gone",
        )),
    }
}

/// Whether our parent is still the keeper.
fn is_child_of(keeper: u32) -> bool {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    u32::try_from(parent) == Ok(keeper)
}

/// Makes this process the holder of the job's record.
fn take_over(
    invocation: &Invocation,
    assignment: &Assignment,
    keeper: u32,
    action: &str,
) -> Outcome<(JobFolder, Record)> {
    let environment = &invocation.environment;
    let jobs = Jobs::open(&environment.user_conf).when(|| action)?;
    let folder = assignment.folder(invocation, &jobs, action)?;
    let mut record = match folder.read() {
        Ok(record) => record,
        Err(pcocc_vm::job::Error::NoSuchJob(_)) if assignment.backend == Backend::Slurm => {
            Record::new(
                assignment.id,
                "docker",
                assignment.backend,
                &environment.user,
                SystemClock.unix(),
            )
        }
        Err(error) => return Err(Failure::new(action, error)),
    };
    record.state = State::Starting;
    record.endpoint = None;
    record.error = None;
    record.launcher = Some(jobs.here().holder(std::process::id()).when(|| action)?);
    if assignment.backend == Backend::Slurm {
        if let Some(name) = environment.slurm.variable("SLURM_JOB_NAME") {
            record.name = name;
        }
        record.deadline = Squeue.deadline(assignment.id).or(record.deadline);
        // Slurm does so with jobs of sbatch only, which nobody holds.
        record.may_return = !assignment.request.held;
    }
    record.keeper = Some(jobs.here().holder(keeper).when(|| action)?);
    folder.write(&record).when(|| action)?;
    assignment.report(&Report::Record(Box::new(record.clone())));
    Ok((folder, record))
}

/// A machine's specification but for what the launcher adds.
struct Prepared {
    place: Place,
    folders: NodeFolders,
    spec: MachineSpec,
    image: Image,
}

/// A guest image of a repository, and where it is unpacked.
struct Image {
    disk: PathBuf,
    target: PathBuf,
    id: String,
}

impl Image {
    /// Its files; what a full disk says of them names no folder by itself.
    fn unpacked(&self) -> Result<GuestFiles, MachineError> {
        let unpacked = guest_image::unpack(&self.disk, &self.target, &self.id);
        unpacked.map_err(|error| match error {
            MachineError::Hypervisor { .. } | MachineError::Io { .. } => MachineError::Image {
                what: self.id.clone(),
                why: format!("cannot be unpacked to {}: {error}", self.target.display()),
            },
            error => error,
        })
    }
}

fn prepare(
    invocation: &Invocation,
    assignment: &Assignment,
    keeper: u32,
    folder: &JobFolder,
    action: &str,
) -> Outcome<Prepared> {
    let environment = &invocation.environment;
    let node = Node::look(invocation, action)?;
    let folders = NodeFolders::new(&node.scratch, keeper, assignment.id).when(|| action)?;
    folders.create().when(|| action)?;
    let file = |folder: &Path| folder.join("containers.yaml");
    let runtime = Runtime::load(
        &file(&environment.system_conf),
        &file(&environment.user_conf),
    )
    .when(|| action)?;
    let wanted = &assignment.request.machine;
    let template = template_of(invocation, wanted, &runtime, action)?;
    let (cpus, memory_mib) = size(invocation, assignment, &template, action)?;
    let user = user(invocation, action)?;
    let given = wanted.docker_daemon_json.as_deref();
    let settings = Settings::find(environment, given, &template, &runtime, action)?;
    for warning in settings.warnings {
        assignment.report(&Report::Warning(warning));
    }
    let spec = MachineSpec {
        hostname: format!("docker-{}", assignment.id),
        cpus,
        memory_mib,
        disk_bytes: wanted.disk.or(template.disk).unwrap_or(DISK),
        // The launcher fills these in.
        image: GuestFiles {
            kernel: PathBuf::new(),
            initramfs: PathBuf::new(),
            root: PathBuf::new(),
            data: PathBuf::new(),
            id: String::new(),
        },
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        identity: empty_identity(),
        client: pcocc_vm::machine::ClientIdentity {
            cert_pem: String::new(),
            key_pem: String::new(),
        },
        scratch: folders.scratch.clone(),
        sockets: folders.sockets.clone(),
        cache: folders.cache.clone(),
        console_log: folder.console_log(),
        shares: shares(invocation, assignment, &runtime, &user, action)?,
        user,
        environment: settings.environment,
        network: match template.reach {
            Some(Reach::Closed) => NetworkPolicy::Closed,
            Some(Reach::Open) => NetworkPolicy::Open,
            Some(Reach::Public) | None => NetworkPolicy::Public,
        },
        reachable: settings.reachable,
        snapshot: !wanted.no_snapshot && template.snapshot != Some(false),
        deadline: START,
    };
    let (name, place) = match &template.image {
        Some(written) => (written.as_str(), format!("{action}: {}", written.place())),
        None => (IMAGE_NAME, action.to_owned()),
    };
    let (disk, id) = guest::image(invocation, name, &place)?;
    let image = Image {
        disk,
        target: folders.cache.join("images").join(&id),
        id,
    };
    Ok(Prepared {
        place: node.place(invocation, assignment.backend, action)?,
        spec,
        image,
        folders,
    })
}

fn empty_identity() -> pcocc_vm::machine::ServerIdentity {
    pcocc_vm::machine::ServerIdentity {
        ca_pem: String::new(),
        cert_pem: String::new(),
        key_pem: String::new(),
    }
}

/// The template that is wanted, else the one that `containers.yaml` names, else what there is built in.
fn template_of(
    invocation: &Invocation,
    machine: &MachineArgs,
    runtime: &Runtime,
    action: &str,
) -> Outcome<Template> {
    let environment = &invocation.environment;
    let templates =
        Templates::load(&environment.user_conf, &environment.system_conf).when(|| action)?;
    let wanted = machine.template.as_ref();
    let Some(name) = wanted.or(runtime.docker_template.as_ref()) else {
        return Ok(Template::default());
    };
    if let Some(template) = templates.get(name).when(|| action)? {
        return Ok(template);
    }
    let names: Vec<&str> = templates.names().collect();
    let why = format!("there is no template {name:?} in templates.yaml");
    let action = match wanted {
        Some(_) => action.to_owned(),
        None => stores::at_runtime(environment, "docker_template", action),
    };
    Err(Failure::message(action, why).hint(match names.is_empty() {
        true => "define it in templates.yaml, or leave --template out".to_owned(),
        false => format!("choose one of: {}", names.join(", ")),
    }))
}

/// CPUs, and memory in MiB.
fn size(
    invocation: &Invocation,
    assignment: &Assignment,
    template: &Template,
    action: &str,
) -> Outcome<(u32, u64)> {
    let template_memory = template.memory.map(|bytes| bytes >> 20);
    let slurm = &invocation.environment.slurm;
    let (cpus, memory) = match assignment.backend {
        Backend::Local => {
            let there = std::thread::available_parallelism()
                .ok()
                .and_then(|count| u32::try_from(count.get()).ok())
                .unwrap_or(1);
            (
                assignment
                    .request
                    .cpus
                    .or(template.cpus)
                    .unwrap_or(CPUS.min(there)),
                assignment
                    .request
                    .memory_mib
                    .or(template_memory)
                    .unwrap_or(MEMORY),
            )
        }
        Backend::Slurm => {
            let allocated = Resources::read(&|name| slurm.variable(name));
            // The allocation is the hypervisor's as well as the guest's.
            let usable = allocated
                .memory_mib
                .map(|mib| mib.saturating_sub(OVERHEAD.0 + mib / OVERHEAD.1));
            let wanted = template_memory.unwrap_or(u64::MAX);
            (
                allocated.cpus.or(template.cpus).unwrap_or(1),
                usable
                    .map(|usable| usable.min(wanted))
                    .or(template_memory)
                    .unwrap_or(MEMORY),
            )
        }
    };
    if memory < LEAST_MEMORY {
        let why = format!(
            "{memory} MiB of memory are left for the VM, and a docker daemon needs {LEAST_MEMORY}"
        );
        return Err(Failure::message(action, why).hint("ask for more with --mem, such as --mem=2G"));
    }
    Ok((cpus, memory))
}

fn user(invocation: &Invocation, action: &str) -> Outcome<GuestUser> {
    let environment = &invocation.environment;
    let home = environment
        .home
        .canonicalize()
        .when(|| format!("{action}: find your home directory"))?;
    Ok(GuestUser {
        name: environment.user.clone(),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        home,
    })
}

/// The user's home, and `docker_mounts` of containers.yaml.
fn shares(
    invocation: &Invocation,
    assignment: &Assignment,
    runtime: &Runtime,
    user: &GuestUser,
    action: &str,
) -> Outcome<Vec<Share>> {
    let variables = stores::path_variables(&invocation.environment);
    let mut shares = Vec::new();
    // Root's home is no place for data, and whole systems have / as home.
    if user.home != Path::new("/") {
        shares.push(Share {
            source: user.home.clone(),
            dest: user.home.clone(),
            read_only: false,
        });
    }
    for mount in &runtime.docker_mounts {
        let expand = |path: &str| {
            template::expand(path, &variables).when(|| format!("{action}: {}", mount.place))
        };
        let source = expand(&mount.source)?;
        let dest = match &mount.dest {
            Some(dest) => expand(dest)?,
            None => source.clone(),
        };
        if !source.is_dir() {
            let why = format!(
                "{}: {} is no folder on this node: docker will not see it",
                mount.place,
                source.display()
            );
            assignment.report(&Report::Warning(why));
        } else if shares.iter().all(|share: &Share| share.dest != dest) {
            shares.push(Share {
                source,
                dest,
                read_only: false,
            });
        }
    }
    if shares.len() > MAX_SHARES {
        let action = stores::at_runtime(&invocation.environment, "docker_mounts", action);
        let why = format!("there are more than {MAX_SHARES} folders for docker");
        return Err(Failure::message(action, why).hint("share a folder above several of them"));
    }
    Ok(shares)
}

/// What starts VMs.
fn hypervisor() -> Box<dyn Hypervisor> {
    Box::new(pcocc_vm::qemu::Qemu::default())
}
