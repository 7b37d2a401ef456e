//! `pcocc doctor`: checks everything that a session can fail on.
//!
//! Data path: every check runs in a thread of its own, for at most [`PATIENCE`] → a [`Finding`] each, in a
//! fixed order → one line each, or JSON. The exit code says whether the main job can run.

mod machine;
mod services;
mod storage;

use std::io;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::errors::{FAILED, Failure, Outcome};
use crate::host::Host;
use crate::invocation::Invocation;
use crate::messages;
use crate::output::{self, Format};
use crate::program::{self, ProgramOutput};

/// Longest time for all checks together.
const PATIENCE: Duration = Duration::from_secs(15);

/// Check whether everything pcocc needs is there
///
/// One line for each thing that a session can fail on, with what to do about it. Nothing is changed, but that files
/// are made for a moment in the repository, the cache and the folder for temporary files, to see that there is room.
///
/// Exits with 0 when images can be moved and mounted and a docker daemon can be had, here or in a VM;
/// a warning is something that you may never need.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pcocc doctor\n  pcocc doctor --on-node\n\n\
    JSON: a list of {check, state, found, fix}; state is ok, warning or failed.")]
pub(crate) struct Args {
    /// Also run a short Slurm job, to see whether your home folder is there on a node
    #[arg(long)]
    on_node: bool,
    /// How to write the findings
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// All is well.
    Ok,
    /// A part is missing that not everybody needs.
    Warning,
    /// The main job cannot run.
    Failed,
}

/// What a check found, as `--format json` writes it. The keys are stable.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: Verdict,
    found: String,
    fix: Option<String>,
}

/// A check's answer: the finding, or the problem and its remedy.
type Answer = Result<String, Trouble>;

/// A problem.
#[derive(Debug)]
struct Trouble {
    verdict: Verdict,
    found: String,
    fix: String,
}

/// The main job cannot run.
fn failed(found: impl Into<String>, fix: impl Into<String>) -> Trouble {
    Trouble {
        verdict: Verdict::Failed,
        found: found.into(),
        fix: fix.into(),
    }
}

/// A part is missing that not everybody needs.
fn warning(found: impl Into<String>, fix: impl Into<String>) -> Trouble {
    Trouble {
        verdict: Verdict::Warning,
        found: found.into(),
        fix: fix.into(),
    }
}

/// Runs a program with arguments, for `patience` at most.
fn probe(program: &str, arguments: &[&str], patience: Duration) -> io::Result<ProgramOutput> {
    program::run_for(Command::new(program).args(arguments), patience)
}

/// The name that the two ways to a docker daemon share; either is enough.
const DAEMON: &str = "docker daemon";
const QEMU: &str = "qemu";
const GUEST: &str = "guest image";

