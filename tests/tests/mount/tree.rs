//! The layout of the tree.

use pcocc_tests::{Docker, Mount, Pcocc, run};

use crate::hello::{Site, shell, text, with_image};

#[test]
fn the_folders_are_as_promised() {
    let docker = Docker::shared();
    let site = Site::with(Pcocc::new().with(&docker), Some(docker), &[]);
    let image = site.name("tree");
    site.pcocc.run(&["docker", "export", "hello", &image]);
    for (folder, names) in [
        (".", ".pcocc README docker repo rootfs"),
        (".pcocc", "status.json"),
        ("repo", "user"),
        ("repo/user", "hello"),
        ("rootfs", "docker repo"),
        ("rootfs/repo", "user"),
        ("rootfs/repo/user", "hello"),
    ] {
        let mut found = site.names(folder);
        found.sort();
        assert_eq!(found.join(" "), names, "{folder}");
    }
    site.shell("grep -q OCI README").ok();
    site.shell("python3 -m json.tool .pcocc/status.json > /dev/null")
        .ok();
    for folder in ["docker", "rootfs/docker"] {
        assert!(site.names(folder).contains(&image));
    }
    // One image's layout and nothing else, every digest right, the same config on both sides.
    for folder in [format!("docker/{image}"), "repo/user/hello".to_owned()] {
        let line = format!(
            "cd {folder}; find . -not -path './blobs/sha256/*' | sort; \
             cd blobs/sha256; sha256sum * | awk '$1 != $2'; ls | wc -l; test -f {}; \
             grep -o '\"digest\"' ../../index.json | wc -l",
            site.id.trim_start_matches("sha256:")
        );
        let found = site.shell(&line);
        let lines: Vec<&str> = found.ok().split_whitespace().collect();
        let parts = [
            ".",
            "./blobs",
            "./blobs/sha256",
            "./index.json",
            "./oci-layout",
        ];
        assert_eq!(lines[..5], parts);
        assert_eq!(lines[5..], ["4", "1"], "{found}");
    }
    site.end();
}

#[test]
fn it_belongs_to_its_user_alone_as_root() {
    let (pcocc, _) = with_image(Pcocc::as_ordinary_user());
    let mount = Mount::new(&pcocc);
    let owners = shell(
        &pcocc,
        &mount,
        "find . -path ./rootfs -prune -o -path ./docker -prune -o -printf '%U:%G\\n' | sort -u",
    );
    assert_eq!(owners.ok(), "65534:65534");
    let kept = shell(
        &pcocc,
        &mount,
        "stat -c %Y repo/user/hello; stat -c %Y $home/.pcocc/images/meta/hello@0",
    );
    let times: Vec<u64> = kept
        .ok()
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    assert!(times[0].abs_diff(times[1]) <= 1, "{kept}");
    let others = run(std::process::Command::new("ls").arg(text(mount.path())));
    assert!(others.failed().contains("Permission denied"), "{others}");
    mount.end();
}
