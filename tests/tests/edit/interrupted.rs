//! Signals at every stage of an edit.

use pcocc_tests::{Docker, Pcocc, Proxy, Terminal};
use rustix::process::Signal;

use crate::site::{STAGES, Site};

fn behind_a_proxy() -> (Proxy, Site) {
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), docker);
    (proxy, site)
}

/// Interrupts by Ctrl-C while the request that contains `stage` waits.
fn interrupted(proxy: &Proxy, site: &Site, stage: &str, keys: &str, dest: &str) -> Terminal {
    proxy.hold(stage);
    let mut terminal = site.terminal(&["docker", "edit", &site.image, dest]);
    if !keys.is_empty() {
        terminal.wait_for("Hit CTRL + D");
        terminal.wait_for("# ");
        terminal.keys(keys);
    }
    proxy.wait_until_held();
    terminal.keys("\x03");
    let status = terminal.end();
    proxy.release();
    assert_eq!(status.code(), Some(130), "{stage}: {}", terminal.shown());
    assert!(
        terminal.shown().contains("interrupted"),
        "{}",
        terminal.shown()
    );
    assert!(!site.has(dest), "{stage}");
    terminal
}

#[test]
fn docker_before_the_shell_nothing_is_left() {
    let (proxy, site) = behind_a_proxy();
    let new = site.name("new");
    for stage in [
        "/containers/json",
        "/images/load",
        "/containers/create",
        "/attach",
        "/start",
    ] {
        interrupted(&proxy, &site, stage, "", &new);
        pcocc_tests::wait_until(
            &format!("nothing is left of {stage}"),
            std::time::Duration::from_secs(10),
            || site.containers().is_empty() && site.images().is_empty(),
        );
    }
}

#[test]
fn docker_while_saving_the_changes_are_kept() {
    let (proxy, site) = behind_a_proxy();
    let new = site.name("new");
    for (stage, script) in STAGES {
        let keys = format!("{script}; exit\r");
        let mut terminal = interrupted(&proxy, &site, stage, &keys, &new);
        let container = site.containers().pop().expect("a container");
        terminal.wait_for(&format!("--save {container}"));
        site.pcocc
            .run(&["docker", "edit", "--save", &container, &site.image, &new]);
        assert_eq!(site.in_docker(&new, "ls /newfile"), "/newfile");
        site.pcocc.run(&["image", "delete", &new]);
        site.assert_nothing_left();
    }
}

#[test]
fn docker_terminal_that_is_closed() {
    let site = Site::new();
    let new = site.name("new");
    // Nothing changed, nothing to keep.
    let mut terminal = site.edit(&new);
    terminal.hang_up();
    assert_eq!(terminal.end().code(), Some(129));
    site.assert_nothing_left();
    for signal in [Signal::HUP, Signal::TERM, Signal::INT] {
        let mut terminal = site.edit(&new);
        terminal.keys("touch /newfile; echo do''ne\r");
        terminal.wait_for("done");
        match signal {
            Signal::HUP => terminal.hang_up(),
            other => terminal.signal(other),
        }
        assert_eq!(terminal.end().code(), Some(128 + signal.as_raw()));
        let container = site.containers().pop().expect("the changes are kept");
        site.pcocc
            .run(&["docker", "edit", "--save", &container, &site.image, &new]);
        assert_eq!(site.in_docker(&new, "ls /newfile"), "/newfile");
        site.pcocc.run(&["image", "delete", &new]);
        site.assert_nothing_left();
    }
}

#[test]
fn docker_at_the_question() {
    let site = Site::new();
    let mut terminal = site.edit("new");
    terminal.keys("touch /newfile; exit 1\r");
    terminal.wait_for("[Y/n] ");
    terminal.keys("\x03");
    assert_eq!(terminal.end().code(), Some(130), "{}", terminal.shown());
    let container = site.containers().pop().expect("the changes are kept");
    terminal.wait_for(&format!("--save {container}"));
    site.drop_kept();
    site.assert_nothing_left();
}

#[test]
fn docker_script_that_is_interrupted() {
    let site = Site::new();
    let edit = [
        "docker",
        "edit",
        "-E",
        "touch /x; echo up; sleep 1000",
        &site.image,
        "new",
    ];
    let mut terminal = site.terminal(&edit);
    terminal.wait_for("up");
    terminal.keys("\x03");
    assert_eq!(terminal.end().code(), Some(130), "{}", terminal.shown());
    site.assert_nothing_left();
}

/// What SIGKILL leaves is cleared away by the next edit; but changes are not.
#[test]
fn docker_edit_that_is_killed() {
    let site = Site::new();
    let mut idle = site.edit("new");
    idle.signal(Signal::KILL);
    idle.end();
    let mut busy = site.edit("new");
    busy.keys("touch /newfile; echo do''ne\r");
    busy.wait_for("done");
    let both = site.containers();
    // One more lives, and stays.
    let mut living = site.edit("living");
    busy.signal(Signal::KILL);
    busy.end();
    assert_eq!(both.len(), 1, "the first is cleared away: {both:?}");
    let outcome = site
        .pcocc
        .try_run(&["docker", "edit", "-E", "true", &site.image, "other"]);
    let container = &both[0];
    assert!(outcome.ok().contains("Edited image"), "{outcome}");
    assert!(
        outcome.stderr.contains(&format!("--save {container}")),
        "{outcome}"
    );
    site.pcocc
        .run(&["docker", "edit", "--save", container, &site.image, "new"]);
    assert_eq!(site.in_docker("new", "ls /newfile"), "/newfile");
    living.keys("exit\r");
    assert!(living.end().success(), "{}", living.shown());
    site.assert_nothing_left();
}
