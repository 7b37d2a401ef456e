//! The help of every verb, as a user reads it.

mod docker;
mod examples;
mod image;
#[path = "../sandbox/mod.rs"]
mod sandbox;

use insta::assert_snapshot;
use sandbox::Sandbox;

/// The help of a verb, without the options that are the same everywhere.
fn help(verb: &str) -> String {
    let mut args: Vec<&str> = verb.split_whitespace().collect();
    args.push("--help");
    let text = Sandbox::new().run(&args).ok();
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    let (before, after) = text.split_once("Global options:\n").unwrap();
    match after.split_once("standard error\n\n") {
        Some((_, after)) => format!("{before}[...]\n\n{after}"),
        None => format!("{before}[...]\n"),
    }
}

#[test]
fn top() {
    let text = Sandbox::new().run(&["--help"]).ok();
    assert_snapshot!(text, @r"
    Docker images and docker daemons for shared machines.

    pcocc keeps container images in repositories on disk, moves them to and from docker daemons, and
    shows both sides as folders.

    Usage: pcocc [OPTIONS] <COMMAND>

    Commands:
      image        List and manage images in repositories
      docker       Allocate docker VMs and exchange images with a docker daemon
      config       Show and check the configuration
      doctor       Check whether everything pcocc needs is there
      hook         Show the job in your prompt
      run          Run a command in an image, without docker and without root
      completions  Put completion where your shells look for it
      help         Show the help of a command

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Global options:
          --progress <HOW>
              How to show progress: bars on a terminal and lines elsewhere (auto), lines, or nothing
              
              [default: auto]
              [possible values: auto, plain, none]

      -q, --quiet
              Show no progress, only warnings and errors

          --debug
              Log what is done, step by step, to standard error

    Examples:
      pcocc docker alloc -p sandy -c 16
      pcocc docker import bb newbb
      pcocc run -s --cwd / -I newbb ls

    Result on standard output, progress and errors on standard error.
    Exit status: 0 done, 1 failed, 2 wrong usage, 124 timed out, 128+N ended by signal N.
    ");
}

#[test]
fn short_help_and_version() {
    let text = Sandbox::new().run(&["image", "list", "-h"]).ok();
    assert_snapshot!(text, @r"
    List images in repositories

    Usage: pcocc image list [OPTIONS] [REGEX]

    Arguments:
      [REGEX]  Only images whose name matches this regular expression

    Options:
      -R, --repo <REPO>      Only this repository
          --format <FORMAT>  How to write the list [default: table] [possible values: table, json]
      -h, --help             Print help (see more with '--help')

    Global options:
          --progress <HOW>  How to show progress: bars on a terminal and lines elsewhere (auto), lines,
                            or nothing [default: auto] [possible values: auto, plain, none]
      -q, --quiet           Show no progress, only warnings and errors
          --debug           Log what is done, step by step, to standard error

    Examples:
      pcocc image list
      pcocc image list -R user '^centos'

    JSON: a list of {name, kind, revision, repo, owner, date, size, description}.
    ");
    let text = Sandbox::new().run(&["--version"]).ok();
    assert_eq!(text, format!("pcocc {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn hook() {
    assert_snapshot!(help("hook"), @r#"
    Show the job in your prompt

    Prints shell code for your shell's rc file. While docker in a shell uses a job's daemon, its prompt
    begins with (pcocc/JOB), with the minutes that are left below ten, and with "ended" when the job is
    over. Defines pcocc-use [JOB] and pcocc-leave, which do in the shell what `pcocc docker env` prints,
    and completes pcocc's words at TAB.

    PCOCC_PROMPT has the tag for those who build their own prompt, and PCOCC_DISABLE_PROMPT=1 leaves the
    prompt alone.

    Usage: pcocc hook [OPTIONS] <SHELL>

    Arguments:
      <SHELL>
              The shell
              
              [possible values: bash, zsh, fish]

    Options:
          --no-completions
              Leave completion out

      -h, --help
              Print help (see a summary with '-h')

    [...]

    Examples:
      eval "$(pcocc hook bash)"      # at the end of ~/.bashrc
      eval "$(pcocc hook zsh)"       # at the end of ~/.zshrc
      pcocc hook fish | source       # in ~/.config/fish/config.fish
    "#);
}

#[test]
fn run() {
    assert_snapshot!(help("run"), @r#"
    Run a command in an image, without docker and without root

    The image's files are read only; your home is an empty folder unless it is mounted; you are yourself
    in there, with the network of the machine. With -s the command runs on this machine, otherwise
    through Slurm's srun. Options end where the command begins.

    Usage: pcocc run [OPTIONS] [CMD]...

    Arguments:
      [CMD]...
              The command, by default the image's

    Options:
      -s, --singleton
              Run one task on this machine

      -I, --image <IMAGE>
              Image: [REPO:]IMAGE[@REV], or oci:PATH[:TAG] for an OCI image layout in a folder

          --cwd <PATH>
              Where the command starts; - is the image's working directory

      -e, --env <ENVSPEC>
              Set a variable, take one from here (VAR), or all that match: VAR[=VALUE] or re(REGEX)

          --mirror-env
              Take all variables from here

          --path-prefix <VAR=VALUE>
              Put a value in front of a variable like PATH

          --path-suffix <VAR=VALUE>
              Put a value behind a variable like PATH

          --mount <SRC[:DST]>
              Show a file or folder of the machine in the container: SRC[:DST[:ro]]

      -M, --module <MODULE>
              Apply a module of containers.yaml

          --no-defaults
              Leave out what containers.yaml says of all containers

          --no-user
              Do not make yourself known in the container: no passwd entry, no home

          --entry-point <CMD>
              Run this in front of the command instead of the image's entrypoint; '' for nothing

          --script <PATH>
              Run a script of this machine in the image

          --pty
              Run in a terminal of its own

      -h, --help
              Print help (see a summary with '-h')

    Options for Slurm:
      -n, --process <N>
              Number of processes (srun -n)

      -N, --node <N>
              Number of nodes (srun -N)

      -c, --core <N>
              Cores for each process (srun -c)

      -p, --partition <NAME>
              Partition (srun -p)

      -w, --nodelist <NODES>
              Nodes by name (srun -w)

    [...]

    The image's entrypoint and environment are used as docker uses them. If the image has a working
    directory the command starts there, otherwise where you are, and in / if that is not in the
    container.
    What every container gets is set in containers.yaml, by the site in /etc/pcocc and by you in
    ~/.pcocc.

    Exit status: the command's; 125 when it could not be started, 126 when it is no program for this
    machine, 127 when there is no such command, 128+N when signal N ended it.

    Examples:
      pcocc run -s --cwd / -I new-centos ls /newfile
      pcocc run -s --pty -I centos bash
      pcocc run -s --mount $PWD/data:/data -e LANG -I oci:./layout convert /data/a
      pcocc run -n 4 -N 2 -p sandy -I mympi -M mpi ./program
    "#);
}
