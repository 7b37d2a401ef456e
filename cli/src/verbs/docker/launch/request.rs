//! The request for a VM, for a launcher.
//!
//! The request is one line of JSON on the launcher's standard input: srun carries the pipe from node to node, `ps` does not
//! show the request, and no file stays when the caller is killed.

use std::io::BufRead;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use pcocc_vm::job::JobId;
use serde::{Deserialize, Serialize};

use crate::errors::{Failure, Outcome, While as _};

/// The user's options for the machine itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MachineArgs {
    /// What the VM is made of: a template of templates.yaml (default: docker_template of containers.yaml)
    #[arg(long, value_name = "NAME")]
    pub(super) template: Option<String>,
    /// Size of the docker daemon's disk, such as 50G; only what is used takes room
    #[arg(long, value_name = "SIZE", value_parser = pcocc_core::size::parse)]
    pub(super) disk: Option<u64>,
    /// Settings of the docker daemon, a file like its own daemon.json, instead of the template's
    #[arg(long, value_name = "FILE", value_parser = absolute_path())]
    pub(super) docker_daemon_json: Option<PathBuf>,
    /// Boot the VM instead of resuming a snapshot of a booted one
    #[arg(long)]
    pub(super) no_snapshot: bool,
}

/// Parses a path into one that a launcher in another folder, perhaps on another node, understands.
pub(crate) fn absolute_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(std::path::absolute)
}

/// A request for a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LaunchRequest {
    /// The job of this machine; `None` for the job of the Slurm step.
    pub(crate) job: Option<JobId>,
    /// Whether the VM ends with the launcher's standard input.
    pub(crate) held: bool,
    /// Number of CPUs, outside of Slurm.
    pub(crate) cpus: Option<u32>,
    /// Memory in MiB, outside of Slurm.
    pub(crate) memory_mib: Option<u64>,
    /// Folder that shows docker and the repositories while the VM is ready.
    pub(crate) mount: Option<PathBuf>,
    /// The machine.
    pub(crate) machine: MachineArgs,
}

impl LaunchRequest {
    /// The request as a line, with its end. Fails for paths that are not text.
    pub(crate) fn line(&self) -> Outcome<String> {
        let line = serde_json::to_string(self)?;
        Ok(line + "\n")
    }

    /// Reads a line that [`LaunchRequest::line`] made.
    pub(crate) fn read(input: &mut impl BufRead) -> Outcome<Self> {
        let action = "read what VM is wanted";
        let mut line = String::new();
        match input.read_line(&mut line).when(|| action)? {
            0 => Err(Failure::message(action, "standard input is empty")),
            _ => serde_json::from_str(&line).when(|| action),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_as_it_was_made() {
        let request = LaunchRequest {
            job: "7".parse().ok(),
            held: true,
            cpus: Some(2),
            memory_mib: Some(1024),
            mount: Some("/a 'b'\n$c".into()),
            machine: MachineArgs {
                template: Some("big".into()),
                ..MachineArgs::default()
            },
        };
        let line = request.line().unwrap();
        assert_eq!(line.lines().count(), 1);
        let mut input = (line + "more").into_bytes().leak() as &[u8];
        assert_eq!(LaunchRequest::read(&mut input).unwrap(), request);
        assert_eq!(input, b"more");
        let least = LaunchRequest::read(&mut b"{}".as_slice()).unwrap();
        assert_eq!(least, LaunchRequest::default());
        assert!(LaunchRequest::read(&mut b"".as_slice()).is_err());
    }
}
