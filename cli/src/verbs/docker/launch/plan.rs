//! The plan of a VM, made on its node from request, template, configuration and allocation.
//!
//! The request's value counts first, then the template's, then the default. In a Slurm job the allocation gives
//! the number of CPUs and the memory.

use std::path::Path;
use std::time::Duration;

use pcocc_core::containers::Runtime;
use pcocc_core::template;
use pcocc_core::templates::{Reach, Template, Templates};
use pcocc_vm::guest_image::{GuestImage, IMAGE_NAME};
use pcocc_vm::job::{Backend, JobFolder};
use pcocc_vm::launcher::EndpointSpec;
use pcocc_vm::machine::{GuestUser, MAX_SHARES, MachinePlan, NetworkPolicy, Share};
use pcocc_vm::report::Report;
use pcocc_vm::slurm::Resources;

use super::Assignment;
use super::folders::NodeFolders;
use super::node::Node;
use super::settings::Settings;
use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::Invocation;

/// Default size of the docker daemon's disk; only used blocks take room.
const DISK: u64 = 50 << 30;
/// Most bytes of the console that are kept by default.
const CONSOLE: u64 = 16 << 20;
/// Memory of the VM by default, in MiB.
const MEMORY: u64 = 2048;
/// Least memory for a docker daemon, in MiB.
const LEAST_MEMORY: u64 = 512;
/// The hypervisor's share of an allocation's memory: a number of MiB, and one part in a number.
const OVERHEAD: (u64, u64) = (200, 20);
/// CPUs of a local VM by default.
const CPUS: u32 = 2;
/// Longest start of a VM.
const START: Duration = Duration::from_secs(300);

/// The plan of a VM, and the other values that its launcher needs.
pub(super) struct VmPlan {
    pub(super) endpoint: EndpointSpec,
    pub(super) folders: NodeFolders,
    pub(super) machine: MachinePlan,
    pub(super) image: GuestImage,
}

impl VmPlan {
    /// Plans the VM of the job in `folder`, and makes its folders on this node.
    pub(super) fn make(
        invocation: &Invocation,
        assignment: &Assignment,
        keeper: u32,
        folder: &JobFolder,
    ) -> Outcome<Self> {
        let environment = &invocation.environment;
        let node = Node::describe(invocation)?;
        let folders = NodeFolders::new(&node, keeper, assignment.id)?;
        folders.create()?;
        let runtime = invocation.host.runtime()?;
        let wanted = &assignment.request.machine;
        let template = template_of(invocation, wanted.template.as_ref(), runtime)?;
        let (cpus, memory_mib) = size(invocation, assignment, &template)?;
        let user = user(invocation)?;
        let given = wanted.docker_daemon_json.as_deref();
        let settings = Settings::collect(environment, given, &template, runtime)?;
        for warning in settings.warnings {
            assignment.report(&Report::Warning(warning));
        }
        let machine = MachinePlan {
            hostname: format!("docker-{}", assignment.id),
            cpus,
            memory_mib,
            disk_bytes: wanted.disk.or(template.disk).unwrap_or(DISK),
            scratch: folders.scratch.clone(),
            sockets: folders.sockets.clone(),
            cache: folders.cache.clone(),
            console_log: folder.console_log(),
            console_bytes: template.console_log.unwrap_or(CONSOLE),
            shares: shares(invocation, assignment, runtime, &user)?,
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
        let (disk, id) = match &template.image {
            Some(written) => invocation
                .host
                .guest_image(written.as_str())
                .part(|| written.place())?,
            None => invocation.host.guest_image(IMAGE_NAME)?,
        };
        let image = GuestImage {
            disk,
            folder: folders.cache.join("images").join(&id),
            id,
        };
        Ok(Self {
            endpoint: node.endpoint(invocation, assignment.backend)?,
            folders,
            machine,
            image,
        })
    }
}

/// The requested template, or the template in `containers.yaml`, or the built-in one.
fn template_of(
    invocation: &Invocation,
    wanted: Option<&String>,
    runtime: &Runtime,
) -> Outcome<Template> {
    let environment = &invocation.environment;
    let templates = Templates::load(&environment.user_conf, &environment.system_conf)?;
    let Some(name) = wanted.or(runtime.docker_template.as_ref()) else {
        return Ok(Template::default());
    };
    if let Some(template) = templates.get(name)? {
        return Ok(template);
    }
    let names: Vec<&str> = templates.names().collect();
    let why = format!("there is no template {name:?} in templates.yaml");
    let failure = Failure::because(why).hint(match names.is_empty() {
        true => "define it in templates.yaml, or leave --template out".to_owned(),
        false => format!("choose one of: {}", names.join(", ")),
    });
    Err(match wanted {
        Some(_) => failure,
        None => failure.part(invocation.host.runtime_place("docker_template")),
    })
}

/// CPUs, and memory in MiB.
fn size(
    invocation: &Invocation,
    assignment: &Assignment,
    template: &Template,
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
            // Hypervisor and guest share the allocation.
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
        return Err(Failure::because(why).hint("ask for more with --mem, such as --mem=2G"));
    }
    Ok((cpus, memory))
}

fn user(invocation: &Invocation) -> Outcome<GuestUser> {
    let environment = &invocation.environment;
    let home = environment
        .home
        .canonicalize()
        .part(|| "find your home directory")?;
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
) -> Outcome<Vec<Share>> {
    let variables = invocation.environment.path_variables();
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
        let expand = |path: &str| template::expand(path, &variables).part(|| &*mount.place);
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
        let why = format!("there are more than {MAX_SHARES} folders for docker");
        return Err(Failure::because(why)
            .part(invocation.host.runtime_place("docker_mounts"))
            .hint("share a folder above several of them"));
    }
    Ok(shares)
}
