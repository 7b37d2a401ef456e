//! Edits that fail: nothing is left, or the changes are.

use std::sync::Arc;

use pcocc_tests::{Docker, Dockerd, Pcocc, Proxy, fill, in_own_namespace, small_disk};

use crate::site::{STAGES, Site};

#[test]
fn docker_names_are_checked_before_the_shell_opens() {
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), docker);
    proxy.take_requests("");
    let long = "a".repeat(300);
    for (source, dest, words) in [
        ("none", "new", "image none not found"),
        (&*site.image, &*site.image, "is not changed in place"),
        (
            &*site.image,
            &format!("user:{}", site.image),
            "is not changed in place",
        ),
        (&*site.image, "nowhere:new", "nowhere"),
        (&*site.image, "a b", "a b"),
        (&*site.image, &long, "aaa"),
        ("", "new", "image"),
    ] {
        let outcome = site.pcocc.try_run(&["docker", "edit", source, dest]);
        assert!(outcome.failed().contains(words), "{words}: {outcome}");
        assert!(outcome.stderr.contains("failed to edit image"), "{outcome}");
    }
    site.pcocc
        .run(&["-q", "image", "copy", &site.image, "taken"]);
    let outcome = site
        .pcocc
        .try_run(&["docker", "edit", &site.image, "taken"]);
    assert!(
        outcome.failed().contains("image user:taken already exists"),
        "{outcome}"
    );
    assert_eq!(
        proxy.take_requests(""),
        Vec::<String>::new(),
        "docker was asked"
    );
    let outcome = site
        .pcocc
        .try_run(&["docker", "edit", "--shell", "'", &site.image, "new"]);
    assert!(outcome.failed().contains("quot"), "{outcome}");
}

#[test]
fn docker_scripts_that_fail_save_nothing() {
    let site = Site::new();
    let new = site.name("new");
    let edit = |arguments: &[&str]| {
        let mut all = vec!["docker", "edit"];
        all.extend(arguments);
        all.extend([site.image.as_str(), new.as_str()]);
        let outcome = site.pcocc.try_run(&all);
        outcome.failed();
        outcome
    };
    let outcome = edit(&["-E", "touch /x; exit 7"]);
    assert_eq!(outcome.status.code(), Some(7), "{outcome}");
    assert!(
        outcome
            .stderr
            .contains("ended with status 7; nothing was saved"),
        "{outcome}"
    );
    assert_eq!(edit(&["-E", "nonexistent"]).status.code(), Some(127));
    assert_eq!(
        edit(&["-E", "sh -c 'kill -9 $$'; exit $?"]).status.code(),
        Some(137)
    );
    let outcome = edit(&["--shell", "/bin/none", "-E", "true"]);
    assert!(outcome.stderr.contains("/bin/none"), "{outcome}");
    let outcome = edit(&["--with-tools", "/nonexistent", "-E", "true"]);
    assert!(
        outcome.stderr.contains("neither sh nor busybox"),
        "{outcome}"
    );
    let outcome = edit(&["--user", "nobody-there", "-E", "true"]);
    assert!(outcome.stderr.contains("nobody-there"), "{outcome}");
    let outcome = edit(&["--save", "pcocc-edit-0"]);
    assert!(
        outcome.stderr.contains("pcocc-edit-0 of an edit"),
        "{outcome}"
    );
    assert!(!site.has(&new));
    site.assert_nothing_left();
}

#[test]
fn docker_shell_that_ends_badly() {
    let site = Site::new();
    let new = site.name("new");
    let end = |arguments: &[&str]| {
        let mut all = vec!["docker", "edit"];
        all.extend(arguments);
        all.extend([site.image.as_str(), new.as_str()]);
        let mut terminal = site.terminal(&all);
        terminal.wait_for("Hit CTRL + D");
        terminal.wait_for("# ");
        terminal.keys("touch /newfile; exit 3\r");
        terminal
    };
    let mut terminal = end(&["--discard"]);
    assert_eq!(terminal.end().code(), Some(1), "{}", terminal.shown());
    let mut terminal = end(&[]);
    terminal.wait_for("The shell ended with status 3. Save the modified image anyway? [Y/n] ");
    terminal.keys("n\r");
    assert_eq!(terminal.end().code(), Some(1), "{}", terminal.shown());
    assert!(terminal.shown().contains("nothing was saved"));
    assert!(!site.has(&new));
    site.assert_nothing_left();
    let mut terminal = end(&[]);
    terminal.wait_for("[Y/n] ");
    terminal.keys("\r");
    assert!(terminal.end().success(), "{}", terminal.shown());
    assert_eq!(site.in_docker(&new, "ls /newfile"), "/newfile");
    site.assert_nothing_left();
}

