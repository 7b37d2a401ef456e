//! `pcocc run`: a command in an image, without docker and without root.
//!
//! Data path: the image's squashfs and config ([`image`]) → the plan, with `containers.yaml` and its generators
//! ([`generators`]) → with `-s` the command runs here, in namespaces of its own; otherwise srun runs this verb
//! with `-s` on each node ([`tasks`]). Without an image the command runs directly ([`bare`]).

mod bare;
mod generators;
mod image;
mod sources;
mod tasks;

use std::ffi::OsString;
use std::path::PathBuf;

use pcocc_core::containers::ContainerTemplates;
use pcocc_run::plan::{Host, Request, plan};
use pcocc_run::sandbox::{self, Surroundings};
use pcocc_run::slurm::Tasks;
use pcocc_run::variables::Environment as CommandEnvironment;

use self::sources::Sources;
use crate::environment::Environment;
use crate::errors::{Failure, Outcome, USAGE, While as _};
use crate::invocation::{Invocation, Run};
use crate::messages::warn;

/// Run a command in an image, without docker and without root
///
/// The image's files are read only; your home is an empty folder unless it is mounted; you are
/// yourself in there, with the network of the machine. With -s the command runs on this machine,
/// otherwise through Slurm's srun. Options end where the command begins.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The image's entrypoint and environment are used as docker uses them. If the image has a working\n\
directory the command starts there, otherwise where you are, and in / if that is not in the container.\n\
What every container gets is set in containers.yaml, by the site in /etc/pcocc and by you in ~/.pcocc.\n\
\n\
Exit status: the command's; 125 when it could not be started, 126 when it is no program for this\n\
machine, 127 when there is no such command, 128+N when signal N ended it.\n\
\n\
Examples:\n  \
  pcocc run -s --cwd / -I new-centos ls /newfile\n  \
  pcocc run -s --pty -I centos bash\n  \
  pcocc run -s --mount $PWD/data:/data -e LANG -I oci:./layout convert /data/a\n  \
  pcocc run -n 4 -N 2 -p sandy -I mympi -M mpi ./program")]
pub(crate) struct Args {
    /// Run one task on this machine
    #[arg(short, long)]
    singleton: bool,
    /// Image: [REPO:]IMAGE[@REV], or oci:PATH[:TAG] for an OCI image layout in a folder
    #[arg(short = 'I', long, value_name = "IMAGE")]
    image: Option<String>,
    /// Where the command starts; - is the image's working directory
    #[arg(long, value_name = "PATH")]
    cwd: Option<PathBuf>,
    /// Set a variable, take one from here (VAR), or all that match: VAR[=VALUE] or re(REGEX)
    #[arg(short, long, value_name = "ENVSPEC", allow_hyphen_values = true)]
    env: Vec<OsString>,
    /// Take all variables from here
    #[arg(long)]
    mirror_env: bool,
    /// Put a value in front of a variable like PATH
    #[arg(long, value_name = "VAR=VALUE")]
    path_prefix: Vec<OsString>,
    /// Put a value behind a variable like PATH
    #[arg(long, value_name = "VAR=VALUE")]
    path_suffix: Vec<OsString>,
    /// Show a file or folder of the machine in the container: SRC[:DST[:ro]]
    #[arg(long, value_name = "SRC[:DST]")]
    mount: Vec<String>,
    /// Apply a module of containers.yaml
    #[arg(short = 'M', long, value_name = "MODULE", value_delimiter = ',')]
    module: Vec<String>,
    /// Leave out what containers.yaml says of all containers
    #[arg(long)]
    no_defaults: bool,
    /// Do not make yourself known in the container: no passwd entry, no home
    #[arg(long)]
    no_user: bool,
    /// Run this in front of the command instead of the image's entrypoint; '' for nothing
    #[arg(long, value_name = "CMD")]
    entry_point: Option<String>,
    /// Run a script of this machine in the image
    #[arg(long, value_name = "PATH")]
    script: Option<PathBuf>,
    /// Run in a terminal of its own
    #[arg(long)]
    pty: bool,
    /// Number of processes (srun -n)
    #[arg(
        short = 'n',
        long = "process",
        value_name = "N",
        help_heading = "Options for Slurm"
    )]
    process: Option<u32>,
    /// Number of nodes (srun -N)
    #[arg(
        short = 'N',
        long = "node",
        value_name = "N",
        help_heading = "Options for Slurm"
    )]
    node: Option<u32>,
    /// Cores for each process (srun -c)
    #[arg(short, long, value_name = "N", help_heading = "Options for Slurm")]
    core: Option<u32>,
    /// Partition (srun -p)
    #[arg(short, long, value_name = "NAME", help_heading = "Options for Slurm")]
    partition: Option<String>,
    /// Nodes by name (srun -w)
    #[arg(
        short = 'w',
        long,
        value_name = "NODES",
        help_heading = "Options for Slurm"
    )]
    nodelist: Option<String>,
    /// The command, by default the image's
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

