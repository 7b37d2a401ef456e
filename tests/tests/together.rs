//! Several commands on one repository at once.

use std::process::{Child, Stdio};
use std::time::Duration;

use pcocc_tests::{Docker, Pcocc, leaks, wait_until};

/// Starts a command and keeps what it says for [`end`].
fn start(pcocc: &Pcocc, arguments: &[&str]) -> Child {
    let mut command = pcocc.command(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("start pcocc")
}

/// Waits for a command; gives whether it succeeded, and its standard error.
fn end(child: Child) -> (bool, String) {
    let output = child.wait_with_output().expect("wait for pcocc");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn of_two_imports_from_docker_under_one_name_one_wins() {
    let docker = Docker::shared();
    let base = docker.busybox_image("base");
    let one = docker.layer_on(&base, "one", 8);
    let two = docker.layer_on(&base, "two", 8);
    let pcocc = Pcocc::new().with(&docker);
    for round in 0..4 {
        let name = format!("image-{round}");
        let first = start(&pcocc, &["docker", "import", &one, &name]);
        std::thread::sleep(Duration::from_millis(40 * round));
        let second = start(&pcocc, &["docker", "import", &two, &name]);
        let (first, second) = (end(first), end(second));
        let (image, loser) = match (first.0, second.0) {
            (true, false) => (&one, second.1),
            (false, true) => (&two, first.1),
            _ => panic!("one of two must win: {first:?} {second:?}"),
        };
        assert!(loser.contains("exist"), "the loser should say why: {loser}");
        assert_eq!(Some(pcocc.image_id(&name)), docker.image_id(image));
        pcocc.verify();
    }
    assert_eq!(
        leaks::unfinished_in(&pcocc.repository()),
        Vec::<String>::new()
    );
}

#[test]
fn gc_during_an_import_from_docker_takes_nothing_away() {
    let docker = Docker::shared();
    let base = docker.busybox_image("base");
    let image = docker.layer_on(&base, "image", 16);
    let pcocc = Pcocc::new().with(&docker);
    // The second import finds blobs that no image names any more, just what gc is after.
    pcocc.run(&["docker", "import", &image, "first"]);
    pcocc.run(&["image", "delete", "first"]);
    let mut import = start(&pcocc, &["docker", "import", &image, "second"]);
    let mut rounds = 0;
    while matches!(import.try_wait(), Ok(None)) {
        pcocc.run(&["image", "repo", "gc", "user"]);
        rounds += 1;
    }
    let (good, said) = end(import);
    assert!(good, "{said}");
    assert!(rounds > 0, "the import ended before gc began");
    pcocc.verify();
    assert_eq!(Some(pcocc.image_id("second")), docker.image_id(&image));
}

#[test]
fn imports_from_docker_under_many_names_share_their_layers() {
    let docker = Docker::shared();
    let image = docker.busybox_image("image");
    let pcocc = Pcocc::new().with(&docker);
    let names = ["a", "b", "c", "d"];
    let mut children: Vec<Child> = names
        .iter()
        .map(|name| start(&pcocc, &["docker", "import", &image, name]))
        .collect();
    wait_until("all imports end", Duration::from_secs(120), || {
        children
            .iter_mut()
            .all(|child| matches!(child.try_wait(), Ok(Some(_))))
    });
    for child in children {
        let (good, said) = end(child);
        assert!(good, "{said}");
    }
    for name in names {
        assert_eq!(Some(pcocc.image_id(name)), docker.image_id(&image));
    }
    pcocc.verify();
}
