//! `image list`, `image show`, `image repo list`, `image delete` on repositories made for the purpose.

mod sandbox;

use insta::assert_snapshot;
use sandbox::{Sandbox, images};

const REPOS: &str =
    "repos:\n - {name: mine, path: '%{homedir}/mine'}\n - {name: site, path: '%{homedir}/site'}\n";

fn two_repositories() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(".pcocc/repos.yaml", REPOS);
    let (mine, site) = (sandbox.home().join("mine"), sandbox.home().join("site"));
    images::container(&mine, "busybox", "doe");
    images::container(&site, "busybox", "root");
    images::disk(&site, "centos7-cloud", 0);
    images::disk(&site, "centos7-cloud", 2);
    sandbox
}

#[test]
fn without_any_configuration_there_is_one_empty_repository() {
    let sandbox = Sandbox::new();
    assert_snapshot!(sandbox.run(&["image", "list"]).all(), @r"
    NAME  TYPE  REVISION  REPO  OWNER  DATE  SIZE
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "list", "--format", "json"]).all(), @r"
    []
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "repo", "list"]).squeezed(), @r"
    NAME  PATH  WRITABLE  IMAGES
    user  [ROOT]/home/.pcocc/images  yes  0
    --- exit 0
    ");
}

#[test]
fn list_shows_the_highest_revision_of_every_image() {
    let sandbox = two_repositories();
    assert_snapshot!(sandbox.run(&["image", "list"]).all(), @r"
    NAME           TYPE  REVISION  REPO  OWNER  DATE                     SIZE
    busybox        ctr          0  mine  doe    2026-01-02 03:04:05   3.15 KB
    busybox        ctr          0  site  root   2026-01-02 03:04:05   3.15 KB
    centos7-cloud  vm           2  site  root   2026-01-02 03:04:05  14.65 KB
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "list", "-R", "site", "^cent"]).all(), @r"
    NAME           TYPE  REVISION  REPO  OWNER  DATE                     SIZE
    centos7-cloud  vm           2  site  root   2026-01-02 03:04:05  14.65 KB
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "list", "--format", "json", "centos"]).all(), @r#"
    [
      {
        "name": "centos7-cloud",
        "kind": "vm",
        "revision": 2,
        "repo": "site",
        "owner": "root",
        "date": "2026-01-02T03:04:05Z",
        "size": 15003,
        "description": null
      }
    ]
    --- exit 0
    "#);
    assert_snapshot!(sandbox.run(&["image", "repo", "list"]).squeezed(), @r"
    NAME  PATH  WRITABLE  IMAGES
    mine  [ROOT]/home/mine  yes  1
    site  [ROOT]/home/site  yes  2
    --- exit 0
    ");
}

#[test]
fn show_tells_what_a_container_runs() {
    let sandbox = two_repositories();
    assert_snapshot!(sandbox.run(&["image", "show", "busybox"]).all(), @r"
    Name:         busybox
    Repository:   mine ([ROOT]/home/mine)
    Type:         ctr (container)
    Revision:     0
    Owner:        doe
    Date:         2026-01-02 03:04:05
    Size:         3.15 KB
    Image ID:     sha256:aeb59069008b66c5111b64aac465b3659cdf00c99f00e2617874943f6253eb4e
    Manifest:     sha256:0b6e4d73fdff6ac198d38d92119a34bc7b9292fc98f5ebf7d4cd7100058a03a4
    Platform:     linux/amd64
    Entrypoint:   /bin/sh -c
    Command:      'echo $GREETING you'
    Directory:    /srv
    User:         1000:1000
    Environment:  PATH=/bin
                  GREETING=hello
    Squashfs:     not in the cache, made at first use
    Layers:       sha256:c4a700f85b7e9e5cdbdc51170409ee2ad48bebe2f2f0957a067937531a0a3c42 1.95 KB
                  sha256:dccc1450d6fc4232955fcc5cf81105d874c4c6f8c710a71b2763d2c3238e923f 300 B
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "show", "site:busybox", "--format", "json"]).all(), @r#"
    {
      "name": "busybox",
      "kind": "ctr",
      "repo": "site",
      "path": "[ROOT]/home/site",
      "revision": 0,
      "owner": "root",
      "date": "2026-01-02T03:04:05Z",
      "size": 3227,
      "description": null,
      "revisions": [
        {
          "revision": 0,
          "date": "2026-01-02T03:04:05Z",
          "size": 3227
        }
      ],
      "layers": [
        {
          "digest": "sha256:c4a700f85b7e9e5cdbdc51170409ee2ad48bebe2f2f0957a067937531a0a3c42",
          "size": 2000,
          "media_type": "application/vnd.oci.image.layer.v1.tar+gzip",
          "diff_id": "sha256:4652367ac124cb17e183bf03bfe9318ac4b80f9995a34189cb5d976f3b858aec"
        },
        {
          "digest": "sha256:dccc1450d6fc4232955fcc5cf81105d874c4c6f8c710a71b2763d2c3238e923f",
          "size": 300,
          "media_type": "application/vnd.oci.image.layer.v1.tar+gzip",
          "diff_id": "sha256:b8528c6fe9f8cc13faa7e56f110501e203c5cb143bdeb6cb376c7fc9f2add70c"
        }
      ],
      "id": "sha256:aeb59069008b66c5111b64aac465b3659cdf00c99f00e2617874943f6253eb4e",
      "manifest": "sha256:0b6e4d73fdff6ac198d38d92119a34bc7b9292fc98f5ebf7d4cd7100058a03a4",
      "platform": "linux/amd64",
      "config": {
        "entrypoint": [
          "/bin/sh",
          "-c"
        ],
        "cmd": [
          "echo $GREETING you"
        ],
        "env": [
          "PATH=/bin",
          "GREETING=hello"
        ],
        "working_dir": "/srv",
        "user": "1000:1000"
      },
      "squashfs": null,
      "origin": null
    }
    --- exit 0
    "#);
}

