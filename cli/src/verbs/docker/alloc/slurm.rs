//! `alloc` through Slurm: salloc with `pcocc docker session` as its command, and the result.
//!
//! salloc returns its command's exit code, but 0 for a command that died of a signal, and it may run another
//! word as the command. So the session writes its start and its end into the file of its request
//! ([`Handover`]).

use std::process::Command;
use std::time::{Duration, Instant};

use pcocc_core::process::die_with_parent;
use pcocc_vm::{options, slurm};
use rustix::process::{Pid, Signal, kill_process};

use super::Args;
use crate::errors::{Failure, Outcome, USAGE, While as _};
use crate::invocation::Invocation;
use crate::session::{GiveUp, exit_code};
use crate::verbs::docker::launch;
use crate::verbs::docker::session::{Handover, SessionRequest};

/// How long salloc may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs salloc; returns the shell's exit code.
pub(super) fn run(invocation: &Invocation, args: Args, give_up: Option<GiveUp>) -> Outcome<u8> {
    options::check(&args.batch).map_err(|error| Failure::from(error).code(USAGE))?;
    let file = tempfile::Builder::new()
        .prefix("pcocc-session-")
        .tempfile()?;
    let request = SessionRequest {
        script: args.script,
        mount: args.mount,
        give_up,
        machine: args.machine,
    };
    Handover::Requested(Box::new(request)).write(file.path())?;
    // The mark identifies a waiting job: a killed salloc leaves such a job in the queue and has not printed its
    // number. A later comment of the user replaces the mark.
    let mark = format!(
        "pcocc-{}",
        file.path().file_name().unwrap_or_default().display()
    );
    let mut command = Command::new("salloc");
    command
        .arg(format!("--comment={mark}"))
        .args(&args.batch)
        .arg("--")
        .arg(launch::program()?)
        .args(["docker", "session"])
        .arg(file.path());
    for name in invocation.environment.slurm.of_a_job() {
        command.env_remove(name);
    }
    if invocation.is_quiet() {
        command.arg("--silent");
    }
    invocation.announce("Starting the docker VM ...");
    // salloc gives the allocation back on SIGTERM.
    die_with_parent(&mut command, Signal::TERM);
    let mut salloc = command.spawn().map_err(|error| {
        Failure::from(error)
            .part("run salloc")
            .hint("without Slurm, say `type: local` in batch.yaml")
    })?;
    let handover = || Handover::read(file.path());
    let mut stopped: Option<Instant> = None;
    let mut late = false;
    let status = loop {
        if let Some(status) = salloc.try_wait()? {
            break status;
        }
        let waits_too_long = || {
            give_up.as_ref().is_some_and(GiveUp::is_over)
                && matches!(handover(), Ok(Handover::Requested(_)))
        };
        match stopped {
            None if invocation.cancel.is_cancelled() || waits_too_long() => {
                late = !invocation.cancel.is_cancelled();
                // The signal fails for a salloc that has ended.
                let _ = kill_process(Pid::from_child(&salloc), Signal::TERM);
                stopped = Some(Instant::now());
            }
            Some(since) if since.elapsed() > PATIENCE => salloc.kill()?,
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    if let Some(give_up) = give_up.filter(|_| late) {
        return Err(give_up.failure());
    }
    match handover()? {
        Handover::Requested(_) if status.code().is_none() && !invocation.cancel.is_cancelled() => {
            for id in slurm::marked(&mark)? {
                slurm::cancel(id).when(|| format!("end the Slurm job {id}"))?;
            }
            let why = format!("salloc was killed ({status})");
            Err(Failure::because(why).code(exit_code(status)))
        }
        // salloc has said why.
        Handover::Requested(_) if !status.success() => Err(Failure::reported(1)),
        Handover::Requested(_) => Err(Failure::because(
            "salloc ended without running pcocc in the allocation",
        )
        .hint("give options of salloc only, and no command of your own")),
        Handover::Begun(id) => {
            // salloc may have been killed before it gave the allocation back.
            slurm::cancel(id).when(|| format!("end the Slurm job {id}"))?;
            let why = format!("the session in the allocation was killed ({status})");
            Err(Failure::because(why).code(exit_code(status).max(1)))
        }
        Handover::Ended(code) => Ok(code),
    }
}