impl Run for Args {
    fn action(&self) -> String {
        let command = match (&self.script, self.command.as_slice()) {
            (Some(script), _) => script.display().to_string(),
            (None, []) => "the image's command".to_owned(),
            (None, words) => shell_words::join(words.iter().map(|word| word.to_string_lossy())),
        };
        match &self.image {
            Some(image) => format!("run {command} in {image}"),
            None => format!("run {command}"),
        }
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        self.check_command()?;
        let tasks = self.tasks();
        let usage = |error| Failure::from(error).code(USAGE);
        tasks.check().map_err(usage)?;
        if self.singleton {
            tasks.check_local().map_err(usage)?;
        }
        if self.pty && !std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            let why = "--pty needs a terminal, and standard output is none";
            return Err(Failure::because(why).code(USAGE));
        }
        let outcome = match (&self.image, self.singleton) {
            (None, _) => self.run_bare(invocation, &tasks),
            (Some(_), true) => self.run_here(invocation),
            (Some(_), false) => self.run_tasks(invocation, &tasks),
        };
        // The exit code of docker run for a command that was not started.
        outcome.map_err(|failure| failure.or_code(sandbox::FAILED))
    }
}

impl Args {
    /// A command that looks like an option is a misspelt option, unless "--" precedes it.
    fn check_command(&self) -> Outcome {
        let Some(word) = self.command.first().map(|word| word.to_string_lossy()) else {
            return Ok(());
        };
        let words: Vec<OsString> = std::env::args_os().collect();
        let before = words.len().checked_sub(self.command.len() + 1);
        if !word.starts_with('-') || before.and_then(|at| words.get(at)) == Some(&"--".into()) {
            return Ok(());
        }
        let why = format!("there is no option {word}");
        Err(Failure::because(why)
            .hint("see `pcocc run --help`; a command that begins with a dash comes behind `--`")
            .code(USAGE))
    }

    fn tasks(&self) -> Tasks {
        Tasks {
            processes: self.process,
            nodes: self.node,
            cores: self.core,
            partition: self.partition.clone(),
            node_list: self.nodelist.clone(),
            pty: self.pty,
        }
    }

    fn request(&self) -> Outcome<Request> {
        let entry_point = self
            .entry_point
            .as_ref()
            .map(|text| shell_words::split(text));
        Ok(Request {
            entry_point: entry_point.transpose()?,
            command: self.command.clone(),
            script: self.script.clone(),
            cwd: self.cwd.clone(),
            env: self.env.clone(),
            mirror_env: self.mirror_env,
            path_prefix: self.path_prefix.clone(),
            path_suffix: self.path_suffix.clone(),
            mounts: self.mount.clone(),
            no_user: self.no_user,
            pty: self.pty,
        })
    }

    /// Runs one task in the image, on this machine.
    fn run_here(&self, invocation: &Invocation) -> Outcome {
        let request = self.request()?;
        let host = host(invocation)?;
        let name = self.image.as_deref().unwrap_or_default();
        let image = image::open(invocation, name)?;
        let [system, user] = invocation.host.containers_files();
        let templates =
            ContainerTemplates::load(&system, &user).when(|| "read what containers are given")?;
        let runtime = invocation.host.runtime()?;
        let mut settings = templates.settings(&image.names(), &self.module, !self.no_defaults)?;
        let mut sources = Sources::new(&templates);
        let generated = match settings.generators.is_empty() {
            true => Vec::new(),
            false => generators::generate(
                invocation,
                &mut settings,
                &templates,
                &mut sources,
                &image,
                &request,
                &host,
            )?,
        };
        let mut plan = plan(&image.config, &settings, &request, &host)
            .map_err(|error| sources.of_plan(error, &settings))?;
        plan.add_mounts(generated);
        let tree = image.tree(&host.account)?;
        // From here on signals are the command's.
        if invocation.cancel.is_cancelled() {
            return Err(pcocc_image::Error::Cancelled.into());
        }
        let surroundings = Surroundings {
            image_mountpoints: &runtime.image_mountpoints,
            program: program(),
            warn: &mut |text| warn(&text),
            release_signals: &mut || invocation.signals.release(),
        };
        match sandbox::run(&plan, tree, surroundings) {
            Ok(0) => Ok(()),
            Ok(code) => Err(Failure::reported(code)),
            Err(error) => {
                let code = error.exit_code();
                Err(Failure::from(error).code(code))
            }
        }
    }
}

/// The properties of machine and user.
fn host(invocation: &Invocation) -> Outcome<Host> {
    let environment = &invocation.environment;
    Ok(Host {
        environment: CommandEnvironment::new(Environment::all_variables()),
        variables: environment.path_variables(),
        account: environment.account(),
        cwd: Environment::working_directory()?,
    })
}

/// This program's file.
fn program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| "pcocc".into())
}
