//! Images that are removed or renamed while somebody has to do with them.

use std::path::Path;
use std::time::Duration;

use pcocc_tests::{Docker, Mount, Pcocc, wait_until};

use crate::hello::{Site, shell, with_image};

#[test]
fn an_open_file_keeps_its_content() {
    let docker = Docker::shared();
    let site = Site::with(Pcocc::new().with(&docker), Some(docker), &[]);
    let docker = site.docker.as_ref().unwrap();
    let image = docker.name("image");
    site.pcocc.run(&["docker", "export", "hello", &image]);
    for (folder, remove) in [
        (
            format!("docker/{image}"),
            format!("DOCKER_HOST={} docker rmi {image}", docker.host()),
        ),
        (
            "repo/user/hello".to_owned(),
            format!(
                "pcocc={}; $pcocc image delete hello; $pcocc image repo gc --grace 0 user",
                pcocc_tests::binary().display()
            ),
        ),
    ] {
        let line = format!(
            "cd {folder}/blobs/sha256; blob=$(ls -S | head -1); exec 3< $blob 4< ../../index.json; \
             before=$(cat ../../index.json); head -c 1000 <&3 > $home/start; cd $home/mnt; {{ {remove}; }} >$home/said 2>&1; \
             cat $home/start - <&3 | sha256sum | cut -d' ' -f1; echo $blob; test \"$before\" = \"$(cat <&4)\""
        );
        let sums = site.shell(&line);
        let sums: Vec<&str> = sums.ok().lines().collect();
        assert_eq!(sums[0], sums[1]);
        wait_until("it is gone", Duration::from_secs(5), || {
            !site.shell(&format!("ls {folder}")).status.success()
        });
    }
    site.end();
}

#[test]
fn docker_images_in_use_are_not_removed_and_taken_names_not_replaced() {
    let site = Site::that_deletes();
    let docker = site.docker.as_ref().unwrap();
    // Docker gives out no image without layers.
    let file = [("f", Path::new("/etc/hostname"))];
    let used = docker.build("used", "FROM scratch\nCOPY f /used\nCMD [\"x\"]\n", &file);
    let other = docker.build("other", "FROM scratch\nCOPY f /other\n", &file);
    wait_until("they are shown", Duration::from_secs(5), || {
        let names = site.names("docker");
        [&used, &other].iter().all(|name| names.contains(name))
    });
    let taken = site.shell(&format!("mv -T docker/{other} docker/{used}"));
    assert!(taken.failed().contains("File exists"), "{taken}");
    assert_ne!(docker.image_id(&used), docker.image_id(&other));
    let exports = || site.transfers_of(&format!("{used}:latest"), "export").len();
    let container = docker.run(&["create", &used]);
    let busy = site.shell(&format!("rm -r docker/{used}"));
    assert!(busy.failed().contains("busy"), "{busy}");
    assert_eq!(exports(), 0, "what is removed is not exported first");
    // It is still there, all of it.
    site.shell(&format!(
        "test -f docker/{used}/index.json; test -f docker/{used}/oci-layout; ls docker/{used}/blobs/sha256"
    ))
    .ok();
    docker.run(&["rm", &container]);
    site.shell(&format!("rm -r docker/{used}")).ok();
    assert_eq!(docker.image_id(&used), None);
    site.end();
}

/// A tool that writes each file anew, having removed the one that is there.
#[test]
fn a_file_of_an_image_that_was_just_completed_is_not_removed_by_another_process() {
    let (pcocc, id) = with_image(Pcocc::as_ordinary_user());
    let mount = Mount::new(&pcocc);
    let install = "to=repo/user/new; for f in oci-layout $(cd $home/plain; ls blobs/sha256/* index.json); do \
                   install -D $home/plain/$f $to/$f; done";
    // The folder is complete but for its name, which is taken.
    let line = format!(
        "mkdir repo/user/new; \
         $home/bin/pcocc image import -t oci $home/plain new 2>/dev/null; {install}"
    );
    let taken = shell(&pcocc, &mount, &line);
    assert!(taken.failed().contains("File exists"), "{taken}");
    pcocc.run(&["image", "delete", "new"]);
    let again = shell(&pcocc, &mount, install);
    assert!(again.failed().contains("not permitted"), "{again}");
    assert_eq!(pcocc.image_id("new"), id);
    pcocc.run(&["image", "delete", "new"]);
    shell(&pcocc, &mount, &format!("mkdir repo/user/new; {install}")).ok();
    assert_eq!(pcocc.image_id("new"), id);
    mount.end();
    pcocc.verify();
}
