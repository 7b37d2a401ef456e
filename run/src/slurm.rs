//! The `srun` command line of a run that goes through Slurm.
//!
//! Each task runs this program again on its node, with `-s`: what a node has, and what Slurm tells a task,
//! is known only there.

use std::ffi::OsString;

/// How many tasks, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// Number of tasks.
    pub processes: Option<u32>,
    /// Number of nodes.
    pub nodes: Option<u32>,
    /// Cores for each task.
    pub cores: Option<u32>,
    /// Partition.
    pub partition: Option<String>,
    /// Names of nodes.
    pub node_list: Option<String>,
    /// Whether the task has a terminal.
    pub pty: bool,
}

/// Why tasks cannot be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TasksError {
    /// Fewer tasks than nodes.
    #[error(
        "{nodes} nodes need at least {nodes} processes, not {processes}; raise -n, or lower -N"
    )]
    TooFew {
        /// Nodes asked for.
        nodes: u32,
        /// Tasks asked for.
        processes: u32,
    },
    /// A terminal for more than one task.
    #[error("a terminal (--pty) is for one process, not for {0}; leave --pty out, or -n")]
    Terminal(u32),
    /// An option that only Slurm has a use for.
    #[error("{0} says how Slurm starts it, and -s runs it here; leave one of them out")]
    Local(&'static str),
}

impl Tasks {
    /// The number of tasks: as many as nodes, unless it is said.
    pub fn count(&self) -> u32 {
        self.processes.or(self.nodes).unwrap_or(1)
    }

    /// Checks that the numbers fit together.
    pub fn check(&self) -> Result<(), TasksError> {
        let count = self.count();
        if let Some(nodes) = self.nodes.filter(|nodes| count < *nodes) {
            return Err(TasksError::TooFew {
                nodes,
                processes: count,
            });
        }
        if self.pty && count > 1 {
            return Err(TasksError::Terminal(count));
        }
        Ok(())
    }

    /// Checks that the options ask for a single task.
    pub fn check_local(&self) -> Result<(), TasksError> {
        let several = |number: Option<u32>| number.is_some_and(|number| number != 1);
        for (given, option) in [
            (several(self.processes), "-n"),
            (several(self.nodes), "-N"),
            (several(self.cores), "-c"),
            (self.partition.is_some(), "-p"),
            (self.node_list.is_some(), "-w"),
        ] {
            if given {
                return Err(TasksError::Local(option));
            }
        }
        Ok(())
    }

    /// The command line that starts `program` with `arguments` as tasks.
    pub fn srun(&self, program: OsString, arguments: Vec<OsString>) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec!["srun".into()];
        if self.pty {
            argv.push("--pty".into());
        }
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        for (option, value) in [
            ("-w", self.node_list.clone()),
            ("-N", number(self.nodes)),
            ("-c", number(self.cores)),
            ("-p", self.partition.clone()),
            ("-n", Some(self.count().to_string())),
        ] {
            if let Some(value) = value {
                argv.extend([option.into(), value.into()]);
            }
        }
        // The task itself keeps variables from the container.
        argv.extend(["--export=ALL".into(), "--".into(), program]);
        argv.extend(arguments);
        argv
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line() {
        let tasks = Tasks {
            processes: Some(4),
            nodes: Some(2),
            cores: Some(3),
            partition: Some("sandy".into()),
            node_list: Some("n[1-2]".into()),
            pty: false,
        };
        tasks.check().unwrap();
        let line = tasks.srun("pcocc".into(), vec!["run".into(), "-s".into()]);
        let line = line.join(" ".as_ref());
        assert_eq!(
            line,
            "srun -w n[1-2] -N 2 -c 3 -p sandy -n 4 --export=ALL -- pcocc run -s"
        );
        let plain = Tasks::default().srun("p".into(), Vec::new());
        assert_eq!(plain.join(" ".as_ref()), "srun -n 1 --export=ALL -- p");
    }

    #[test]
    fn numbers_that_do_not_go_together() {
        let tasks = |processes, nodes, pty| Tasks {
            processes,
            nodes,
            pty,
            ..Tasks::default()
        };
        assert_eq!(tasks(None, Some(3), false).count(), 3);
        assert!(tasks(None, Some(3), false).check().is_ok());
        assert!(tasks(Some(2), Some(3), false).check().is_err());
        assert!(tasks(Some(2), None, true).check().is_err());
        assert!(tasks(Some(1), Some(1), true).check_local().is_ok());
        let error = tasks(Some(2), None, false).check_local().unwrap_err();
        assert!(error.to_string().starts_with("-n "), "{error}");
    }
}
