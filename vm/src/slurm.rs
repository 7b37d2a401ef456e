//! Slurm, through its own commands.
//!
//! Data path: `salloc OPTIONS -- pcocc …` or `sbatch OPTIONS SCRIPT` → on the login node or in the script,
//! `srun pcocc docker launch` puts the launcher on the node. Jobs that cannot be seen are asked for with squeue, and
//! ended with scancel.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pcocc_core::cancel::Cancel;
use pcocc_core::child;

use crate::clock::{Clock, SystemClock};
use crate::job::{JobId, Queue, QueueState, Queued};
use crate::options::duration;

/// How long one of Slurm's commands may take to answer a question.
const ANSWER: Duration = Duration::from_secs(5);

/// Why Slurm was of no help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlurmError {
    /// A command of Slurm could not be run.
    #[error("run {program}: {source}")]
    Run {
        /// The command.
        program: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A command of Slurm failed.
    #[error("{program} {why}")]
    Failed {
        /// The command.
        program: &'static str,
        /// What it said.
        why: String,
    },
}

/// CPUs and memory of the launcher's step, from the variables that Slurm sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Number of CPUs.
    pub cpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
}

impl Resources {
    /// Reads them; `variable` gives a variable's value.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str| variable(name)?.trim().parse::<u64>().ok();
        let cpus = number("SLURM_CPUS_PER_TASK")
            .or_else(|| number("SLURM_CPUS_ON_NODE"))
            .and_then(|cpus| u32::try_from(cpus).ok())
            .filter(|cpus| *cpus > 0);
        let memory_mib = number("SLURM_MEM_PER_NODE").or_else(|| {
            let on_node = number("SLURM_CPUS_ON_NODE").or(cpus.map(u64::from))?;
            number("SLURM_MEM_PER_CPU")?.checked_mul(on_node)
        });
        Self {
            cpus,
            // 0 is the whole node's, whatever that is.
            memory_mib: memory_mib.filter(|mib| *mib > 0),
        }
    }
}

/// Variables by which a user sets Slurm's commands up, whatever job they run in (salloc(1), sbatch(1), srun(1)).
const SETTINGS: [&str; 13] = [
    "SLURM_BITSTR_LEN",
    "SLURM_CLUSTERS",
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SLURM_DEBUG_FLAGS",
    "SLURM_EXIT_ERROR",
    "SLURM_EXIT_IMMEDIATE",
    "SLURM_JWT",
    "SLURM_PMI_KVS_NO_DUP_KEYS",
    "SLURM_SACK_SOCKET",
    "SLURM_STEP_KILLED_MSG_NODE_ID",
    "SLURM_TIME_FORMAT",
    "SLURM_TOPO_LEN",
];

/// Whether a variable speaks of the job that this process runs in. A job that is asked for from there must not have it:
/// Slurm's commands take the outer job's memory, tasks and nodes for wishes about the inner one.
pub fn is_of_a_job(name: &str) -> bool {
    (name.starts_with("SLURM_") || name.starts_with("SLURMD_")) && !SETTINGS.contains(&name)
}

/// The text before a job's number in the output of `sbatch`.
const SUBMITTED: &str = "Submitted batch job ";

/// Finds the job's number in a line of sbatch's output, with or without `--parsable`.
pub fn submitted(line: &str) -> Option<JobId> {
    let number = match line.trim().strip_prefix(SUBMITTED) {
        Some(rest) => rest.split(' ').next()?,
        None => line.trim().split(';').next()?,
    };
    number.parse().ok()
}

/// Builds the srun command that runs `program` on the first node of the allocation, beside other steps of the user.
pub fn step(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("srun");
    command
        .args(STEP)
        .arg(program)
        .args(arguments)
        // The allocation's values would change the step.
        .env_remove("SLURM_NTASKS")
        .env_remove("SLURM_NPROCS")
        .env_remove("SLURM_NNODES")
        .env_remove("SLURM_JOB_NUM_NODES")
        .env_remove("SLURM_NTASKS_PER_NODE")
        .env_remove("SLURM_DISTRIBUTION");
    command
}