#[test]
fn show_tells_the_revisions_of_a_disk() {
    let sandbox = two_repositories();
    assert_snapshot!(sandbox.run(&["image", "show", "centos7-cloud"]).all(), @r"
    Name:         centos7-cloud
    Repository:   site ([ROOT]/home/site)
    Type:         vm (virtual machine)
    Revision:     2
    Owner:        root
    Date:         2026-01-02 03:04:05
    Size:         14.65 KB
    Layers:       sha256:f4998dc1ed415e72178f4608029b974f4cce871925df97b934bcceb3c8c79ee1 4.88 KB
                  sha256:524dc13e8e3e8a9abaa68768db7e78ad749026a67f9832ae536cfddeb7c99257 4.88 KB
                  sha256:c092abc55ae35b28dfe1130858cf75fb6483cfdb55388c868a7a0da270d6aea0 4.88 KB
    Revisions:    0 2026-01-02 03:04:05 4.88 KB
                  2 2026-01-02 03:04:05 14.65 KB
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "show", "centos7-cloud@0", "--format", "json"]).all(), @r#"
    {
      "name": "centos7-cloud",
      "kind": "vm",
      "repo": "site",
      "path": "[ROOT]/home/site",
      "revision": 0,
      "owner": "root",
      "date": "2026-01-02T03:04:05Z",
      "size": 5000,
      "description": null,
      "revisions": [
        {
          "revision": 0,
          "date": "2026-01-02T03:04:05Z",
          "size": 5000
        },
        {
          "revision": 2,
          "date": "2026-01-02T03:04:05Z",
          "size": 15003
        }
      ],
      "layers": [
        {
          "digest": "sha256:f4998dc1ed415e72178f4608029b974f4cce871925df97b934bcceb3c8c79ee1",
          "size": 5000
        }
      ]
    }
    --- exit 0
    "#);
}

#[test]
fn delete_takes_one_revision_or_all() {
    let sandbox = two_repositories();
    assert_snapshot!(sandbox.run(&["image", "delete", "site:centos7-cloud@0"]).all(), @r"
    Deleted image: site:centos7-cloud@0
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "delete", "busybox"]).all(), @r"
    Deleted image: mine:busybox@0
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "list"]).all(), @r"
    NAME           TYPE  REVISION  REPO  OWNER  DATE                     SIZE
    busybox        ctr          0  site  root   2026-01-02 03:04:05   3.15 KB
    centos7-cloud  vm           2  site  root   2026-01-02 03:04:05  14.65 KB
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["image", "delete", "mine:busybox"]).all(), @r"
    --- stderr
    pcocc: failed to delete image mine:busybox: image mine:busybox not found
    hint: see what there is with `pcocc image list` and `docker image list`
    --- exit 1
    ");
}

