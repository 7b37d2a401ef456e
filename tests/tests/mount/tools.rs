//! Every tool, as it is used, copies an image: there when the tool ends, the same image, by one transfer.

use pcocc_tests::{Docker, Mount, Pcocc, run};

use crate::copiers::TOOLS;
use crate::hello::{Site, shell, with_image};

/// Runs every tool from `from` into one of the stores, `repo/user` or `docker`.
fn every_tool(site: &Site, from: &str, to: &str) {
    for copier in TOOLS {
        let tool = copier.name;
        let image = site.name(tool);
        let source = copier.source(site, from, &image);
        copier.run(site, &source, to, &image).ok();
        assert_eq!(site.id_of(to, &image).as_ref(), Some(&site.id), "{tool}");
        let transfers = site.transfers(&image);
        assert_eq!(transfers, ["done"], "{tool}: {}", site.mount.log());
        if let (Some(docker), "docker") = (&site.docker, to) {
            // The next tool shall find no layer there.
            docker.run(&["rmi", &image]);
        }
    }
}

#[test]
fn within_a_repository() {
    let site = Site::new(Pcocc::as_ordinary_user(), None);
    every_tool(&site, "$PWD/repo/user/hello", "repo/user");
    assert_eq!(site.names("repo/user").len(), 1 + TOOLS.len());
    site.end();
}

#[test]
fn from_a_folder_into_a_repository() {
    let site = Site::new(Pcocc::as_ordinary_user(), None);
    site.pcocc.run(&["image", "delete", "hello"]);
    every_tool(&site, "$home/plain", "repo/user");
    site.end();
}

#[test]
fn from_a_repository_into_docker() {
    let site = Site::new(Pcocc::new(), Some(Docker::shared()));
    every_tool(&site, "$PWD/repo/user/hello", "docker");
    site.end();
}

#[test]
fn from_a_folder_into_docker() {
    let site = Site::new(Pcocc::new(), Some(Docker::shared()));
    every_tool(&site, "$home/plain", "docker");
    site.end();
}

#[test]
fn from_docker_into_a_repository() {
    let site = Site::new(Pcocc::new(), Some(Docker::shared()));
    let source = site.name("source");
    site.pcocc.run(&["docker", "export", "hello", &source]);
    site.pcocc.run(&["image", "delete", "hello"]);
    every_tool(&site, &format!("$PWD/docker/{source}"), "repo/user");
    let exports = site.transfers_of(&format!("{source}:latest"), "export");
    assert_eq!(exports, ["done"], "one export for all of them");
    site.end();
}

#[test]
fn out_of_the_mount() {
    let (pcocc, id) = with_image(Pcocc::as_ordinary_user());
    let mount = Mount::new(&pcocc);
    shell(
        &pcocc,
        &mount,
        "cp -a repo/user/hello $home/cp; rsync -a repo/user/hello/ $home/rsync; \
         tar -C repo/user -cf - hello | tar -C $home -xf -; busybox cp -r repo/user/hello $home/bb; \
         for copy in cp rsync hello bb; do diff -r repo/user/hello $home/$copy; done; \
         skopeo copy -q oci:$PWD/repo/user/hello dir:$home/skopeo; \
         umoci ls --layout repo/user/hello | grep -qx latest; \
         umoci stat --image repo/user/hello:latest > /dev/null",
    )
    .ok();
    let config = id.trim_start_matches("sha256:");
    assert!(pcocc.home().join("skopeo").join(config).is_file());
    mount.end();
    pcocc.verify();
}

/// Containers' own tools read the layouts; they unpack layers, which takes root here.
#[test]
fn podman_buildah_and_umoci_read_layouts_as_root() {
    let (pcocc, id) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    shell(
        &pcocc,
        &mount,
        "umoci unpack --image repo/user/hello:latest $home/bundle; \
         cmp rootfs/repo/user/hello/etc/0 $home/bundle/rootfs/etc/0",
    )
    .ok();
    for tool in ["podman", "buildah"] {
        let private = pcocc.home().join(tool);
        let mut command = pcocc.any(tool);
        command.args(["--storage-driver", "vfs", "--root"]);
        command.arg(private.join("root")).arg("--runroot");
        command.arg(private.join("run"));
        if tool == "podman" {
            command.arg("--tmpdir").arg(private.join("tmp"));
        }
        command.args(["pull", "-q", "oci:repo/user/hello"]);
        // They make a name of the path, which may have no capital letters then.
        let pulled = run(command.current_dir(mount.path()));
        assert_eq!(format!("sha256:{}", pulled.ok()), id, "{tool}");
    }
    mount.end();
}

/// The tag in a layout is an annotation of its index: it is of no concern to a copy, however many there are.
#[test]
fn tags_inside_a_layout_do_not_matter() {
    let (pcocc, id) = with_image(Pcocc::as_ordinary_user());
    let mount = Mount::new(&pcocc);
    shell(
        &pcocc,
        &mount,
        "cp -r repo/user/hello $home/tagged; chmod -R u+w $home/tagged; \
         umoci tag --image $home/tagged:latest other; \
         skopeo copy -q oci:$home/tagged:other oci:$home/tagged:third; \
         cp -r $home/tagged repo/user/tagged; \
         skopeo copy -q oci:$home/tagged:third oci:$PWD/repo/user/skopeo:fourth",
    )
    .ok();
    for image in ["tagged", "skopeo"] {
        assert_eq!(pcocc.image_id(image), id);
    }
    // An image that is there does not change: nothing is accepted that would be gone at the next look.
    for line in [
        "umoci tag --image repo/user/hello:latest other",
        "umoci config --image repo/user/hello:latest --author me",
        "umoci rm --image repo/user/tagged:latest",
        "skopeo copy -q oci:$home/plain oci:$PWD/repo/user/hello:other",
    ] {
        let refused = shell(&pcocc, &mount, line);
        assert!(refused.failed().contains("read-only file system"), "{line}");
    }
    mount.end();
    pcocc.verify();
}