impl Args {
    /// Runs the checks.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let mut findings = self.examine(invocation);
        spare_alternatives(&mut findings);
        let hopeless = findings
            .iter()
            .filter(|finding| finding.state == Verdict::Failed)
            .count();
        match self.format {
            Format::Json => output::json(&findings)?,
            Format::Table => output::text(&findings.iter().map(Finding::line).collect::<String>())?,
        }
        match hopeless {
            0 => Ok(()),
            _ => Err(Failure::reported(FAILED)),
        }
    }

    fn examine(&self, invocation: &Invocation) -> Vec<Finding> {
        type Check = Box<dyn FnOnce() -> Answer + Send>;
        let of = |check: fn(&Host) -> Answer| -> Check {
            let host = Arc::clone(&invocation.host);
            Box::new(move || check(&host))
        };
        let on_node = self.on_node;
        let host = Arc::clone(&invocation.host);
        let checks: Vec<(&'static str, Check)> = vec![
            ("configuration", of(storage::configuration)),
            ("repository", of(storage::repository)),
            ("cache", of(storage::cache)),
            ("temporary files", of(storage::temporary)),
            ("fuse", of(machine::fuse)),
            ("mounts", of(storage::mounts)),
            ("user namespaces", of(machine::user_namespaces)),
            (DAEMON, of(services::daemon)),
            ("docker command", of(services::docker_command)),
            (QEMU, of(machine::qemu)),
            (GUEST, of(storage::guest)),
            ("kvm", of(machine::kvm)),
            ("slurm", of(services::slurm)),
            (
                "home on nodes",
                Box::new(move || services::home(&host, on_node)),
            ),
            ("jobs", of(storage::jobs)),
            ("clock", of(storage::clock)),
            ("proxy", of(services::proxy)),
        ];
        let begun = Instant::now();
        let running: Vec<_> = checks
            .into_iter()
            .map(|(name, check)| {
                let (sender, receiver) = mpsc::channel();
                // A check that hangs, for instance on a dead file server, ends with the process.
                std::thread::spawn(move || sender.send(check()));
                (name, receiver)
            })
            .collect();
        running
            .into_iter()
            .map(|(name, receiver)| {
                let answer = receiver
                    .recv_timeout(PATIENCE.saturating_sub(begun.elapsed()))
                    .unwrap_or_else(|_| {
                        Err(failed(
                            format!("no answer within {} s", PATIENCE.as_secs()),
                            "look whether a file server or a service hangs",
                        ))
                    });
                Finding::new(name, answer)
            })
            .collect()
    }
}

/// Makes a failed way to a docker daemon a warning if the other way works.
fn spare_alternatives(findings: &mut [Finding]) {
    let works = |name: &str| {
        findings
            .iter()
            .any(|finding| finding.check == name && finding.state == Verdict::Ok)
    };
    let (daemon, machine) = (works(DAEMON), works(QEMU) && works(GUEST));
    for finding in findings {
        let spared = match finding.check {
            DAEMON => machine,
            QEMU | GUEST => daemon,
            _ => false,
        };
        if spared && finding.state == Verdict::Failed {
            finding.state = Verdict::Warning;
        }
    }
}

impl Finding {
    fn new(check: &'static str, answer: Answer) -> Self {
        match answer {
            Ok(found) => Self {
                check,
                state: Verdict::Ok,
                found,
                fix: None,
            },
            Err(trouble) => Self {
                check,
                state: trouble.verdict,
                found: trouble.found,
                fix: Some(trouble.fix),
            },
        }
    }

    /// `ok       fuse             /dev/fuse, fusermount3`
    fn line(&self) -> String {
        let state = match self.state {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        let found = messages::printable(&self.found);
        let fix = match &self.fix {
            Some(fix) => format!(" -> {}", messages::printable(fix)),
            None => String::new(),
        };
        format!("{state:<8} {:<16} {found}{fix}\n", self.check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_way_to_a_daemon_is_enough() {
        let answers = |daemon: bool, qemu: bool, guest: bool| {
            let answer = |works: bool| match works {
                true => Ok("there".to_owned()),
                false => Err(failed("gone", "get one")),
            };
            let mut findings = [
                Finding::new(DAEMON, answer(daemon)),
                Finding::new(QEMU, answer(qemu)),
                Finding::new(GUEST, answer(guest)),
            ];
            spare_alternatives(&mut findings);
            findings.map(|finding| finding.state)
        };
        use Verdict::{Failed, Ok as Fine, Warning};
        assert_eq!(answers(true, true, true), [Fine, Fine, Fine]);
        assert_eq!(answers(true, false, false), [Fine, Warning, Warning]);
        assert_eq!(answers(false, true, true), [Warning, Fine, Fine]);
        assert_eq!(answers(false, true, false), [Failed, Fine, Failed]);
        assert_eq!(answers(false, false, true), [Failed, Failed, Fine]);
    }

    #[test]
    fn a_line_says_what_and_what_to_do() {
        let finding = Finding::new("kvm", Err(warning("none\n", "get one")));
        assert_eq!(
            finding.line(),
            "warning  kvm              none\\n -> get one\n"
        );
    }
}
