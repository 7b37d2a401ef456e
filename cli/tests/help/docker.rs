//! The help of `pcocc docker` and of its verbs.

use insta::assert_snapshot;

use crate::help;

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

    Examples:
      pcocc docker alloc -p sandy -c 16
      pcocc docker export cont-busybox bb
      pcocc docker import bb newbb
      pcocc docker build ./hello hello
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
      pcocc docker edit cont-centos new-centos
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
      eval $(pcocc docker env -j 1756495)       # sh, bash, zsh
      pcocc docker env -j 1756495 | source      # fish
      eval `pcocc docker env`                   # tcsh
      eval $(pcocc docker env --unset)          # docker as it was before
      docker --context $(pcocc docker env --context) ps

    JSON: {job, set: {NAME: VALUE}, unset: [NAME]}.
    ");
}