#[test]
fn damaged_metadata_is_passed_over_with_a_warning() {
    let sandbox = two_repositories();
    sandbox.write("mine/meta/broken@0", "{}");
    assert_snapshot!(sandbox.run(&["image", "list", "-R", "mine"]).all(), @r#"
    NAME     TYPE  REVISION  REPO  OWNER  DATE                    SIZE
    busybox  ctr          0  mine  doe    2026-01-02 03:04:05  3.15 KB
    --- stderr
    pcocc: warning: passed over: metadata [ROOT]/home/mine/meta/broken@0 has no usable "name"
    --- exit 0
    "#);
}

#[test]
fn an_unusable_repository_does_not_hide_the_others() {
    let sandbox = two_repositories();
    sandbox.write("mine/.config", "version: 3\n");
    assert_snapshot!(sandbox.run(&["image", "list"]).all(), @r"
    NAME           TYPE  REVISION  REPO  OWNER  DATE                     SIZE
    busybox        ctr          0  site  root   2026-01-02 03:04:05   3.15 KB
    centos7-cloud  vm           2  site  root   2026-01-02 03:04:05  14.65 KB
    --- stderr
    pcocc: failed to list repository mine: repository mine at [ROOT]/home/mine is of version 3; this pcocc knows versions 1 and 2: use a newer pcocc
    --- exit 1
    ");
    assert_snapshot!(sandbox.run(&["image", "list", "--format", "json", "-R", "mine"]).all(), @r"
    []
    --- stderr
    pcocc: failed to list repository mine: repository mine at [ROOT]/home/mine is of version 3; this pcocc knows versions 1 and 2: use a newer pcocc
    --- exit 1
    ");
}

#[test]
fn mistakes_are_named() {
    let sandbox = two_repositories();
    assert_snapshot!(sandbox.run(&["image", "show", "nothing"]).all(), @r"
    --- stderr
    pcocc: failed to show image nothing: image nothing not found
    hint: see what there is with `pcocc image list` and `docker image list`
    --- exit 1
    ");
    assert_snapshot!(sandbox.run(&["image", "show", "debian:12"]).all(), @r#"
    --- stderr
    pcocc: failed to show image debian:12: image name "debian:12" names the repository "debian", which is not configured (there are: mine, site); ":" only separates a repository from an image, so for a new image "debian-12" would be a legal name
    --- exit 1
    "#);
    assert_snapshot!(sandbox.run(&["image", "list", "-R", "nowhere"]).all(), @r#"
    --- stderr
    pcocc: failed to list images: repository "nowhere" (configured: mine, site) not found
    --- exit 1
    "#);
    assert_snapshot!(sandbox.run(&["image", "list", "("]).all(), @r"
    --- stderr
    pcocc: failed to list images: the regular expression is wrong: unclosed group
    --- exit 2
    ");
    assert_snapshot!(sandbox.run(&["docker", "import", "bb", "newbb"]).all(), @r"
    --- stderr
    pcocc: failed to import docker image bb as newbb: docker daemon at unix://[ROOT]/no.sock is not there: no such socket; start the daemon, or set DOCKER_HOST
    --- exit 1
    ");
    assert_snapshot!(sandbox.run(&["docker", "import", "bb", "new bb"]).all(), @r#"
    --- stderr
    pcocc: failed to import docker image bb as new bb: image name "new bb" is not legal in a repository: at most 200 letters, digits, "_", "." and "-", not starting with "."; "new-bb" would be
    --- exit 1
    "#);
    assert_snapshot!(sandbox.run(&["docker", "export", "busybox", "bb"]).all(), @r"
    --- stderr
    pcocc: failed to export image busybox to docker as bb: docker daemon at unix://[ROOT]/no.sock is not there: no such socket; start the daemon, or set DOCKER_HOST
    --- exit 1
    ");
    assert_snapshot!(sandbox.run(&["docker", "export", "centos7-cloud", "bb"]).all(), @r"
    --- stderr
    pcocc: failed to export image centos7-cloud to docker as bb: image centos7-cloud is the disk of a virtual machine, which docker cannot run
    --- exit 1
    ");
    assert_snapshot!(sandbox.run(&["image", "export", "centos7-cloud", "oci:there"]).all(), @r"
    --- stderr
    pcocc: failed to export image centos7-cloud to oci:there: format oci is not for virtual machine images; choose raw, qcow2, qed, vdi, vpc or vmdk
    --- exit 1
    ");
    sandbox.write(".pcocc/repos.yaml", "repos: [{name: a}]\n");
    assert_snapshot!(sandbox.run(&["image", "list"]).all(), @r"
    --- stderr
    pcocc: failed to read the list of repositories: [ROOT]/home/.pcocc/repos.yaml:1:10: missing field `path`
    --- exit 1
    ");
}
