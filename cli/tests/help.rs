//! The help of every verb, as a user reads it.

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
fn image() {
    assert_snapshot!(help("image"), @r"
    List and manage images in repositories

    An image in a repository is written [REPO:]IMAGE[@REVISION]. Without REPO, the first repository that
    has the image is taken (to write or delete: the first of all); without REVISION, the highest one.
    Repositories are listed in repos.yaml, in /etc/pcocc and ~/.pcocc; with no such file there is one,
    named `user`, in ~/.pcocc/images.

    Usage: pcocc image [OPTIONS] <COMMAND>

    Commands:
      list    List images in repositories
      show    Show one image in detail
      import  Import an image into a repository
      export  Export an image from a repository
      copy    Copy an image to another name or repository
      delete  Delete an image from a repository
      repo    List and manage image repositories
      cache   List and manage the cache of root filesystems

    Options:
      -h, --help
              Print help (see a summary with '-h')

    [...]
    ");
}

#[test]
fn docker() {
    assert_snapshot!(help("docker"), @r"
    Allocate docker VMs and exchange images with a docker daemon

    The daemon is the one that DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH name, as in a docker
    shell; without DOCKER_HOST, that of the docker VM there is; without one, the one at
    unix:///var/run/docker.sock.

    Usage: pcocc docker [OPTIONS] <COMMAND>

    Commands:
      alloc    Allocate a docker VM and start a docker shell
      batch    Allocate a docker VM in the background
      shell    Start a docker shell for a VM
      ls       List docker VMs [alias: ps]
      status   Show how a docker VM is doing
      logs     Show what a docker VM's console said
      forward  Reach ports of a docker VM from this machine
      stop     End docker VMs
      build    Build an image from a Dockerfile inside docker
      edit     Change an image in a shell inside docker
      env      Print what makes docker in this shell use a job's daemon
      export   Send an image from a repository to docker
      guest    Build and look into the guest of docker VMs
      import   Import an image from docker into a repository
      mount    Show docker and the repositories as folders
      umount   Unmount what `pcocc docker mount` mounted

    Options:
      -h, --help
              Print help (see a summary with '-h')

    [...]
    ");
}

#[test]
fn image_list() {
    assert_snapshot!(help("image list"), @r"
    List images in repositories

    Shows the highest revision of every image, repository by repository, in the order in which they are
    searched. An image that an earlier repository hides is listed as well: name it REPO:IMAGE.

    Usage: pcocc image list [OPTIONS] [REGEX]

    Arguments:
      [REGEX]
              Only images whose name matches this regular expression

    Options:
      -R, --repo <REPO>
              Only this repository

          --format <FORMAT>
              How to write the list
              
              [default: table]
              [possible values: table, json]

      -h, --help
              Print help (see a summary with '-h')

    [...]

    Examples:
      pcocc image list
      pcocc image list -R user '^centos'

    JSON: a list of {name, kind, revision, repo, owner, date, size, description}.
    ");
}

#[test]
fn image_show() {
    assert_snapshot!(help("image show"), @r"
    Show one image in detail

    Names its digests, layers and platform, what it runs, and its revisions.

    Usage: pcocc image show [OPTIONS] <IMAGE>

    Arguments:
      <IMAGE>
              The image: [REPO:]IMAGE[@REVISION]

    Options:
          --format <FORMAT>
              How to write the details
              
              [default: table]
              [possible values: table, json]

      -h, --help
              Print help (see a summary with '-h')

    [...]

    Examples:
      pcocc image show user:mycentos7
      pcocc image show --format json centos@3

    JSON: {name, kind, repo, path, revision, owner, date, size, description, revisions, layers} and, of
    a container image, {id, manifest, platform, config, squashfs, origin}; origin is null, or {made_by,
    daemon, source, parent, dockerfile} as far as they are known, parent {name, id, manifest}.
    ");
}

#[test]
fn image_import() {
    assert_snapshot!(help("image import"), @r"
    Import an image into a repository

    SOURCE is a container image:

      docker://REFERENCE              in a registry (docker.io unless REFERENCE names one)
      docker-archive:FILE[:TAG]       saved with docker save; may be compressed
      oci:FOLDER[:TAG]                an OCI image layout
      docker-daemon:REFERENCE         in the docker daemon that DOCKER_HOST names

    or the file of a virtual machine disk: raw, qcow2, qed, vdi, vpc or vmdk. Its format is known by
    extension and content, or given with -t.

    DEST is [REPO:]IMAGE; its name must be free in the repository.

    Usage: pcocc image import [OPTIONS] <SOURCE> <DEST>

    Arguments:
      <SOURCE>
              What to import

      <DEST>
              Image to make: [REPO:]IMAGE

    Options:
      -t, --fmt <FORMAT>
              Format of SOURCE, when it does not say

      -h, --help
              Print help (see a summary with '-h')

    [...]

    Examples:
      pcocc image import docker://centos user:centos
      pcocc image import docker-archive:bb.tar bb
      pcocc image import $HOME/CentOS-7-x86_64-GenericCloud.qcow2 global:centos7-cloud
    ");
}

#[test]
fn image_export() {
    assert_snapshot!(help("image export"), @r"
    Export an image from a repository

    DEST, for a container image, is

      docker-archive:FILE[:TAG]       for docker load
      oci:FOLDER[:TAG]                an OCI image layout
      docker-daemon:REFERENCE         the docker daemon that DOCKER_HOST names
      docker://REFERENCE              a registry

    and for a virtual machine disk a file in the format its extension says (raw, qcow2, qed, vdi,
    vpc or vmdk), or -t. A file that exists is never overwritten.

    Usage: pcocc image export [OPTIONS] <SOURCE> <DEST>

    Arguments:
      <SOURCE>
              Image to export: [REPO:]IMAGE[@REVISION]

      <DEST>
              Where to

    Options:
      -t, --fmt <FORMAT>
              Format of DEST, when it does not say

      -h, --help
              Print help (see a summary with '-h')

    [...]

    Examples:
      pcocc image export centos docker-archive:centos.tar
      pcocc image export user:centos7-cloud ./centos7.qcow2
    ");
}

#[test]
fn image_copy() {
    assert_snapshot!(help("image copy"), @r"
    Copy an image to another name or repository

    Data that the destination repository has already is not copied again.

    Usage: pcocc image copy [OPTIONS] <SOURCE> <DEST>

    Arguments:
      <SOURCE>
              Image to copy: [REPO:]IMAGE[@REVISION]

      <DEST>
              Image to make: [REPO:]IMAGE; its name must be free

    Options:
      -h, --help
              Print help (see a summary with '-h')

    [...]

    Example:
      pcocc image copy global:centos7-cloud user:mycentos7
    ");
}

#[test]
fn image_delete() {
    assert_snapshot!(help("image delete"), @r"
    Delete an image from a repository

    Deletes all revisions of the image, or the one that is named. Space is given back by `pcocc image
    repo gc`, once no other image needs the data.

    Usage: pcocc image delete [OPTIONS] <IMAGE>

    Arguments:
      <IMAGE>
              Image to delete: [REPO:]IMAGE[@REVISION]

    Options:
      -h, --help
              Print help (see a summary with '-h')

    [...]

    Examples:
      pcocc image delete user:mycentos7@5
      pcocc image delete myrepo:centos7-cloud
    ");
}

#[test]
fn image_repo() {
    assert_snapshot!(help("image repo"), @r"
    List and manage image repositories

    Usage: pcocc image repo [OPTIONS] <COMMAND>

    Commands:
      list    List the configured repositories
      gc      Free the space of data that no image needs
      verify  Check that every image of a repository is complete and intact

    Options:
      -h, --help  Print help

    [...]
    ");
}

#[test]
fn image_repo_list() {
    assert_snapshot!(help("image repo list"), @r"
    List the configured repositories

    In the order in which they are searched; the first is the default to write to.

    Usage: pcocc image repo list [OPTIONS]

    Options:
          --format <FORMAT>
              How to write the list
              
              [default: table]
              [possible values: table, json]

      -h, --help
              Print help (see a summary with '-h')

    [...]

    Example:
      pcocc image repo list

    JSON: a list of {name, path, writable, version, images}.
    ");
}

#[test]
fn image_repo_gc() {
    assert_snapshot!(help("image repo gc"), @r"
    Free the space of data that no image needs

    Safe while others use the repository: only what is older than a grace time goes. A repository in the
    format of old versions of pcocc is upgraded.

    Usage: pcocc image repo gc [OPTIONS] <REPO>

    Arguments:
      <REPO>
              The repository

    Options:
          --grace <HOURS>
              Spare what is younger than this, in hours; not less than the longest import takes
              [default: 24]

      -h, --help
              Print help (see a summary with '-h')

    [...]

    Example:
      pcocc image repo gc user
    ");
}

#[test]
fn image_repo_verify() {
    assert_snapshot!(help("image repo verify"), @r"
    Check that every image of a repository is complete and intact

    Reads all data and compares it with its digests; changes nothing.

    Usage: pcocc image repo verify [OPTIONS] <REPO>

    Arguments:
      <REPO>
              The repository

    Options:
      -h, --help
              Print help (see a summary with '-h')

    [...]

    Example:
      pcocc image repo verify user
    ");
}

#[test]
fn image_cache() {
    assert_snapshot!(help("image cache"), @r"
    List and manage the cache of root filesystems

    Running an image, or looking into it in a mounted tree, needs its root filesystem as one squashfs
    file. Import makes it; it is kept in the cache and made again when it is missing.

    Usage: pcocc image cache [OPTIONS] <COMMAND>

    Commands:
      list  List cached root filesystems, least recently used first
      gc    Remove cached root filesystems that no image needs

    Options:
      -h, --help
              Print help (see a summary with '-h')

    [...]
    ");
}

#[test]
fn image_cache_list() {
    assert_snapshot!(help("image cache list"), @r"
    List cached root filesystems, least recently used first

    Usage: pcocc image cache list [OPTIONS]

    Options:
          --format <FORMAT>  How to write the list [default: table] [possible values: table, json]
      -h, --help             Print help

    [...]

    Example:
      pcocc image cache list

    JSON: a list of {repo, name, revision, size, used, path}.
    ");
}

#[test]
fn image_cache_gc() {
    assert_snapshot!(help("image cache gc"), @r"
    Remove cached root filesystems that no image needs

    Usage: pcocc image cache gc [OPTIONS]

    Options:
      -c, --force-clear  Remove all of them; they are made again when they are needed
      -h, --help         Print help

    [...]

    Example:
      pcocc image cache gc
    ");
}

#[test]
fn docker_build() {
    assert_snapshot!(help("docker build"), @r"
    Build an image from a Dockerfile inside docker

    Runs `docker build` and stores what it made as DEST, with the layers and the image ID it has in
    docker. A Dockerfile can be FROM an image of a repository once that is in docker: by `pcocc docker
    export`, or with --export-from.

    Usage: pcocc docker build [OPTIONS] <PATH> <DEST> [-- <DOCKER OPTIONS>...]

    Arguments:
      <PATH>
              Folder of the Dockerfile; or, as docker takes it, a URL, or - to read from standard input

      <DEST>
              Image to make: [REPO:]IMAGE; its name must be free

      [DOCKER OPTIONS]...
              Further options for docker build

    Options:
      -f, --file <FILE>
              The Dockerfile, by default PATH/Dockerfile

          --build-arg <NAME[=VALUE]>
              Value of an ARG of the Dockerfile; without a value, that of the environment variable

          --target <STAGE>
              The stage to build, by default the last

          --no-cache
              Do every step again

          --secret <SECRET>
              A secret for RUN --mount=type=secret, as docker takes it

          --ssh <SSH>
              An ssh agent or key for RUN --mount=type=ssh, as docker takes it

          --platform <PLATFORM>
              The platform to build for, such as linux/amd64

          --export-from
              Export images of the repositories that the Dockerfile is built from, unless docker has
              them

      -h, --help
              Print help (see a summary with '-h')

    [...]

    Examples:
      pcocc docker build ./hello hello
      pcocc docker build --export-from --build-arg VERSION=2 ./app app
      pcocc docker build . app -- --network=none --label a=b

    Output and exit status of the build are docker's. docker is looked for in docker_path of
    containers.yaml, then in PATH.
    ");
}

#[test]
fn docker_edit() {
    assert_snapshot!(help("docker edit"), @r"
    Change an image in a shell inside docker

    Opens a shell in a container of SRC; when it ends, what was changed is stored as the new image DEST,
    which otherwise is SRC: it has the same command, user, variables and so on. The shell is the image's
    bash or sh and runs as root. Should saving fail, the changes are kept in docker and can be saved
    again.

    Usage: pcocc docker edit [OPTIONS] <SOURCE> <DEST>

    Arguments:
      <SOURCE>
              Image to change: [REPO:]IMAGE[@REVISION]; it stays as it is

      <DEST>
              Image to make: [REPO:]IMAGE; its name must be free

    Options:
      -E, --script <SCRIPT>
              Run SCRIPT in the image's shell, instead of opening it

          --shell <SHELL>
              The shell, with arguments if need be: a program of the image

          --user <USER>
              The user the shell runs as
              
              [default: 0]

          --network <NET>
              Docker's network for the shell, such as none or host

          --with-tools <DIR>
              Show the folder DIR of docker's machine at the end of the shell's PATH, for images without
              tools; it has sh or busybox in it, and does not become part of the image

          --discard
              Save nothing when the shell ends with another status than 0, and do not ask

          --save <CONTAINER>
              Open no shell: save what is kept in CONTAINER since an edit could not be saved

      -h, --help
              Print help (see a summary with '-h')

    [...]

    Examples:
      pcocc docker edit centos new-centos
      pcocc docker edit -E 'yum install -y gcc && yum clean all' centos centos-gcc
      pcocc docker edit --with-tools ~/busybox-static distroless debug

    With -E, or without a terminal, a script that fails saves nothing; its exit status is passed on.
    Volumes of the image are ordinary folders in the shell, so that changes in them are saved, too.
    ");
}

#[test]
fn docker_export() {
    assert_snapshot!(help("docker export"), @r"
    Send an image from a repository to docker

    The image keeps its ID. Layers that docker has are not sent again.

    Usage: pcocc docker export [OPTIONS] <SOURCE> <DEST>

    Arguments:
      <SOURCE>
              Image to send: [REPO:]IMAGE[@REVISION]

      <DEST>
              Name in docker: NAME[:TAG], by default :latest; taken away from the image that has it

    Options:
      -h, --help
              Print help (see a summary with '-h')

    [...]

    Example:
      pcocc docker export busybox bb
      docker run -ti --rm bb
    ");
}

#[test]
fn docker_import() {
    assert_snapshot!(help("docker import"), @r"
    Import an image from docker into a repository

    The image keeps its ID. Layers that the repository has are not stored again.

    Usage: pcocc docker import [OPTIONS] <SOURCE> <DEST>

    Arguments:
      <SOURCE>
              Image in docker: NAME[:TAG], by default :latest; or an image ID

      <DEST>
              Image to make: [REPO:]IMAGE; its name must be free

    Options:
      -h, --help
              Print help (see a summary with '-h')

    [...]

    Example:
      pcocc docker import bb newbb
    ");
}

#[test]
fn docker_mount() {
    assert_snapshot!(help("docker mount"), @r"
    Show docker and the repositories as folders

    In MOUNTPOINT, docker/ holds the images of the docker daemon and repo/REPO/ those of the
    repositories; copying an image folder from one side to the other, by cp -r or any other tool, moves
    the image. rootfs/ shows the same images as file trees. README in there tells more.

    Comes back once the folders are there and goes on in the background until `pcocc docker umount`.

    Usage: pcocc docker mount [OPTIONS] <MOUNTPOINT>

    Arguments:
      <MOUNTPOINT>
              An empty folder, made when it is missing

    Options:
      -f, --foreground
              Stay in the foreground; Ctrl-C unmounts

          --allow-delete
              Let rm -r delete images

          --spool-size <SIZE>
              Keep at most SIZE of images read from docker, such as 500M or 20G, in TMPDIR, or /var/tmp
              (default: 10 GB, or a tenth of that disk if that is less)

      -h, --help
              Print help (see a summary with '-h')

    [...]

    Example:
      pcocc docker mount ~/img
      cp -r ~/img/repo/user/centos ~/img/docker/work
      docker run -ti --name w work yum install gcc && docker commit w work:gcc
      cp -r ~/img/docker/work:gcc ~/img/repo/user/centos-gcc
    ");
}

#[test]
fn docker_umount() {
    assert_snapshot!(help("docker umount"), @r"
    Unmount what `pcocc docker mount` mounted

    Comes back when the mount is gone and its process has ended. Programs that still have files open in
    there keep them a few seconds at most.

    Usage: pcocc docker umount [OPTIONS] <MOUNTPOINT>

    Arguments:
      <MOUNTPOINT>
              The mount point

    Options:
      -h, --help
              Print help (see a summary with '-h')

    [...]

    Example:
      pcocc docker umount ~/img
    ");
}

#[test]
fn docker_env() {
    assert_snapshot!(help("docker env"), @r"
    Print what makes docker in this shell use a job's daemon

    Prints shell code that sets DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH and what belongs to
    them, for the shell that runs pcocc. Waits for the VM if it is not ready yet. What was set before is
    kept, and --unset brings it back, also when the job is long gone.

    Usage: pcocc docker env [OPTIONS]

    Options:
      -j, --job <JOB>
              The job, by its number or name; by default that of this shell, or the only one there is

          --shell <SHELL>
              Write code for this shell; by default for the one that runs pcocc
              
              [possible values: sh, bash, zsh, fish, tcsh]

      -T, --timeout <SECONDS>
              Give up when the VM is not ready after so many seconds

          --unset
              Bring back what was set before

          --context
              Make a docker context of the job's daemon and print its name; it is not selected

          --format <FORMAT>
              What to write
              
              [default: shell]
              [possible values: shell, json]

      -h, --help
              Print help (see a summary with '-h')

    [...]

    Examples:
      eval $(pcocc docker env)                  # sh, bash, zsh
      pcocc docker env -j 1756495 | source      # fish
      eval `pcocc docker env`                   # tcsh
      eval $(pcocc docker env --unset)          # docker as it was before
      docker --context $(pcocc docker env --context) ps

    JSON: {job, set: {NAME: VALUE}, unset: [NAME]}.
    ");
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
      pcocc run -s --cwd / -I centos cat /etc/os-release
      pcocc run -s --pty -I centos bash
      pcocc run -s --mount $PWD/data:/data -e LANG -I oci:./layout convert /data/a
      pcocc run -n 4 -N 2 -p sandy -I mympi -M mpi ./program
    "#);
}