/// The daemon dies under the shell; when it is back, the work of an hour is, too.
#[test]
fn docker_that_dies_in_mid_edit() {
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), docker);
    let new = site.name("new");
    let mut terminal = site.edit(&new);
    terminal.keys("touch /newfile; echo do''ne\r");
    terminal.wait_for("done");
    let container = site.running();
    proxy.die();
    assert_eq!(terminal.end().code(), Some(1), "{}", terminal.shown());
    let save = format!("pcocc docker edit --save {container} {} {new}", site.image);
    assert!(terminal.shown().contains(&save), "{}", terminal.shown());
    assert!(
        terminal.shown().contains("docker daemon at unix://"),
        "{}",
        terminal.shown()
    );
    assert!(!site.has(&new));
    proxy.revive();
    let other = site
        .pcocc
        .try_run(&["docker", "edit", "--save", &container, "none", &new]);
    assert!(other.failed().contains("none"), "{other}");
    let save: Vec<&str> = save.split(' ').skip(1).collect();
    site.pcocc.run(&save);
    assert_eq!(site.in_docker(&new, "ls /newfile"), "/newfile");
    site.assert_nothing_left();
}

/// The same with a real daemon that is killed.
#[test]
fn docker_that_is_killed_in_mid_edit_as_root() {
    let daemon = Arc::new(Dockerd::start());
    let docker = Docker::of(Arc::clone(&daemon));
    let pcocc = Pcocc::new().with(&docker);
    let site = Site::with(pcocc, docker);
    let mut terminal = site.edit("new");
    terminal.keys("touch /newfile; echo do''ne\r");
    terminal.wait_for("done");
    daemon.kill();
    assert_eq!(terminal.end().code(), Some(1), "{}", terminal.shown());
    let shown = terminal.shown();
    assert!(
        shown.contains("the changes are kept in docker container"),
        "{shown}"
    );
    assert!(!site.has("new"));
}

#[test]
fn docker_that_dies_while_saving() {
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), docker);
    let new = site.name("new");
    for (stage, script) in STAGES {
        // Before that it looks at what other edits left.
        proxy.die_at_after("/containers/create", stage);
        let edit = ["docker", "edit", "-E", script, &site.image, &new];
        let outcome = site.pcocc.try_run(&edit);
        let said = outcome.failed();
        assert!(
            said.contains("once the daemon answers again"),
            "{stage}: {outcome}"
        );
        assert!(!site.has(&new));
        proxy.revive();
        let container = site.containers().pop().expect("a container");
        assert!(said.contains(&format!("--save {container}")), "{outcome}");
        site.pcocc
            .run(&["docker", "edit", "--save", &container, &site.image, &new]);
        assert_eq!(site.in_docker(&new, "ls /newfile"), "/newfile");
        site.assert_nothing_left();
        site.pcocc.run(&["image", "delete", &new]);
    }
}

#[test]
fn docker_name_that_is_taken_meanwhile() {
    let site = Site::new();
    let new = site.name("new");
    let mut terminal = site.edit(&new);
    site.pcocc.run(&["-q", "image", "copy", &site.image, &new]);
    terminal.keys("touch /newfile; exit\r");
    assert_eq!(terminal.end().code(), Some(1), "{}", terminal.shown());
    terminal.wait_for("under another name");
    let container = site.containers().pop().expect("a container");
    let other = site.name("other");
    site.pcocc
        .run(&["docker", "edit", "--save", &container, &site.image, &other]);
    assert_eq!(site.in_docker(&other, "ls /newfile"), "/newfile");
    site.assert_nothing_left();
}

#[test]
fn docker_disk_that_fills_up_while_saving_as_root() {
    if !in_own_namespace("failing::docker_disk_that_fills_up_while_saving_as_root") {
        return;
    }
    let docker = Docker::shared();
    let pcocc = Pcocc::new().with(&docker);
    let disk = pcocc.home().join(".pcocc");
    small_disk(&disk, "32m");
    let site = Site::with(pcocc, docker);
    let new = site.name("new");
    let filler = fill(&disk, 1_000_000);
    let script = "dd if=/dev/urandom of=/random bs=1048576 count=4";
    let outcome = site
        .pcocc
        .try_run(&["docker", "edit", "-E", script, &site.image, &new]);
    let said = outcome.failed();
    assert!(said.contains("No space left on device"), "{outcome}");
    assert!(!site.has(&new));
    let left = pcocc_tests::leaks::unfinished_in(&site.pcocc.repository());
    assert_eq!(left, Vec::<String>::new());
    let container = site.containers().pop().expect("a container");
    assert!(said.contains(&format!("--save {container}")), "{outcome}");
    std::fs::remove_file(filler).expect("make room");
    site.pcocc
        .run(&["docker", "edit", "--save", &container, &site.image, &new]);
    assert_eq!(site.in_docker(&new, "stat -c %s /random"), "4194304");
    site.pcocc.verify();
    site.assert_nothing_left();
}
