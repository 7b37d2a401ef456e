//! The main job, as the README tells it: an image goes repository → docker → repository by `pcocc docker export`,
//! by `pcocc docker import` and by `cp -r` in the mounted tree, and has the same ID at every stop.

use std::path::Path;

use pcocc_tests::{Docker, Mount, Pcocc, leaks};

#[test]
fn main_job_with_docker() {
    let docker = Docker::shared();
    main_job(&Pcocc::new().with(&docker), &docker);
}

/// As root this runs the command as `nobody`; whoever else runs it is an ordinary user already.
#[test]
fn main_job_with_docker_for_an_ordinary_user() {
    let docker = Docker::shared();
    main_job(&Pcocc::as_ordinary_user().with(&docker), &docker);
}

fn main_job(pcocc: &Pcocc, docker: &Docker) {
    let watch = leaks::Watch::new(pcocc.home());
    let built = docker.busybox_image("bb");
    let id = docker
        .image_id(&built)
        .expect("the image that was just built");

    // docker → repository, by verb.
    pcocc.run(&["docker", "import", &built, "busybox"]);
    assert_eq!(pcocc.image_id("busybox"), id);
    assert!(pcocc.run(&["image", "list"]).contains("busybox"));

    // repository → docker, by verb, into a daemon that does not have the image any more.
    docker.run(&["rmi", "-f", &built]);
    let exported = docker.name("exported");
    pcocc.run(&["docker", "export", "busybox", &exported]);
    assert_eq!(docker.image_id(&exported).as_ref(), Some(&id));
    assert_eq!(say_hello(docker, &exported), "hello world");

    // Both ways by cp -r in the mounted tree.
    let mount = Mount::new(pcocc);
    let cp = |from: &str, to: &str| {
        let (from, to) = (mount.join(from), mount.join(to));
        pcocc.run_any("cp", &["-r", text(&from), text(&to)]);
    };
    cp(&format!("docker/{exported}"), "repo/user/by-cp");
    assert_eq!(pcocc.image_id("by-cp"), id);

    docker.run(&["rmi", "-f", &exported]);
    let copied = docker.name("copied");
    cp("repo/user/by-cp", &format!("docker/{copied}:1.0"));
    assert_eq!(
        docker.image_id(&format!("{copied}:1.0")).as_ref(),
        Some(&id)
    );
    assert_eq!(say_hello(docker, &format!("{copied}:1.0")), "hello world");

    // And by way of an ordinary folder outside the mount.
    let folder = pcocc.home().join("plain");
    pcocc.run_any(
        "cp",
        &["-a", text(&mount.join("repo/user/by-cp")), text(&folder)],
    );
    pcocc.run_any(
        "cp",
        &[
            "-r",
            text(&folder),
            text(&mount.join("repo/user/from-folder")),
        ],
    );
    assert_eq!(pcocc.image_id("from-folder"), id);

    // The index tells where it came from, and so do all copies of it.
    for name in ["by-cp", "from-folder"] {
        let shown = pcocc.run(&["image", "show", "--format", "json", name]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let origin = &shown["origin"];
        assert_eq!(origin["made_by"], "pcocc docker mount", "{origin}");
        assert_eq!(origin["daemon"], docker.host(), "{origin}");
        assert_eq!(
            origin["source"],
            format!("{exported}:latest").as_str(),
            "{origin}"
        );
    }

    let names = pcocc.run_any("ls", &[text(&mount.join("repo/user"))]);
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        ["busybox", "by-cp", "from-folder"]
    );
    mount.end();

    pcocc.verify();
    assert_eq!(
        leaks::unfinished_in(&pcocc.repository()),
        Vec::<String>::new()
    );
    watch.assert_clean();
}

/// Runs an image of [`Docker::busybox_image`], and gives what it says.
fn say_hello(docker: &Docker, image: &str) -> String {
    docker.run(&["run", "--rm", "--network=none", image])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}