/// The options of the step: all the CPUs of one node, shared with other steps, and no output of srun's own.
pub const STEP: [&str; 7] = [
    "--quiet",
    "--nodes=1",
    "--ntasks=1",
    "--relative=0",
    "--overlap",
    "--cpu-bind=none",
    "--unbuffered",
];

/// The script for sbatch: the step takes the place of the script, and has `line` on its standard input.
pub fn script(log: &str, program: &Path, arguments: &[&str], line: &str) -> String {
    format!(
        "#!/bin/sh\n#SBATCH --output={log}\n\
         unset SLURM_NTASKS SLURM_NPROCS SLURM_NNODES SLURM_JOB_NUM_NODES SLURM_NTASKS_PER_NODE\n\
         exec srun {} {} {} <<'END'\n{}\nEND\n",
        STEP.join(" "),
        shell_words::quote(&program.to_string_lossy()),
        shell_words::join(arguments),
        line.trim_end(),
    )
}

/// Ends a job.
pub fn cancel(id: JobId) -> Result<(), SlurmError> {
    answer("scancel", &[OsStr::new(&id.to_string())]).map(drop)
}

/// Finds the user's jobs that have `comment` as theirs.
pub fn marked(comment: &str) -> Result<Vec<JobId>, SlurmError> {
    let arguments = ["--noheader", "--me", "--format=%A|%k"].map(OsStr::new);
    Ok(with_comment(&answer("squeue", &arguments)?, comment))
}

pub(crate) fn with_comment(text: &str, comment: &str) -> Vec<JobId> {
    text.lines()
        .filter_map(|line| {
            let (id, found) = line.trim().split_once('|')?;
            (found == comment).then(|| id.parse().ok())?
        })
        .collect()
}

/// Slurm's queue, seen through squeue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Squeue;

impl Squeue {
    /// When the job ends, in unix seconds; `None` for never, or not known.
    pub fn deadline(&self, id: JobId) -> Option<u64> {
        self.query(&[id])?.get(&id)?.deadline
    }
}

impl Queue for Squeue {
    fn query(&self, _ids: &[JobId]) -> Option<HashMap<JobId, Queued>> {
        // All jobs of the user: squeue fails when one of the ids is forgotten.
        let arguments = ["--noheader", "--me", "--format=%A|%T|%L"].map(OsStr::new);
        answer("squeue", &arguments)
            .inspect_err(|error| tracing::debug!(%error, "Slurm is not known to have any job"))
            .ok()
            .map(|text| parse(&text, SystemClock.unix()))
    }
}

/// Reads squeue's list.
pub(crate) fn parse(text: &str, now: u64) -> HashMap<JobId, Queued> {
    let line = |line: &str| {
        let mut fields = line.trim().split('|');
        let id = fields.next()?.trim().parse().ok()?;
        let state = match fields.next()?.trim() {
            "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED"
            | "SPECIAL_EXIT" => QueueState::Waiting,
            "RUNNING" | "SUSPENDED" | "RESIZING" | "SIGNALING" | "STOPPED" | "STAGE_OUT" => {
                QueueState::Running
            }
            "COMPLETING" => QueueState::Ending,
            _ => QueueState::Over,
        };
        let left = fields
            .next()
            .and_then(left)
            .filter(|_| state == QueueState::Running);
        Some((
            id,
            Queued {
                state,
                deadline: left.map(|left| now + left.as_secs()),
            },
        ))
    };
    text.lines().filter_map(line).collect()
}

/// Reads a time left, as squeue writes it: always with minutes and seconds.
fn left(text: &str) -> Option<Duration> {
    let text = text.trim();
    match text.contains(':') {
        true => duration(text)?,
        // UNLIMITED, NOT_SET, INVALID.
        false => None,
    }
}

