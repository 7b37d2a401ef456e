//! The worker: takes over the job's record, plans the VM, and runs the launcher proper.

use std::io;
use std::path::Path;

use pcocc_vm::clock::SystemClock;
use pcocc_vm::job::{Backend, Job, JobFolder, Record, State};
use pcocc_vm::launcher::Launch;
use pcocc_vm::qemu::Qemu;
use pcocc_vm::report::Report;
use pcocc_vm::slurm::Squeue;

use super::plan::VmPlan;
use super::{Assignment, first_record};
use crate::errors::{Failure, Outcome};
use crate::invocation::Invocation;
use crate::mounted;

pub(super) fn run(invocation: &Invocation, assignment: &Assignment, keeper: u32) -> Outcome {
    die_with(keeper)?;
    let (folder, mut record) = take_over(invocation, assignment, keeper)?;
    let planned = VmPlan::make(invocation, assignment, keeper, &folder);
    let VmPlan {
        endpoint,
        folders,
        machine,
        image,
    } = match planned {
        Ok(planned) => planned,
        Err(failure) => {
            record.state = State::Failed;
            record.error = Some(failure.why_and_hint());
            folder.write(&record)?;
            assignment.report(&Report::Record(Box::new(record)));
            return Err(failure);
        }
    };
    record.node = Some(endpoint.node.clone());
    record.sockets = Some(folders.sockets.clone());
    let mut mounted = None;
    let last = Launch {
        folder: &folder,
        record,
        endpoint,
        plan: machine,
        image,
        hypervisor: &Qemu::default(),
        cancel: &invocation.cancel,
        report: &mut |report| {
            if let (Some(point), Report::Record(record)) = (&assignment.request.mount, &report) {
                mount_when_ready(invocation, &folder, record, point, &mut mounted);
            }
            assignment.report(&report);
        },
        clock: &SystemClock,
    }
    .run()?;
    if !is_child_of(keeper) {
        // The keeper is gone: the worker does its work.
        folders.remove()?;
    }
    match last.state {
        State::Failed => {
            let why = last.error.unwrap_or_default();
            Err(Failure::because(why))
        }
        _ => Ok(()),
    }
}

/// Mounts the images at `point` while the VM is ready.
fn mount_when_ready(
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
        // The VM is useful without a mount; the launcher's log has the reason.
        match mounted::mount(invocation, &job, point) {
            Ok(new) => *mounted = Some(new),
            Err(failure) => tracing::warn!("no images at {}: {}", point.display(), failure.why()),
        }
    }
}

/// Makes the kernel send SIGTERM to this process when the keeper is gone.
fn die_with(keeper: u32) -> Outcome {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(io::Error::from)?;
    match is_child_of(keeper) {
        true => Ok(()),
        false => Err(Failure::because("the process that started it is gone")),
    }
}

/// Whether the keeper is still this process's parent.
fn is_child_of(keeper: u32) -> bool {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    u32::try_from(parent) == Ok(keeper)
}

/// Makes this process the holder of the job's record.
fn take_over(
    invocation: &Invocation,
    assignment: &Assignment,
    keeper: u32,
) -> Outcome<(JobFolder, Record)> {
    let environment = &invocation.environment;
    let jobs = invocation.host.jobs()?;
    let folder = assignment.folder(invocation)?;
    let mut record = match folder.read() {
        Ok(record) => record,
        Err(pcocc_vm::job::Error::NoSuchJob(_)) if assignment.backend == Backend::Slurm => {
            first_record(invocation, assignment.id, assignment.backend, None)
        }
        Err(error) => return Err(Failure::from(error)),
    };
    record.state = State::Starting;
    record.endpoint = None;
    record.error = None;
    record.launcher = Some(jobs.here().holder(std::process::id())?);
    if assignment.backend == Backend::Slurm {
        if let Some(name) = environment.slurm.variable("SLURM_JOB_NAME") {
            record.name = name;
        }
        record.deadline = Squeue.deadline(assignment.id).or(record.deadline);
        // Slurm requeues only jobs of sbatch, which no command holds.
        record.may_return = !assignment.request.held;
    }
    record.keeper = Some(jobs.here().holder(keeper)?);
    folder.write(&record)?;
    assignment.report(&Report::Record(Box::new(record.clone())));
    Ok((folder, record))
}
