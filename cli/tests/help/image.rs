//! The help of `pcocc image` and of its verbs.

use insta::assert_snapshot;

use crate::help;

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

    Examples:
      pcocc image import docker://centos user:centos
      pcocc image list
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

          --platform <PLATFORM>
              Platform whose image to take, by default this machine's: OS/ARCH[/VARIANT], such as
              linux/arm64

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

    Examples:
      pcocc image repo list
      pcocc image repo verify user
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

    Examples:
      pcocc image cache list
      pcocc image cache gc
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