/// Runs one of Slurm's commands that answers at once, or is killed.
fn answer(program: &'static str, arguments: &[&OsStr]) -> Result<String, SlurmError> {
    let late = Cancel::new();
    let timer = late.clone();
    std::thread::spawn(move || {
        std::thread::sleep(ANSWER);
        timer.cancel();
    });
    let finished = child::run(Command::new(program).args(arguments), &late, |_| Ok(()))
        .map_err(|source| SlurmError::Run { program, source })?
        .ok_or_else(|| SlurmError::Failed {
            program,
            why: format!("did not answer within {} s", ANSWER.as_secs()),
        })?;
    if finished.status.success() {
        return Ok(String::from_utf8_lossy(&finished.output).into_owned());
    }
    let why = match finished.words.as_str() {
        "" => "failed without a word".to_owned(),
        words => format!("failed: {}", words.replace('\n', "; ")),
    };
    Err(SlurmError::Failed { program, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> JobId {
        JobId::new(number).unwrap()
    }

    #[test]
    fn what_slurm_says_of_a_job_is_told_from_what_a_user_sets() {
        // The output variables of salloc(1), sbatch(1) and srun(1) of Slurm 22.05, and those of later versions.
        const OF_A_JOB: &str = "
            SLURMD_NODENAME SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_COUNT SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_MAX
            SLURM_ARRAY_TASK_MIN SLURM_ARRAY_TASK_STEP SLURM_CLUSTER_NAME SLURM_CONTAINER SLURM_CPUS_ON_NODE
            SLURM_CPUS_PER_GPU SLURM_CPUS_PER_TASK SLURM_CPU_BIND SLURM_CPU_BIND_LIST SLURM_CPU_BIND_TYPE
            SLURM_CPU_BIND_VERBOSE SLURM_CPU_FREQ_REQ SLURM_DISTRIBUTION SLURM_DIST_PLANESIZE SLURM_EXCLUSIVE
            SLURM_EXPORT_ENV SLURM_GPUS SLURM_GPUS_ON_NODE SLURM_GPUS_PER_NODE SLURM_GPUS_PER_SOCKET
            SLURM_GPUS_PER_TASK SLURM_GPU_BIND SLURM_GPU_FREQ SLURM_GTIDS SLURM_HET_SIZE SLURM_JOBID
            SLURM_JOB_ACCOUNT SLURM_JOB_CPUS_PER_NODE SLURM_JOB_DEPENDENCY SLURM_JOB_END_TIME SLURM_JOB_GID
            SLURM_JOB_GPUS SLURM_JOB_ID SLURM_JOB_NAME SLURM_JOB_NODELIST SLURM_JOB_NODES SLURM_JOB_NUM_NODES
            SLURM_JOB_PARTITION SLURM_JOB_QOS SLURM_JOB_RESERVATION SLURM_JOB_START_TIME SLURM_JOB_UID
            SLURM_JOB_USER SLURM_LAUNCH_NODE_IPADDR SLURM_LOCALID SLURM_MEM_BIND SLURM_MEM_BIND_LIST
            SLURM_MEM_BIND_PREFER SLURM_MEM_BIND_SORT SLURM_MEM_BIND_TYPE SLURM_MEM_BIND_VERBOSE SLURM_MEM_PER_CPU
            SLURM_MEM_PER_GPU SLURM_MEM_PER_NODE SLURM_NNODES SLURM_NODEID SLURM_NODELIST SLURM_NODE_ALIASES
            SLURM_NPROCS SLURM_NTASKS SLURM_NTASKS_PER_CORE SLURM_NTASKS_PER_GPU SLURM_NTASKS_PER_NODE
            SLURM_NTASKS_PER_SOCKET SLURM_OVERCOMMIT SLURM_OOM_KILL_STEP SLURM_PRIO_PROCESS SLURM_PROCID SLURM_PROFILE
            SLURM_RESTART_COUNT SLURM_SHARDS_ON_NODE SLURM_SRUN_COMM_HOST SLURM_SRUN_COMM_PORT SLURM_STEPID
            SLURM_STEP_GPUS SLURM_STEP_ID SLURM_STEP_LAUNCHER_PORT SLURM_STEP_NODELIST SLURM_STEP_NUM_NODES
            SLURM_STEP_NUM_TASKS SLURM_STEP_TASKS_PER_NODE SLURM_SUBMIT_DIR SLURM_SUBMIT_HOST SLURM_TASKS_PER_NODE
            SLURM_TASK_PID SLURM_THREADS_PER_CORE SLURM_TOPOLOGY_ADDR SLURM_TOPOLOGY_ADDR_PATTERN
            SLURM_TRES_PER_TASK SLURM_UMASK";
        for name in OF_A_JOB.split_whitespace() {
            assert!(is_of_a_job(name), "{name}");
        }
        for name in SETTINGS.into_iter().chain([
            "SALLOC_PARTITION",
            "SBATCH_ACCOUNT",
            "SLURM",
            "HOME",
            "MY_SLURM_NTASKS",
        ]) {
            assert!(!is_of_a_job(name), "{name}");
        }
    }

    #[test]
    fn squeues_list_is_understood() {
        let text = "12|RUNNING|9:30\n13|PENDING|1:00:00\n14|RUNNING|UNLIMITED\n15|COMPLETING|INVALID\n\
                    16_3|RUNNING|1:00\nslurm_load_jobs error\n17|TIMEOUT|0:00\n 18|RUNNING|1-00:00:10\n";
        let jobs = parse(text, 1000);
        let queued = |state, deadline| Some(Queued { state, deadline });
        assert_eq!(jobs.len(), 6);
        for (job, expected) in [
            (12, queued(QueueState::Running, Some(1570))),
            (13, queued(QueueState::Waiting, None)),
            (14, queued(QueueState::Running, None)),
            (15, queued(QueueState::Ending, None)),
            (16, None),
            (17, queued(QueueState::Over, None)),
            (18, queued(QueueState::Running, Some(1000 + 86410))),
        ] {
            assert_eq!(jobs.get(&id(job)).copied(), expected, "{job}");
        }
    }

    #[test]
    fn jobs_are_found_by_their_comment() {
        let text = "12|pcocc-a\n13|(null)\n 14|pcocc-ab\n15|pcocc-a|b\n";
        assert_eq!(with_comment(text, "pcocc-a"), [id(12)]);
    }

    #[test]
    fn sbatch_tells_the_number_in_two_ways() {
        for (line, number) in [
            ("Submitted batch job 1756495\n", Some(1_756_495)),
            ("Submitted batch job 12 on cluster foss", Some(12)),
            ("12", Some(12)),
            ("12;foss", Some(12)),
            ("sbatch: Warning", None),
            ("", None),
        ] {
            assert_eq!(submitted(line).map(JobId::number), number, "{line}");
        }
    }

    #[test]
    fn resources_come_from_the_step() {
        let read = |set: &[(&str, &str)]| {
            let set: HashMap<_, _> = set.iter().copied().collect();
            Resources::read(&|name| set.get(name).map(|value| (*value).to_owned()))
        };
        let resources = read(&[("SLURM_CPUS_ON_NODE", "4"), ("SLURM_MEM_PER_CPU", "500")]);
        assert_eq!(
            (resources.cpus, resources.memory_mib),
            (Some(4), Some(2000))
        );
        let resources = read(&[
            ("SLURM_CPUS_PER_TASK", "2"),
            ("SLURM_CPUS_ON_NODE", "4"),
            ("SLURM_MEM_PER_NODE", "3000"),
        ]);
        assert_eq!(
            (resources.cpus, resources.memory_mib),
            (Some(2), Some(3000))
        );
        assert_eq!(read(&[("SLURM_MEM_PER_NODE", "0")]), Resources::default());
    }

    #[test]
    fn the_script_quotes_its_words() {
        let text = script(
            "/home/doe/a b.out",
            Path::new("/opt/it's/pcocc"),
            &["docker", "a b"],
            "{\"it's\": \"$HOME\"}\n",
        );
        assert!(text.starts_with("#!/bin/sh\n#SBATCH --output=/home/doe/a b.out\n"));
        assert!(
            text.contains(r"'/opt/it'\''s/pcocc' docker 'a b' <<'END'"),
            "{text}"
        );
        assert!(text.ends_with("\n{\"it's\": \"$HOME\"}\nEND\n"), "{text}");
    }
}
